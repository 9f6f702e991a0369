"""Reading what a run has recorded."""

from __future__ import annotations

from typing import Any

from django_steps.models import WorkflowRun


def error_of(run: WorkflowRun) -> dict[str, Any]:
    """The recorded error of a run, which has to have failed."""
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error is not None
    return run.error


def names_of(run: WorkflowRun) -> list[str]:
    """The names under which a run has recorded steps, in order."""
    return list(run.steps.values_list("name", flat=True))
