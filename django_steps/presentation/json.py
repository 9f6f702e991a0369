"""What the commands give out of a run as plain JSON types: without what its workflow masks, and whatever can't be read.

Text for people is made in `run_texts.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from ..definitions import Workflow, get_workflow
from ..errors import UnknownWorkflow
from ..models import StepRecord, WorkflowRun
from ..values import searchable
from . import steps

# In place of a value that can't be shown.
_UNREADABLE = "unreadable"


def as_json(run: WorkflowRun) -> dict[str, Any]:
    """A run as plain JSON types; times are ISO 8601 text. The keys are stable."""
    return {
        "id": str(run.pk),
        "workflow": run.workflow,
        "version": run.version,
        "queue": run.queue,
        "priority": run.priority,
        "key": run.key,
        "status": run.status,
        "attempts": run.attempts,
        "recoveries": run.recoveries,
        "current_step": run.current_step or None,
        "progress": None if run.progress_total is None else [run.progress_done, run.progress_total],
        "worker": str(run.worker) if run.worker else None,
        "created_at": _iso(run.created_at),
        "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at),
        "wakes_at": _iso(run.wakes_at),
        "cancel_reason": run.cancel_reason or None,
        "canceled_by": run.canceled_by or None,
        "restart_of": str(run.restart_of_id) if run.restart_of_id else None,
        "error": run.error,
    }


def as_detailed_json(run: WorkflowRun) -> dict[str, Any]:
    """A run as `as_json`, with `input`, `output`, `recovery_log` and `steps`."""
    return as_json(run) | {
        "input": input_of(run),
        "output": output_of(run),
        "recovery_log": guarded(lambda: [entry | {"at": _iso(entry["at"])} for entry in run.recovery_log]),
        "steps": [_step_as_json(run, record) for record in run.steps.order_by("position")],
    }


def _step_as_json(run: WorkflowRun, record: StepRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "kind": record.kind,
        "position": record.position,
        "status": steps.status_of(run, record),
        "attempts": record.attempts,
        "started_at": _iso(record.started_at),
        "finished_at": _iso(steps.finished_at(run, record)),
        "wakes_at": _iso(record.wakes_at),
        "output": _shown(run, lambda: record.output),
        "error": record.error,
        "earlier_attempts": guarded(
            lambda: [
                entry | {"started_at": _iso(entry["started_at"]), "finished_at": _iso(entry["finished_at"])}
                for entry in record.earlier_attempts
            ]
        ),
    }


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


# -- Values ---------------------------------------------------------------------------------------


def input_of(run: WorkflowRun) -> Any:
    """The input of a run as people may see it."""
    if _workflow(run) is None:
        return run.input_search  # masked when the run was started
    return _shown(run, lambda: run.input)


def output_of(run: WorkflowRun) -> Any:
    """The output of a run as people may see it."""
    return _shown(run, lambda: run.output)


def _shown(run: WorkflowRun, read: Callable[[], Any]) -> Any:
    """A value in plain JSON types without what the workflow masks; a dict that says why if it can't be read."""
    workflow = _workflow(run)
    if workflow is None:
        return {_UNREADABLE: _("the workflow is unknown here, so what it masks is unknown, too")}
    mask = workflow.mask
    return guarded(lambda: searchable(read(), mask))


def guarded(read: Callable[[], Any]) -> Any:
    """What is read, or a dict that says why it can't be."""
    try:
        return read()
    except Exception as error:
        return {_UNREADABLE: f"{type(error).__name__}: {error}"}


def _workflow(run: WorkflowRun) -> Workflow[Any, Any] | None:
    try:
        return get_workflow(run.workflow, run.version)
    except UnknownWorkflow:
        return None
