"""How a recorded step stands: its status, how long it took, how often it was attempted, and what failed before.

A sleep is recorded as waiting when it is reached, with the time at which it ends; that it is over is not written, since
that would be a statement more for each. So here the clock and the run decide. A poll, a wait for an event, a child and a map of
children are waiting until they have their outcome, or the run has ended. What is shown of a status is decided here and in
`runs.py` only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..core import clock
from ..failures.attempt_log import count_before_retry
from ..ledger import contexts
from ..models import StepRecord, WorkflowRun
from . import durations, errors
from .text import clipped
from .values import UNREADABLE
from .waits import FOR_OTHERS, Waits

_LONGEST = 60  # characters of a name in a sentence
_Kind = StepRecord.Kind
_NEVER_ATTEMPTED = (_Kind.SLEEP, _Kind.BRANCH, _Kind.MAP, _Kind.EVENT, _Kind.INVOKE, _Kind.PATCH)
# The status of a branch or group that has no record of its own when the run does nothing any more.
UNFINISHED = "unfinished"

_LABELS: dict[str, Any] = {
    **dict(WorkflowRun.Status.choices),
    **dict(StepRecord.Status.choices),
    UNFINISHED: gettext_lazy("unfinished"),
}


def is_cut_short(run: WorkflowRun, record: StepRecord) -> bool:
    """Whether a sleep's time was not over when the run ended, or is not yet; and whether what else waits has no outcome."""
    if record.status != StepRecord.Status.WAITING:
        return False
    if record.kind in FOR_OTHERS:
        return True
    if record.wakes_at is None:
        return False
    if record.kind != StepRecord.Kind.SLEEP:
        return True
    return record.wakes_at > (run.finished_at or clock.to_datetime(clock.host_time()))


def status_of(run: WorkflowRun, record: StepRecord) -> str:
    """The status of a step. A sleep is waiting until its time is over, others until they have their outcome; they are canceled
    if the run ended before that."""
    if record.status != StepRecord.Status.WAITING:
        return str(record.status)
    if not is_cut_short(run, record):
        return str(StepRecord.Status.SUCCEEDED)
    return str(run.Status.CANCELED if run.is_finished else record.status)


def finished_at(run: WorkflowRun, record: StepRecord) -> datetime | None:
    """When a step ended; None while it hasn't."""
    if record.status != StepRecord.Status.WAITING:
        return record.finished_at
    return run.finished_at if is_cut_short(run, record) else record.wakes_at


def label_of(status: str) -> str:
    """A status, of a step or a run, as people read it."""
    return str(_LABELS.get(status, status))


def took(run: WorkflowRun, record: StepRecord) -> timedelta | None:
    """How long a step took, or how much of a sleep was slept; None while that isn't known yet."""
    return durations.between(record.started_at, finished_at(run, record))


def wakes_at(record: StepRecord) -> datetime | None:
    """When a sleep ends or ended, when the next attempt or check is due, or when a wait for others times out; None for what the
    body has canceled, too."""
    if record.kind in FOR_OTHERS:
        return deadline(record) if record.status == StepRecord.Status.WAITING else None
    return None if record.status == StepRecord.Status.CANCELED else record.wakes_at


def deadline(record: StepRecord) -> datetime | None:
    """When a wait for an event or a child is over; None where it has no end."""
    moment = contexts.number(record.context, "deadline_us")
    return None if moment is None else clock.to_datetime(moment)


def events(record: StepRecord) -> list[str]:
    """The names of the events that a wait takes; none for other records."""
    names = record.context.get("events") if record.kind == StepRecord.Kind.EVENT else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def child_id(record: StepRecord) -> UUID | None:
    """The child run of an invoke; None for other records."""
    try:
        return UUID(record.context["child"]) if record.kind == StepRecord.Kind.INVOKE else None
    except (LookupError, ValueError, TypeError, AttributeError):
        return None


