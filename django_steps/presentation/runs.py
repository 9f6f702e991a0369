"""What the commands say of a run and its steps, as text for people.

As JSON it is in `run_json.py`; how tables and times look is in `output.py`.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.color import Style
from django.utils import timezone
from django.utils.translation import gettext as _

from ..failures.attempt_log import count_before_retry
from ..models import StepRecord, WorkflowRun
from . import output
from . import steps as step_states
from .json import guarded, input_of, output_of


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
    if run.phase == WorkflowRun.Phase.UNKNOWN:
        return _("no worker knows this workflow")
    if run.wakes_at is not None:
        return _("until %(moment)s") % {"moment": output.moment(run.wakes_at)}
    if run.status in (Status.RUNNING, Status.CANCELING):
        return progress_of(run) or (_("in %(step)s") % {"step": run.current_step} if run.current_step else "")
    return canceled_text(run) if run.status == Status.CANCELED else ""


def canceled_text(run: WorkflowRun) -> str:
    """By whom a run was canceled, and why: `by eve: sent twice`; empty if neither was said."""
    by = _("by %(author)s") % {"author": run.canceled_by} if run.canceled_by else ""
    return output.one_line(": ".join(filter(None, [by, run.cancel_reason])))


def progress_of(run: WorkflowRun) -> str:
    """How far the body said it is: `37 of 100`; empty if it said nothing."""
    if run.progress_total is None or run.is_finished:
        return ""
    return _("%(done)d of %(total)d") % {"done": run.progress_done or 0, "total": run.progress_total}


def paint(style: Style) -> dict[str, output.Paint]:
    """The colours of the statuses."""
    Status = WorkflowRun.Status
    return {
        Status.SUCCEEDED: style.SUCCESS,
        Status.FAILED: style.ERROR,
        Status.CANCELED: style.WARNING,
        Status.CANCELING: style.WARNING,
        Status.RUNNING: style.MIGRATE_HEADING,
    }


# -- One run in detail ----------------------------------------------------------------------------


def describe(run: WorkflowRun, width: int | None, style: Style) -> list[str]:
    """The lines that show one run: a summary, its steps, its error, what failed before."""
    records = list(run.steps.order_by("position").defer("output_text"))
    inner = None if width is None else width - 2
    heading = style.MIGRATE_HEADING
    lines = [heading(f"{kind_of(run)}  {run.pk}"), "", *_indent(_summary(run, inner))]
    lines += ["", heading(_("Steps")), *_indent(_steps(run, records, inner, style))]
    if run.error:
        lines += ["", heading(_("Error") if run.status == run.Status.FAILED else _("Error of the last attempt"))]
        lines += _indent([error_line(run.error), *_traceback(run.error)])
    earlier = [line for record in records for line in _earlier(record)]
    if earlier:
        lines += ["", heading(_("Earlier attempts")), *_indent(earlier)]
    if run.recovery_log_text:
        lines += ["", heading(_("Recovered, because a worker died")), *_indent(_recoveries(run))]
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
            (_("queue"), run.queue),
            (_("priority"), str(run.priority or "")),
            (_("key"), run.key or ""),
            (_("worker"), str(run.worker) if run.phase == run.Phase.TIMED and run.worker else ""),
            (_("canceled"), canceled_text(run) if run.status == run.Status.CANCELING else ""),
            (_("attempts"), str(run.attempts) if run.attempts > 1 else ""),
            (_("recoveries"), str(run.recoveries) if run.recoveries else ""),
            (_("restart of"), str(run.restart_of_id or "")),
            (_("input"), json.dumps(input_of(run), ensure_ascii=False)),
            (_("output"), json.dumps(output_of(run), ensure_ascii=False) if run.output_text is not None else ""),
        ],
        width,
    )


def _steps(run: WorkflowRun, records: list[StepRecord], width: int | None, style: Style) -> list[str]:
    if not records:
        return [_("none recorded yet")]
    header = [_("NAME"), _("KIND"), _("STATUS"), _("ATTEMPTS"), _("STARTED"), _("DURATION"), _("WAKES")]
    rows = [
        [
            record.name,
            record.kind,
            step_states.status_of(run, record),
            _attempts(record),
            output.moment(record.started_at),
            output.lasting(step_states.took(run, record)),
            output.moment(record.wakes_at),
        ]
        for record in records
    ]
    return output.table(header, rows, width, shrink=0, paint=paint(style))


def _attempts(record: StepRecord) -> str:
    """How often a step was attempted since the last retry of the run, and how often before; a sleep never is."""
    if record.kind == record.Kind.SLEEP:
        return ""
    earlier = guarded(lambda: count_before_retry(list(record.earlier_attempts)))
    if not earlier or not isinstance(earlier, int):
        return str(record.attempts)
    return _("%(count)d (+%(earlier)d earlier)") % {"count": record.attempts, "earlier": earlier}


def _earlier(record: StepRecord) -> list[str]:
    entries = guarded(lambda: list(record.earlier_attempts))
    if not isinstance(entries, list):
        return [f"{record.name}: {entries}"]
    lines = []
    for entry in entries:
        text = _("%(step)s, attempt %(number)s, %(moment)s: %(error)s")
        if entry["before_retry"]:
            text = _("%(step)s, attempt %(number)s, before a retry, %(moment)s: %(error)s")
        values = {
            "step": record.name,
            "number": entry["attempt"],
            "moment": output.moment(entry["finished_at"]),
            "error": error_line(entry["error"] and entry["error"] | {"step": None}),  # it is named already
        }
        lines.append(text % values)
    return lines


def _recoveries(run: WorkflowRun) -> list[str]:
    entries = guarded(lambda: run.recovery_log)
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
