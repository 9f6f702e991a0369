"""The table of states, as `django_steps.ledger` documents it, and whether the row of a run fits it."""

from __future__ import annotations

from typing import NamedTuple

from django_steps import ledger
from django_steps.models import WorkflowRun


class State(NamedTuple):
    """A line of the table: the status, the phase, and whether the other columns hold something."""

    status: str
    phase: str
    worker: str
    token: str
    finished_at: str


def table() -> list[State]:
    """The lines of the table."""
    lines = (ledger.__doc__ or "").splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["status", "phase"])
    rows = []
    for line in lines[start + 1 :]:
        if not line.strip():
            return rows
        if line.startswith(" " * 20):  # more of the line before
            continue
        rows.append(State(*line.split()[:5]))
    raise AssertionError("the table has no end")


def state_of(run: WorkflowRun) -> State:
    """The line that describes a run as it is in its table."""
    run = WorkflowRun.objects.get(pk=run.pk)
    phase = WorkflowRun.Phase(run.phase).name.lower()
    columns = (run.worker_id, run.claim_token, run.finished_at)
    return State(run.status, phase, *("-" if value is None else "set" for value in columns))


def check_state(run: WorkflowRun) -> State:
    """Raise `AssertionError` if the row of a run is not in the table; the line that describes it."""
    state = state_of(run)
    assert state in table(), f"{state} is no state of the table"
    row = WorkflowRun.objects.get(pk=run.pk)
    if row.claim_token is None or row.is_finished:
        assert (row.suspect_since_us, row.current_step) == (None, "")
    if row.status != WorkflowRun.Status.RUNNING:
        assert (row.paused_at is None) == (row.status != WorkflowRun.Status.PAUSED)
    if row.status == WorkflowRun.Status.CANCELING and row.phase != WorkflowRun.Phase.TIMED:
        assert row.undoing is not None
    if row.paused_at is None:
        assert (row.pause_reason, row.paused_by) == ("", "")
    return state
