"""How a run stands: what it does now, how far it is, how long it took, how often it was tried, why it failed.

What is shown of a status is decided here and in `steps.py` only.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..core import clock
from ..ledger.recovery import KEPT
from ..models import StepRecord, WorkflowRun
from . import durations, errors, limits, pauses, steps
from .text import clipped
from .values import UNREADABLE
from .waits import Waits

# What has been ready or due for longer than this is overdue: a worker should have taken it.
OVERDUE_AFTER = timedelta(seconds=60)
_LONGEST_NAME = 60  # characters of a step's name within a sentence


def kind_of(run: WorkflowRun) -> str:
    """The workflow of a run, with its version if it has one."""
    return f"{run.workflow} ({run.version})" if run.version else run.workflow


def is_unknown(run: WorkflowRun) -> bool:
    """Whether the run waits for a worker that knows its workflow and version."""
    return bool(run.phase == WorkflowRun.Phase.UNKNOWN)


def where_now(run: WorkflowRun, failing: str = "", waiting: Waits | None = None, held: str = "") -> str:
    """What an active run does: `now: charge`, `waits until 2026-03-01 03:00:05`; empty for others.

    Of an unknown run it is why it does nothing, of one that is tried again what `failing` says of it, and when; of one that
    waits for others what it waits for, as far as `waiting` knows more than the run. Before that, who has paused it, and what
    else is `held`: `queue mail is paused`.
    """
    parts = [held, paused(run), _what_now(run, failing, waiting)]
    return "; ".join(filter(None, parts))


def _what_now(run: WorkflowRun, failing: str, waiting: Waits | None) -> str:
    if is_unknown(run):
        return _("no worker knows this workflow and version")
    if run.phase == WorkflowRun.Phase.HELD:
        return _("waits until the run before it has ended, of schedule %(name)s") % {"name": run.schedule}
    if limits.is_in_line(run):
        return "; ".join(filter(None, [limits.waits_for(run), failing]))
    if run.status in (run.Status.RUNNING, run.Status.CANCELING) and run.current_step:
        now = _("now: %(step)s") % {"step": clipped(run.current_step, _LONGEST_NAME)}
        return f"{now}; {failing}" if failing else now
    if run.is_finished:
        return ""
    if run.status == run.Status.CANCELING:
        return str(waiting) if waiting is not None and waiting.children else _undoing(run, failing)
    if run.status == run.Status.WAITING:
        return "; ".join(filter(None, [str(waiting or Waits.of(run)), failing]))
    due = run.wakes_at
    if failing and due:
        return _("%(failing)s; next attempt at %(moment)s") % {"failing": failing, "moment": durations.moment(due)}
    return failing or (_("waits until %(moment)s") % {"moment": durations.moment(due)} if due else "")


def _undoing(run: WorkflowRun, failing: str) -> str:
    """What a run does that is canceled with undo."""
    if run.undoing is None:
        return ""
    if not failing or run.phase != WorkflowRun.Phase.TIMED or run.worker_id is not None:
        return _("undoes what its steps have done")
    due = durations.moment(clock.to_datetime(run.available_at_us))
    return _("%(failing)s; next attempt at %(moment)s") % {"failing": failing, "moment": due}


# -- Tried again ------------------------------------------------------------------------------------


def retrying_steps(runs: Collection[WorkflowRun]) -> dict[UUID, StepRecord]:
    """Of those of the runs that try a step again: its record, the last of several. Two queries: of a map very many may be
    tried again, and their logs are long."""
    by_id = {run.pk: run for run in runs}
    if not by_id:
        return {}
    alias = next(iter(by_id.values()))._state.db
    records = StepRecord.objects.using(alias)
    found = records.filter(run__in=list(by_id), status=StepRecord.Status.RETRYING).order_by("position")
    last = {
        record.run_id: record.pk
        for record in found.only("run", "name", "wakes_at_us")
        if _is_tried_now(by_id[record.run_id], record)
    }
    if not last:
        return {}
    return {record.run_id: record for record in records.filter(pk__in=last.values()).defer("output_text")}


def _is_tried_now(run: WorkflowRun, record: StepRecord) -> bool:
    """Whether the run waits for the next attempt of this step, or makes it: the body may have gone another way."""
    if run.is_finished:
        return False
    is_undoing = run.status == run.Status.CANCELING and run.undoing is not None and run.worker_id is None
    if run.status == run.Status.SLEEPING or is_undoing:
        return bool(record.wakes_at_us == run.available_at_us)
    if run.status == run.Status.WAITING:  # in a branch beside the one that waits, and maybe not the first that is due
        due = run.waits_until_us
        return due is not None and record.wakes_at_us is not None and record.wakes_at_us >= due
    if run.status in (run.Status.RUNNING, run.Status.CANCELING):
        return bool(record.name == run.current_step)
    return True


def failing(run: WorkflowRun, record: StepRecord | None, error: str = "") -> str:
    """Why an active run is tried again: `charge failed at attempt 3: CardDeclined: no`; empty for others.

    `record` is that of `retrying_steps`; `error` the last error of the whole run, in a line.
    """
    if run.is_finished or is_unknown(run):
        return ""
    if record is not None:
        last = steps.earlier_attempts(record)[-1:]
        named = {
            "step": clipped(record.name, _LONGEST_NAME),
            "attempt": record.attempts,
            "error": last[0].line if last else _("unreadable record"),
        }
        return _("%(step)s failed at attempt %(attempt)d: %(error)s") % named
    if run.status == run.Status.PENDING and run.attempts > 1 and error:
        return _("attempt %(attempt)d of the run failed: %(error)s") % {"attempt": run.attempts - 1, "error": error}
    return ""


def canceled(run: WorkflowRun) -> str:
    """By whom a run was canceled, and why: `by eve: sent twice`; empty if neither was said."""
    return pauses.by(run.canceled_by, run.cancel_reason)


def paused(run: WorkflowRun) -> str:
    """By whom a run was paused, and why; of one that is to be paused, that it is. Empty for the others."""
    why = pauses.by(run.paused_by, run.pause_reason)
    if run.is_pausing:
        return " ".join(filter(None, [_("pausing"), why]))
    return why if run.status == run.Status.PAUSED else ""


def progress(run: WorkflowRun) -> str:
    """How far the body said it is: `37 of 100`; empty if it said nothing, and once the run has succeeded."""
    if run.progress_done is None or not run.progress_total or run.status == run.Status.SUCCEEDED:
        return ""
    return _("%(done)d of %(total)d") % {"done": run.progress_done, "total": run.progress_total}


def detail(run: WorkflowRun, retrying: StepRecord | None = None, waiting: Waits | None = None, held: str = "") -> str:
    """What one wants to know of a run in a list: why it failed, what it does now, how far it is.

    `retrying` is what `retrying_steps` has of the run, `waiting` what `waits.of_runs` has, `held` what `pauses.of_runs` has.
    """
    if run.status == run.Status.FAILED:
        return errors.line(run.error)
    if run.status == run.Status.CANCELED:
        return canceled(run)
    is_active = not run.is_finished
    now = where_now(run, failing(run, retrying, errors.line(run.error)), waiting, held) if is_active else ""
    parts = [now, "" if run.is_finished else progress(run)]
    return ", ".join(filter(None, parts))


def took(run: WorkflowRun) -> timedelta | None:
    """How long the run took, or has been taking, since it was first claimed; None before that."""
    return durations.between(run.started_at, run.finished_at or timezone.now())


# -- Attempts and recoveries ------------------------------------------------------------------------


def tries(run: WorkflowRun) -> str:
    """The attempts where there was more than one, and the recoveries where there was any; else empty."""
    parts = []
    if run.attempts > 1:
        parts.append(ngettext("%d attempt", "%d attempts", run.attempts) % run.attempts)
    if count := recoveries(run):
        parts.append(ngettext("%s recovery", "%s recoveries", recovery_count(run)) % count)
    return ", ".join(parts)


def recovery_count(run: WorkflowRun) -> int:
    """How often the run was recovered: what its log says.

    The column counts only those without progress in between, and a retry sets it back; it is what is left where the
    log can't be read.
    """
    counted: int = run.recoveries
    return max(len(recovery_log(run)), counted)


def recoveries(run: WorkflowRun) -> str:
    """Their number, empty for none. The log is cut: where it is full there may have been more."""
    count = recovery_count(run)
    if count >= KEPT:
        return _("%d or more") % count
    return str(count or "")


def recovery_log(run: WorkflowRun) -> list[dict[str, Any]]:
    """The recoveries that are logged, the first one first; none where the log can't be read."""
    try:
        return run.recovery_log
    except UNREADABLE:
        return []


def recovery_line(entry: dict[str, Any]) -> str:
    """One of them: `recovered from web-1:4711, which died in step “charge”`."""
    if entry.get("step"):
        text = _("recovered from %(worker)s, which died in step “%(step)s”")
        return text % {"worker": entry["worker"], "step": clipped(entry["step"], _LONGEST_NAME)}
    if entry.get("after"):
        text = _("recovered from %(worker)s, which died after step “%(step)s”")
        return text % {"worker": entry["worker"], "step": clipped(entry["after"], _LONGEST_NAME)}
    if "after" in entry:
        return _("recovered from %(worker)s, which died before any step was recorded") % {"worker": entry["worker"]}
    return _("recovered from %(worker)s, which died") % {"worker": entry["worker"]}


# -- Waiting ----------------------------------------------------------------------------------------


def ready_since(run: WorkflowRun) -> datetime:
    """Since when a run is ready: it may have slept, been delayed or retried since it was created."""
    created_at: datetime = run.created_at
    return max(created_at, clock.to_datetime(run.available_at_us))