def run_started(output_text: str | None) -> UUID | None:
    """The run that a step has started without waiting for it, by the recorded result; None where that can't be read."""
    try:
        return UUID(json.loads(output_text or "")["v"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def planned(record: StepRecord) -> int:
    """How many child runs a map that is not decided yet has; 0 for other records."""
    is_map = record.kind == StepRecord.Kind.MAP and record.status == StepRecord.Status.WAITING
    return (contexts.number(record.context, "children") or 0) if is_map else 0


def until(record: StepRecord) -> str:
    """The same in words, and of a wait what it is for; empty for other steps."""
    wakes = wakes_at(record)
    if record.status == StepRecord.Status.WAITING and record.kind == StepRecord.Kind.EVENT:
        return str(Waits(events(record), until=wakes))
    if wakes is None:
        return ""
    moment = durations.moment(wakes)
    if record.kind == StepRecord.Kind.SLEEP or record.kind in FOR_OTHERS:
        return _("until %(moment)s") % {"moment": moment}
    if record.status == StepRecord.Status.RETRYING:
        return _("next attempt at %(moment)s") % {"moment": moment}
    if record.status == StepRecord.Status.WAITING:
        return _("next check at %(moment)s") % {"moment": moment}
    return ""


def checks(record: StepRecord) -> str:
    """How many checks a poll has made: `12 checks`; empty for other records."""
    if record.kind != StepRecord.Kind.POLL:
        return ""
    count = record.checks or 0
    return ngettext("%d check", "%d checks", count) % count


def taken(record: StepRecord) -> str:
    """Where the result of a wait is from: `event “approval” from eve`, or that nothing came in time; empty for others."""
    if record.kind != StepRecord.Kind.EVENT or record.status != StepRecord.Status.SUCCEEDED:
        return ""
    if record.timed_out:
        return _("timed out: the default was returned")
    event = record.context.get("event")
    if not isinstance(event, dict) or not event.get("name"):
        return ""
    named = _("event “%(name)s”") % {"name": clipped(str(event["name"]), _LONGEST)}
    by = clipped(str(event.get("by") or ""), _LONGEST)
    return _("%(event)s from %(sender)s") % {"event": named, "sender": by} if by else named


def mark(record: StepRecord) -> str:
    """What the last pass has found of a record that no longer fits its body; empty for others."""
    if record.is_unreached:
        return _("recorded by an earlier version of the body")
    return _("called with other arguments now") if record.has_changed_arguments else ""


def changed_body(records: Iterable[StepRecord]) -> str:
    """That the body of a run has changed since it recorded these, in a sentence; empty where that is not known."""
    count = sum(record.is_unreached for record in records)
    if not count:
        return ""
    text = ngettext(
        "The body has changed since this run began: it does not come to %(count)d of its records any more.",
        "The body has changed since this run began: it does not come to %(count)d of its records any more.",
        count,
    )
    return text % {"count": count}


def has_last_value(record: StepRecord) -> bool:
    """Whether the output of a record is what the last check of a poll returned, and not a result."""
    has_other = record.status in (StepRecord.Status.SUCCEEDED, StepRecord.Status.CANCELED)
    return bool(record.kind == StepRecord.Kind.POLL and record.checks and not has_other)


def counted(steps: int, sleeps: int) -> str:
    """`5 steps, 2 sleeps`: what was recorded, by kind; a poll counts as a step, sleeps only where there are any."""
    parts = [ngettext("%d step", "%d steps", steps) % steps]
    if sleeps:
        parts.append(ngettext("%d sleep", "%d sleeps", sleeps) % sleeps)
    return ", ".join(parts)


def counted_kinds(steps: Iterable[StepRecord]) -> str:
    """The same of these records; empty if there are none."""
    kinds = [step.kind for step in steps]
    sleeps = kinds.count(StepRecord.Kind.SLEEP)
    return counted(len(kinds) - sleeps, sleeps) if kinds else ""


# -- Attempts ---------------------------------------------------------------------------------------


class FailedAttempt(NamedTuple):
    """An attempt that failed, for people."""

    label: str  # which one: `attempt 2`, `attempt 2, before a retry`
    line: str  # why, in one line
    at: datetime | None  # when it ended
    error: dict[str, Any] | None


def attempts(record: StepRecord) -> str:
    """How often a step was attempted since the last retry of the run, and before: `1 (+6 earlier)`; sleeps, waits, branches and
    maps never are. Of a poll, whose checks are many: how many checks it has made."""
    if record.kind in _NEVER_ATTEMPTED:
        return ""
    if record.kind == StepRecord.Kind.POLL:
        return checks(record)
    try:
        earlier = count_before_retry(list(record.earlier_attempts))
    except UNREADABLE:
        earlier = 0
    if not earlier:
        return str(record.attempts)
    return _("%(count)d (+%(earlier)d earlier)") % {"count": record.attempts, "earlier": earlier}


def logged(record: StepRecord) -> list[dict[str, Any]]:
    """The entries in the log of failed attempts, the first one first; none where the log can't be read."""
    try:
        return list(record.earlier_attempts)
    except UNREADABLE:
        return []


def earlier_attempts(record: StepRecord) -> list[FailedAttempt]:
    """The attempts that failed before the one that the record is about, the first one first."""
    try:
        entries = list(record.earlier_attempts)
    except UNREADABLE:
        return [FailedAttempt(_("earlier attempts"), _("unreadable record"), None, None)]
    return [
        FailedAttempt(
            _label(entry["attempt"], is_before_retry=entry["before_retry"]),
            errors.line(entry["error"], with_step=False),
            entry["finished_at"],
            entry["error"],
        )
        for entry in entries
    ]


def failed_attempts(record: StepRecord) -> list[FailedAttempt]:
    """All attempts that failed, the last one first."""
    found = earlier_attempts(record)[::-1]
    if record.error_text is None:
        return found
    label = _label(record.attempts, is_before_retry=False)
    return [
        FailedAttempt(label, errors.line(record.error, with_step=False), record.finished_at, record.error),
        *found,
    ]


def _label(number: int, *, is_before_retry: bool) -> str:
    if is_before_retry:
        return _("attempt %(number)d, before a retry") % {"number": number}
    return _("attempt %(number)d") % {"number": number}
