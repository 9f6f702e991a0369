"""What the commands say of a run and its steps, as text and as JSON. Masked keys are masked, and unreadable rows shown.

How tables and times look is in `output.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from django_steps.definitions import Workflow, get_workflow
from django_steps.errors import UnknownWorkflow
from django_steps.models import StepRecord, WorkflowRun
from django_steps.values import searchable

from . import output

# In place of a value that can't be shown.
_UNREADABLE = "unreadable"


def error_line(error: dict[str, Any] | None) -> str:
    """Why something failed, in one line: `send_email: SMTPServerDisconnected: Connection closed`."""
    if not error:
        return ""
    name = str(error["type"]).rpartition(".")[2]
    where = f"{error['step']}: " if error.get("step") else ""
    text = f"{where}{name}: {error['message']}" if error["message"] else f"{where}{name}"
    return output.one_line(text)


def kind_of(run: WorkflowRun) -> str:
    """The workflow of a run, with its version if it has one."""
    return f"{run.workflow} ({run.version})" if run.version else run.workflow


def duration_of(run: WorkflowRun) -> str:
    """How long a run took, or has been under way."""
    end = run.finished_at if run.is_finished else timezone.now()
    return output.lasting(output.between(run.started_at, end))


def detail_of(run: WorkflowRun) -> str:
    """What one wants to know of a run in a list: why it failed, when it goes on, what it is at."""
    Status = WorkflowRun.Status
    if run.status == Status.FAILED:
        return error_line(run.error)
    if run.phase == WorkflowRun.Phase.PARKED:
        return _("no worker knows this workflow")
    if run.wakes_at is not None:
        return _("until %(moment)s") % {"moment": output.moment(run.wakes_at)}
    if run.status == Status.RUNNING:
        return progress_of(run) or (_("in %(step)s") % {"step": run.current_step} if run.current_step else "")
    return ""


def progress_of(run: WorkflowRun) -> str:
    """How far the body said it is: `37 of 100`; empty if it said nothing."""
    if run.progress_total is None or run.is_finished:
        return ""
    return _("%(done)d of %(total)d") % {"done": run.progress_done or 0, "total": run.progress_total}


# -- One run in detail ----------------------------------------------------------------------------


def describe(run: WorkflowRun, width: int | None) -> list[str]:
    """The lines that show one run: a summary, its steps, its error, what failed before."""
    records = list(run.steps.order_by("position").defer("output_text"))
    inner = None if width is None else width - 2
    lines = [f"{kind_of(run)}  {run.pk}", "", *_indent(_summary(run, inner))]
    lines += ["", _("Steps"), *_indent(_steps(records, inner))]
    if run.error:
        lines += ["", _("Error") if run.status == run.Status.FAILED else _("Error of the last attempt")]
        lines += _indent([error_line(run.error), *_traceback(run.error)])
    earlier = [line for record in records for line in _earlier(record)]
    if earlier:
        lines += ["", _("Earlier attempts"), *_indent(earlier)]
    if run.takeovers_text:
        lines += ["", _("Taken over, because a worker died"), *_indent(_takeovers(run))]
    return lines


def _summary(run: WorkflowRun, width: int | None) -> list[str]:
    status = WorkflowRun.Status(run.status).label if run.status in WorkflowRun.Status.values else run.status
    detail = "" if run.status == WorkflowRun.Status.FAILED else detail_of(run)
    return output.pairs(
        [
            (_("status"), f"{status}, {detail}" if detail else str(status)),
            (_("created"), output.full_moment(run.created_at)),
            (_("started"), output.full_moment(run.started_at)),
            (_("finished"), output.full_moment(run.finished_at)),
            (_("duration"), duration_of(run)),
            (
                _("queue"),
                run.queue + (_(", priority %(priority)d") % {"priority": run.priority} if run.priority else ""),
            ),
            (_("key"), run.key or ""),
            (_("worker"), str(run.worker) if run.status == run.Status.RUNNING and run.worker else ""),
            (_("attempts"), str(run.attempts) if run.attempts > 1 else ""),
            (_("recoveries"), str(run.recoveries) if run.recoveries else ""),
            (_("restart of"), str(run.restart_of_id or "")),
            (_("input"), json.dumps(input_of(run), ensure_ascii=False)),
            (_("output"), json.dumps(output_of(run), ensure_ascii=False) if run.output_text is not None else ""),
        ],
        width,
    )


def _steps(records: list[StepRecord], width: int | None) -> list[str]:
    if not records:
        return [_("none recorded yet")]
    header = [_("NAME"), _("KIND"), _("STATUS"), _("ATTEMPTS"), _("STARTED"), _("DURATION"), _("WAKES")]
    rows = [
        [
            record.name,
            record.kind,
            record.status,
            str(record.attempts),
            output.moment(record.started_at),
            output.lasting(output.between(record.started_at, record.finished_at)),
            output.moment(record.wakes_at),
        ]
        for record in records
    ]
    return output.table(header, rows, width, shrink=(0,))


def _earlier(record: StepRecord) -> list[str]:
    entries = _guarded(lambda: list(record.earlier_attempts))
    if not isinstance(entries, list):
        return [f"{record.name}: {entries}"]
    return [
        _("%(step)s, attempt %(number)s, %(moment)s: %(error)s")
        % {
            "step": record.name,
            "number": entry["attempt"],
            "moment": output.moment(entry["finished_at"]),
            "error": error_line(entry["error"]),
        }
        for entry in entries
    ]


def _takeovers(run: WorkflowRun) -> list[str]:
    entries = _guarded(lambda: run.takeovers)
    if not isinstance(entries, list):
        return [str(entries)]
    lines = []
    for entry in entries:
        text = _("%(at)s from %(worker)s, in %(step)s") if entry["step"] else _("%(at)s from %(worker)s")
        lines.append(text % {**entry, "at": output.moment(entry["at"])})
    return lines


def _traceback(error: dict[str, Any]) -> list[str]:
    lines = str(error["traceback"]).rstrip().splitlines()
    return ["", *map(output.printable, lines)] if lines else []


def _indent(lines: list[str]) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]


# -- JSON -----------------------------------------------------------------------------------------


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
        "restart_of": str(run.restart_of_id) if run.restart_of_id else None,
        "error": run.error,
    }


def as_detailed_json(run: WorkflowRun) -> dict[str, Any]:
    """A run as `as_json`, with `input`, `output`, `takeovers` and `steps`."""
    return as_json(run) | {
        "input": input_of(run),
        "output": output_of(run),
        "takeovers": _guarded(lambda: [entry | {"at": _iso(entry["at"])} for entry in run.takeovers]),
        "steps": [_step_as_json(run, record) for record in run.steps.order_by("position")],
    }


def _step_as_json(run: WorkflowRun, record: StepRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "kind": record.kind,
        "position": record.position,
        "status": record.status,
        "attempts": record.attempts,
        "started_at": _iso(record.started_at),
        "finished_at": _iso(record.finished_at),
        "wakes_at": _iso(record.wakes_at),
        "output": _shown(run, lambda: record.output),
        "error": record.error,
        "earlier_attempts": _guarded(
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
    return _guarded(lambda: searchable(read(), mask))


def _guarded(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:
        return {_UNREADABLE: f"{type(error).__name__}: {error}"}


def _workflow(run: WorkflowRun) -> Workflow[Any, Any] | None:
    try:
        return get_workflow(run.workflow, run.version)
    except UnknownWorkflow:
        return None
