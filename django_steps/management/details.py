"""One run in detail, as `showworkflows RUN_ID` prints it: a summary, its steps, its error, what failed before.

Here the lines are laid out; what they say is made in `presentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.core.management.color import Style
from django.utils.translation import gettext as _

from ..models import StepRecord, WorkflowRun
from ..presentation import durations, errors, output, runs, steps, tree, values

_SHOWN = 20  # members of a branch or group


class _Row(NamedTuple):
    """A line of the table; without a node it stands for those that are left out."""

    node: tree.Node | None
    level: int
    name: str


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
    records = run.steps.order_by("position").defer("output_text", "error_text")
    shown = list(_shown(tree.tree(run, records)))
    inner = None if width is None else width - 2
    heading = style.MIGRATE_HEADING
    title = f"{output.one_line(runs.kind_of(run))}  {run.pk}"
    lines = [heading(title), "", *_indent(_summary(run, inner))]
    lines += ["", heading(_("Steps")), *_indent(_steps(run, shown, inner, style))]
    if run.error:
        lines += ["", heading(_("Error") if run.status == run.Status.FAILED else _("Error of the last attempt"))]
        lines += _indent(_error(run.error))
    if polls := _polls(run, inner):
        lines += ["", heading(_("Polls")), *_indent(polls)]
    earlier = [line for row in shown if row.node and row.node.record for line in _earlier(row.node.record)]
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


def _shown(node: tree.Node, level: int = 0) -> Iterator[_Row]:
    """What is in the body, or in a branch or group: of each of these the first members."""
    members = node.in_order()
    some = members if level == 0 else members[:_SHOWN]
    for member in some:
        yield _Row(member, level, member.label)
        yield from _shown(member, level + 1)
    if len(some) < len(members):
        yield _Row(None, level, tree.and_more(len(members) - len(some)))


def _steps(run: WorkflowRun, shown: Sequence[_Row], width: int | None, style: Style) -> list[str]:
    if not shown:
        return [_("none recorded yet")]
    header = [_("NAME"), _("KIND"), _("STATUS"), _("ATTEMPTS"), _("STARTED"), _("DURATION"), _("WAKES")]
    rows = [[row.name, *(_cells(run, row.node) if row.node else [""] * (len(header) - 1))] for row in shown]
    levels = [row.level for row in shown]
    lines = output.table(header, rows, width, shrink=0, paint=paint(style), levels=levels)
    planned = _maps(run, shown)
    return output.with_notes(lines, [_counts(row.node, planned) for row in shown], width)


def _cells(run: WorkflowRun, node: tree.Node) -> list[str]:
    record = node.record
    return [
        node.kind,
        node.status,
        "" if record is None else steps.attempts(record),
        durations.short_moment(tree.started_at(node)),
        durations.duration(tree.took(run, node)),
        "" if record is None else durations.short_moment(record.wakes_at),
    ]


def _maps(run: WorkflowRun, shown: Sequence[_Row]) -> dict[str, str | None]:
    """What is recorded of the finished maps among them."""
    maps = [row.node.path for row in shown if row.node and row.node.kind == tree.MAP and row.node.record]
    return dict(run.steps.filter(name__in=maps).values_list("name", "output_text")) if maps else {}


def _counts(node: tree.Node | None, planned: Mapping[str, str | None]) -> str:
    """`12 succeeded, 2 failed, 3 never began of 17`: how the members of a group stand; empty for others."""
    if node is None or not node.is_group:
        return ""
    return str(tree.Counts(node, tree.never_began(node, planned.get(node.path))))


def _polls(run: WorkflowRun, width: int | None) -> list[str]:
    """`shipped  12 checks, last value {"state": "packed"}, next check at …` for each poll that has no result."""
    mask = values.Mask.of(run)
    found = run.steps.filter(kind=StepRecord.Kind.POLL).exclude(status=StepRecord.Status.SUCCEEDED).order_by("position")
    return output.pairs([(poll.name, _poll(run, poll, mask)) for poll in found], width)


def _poll(run: WorkflowRun, record: StepRecord, mask: values.Mask) -> str:
    parts = [steps.checks(record)]
    if steps.has_last_value(record):
        shown = values.readable(record.output_text, mask, indent=None)
        parts.append(_("last value %(value)s") % {"value": shown})
    if not run.is_finished:
        parts.append(steps.until(record))
    return ", ".join(filter(None, parts))


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
