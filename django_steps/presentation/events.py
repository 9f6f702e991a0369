"""What has been sent to a run: the events, who sent them, and which wait has taken them."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models import Case, F, When
from django.db.models.functions import Length
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..ledger import database, relatives
from ..ledger.relatives import COUNTED, Around
from ..models import WorkflowEvent, WorkflowRun
from . import durations
from .text import clipped

_LONGEST_NAME = 60  # characters


def around(run: WorkflowRun) -> Around:
    """What there is around a run: its children by status, how many events, which run continues as it. One query."""
    connection = database.connection_for(run._state.db or router.db_for_read(WorkflowRun))
    return relatives.around(connection, _owner(run))


def _owner(run: WorkflowRun) -> relatives.Owner:
    return relatives.Owner(run.pk, run.workflow, run.key, run.created_at, run.active_key)


def of_run(run: WorkflowRun, start: int, count: int, longest: int, *, only: int | None = None) -> list[Any]:
    """The events of a run from the one at `start` on: those first that no wait has taken, and the newest of each.

    `only`: the one with this number. Their payloads, if they have at most `longest` characters, are their `shown_payload`;
    `size` is that of all.
    """
    connection = database.connection_for(run._state.db or router.db_for_read(WorkflowRun))
    owner = _owner(run)
    ids = relatives.events(connection, owner, start, count, only=only)
    events = (
        WorkflowEvent.objects.using(connection.alias)
        .filter(pk__in=ids)
        .defer("payload_text")
        .annotate(size=Length("payload_text"))
        .annotate(shown_payload=Case(When(size__lte=longest, then=F("payload_text"))))
    )
    return sorted(events, key=lambda event: ids.index(event.pk))


def counted(events: int, untaken: int) -> str:
    """`5 events, 2 of them not taken`; empty for none."""
    if not events:
        return ""
    said = ngettext("%(count)s event", "%(count)s events", events) % {"count": _up_to(events)}
    if not untaken:
        return said
    return _("%(events)s, %(count)s not taken") % {"events": said, "count": _up_to(untaken)}


def _up_to(count: int) -> str:
    return f"{COUNTED:,}+" if count > COUNTED else f"{count:,}"


def state_of(event: WorkflowEvent) -> str:
    """What has become of an event: `taken by step “approval” at 2026-03-01 03:00:05`."""
    moment = durations.moment(event.consumed_at)
    if event.consumed_by is not None:
        named = {"step": clipped(event.consumed_by, _LONGEST_NAME), "moment": moment}
        return _("taken by step “%(step)s” at %(moment)s") % named
    if event.consumed_at is not None:
        return _("discarded at %(moment)s") % {"moment": moment}
    return _("not taken")
