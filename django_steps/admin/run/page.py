"""The page of a run: what it does, how it went, and what can be done about it.

A constant number of queries, and a bounded size: a page of steps at a time. What is in their table is in `step_rows.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import router
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ...ledger import database
from ...ledger.relatives import Around
from ...models import StepRecord, Worker, WorkflowRun, diagnosis
from ...presentation import children as child_texts
from ...presentation import errors, limits, pauses, runs, timing, tree, values, waits
from ...presentation import events as event_texts
from ...presentation import steps as step_texts
from ...presentation.text import clipped
from .. import about, html
from ..actions import retrying, undoing
from ..base import RunAdminBase
from ..list import subject
from ..list import tags as tag_links
from ..list.changelist import BIG_COLUMNS
from ..sending import page as sending
from . import children, events, folds, logs, step_rows, timeline

_LOGS = 300  # logs of failed attempts that the timeline reads
_SHOWN_DETAILS, _LONGEST_DETAIL = 30, 300  # names, and characters of each: what is more is below the steps
_ANSWERS = 3  # buttons for events that the run waits for
_LONGEST_EVENT = 40  # characters of an event's name on a button


@dataclass
class Tool:
    """A button."""

    label: str
    url: str
    kind: str = ""
    hint: str = ""


@dataclass
class Shown:
    """A value of the run as text."""

    title: str
    text: str
    is_long: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_long = len(self.text) > 2000


def run_page(
    admin: RunAdminBase, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
) -> HttpResponse:
    """Everything about one run, read-only."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_view_permission)
    if request.method != "GET" and request.method != "HEAD":
        raise PermissionDenied
    mask = values.Mask.of(run)
    steps = _all_steps(run)
    root = tree.tree(run, steps)
    asked_for = step_rows.whole_step(request, steps)
    alone = None if asked_for is None else step_rows.alone(run, asked_for)
    page, shown = folds.choose(request, alone or root, is_live=not run.is_finished)
    can_retry = retrying.is_possible(run) and admin.has_retry_permission(request, run)
    shown_rows = step_rows.rows(admin, run, mask, shown, can_retry and run.undoing is None, whole=alone is not None)
    failing = runs.failing(run, runs.retrying_steps([run]).get(run.pk), errors.line(run.error))
    around = event_texts.around(run)
    details = values.entries(run.details_text, mask)
    context: dict[str, Any] = {
        "subtitle": " · ".join(subject.names_of(run)),
        "original": run,
        "run": run,
        "changelist_url": admin.url_of("changelist"),
        "is_live": not run.is_finished,
        "tools": list(_tools(admin, request, run, steps, can_retry)),
        "summary": [*_summary(admin, request, run, steps), *_family(admin, request, run, around)],
        "details": [(name, clipped(said, _LONGEST_DETAIL)) for name, said in details[:_SHOWN_DETAILS]],
        "status": html.status_word(run.status),
        "is_unknown": runs.is_unknown(run),
        "why_unclaimed": _why_unclaimed(run),
        "progress": html.progress_bar(run),
        "where": runs.where_now(run, failing, waits.of_records(run, around.open_children, steps), pauses.held(run)),
        "is_failing": bool(failing),
        "changed_body": step_texts.changed_body(steps),
        "overdue": timing.overdue(run),
        "stack": timing.stack(run),
        "error": run.error if run.status == run.Status.FAILED else None,
        "timeline": _timeline(run, root, steps),
        "steps": shown_rows,
        "is_tree": any(row.fold for row in shown_rows),
        "page": page,
        "children": children.section(admin, request, run, around),
        "events": events.section(admin, request, run, mask, around, step_rows.by_path(shown_rows)),
        "logs": logs.section(request, run),
        "values": list(_values(run, mask, details)),
        "mask": mask,
        "restart_of_url": admin.url_of("change", run.restart_of_id) if run.restart_of_id else "",
        "restarts": [
            (subject.short_id(other), other, admin.url_of("change", other.pk))
            for other in _restarts(run)
            if admin.has_view_permission(request, other)
        ],
        **(extra_context or {}),
    }
    return admin.render(request, admin.change_form_template, run.workflow, **context)


