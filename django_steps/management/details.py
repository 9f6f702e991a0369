"""One run in detail, as `showworkflows RUN_ID` prints it: a summary, its steps, its error, what failed before.

Here the lines are laid out; what they say is made in `presentation`.
"""

from __future__ import annotations

from typing import Any

from django.core.management.color import Style
from django.utils.translation import gettext as _

from ..models import StepRecord, WorkflowRun
from ..presentation import durations, errors, output, runs, steps, values


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


def describe(run: WorkflowRun, width: int | None, style: Style) -> list[str]:
    """The lines that show one run."""
    records = list(run.steps.order_by("position").defer("output_text"))
    inner = None if width is None else width - 2
    heading = style.MIGRATE_HEADING
    title = f"{output.one_line(runs.kind_of(run))}  {run.pk}"
    lines = [heading(title), "", *_indent(_summary(run, inner))]
    lines += ["", heading(_("Steps")), *_indent(_steps(run, records, inner, style))]
    if run.error:
        lines += ["", heading(_("Error") if run.status == run.Status.FAILED else _("Error of the last attempt"))]
        lines += _indent(_error(run.error))
    earlier = [line for record in records for line in _earlier(record)]
    if earlier:
        lines += ["", heading(_("Earlier attempts")), *_indent(earlier)]
    if run.recovery_log_text:
        lines += ["", heading(_("Recoveries, each because a worker died")), *_indent(_recoveries(run))]
    return lines


def _summary(run: WorkflowRun, width: int | None) -> list[str]:
    mask = values.Mask.of(run)
    status = steps.label_of(run.status)
    detail = "" if run.status == run.Status.FAILED else runs.detail(run, runs.retrying_steps([run]).get(run.pk))
    return output.pairs(
        [
            (_("status"), f"{status}, {detail}" if detail else status),
            (_("created"), durations.full_moment(run.created_at)),
            (_("started"), durations.full_moment(run.started_at)),
            (_("finished"), durations.full_moment(run.finished_at)),
            (_("duration"), durations.duration(runs.took(run))),
            (_("queue"), run.queue),
            (_("priority"), str(run.priority or "")),
            (_("key"), run.key or ""),
            (_("worker"), str(run.worker) if run.phase == run.Phase.TIMED and run.worker else ""),
            (_("canceled"), runs.canceled(run) if run.status == run.Status.CANCELING else ""),
            (_("attempts"), str(run.attempts) if run.attempts > 1 else ""),
            (_("recoveries"), runs.recoveries(run)),
            (_("restart of"), str(run.restart_of_id or "")),
            (_("input"), values.readable(run.input_text, mask, indent=None)),
            (_("output"), values.readable(run.output_text, mask, indent=None)),
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
            steps.status_of(run, record),
            steps.attempts(record),
            durations.short_moment(record.started_at),
            durations.duration(steps.took(run, record)),
            durations.short_moment(record.wakes_at),
        ]
        for record in records
    ]
    return output.table(header, rows, width, shrink=0, paint=paint(style))


def _earlier(record: StepRecord) -> list[str]:
    """`charge, attempt 1, 03:00:05: OSError: no answer` for each attempt that failed before the last one."""
    lines = []
    for attempt in steps.earlier_attempts(record):
        where = ", ".join(filter(None, [record.name, attempt.label, durations.short_moment(attempt.at)]))
        lines.append(output.one_line(f"{where}: {attempt.line}"))
    return lines


def _error(error: dict[str, Any]) -> list[str]:
    line, full = output.one_line(errors.line(error)), errors.full(error)
    return [line, "", *map(output.printable, full)] if full else [line]


def _recoveries(run: WorkflowRun) -> list[str]:
    entries = runs.recovery_log(run)
    if not entries:
        return [_("unreadable record")]
    return [output.one_line(f"{durations.short_moment(entry['at'])}: {runs.recovery_line(entry)}") for entry in entries]


def _indent(lines: list[str]) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]
