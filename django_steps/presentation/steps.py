"""How a recorded step stands and how long it took, as the admin and the commands show it.

A sleep is recorded as succeeded when it begins, since its end is fixed then: whether it is over is told by the clock
and by its run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from ..models import StepRecord, WorkflowRun

_LABELS: dict[str, Any] = {**dict(WorkflowRun.Status.choices), **dict(StepRecord.Status.choices)}


def is_cut_short(run: WorkflowRun, record: StepRecord) -> bool:
    """Whether a sleep's time was not over when the run ended, or is not yet."""
    if record.kind != StepRecord.Kind.SLEEP or record.wakes_at is None:
        return False
    return record.wakes_at > (run.finished_at or timezone.now())


def status_of(run: WorkflowRun, record: StepRecord) -> str:
    """The status of a step; until the time of a sleep is over, it says what the run says."""
    if is_cut_short(run, record) and run.status in (run.Status.SLEEPING, run.Status.CANCELED):
        return str(run.status)
    return str(record.status)


def label_of(status: str) -> str:
    """A status, of a step or a run, as people read it."""
    return str(_LABELS.get(status, status))


def took(run: WorkflowRun, record: StepRecord) -> timedelta | None:
    """How long a step took, or how much of a sleep was slept; None while that isn't known yet."""
    end = record.wakes_at if record.kind == StepRecord.Kind.SLEEP else record.finished_at
    if is_cut_short(run, record):
        end = run.finished_at
    return None if end is None else end - record.started_at