def _why_unclaimed(run: WorkflowRun) -> str:
    if run.is_finished:
        return ""
    unclaimed = diagnosis.why_unclaimed(database.connection_for(router.db_for_read(WorkflowRun)), run)
    return "" if unclaimed is None else unclaimed.text()


def _all_steps(run: WorkflowRun) -> list[StepRecord]:
    return list(run.steps.defer("output_text", "error_text", "attempt_log").order_by("position", "pk"))


def _failures(run: WorkflowRun) -> dict[int, list[Any]]:
    read = ("run", "position", "attempts", "status", "attempt_log")
    logged = run.steps.exclude(attempt_log="").only(*read).order_by("-position")[:_LOGS]
    return {step.position: step_texts.logged(step) for step in logged}


def _timeline(run: WorkflowRun, root: tree.Node, steps: list[StepRecord]) -> timeline.Timeline | None:
    if not steps and not run.current_step:
        return None
    return timeline.draw(run, root, steps, _failures(run))


def _values(run: WorkflowRun, mask: values.Mask, details: list[tuple[str, str]]) -> Iterator[Shown]:
    yield Shown(_("Input"), values.readable(run.input_text, mask))
    if run.output_text is not None:
        yield Shown(_("Output"), values.readable(run.output_text, mask))
    if len(details) > _SHOWN_DETAILS or any(clipped(said, _LONGEST_DETAIL) != said for _name, said in details):
        yield Shown(_("All details"), values.readable(run.details_text, mask))


def _restarts(run: WorkflowRun) -> list[WorkflowRun]:
    return list(run.restarts.defer(*BIG_COLUMNS).order_by("-pk")[:20])


# -- Buttons -----------------------------------------------------------------------------------------


def _tools(
    admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, steps: list[StepRecord], can_retry: bool
) -> Any:
    if can_retry:
        choice = retrying.retry_choice(run)
        label = _("Retry…") if choice.choices or not choice.button else choice.button
        yield Tool(label, admin.url_of("retry", run.pk), "primary", " ".join(choice.lines))
    if run.status != run.Status.SUCCEEDED and admin.has_send_event_permission(request, run):
        yield from _answers(admin, run)
    if admin.has_pause_permission(request, run):
        if run.status in run.PAUSABLE and not run.is_pausing:
            yield Tool(_("Pause…"), admin.url_of("pause", run.pk))
        if run.paused_at is not None or pauses.held(run):
            yield Tool(_("Resume"), admin.url_of("resume", run.pk), "primary")
    if undoing.may_be_canceled(run) and admin.has_cancel_permission(request, run):
        yield Tool(_("Cancel"), admin.url_of("cancel", run.pk))
    if undoing.may_be_undone(run, steps) and admin.has_cancel_permission(request, run):
        yield Tool(_("Cancel and undo…"), admin.url_of("undo", run.pk))
    if admin.has_start_permission(request, run):
        yield Tool(_("Restart"), admin.url_of("restart", run.pk))
    yield Tool(_("History"), admin.url_of("history", run.pk))
    if admin.has_delete_permission(request, run):
        yield Tool(_("Delete"), admin.url_of("delete", run.pk), "danger")


def _answers(admin: RunAdminBase, run: WorkflowRun) -> Iterator[Tool]:
    """A button for each of the first events that the run waits for, and one for any event."""
    waiting_for = run.waiting_for
    for event in waiting_for[:_ANSWERS]:
        label = _("Send “%(event)s”…") % {"event": clipped(event, _LONGEST_EVENT)}
        yield Tool(label, sending.url_of(admin, run, event), "primary", _("The run waits for this event."))
    if len(waiting_for) != 1:
        yield Tool(_("Send an event…"), admin.url_of("send_event", run.pk))


# -- The summary -------------------------------------------------------------------------------------


