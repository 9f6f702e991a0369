"""What `runworkflows --until-idle` leaves behind: runs whose time has not come, paused ones, and runs that no worker knows.

It only looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..core import clock
from ..definitions import registered_kinds
from ..models import WorkflowRun
from ..models.diagnosis import known_kinds, live_workers
from ..monitoring import health
from ..presentation.durations import full_moment
from . import base

_COUNTED = 10_000


def lines(queues: Sequence[str]) -> list[str]:
    """A line for each thing that is left in these queues, or in all if there are none; nothing if nothing is left."""
    runs = WorkflowRun.objects.using(base.connection().alias)
    if queues:
        runs = runs.filter(queue__in=queues)
    known = known_kinds(live_workers(base.connection())) | registered_kinds()
    return [*_later(runs), *_paused(runs), *health.unknown_lines(runs, known)]


def _paused(runs: QuerySet[WorkflowRun]) -> Iterator[str]:
    """The runs that are paused, or held by the pause of a queue or workflow."""
    parked = runs.filter(phase=WorkflowRun.Phase.PARKED)
    if count := parked.order_by()[: _COUNTED + 1].count():
        number = f"{_COUNTED}+" if count > _COUNTED else str(count)
        yield ngettext("Left paused: %(count)s run.", "Left paused: %(count)s runs.", count) % {"count": number}


def _later(runs: QuerySet[WorkflowRun]) -> Iterator[str]:
    """The runs that sleep or are delayed, and when the first of them is due."""
    timed = runs.filter(phase=WorkflowRun.Phase.TIMED, worker=None).order_by("available_at_us")
    found = list(timed.values_list("status", "available_at_us")[: _COUNTED + 1])
    if not found:
        return
    names = {WorkflowRun.Status.SLEEPING: WorkflowRun.Status.SLEEPING.label, WorkflowRun.Status.PENDING: _("delayed")}
    counts = Counter(status for status, _due in found[:_COUNTED])
    parts = ", ".join(f"{counts[status]} {name}" for status, name in names.items() if counts[status])
    if len(found) > _COUNTED:
        parts = _("more than %(count)d runs") % {"count": _COUNTED}
    due = full_moment(clock.to_datetime(found[0][1]))
    yield _("Left for later: %(parts)s; the next is due at %(moment)s.") % {"parts": parts, "moment": due}
