"""One run in detail, as `showworkflows RUN_ID` prints it: a summary, its steps, its error, what failed before.

Here the lines are laid out; what they say is made in `presentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.core.management.color import Style
from django.utils.translation import gettext as _

from ..ledger.relatives import Around
from ..models import StepRecord, WorkflowRun
from ..presentation import (
    children,
    durations,
    errors,
    events,
    limits,
    output,
    pauses,
    runs,
    steps,
    tags,
    timing,
    tree,
    values,
    waits,
)
from . import family

_SHOWN = 20  # members of a branch or group, and events
_LONGEST_PAYLOAD = 200  # characters of an event's payload that are shown


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
        Status.PAUSED: style.WARNING,
        Status.RUNNING: style.MIGRATE_HEADING,
    }


def describe(run: WorkflowRun, width: int | None, style: Style) -> list[str]:
    """The lines that show one run."""
    records = list(run.steps.order_by("position", "pk").defer("output_text", "error_text"))
    around = events.around(run)
    shown = list(_shown(tree.tree(run, records)))
    inner = None if width is None else width - 2
    heading = style.MIGRATE_HEADING
    title = f"{output.one_line(runs.kind_of(run))}  {run.pk}"
    lines = [heading(title), "", *_indent(_summary(run, records, around, inner))]
    if said := values.entries(run.details_text, values.Mask.of(run)):
        lines += [
            "",
            heading(_("Details")),
            *_indent(output.pairs([(name, value or '""') for name, value in said], inner)),
        ]
    lines += ["", heading(_("Steps")), *_indent(_steps(run, shown, inner, style))]
    if run.error:
        lines += ["", heading(_("Error") if run.status == run.Status.FAILED else _("Error of the last attempt"))]
        lines += _indent(_error(run.error))
    if overdue := timing.overdue(run):
        lines += ["", heading(_("Overdue step")), *_indent([overdue, *timing.stack(run).splitlines()])]
    if polls := _polls(run, inner):
        lines += ["", heading(_("Polls")), *_indent(polls)]
    if its_children := family.children(run, around, inner, paint(style)):
        lines += ["", heading(_("Child runs")), *_indent(its_children)]
    if sent := _events(run, around, inner):
        lines += ["", heading(_("Events")), *_indent(sent)]
    earlier = [line for row in shown if row.node and row.node.record for line in _earlier(row.node.record)]
    if earlier:
        lines += ["", heading(_("Earlier attempts")), *_indent(earlier)]
    if run.recovery_log_text:
        lines += ["", heading(_("Recoveries, each because a worker died")), *_indent(_recoveries(run))]
    return lines


def _summary(run: WorkflowRun, records: list[StepRecord], around: Around, width: int | None) -> list[str]:
    mask = values.Mask.of(run)
    status = steps.label_of(run.status)
    waiting = waits.of_records(run, around.open_children, records)
    retrying = runs.retrying_steps([run]).get(run.pk)
    detail = "" if run.status == run.Status.FAILED else runs.detail(run, retrying, waiting, pauses.held(run))
    return output.pairs(
        [
            (_("status"), f"{status}, {detail}" if detail else status),
            (_("created"), durations.full_moment(run.created_at)),
            (_("started"), durations.full_moment(run.started_at)),
            (_("finished"), durations.full_moment(run.finished_at)),
            (_("duration"), durations.duration(runs.took(run))),
            (_("timeout"), timing.timeout(run)),
            (_("start within"), timing.start_within(run)),
            (_("queue"), run.queue),
            (_("priority"), str(run.priority or "")),
            (_("key"), run.key or ""),
            (_("active key"), run.active_key or ""),
            (_("about"), tags.about(run)),
            (_("tags"), tags.line(run)),
            (_("limits"), ", ".join(limits.names_of(run))),
            (_("waits for"), "" if (standing := limits.standing_of(run)) is None else limits.line(standing)),
            (_("circle"), limits.circle_of(run)),
            (_("worker"), str(run.worker) if run.phase == run.Phase.TIMED and run.worker else ""),
            (_("canceled"), runs.canceled(run) if run.status == run.Status.CANCELING else ""),
            (_("paused"), durations.full_moment(run.paused_at)),
            (_("attempts"), str(run.attempts) if run.attempts > 1 else ""),
            (_("recoveries"), runs.recoveries(run)),
            (_("restart of"), str(run.restart_of_id or "")),
            (_("parent"), _parent(run)),
            (_("child runs"), children.counted(around.children)),
            (_("continued as"), str(run.continued_as_id or "")),
            (_("continues"), str(around.continues or "")),
            (_("events"), events.counted(around.events, around.untaken)),
            (_("input"), values.readable(run.input_text, mask, indent=None)),
            (_("output"), values.readable(run.output_text, mask, indent=None)),
        ],
        width,
    )


def _parent(run: WorkflowRun) -> str:
    if run.parent_id is None:
        return ""
    return _("%(parent)s, step “%(step)s”") % {"parent": run.parent_id, "step": children.path_of(run)}


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
    return output.with_notes(lines, [_note(row.node, planned) for row in shown], width)


def _cells(run: WorkflowRun, node: tree.Node) -> list[str]:
    record = node.record
    return [
        node.kind,
        node.status,
        "" if record is None else steps.attempts(record),
        durations.short_moment(tree.started_at(node)),
        durations.duration(tree.took(run, node)),
        "" if record is None else durations.short_moment(steps.wakes_at(record)),
    ]


def _maps(run: WorkflowRun, shown: Sequence[_Row]) -> dict[str, str | None]:
    """What is recorded of the finished maps among them."""
    maps = [row.node.path for row in shown if row.node and row.node.kind == tree.MAP and row.node.record]
    return dict(run.steps.filter(name__in=maps).values_list("name", "output_text")) if maps else {}


def _note(node: tree.Node | None, planned: Mapping[str, str | None]) -> str:
    """`12 succeeded, 2 failed, 3 never began of 17`: how the members of a group stand, or what else is waited for; or empty."""
    if node is not None and node.record is not None and not node.is_group:
        record = node.record
        child = steps.child_id(record)
        waiting = steps.until(record) if record.kind == StepRecord.Kind.EVENT else ""
        if mark := steps.mark(record):
            return mark
        return str(child) if child is not None else waiting or steps.taken(record)
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


def _events(run: WorkflowRun, around: Around, width: int | None) -> list[str]:
    """A table of the events of a run: those first that no wait has taken."""
    if not around.events:
        return []
    mask = values.Mask.of(run)
    header = [_("EVENT"), _("PAYLOAD"), _("SENT"), _("BY"), _("ID"), _("TAKEN")]
    rows = [_event(event, mask) for event in events.of_run(run, 0, _SHOWN, _LONGEST_PAYLOAD)]
    lines = output.table(header, rows, width, shrink=1)
    return [*lines, tree.and_more(around.events - len(rows))] if around.events > len(rows) else lines


def _event(event: Any, mask: values.Mask) -> list[str]:
    payload = _("%(size)d characters") % {"size": event.size}
    if event.shown_payload is not None:
        payload = values.readable(event.shown_payload, mask, indent=None)
    sent = durations.short_moment(event.sent_at)
    if event.run_id is None:
        sent = _("%(moment)s by key") % {"moment": sent}
    return [event.name, payload, sent, event.by, event.event_id or "", events.state_of(event)]


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