def _summary(
    admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, steps: list[StepRecord]
) -> list[tuple[Any, Any]]:
    lines: list[tuple[Any, Any]] = [
        (_("ID"), str(run.pk)),
        (_("Version"), run.version),
        (_("Queue"), run.queue),
        (_("Priority"), run.priority or ""),
        (_("About"), about.object_of(admin, request, run)),
        (_("Tags"), tag_links.links(admin.url_of, run, with_about=False)),
        (_("Key"), run.key),
        (_("Active key"), run.active_key),
        (_("Schedule"), run.schedule),
        (_("Scheduled for"), html.moment(run.scheduled_for) if run.scheduled_for else ""),
        (_("Created"), html.moment(run.created_at)),
        (_("Started"), html.moment(run.started_at) if run.started_at else ""),
        (_("Timeout"), timing.timeout(run)),
        (_("Start within"), timing.start_within(run)),
        (_("Ended"), html.moment(run.finished_at) if run.finished_at else ""),
        (_("Duration"), html.duration(runs.took(run)) if run.started_at else ""),
        (_("Recorded"), step_texts.counted_kinds(steps)),
        (_("Attempts"), run.attempts if run.attempts > 1 else ""),
        (_("Recoveries"), runs.recoveries(run)),
        (_("Limits"), ", ".join(limits.names_of(run))),
        (_("Waits for"), _limit(admin, request, run)),
        (_("Circle of limits"), limits.circle_of(run)),
        (_("Worker"), _worker(run)),
        (_("Paused"), html.moment(run.paused_at) if run.paused_at else ""),
        (_("Paused by"), run.paused_by),
        (_("Why it is paused"), run.pause_reason),
        (_("Canceled by"), run.canceled_by),
        (_("Reason"), run.cancel_reason),
    ]
    return [(label, value) for label, value in lines if value not in ("", None)]


def _limit(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> SafeString | str:
    """The limit that a run is in line for, and by which runs its slots are taken."""
    standing = limits.standing_of(run)
    if standing is None:
        return ""
    holders = WorkflowRun.objects.filter(pk__in=standing.holders).defer(*BIG_COLUMNS) if standing.holders else ()
    links = [
        format_html('<a href="{}">{}</a>', admin.url_of("change", holder.pk), subject.title_of(holder))
        for holder in holders
        if admin.has_view_permission(request, holder)
    ]
    said = limits.line(standing._replace(holders=()))
    if not links or standing.at_once is None:
        return said
    return format_html(_("{}, taken by {}"), said, format_html_join(", ", "{}", ((link,) for link in links)))


def _family(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, around: Around) -> list[tuple[Any, Any]]:
    """Whose child the run is, and which runs it goes on as or continues."""
    lines: list[tuple[Any, Any]] = []
    if run.parent_id is not None:
        lines.append((_("Parent"), _parent(admin, request, run)))
    for label, other in ((_("Continued as"), run.continued_as_id), (_("Continues"), around.continues)):
        if other is not None:
            lines.append((label, format_html('<a href="{}">{}</a>', admin.url_of("change", other), other)))
    return lines


def _parent(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> SafeString:
    """The parent with the step of it that has invoked the run."""
    step = child_texts.path_of(run)
    parent = WorkflowRun.objects.filter(pk=run.parent_id).defer(*BIG_COLUMNS).first()
    if parent is None:
        return format_html("{} ({})", run.parent_id, _("deleted"))
    text = _("%(parent)s, step “%(step)s”")
    if run.parent_item is None:
        text = _("%(parent)s, which has another run in its place for step “%(step)s”")
    named: Any = subject.title_of(parent)
    if admin.has_view_permission(request, parent):
        named = format_html('<a href="{}">{}</a>', admin.url_of("change", parent.pk), named)
    return format_html(text % {"parent": "{}", "step": "{}"}, named, step)


def _worker(run: WorkflowRun) -> str:
    if run.worker_id is None or run.phase != run.Phase.TIMED:
        return ""
    worker = Worker.objects.filter(pk=run.worker_id).first()
    return str(worker) if worker is not None else ""
