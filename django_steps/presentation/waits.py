"""What a waiting run waits for: events by their names, child runs by their number, and until when.

What has been sent to it is in `events.py`, how its children stand in `children.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import router
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..core import clock
from ..ledger import contexts, database, relatives
from ..models import StepRecord, WorkflowRun
from . import durations
from .text import clipped

COUNTED = 1_000  # children of a run in a list
# The kinds of records that wait for others: one that is waiting has no outcome, and may have no time at which it is over.
FOR_OTHERS = (StepRecord.Kind.EVENT, StepRecord.Kind.INVOKE, StepRecord.Kind.MAP)
_LONGEST_NAME = 60  # characters
_NAMED = 3  # events


class Waits(NamedTuple):
    """What a run waits for, in words: `waits for event “approval” until 2026-03-01 03:00:05`.

    `children` that are 0 with no name mean children that nobody counted.
    """

    names: Sequence[str] = ()
    children: int = 0
    until: datetime | None = None

    @classmethod
    def of(cls, run: WorkflowRun, children: int = 0) -> Waits:
        """What a waiting run waits for, by its own columns."""
        return cls(run.waiting_for, children, run.wakes_at)

    def __str__(self) -> str:
        text = _("waits for %(what)s") % {"what": self._what()}
        if self.until is None:
            return text
        return _("%(waits)s until %(moment)s") % {"waits": text, "moment": durations.moment(self.until)}

    def _what(self) -> str:
        events = _events(self.names)
        children = _("child runs") if not self.names and not self.children else _children(self.children)
        if events and children:
            return _("%(events)s and %(children)s") % {"events": events, "children": children}
        return events or children


def of_runs(runs: Collection[WorkflowRun]) -> dict[UUID, Waits]:
    """What those of the runs wait for that are waiting, or canceling: one query if there is any, else none."""
    waiting = [run for run in runs if run.status in (run.Status.WAITING, run.Status.CANCELING)]
    if not waiting:
        return {}
    connection = database.connection_for(waiting[0]._state.db or router.db_for_read(WorkflowRun))
    counts = relatives.count_open_children(connection, [run.pk for run in waiting], COUNTED + 1)
    return {run.pk: Waits.of(run, counts.get(run.pk, 0)) for run in waiting}


def of_records(run: WorkflowRun, children: int, records: Iterable[StepRecord]) -> Waits | None:
    """What one run waits for, whose children that have not ended were counted: until when is said by its records, since a sleep
    in another branch may be over earlier than every wait. None where it doesn't wait for others."""
    if run.status == run.Status.CANCELING:
        return Waits(children=children) if children else None
    if run.status != run.Status.WAITING:
        return None
    ends = {
        contexts.number(record.context, "deadline_us")
        for record in records
        if record.status == StepRecord.Status.WAITING and record.kind in FOR_OTHERS
    }
    known = [end for end in ends if end is not None]
    until = clock.to_datetime(min(known)) if known else None
    return Waits(run.waiting_for, children, until if ends else run.wakes_at)


def _events(names: Sequence[str]) -> str:
    if not names:
        return ""
    named = ", ".join(f"“{clipped(name, _LONGEST_NAME)}”" for name in names[:_NAMED])
    if len(names) > _NAMED:
        named = _("%(names)s and %(count)d more") % {"names": named, "count": len(names) - _NAMED}
    return ngettext("event %(names)s", "events %(names)s", len(names)) % {"names": named}


def _children(count: int) -> str:
    if not count:
        return ""
    shown = f"{COUNTED:,}+" if count > COUNTED else f"{count:,}"
    return ngettext("%(count)s child run", "%(count)s child runs", count) % {"count": shown}
