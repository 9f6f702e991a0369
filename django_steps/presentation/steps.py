"""How a recorded step stands and how long it took, as the admin and the commands show it.

A sleep is recorded as waiting when it is reached, with the time at which it ends; that it is over is not written, since
that would be a statement more for each. So here the clock and the run decide.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..core import clock
from ..models import StepRecord, WorkflowRun

_LABELS: dict[str, Any] = {**dict(WorkflowRun.Status.choices), **dict(StepRecord.Status.choices)}


def is_cut_short(run: WorkflowRun, record: StepRecord) -> bool:
    """Whether a sleep's time was not over when the run ended, or is not yet."""
    if record.status != StepRecord.Status.WAITING or record.wakes_at is None:
        return False
    return record.wakes_at > (run.finished_at or clock.to_datetime(clock.host_time()))


def status_of(run: WorkflowRun, record: StepRecord) -> str:
    """The status of a step. A sleep is waiting until its time is over, and canceled if the run ended before that."""
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
    end = finished_at(run, record)
    return None if end is None else end - record.started_at
