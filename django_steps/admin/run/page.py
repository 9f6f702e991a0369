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
from django.utils.translation import gettext as _

from ...ledger import database
from ...models import StepRecord, Worker, WorkflowRun, diagnosis
from ...presentation import errors, runs, tree, values
from ...presentation import steps as step_texts
from .. import html
from ..actions import retrying
from ..base import RunAdminBase
from ..list import subject
from ..list.changelist import BIG_COLUMNS
from . import folds, step_rows, timeline

_LOGS = 300  # logs of failed attempts that the timeline reads


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
    alone = _asked_for(request, run, steps)
    page, shown = folds.choose(request, alone or root, is_live=not run.is_finished)
    can_retry = run.status in run.RETRYABLE and admin.has_retry_permission(request, run)
    shown_rows = step_rows.rows(admin, run, mask, shown, can_retry, whole=alone is not None)
    failing = runs.failing(run, runs.retrying_steps([run]).get(run.pk), errors.line(run.error))
    context: dict[str, Any] = {
        "subtitle": " · ".join(subject.names_of(run)),
        "original": run,
        "run": run,
        "changelist_url": admin.url_of("changelist"),
        "is_live": not run.is_finished,
        "tools": list(_tools(admin, request, run, can_retry)),
        "summary": _summary(run, steps),
        "status": html.status_word(run.status),
        "is_unknown": runs.is_unknown(run),
        "why_unclaimed": _why_unclaimed(run),
        "progress": html.progress_bar(run),
        "where": runs.where_now(run, failing),
        "is_failing": bool(failing),
        "error": run.error if run.status == run.Status.FAILED else None,
        "timeline": _timeline(run, root, steps),
        "steps": shown_rows,
        "is_tree": any(row.fold for row in shown_rows),
        "page": page,
        "values": list(_values(run, mask)),
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
    return list(run.steps.defer("output_text", "error_text", "attempt_log").order_by("position"))


def _failures(run: WorkflowRun) -> dict[int, list[Any]]:
    read = ("run", "position", "attempts", "status", "attempt_log")
    logged = run.steps.exclude(attempt_log="").only(*read).order_by("-position")[:_LOGS]
    return {step.position: step_texts.logged(step) for step in logged}


def _asked_for(request: HttpRequest, run: WorkflowRun, steps: list[StepRecord]) -> tree.Node | None:
    """The one step that is asked for, whose result is shown however large it is."""
    position = step_rows.whole_step(request)
    found = next((step for step in steps if step.position == position), None)
    return None if found is None else step_rows.alone(run, found)


def _timeline(run: WorkflowRun, root: tree.Node, steps: list[StepRecord]) -> timeline.Timeline | None:
    if not steps and not run.current_step:
        return None
    return timeline.draw(run, root, steps, _failures(run))


def _values(run: WorkflowRun, mask: values.Mask) -> Iterator[Shown]:
    yield Shown(_("Input"), values.readable(run.input_text, mask))
    if run.output_text is not None:
        yield Shown(_("Output"), values.readable(run.output_text, mask))


def _restarts(run: WorkflowRun) -> list[WorkflowRun]:
    return list(run.restarts.defer(*BIG_COLUMNS).order_by("-pk")[:20])


# -- Buttons -----------------------------------------------------------------------------------------


def _tools(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, can_retry: bool) -> Any:
    if can_retry:
        choice = retrying.retry_choice(run)
        label = _("Retry…") if choice.choices else choice.button
        yield Tool(label, admin.url_of("retry", run.pk), "primary", " ".join(choice.lines))
    if run.status in run.CANCELABLE and admin.has_cancel_permission(request, run):
        yield Tool(_("Cancel"), admin.url_of("cancel", run.pk))
    if admin.has_start_permission(request, run):
        yield Tool(_("Restart"), admin.url_of("restart", run.pk))
    yield Tool(_("History"), admin.url_of("history", run.pk))
    if admin.has_delete_permission(request, run):
        yield Tool(_("Delete"), admin.url_of("delete", run.pk), "danger")


# -- The summary -------------------------------------------------------------------------------------


def _summary(run: WorkflowRun, steps: list[StepRecord]) -> list[tuple[Any, Any]]:
    lines: list[tuple[Any, Any]] = [
        (_("ID"), str(run.pk)),
        (_("Version"), run.version),
        (_("Queue"), run.queue),
        (_("Priority"), run.priority or ""),
        (_("Key"), run.key),
        (_("Created"), html.moment(run.created_at)),
        (_("Started"), html.moment(run.started_at) if run.started_at else ""),
        (_("Ended"), html.moment(run.finished_at) if run.finished_at else ""),
        (_("Duration"), html.duration(runs.took(run)) if run.started_at else ""),
        (_("Recorded"), step_texts.counted_kinds(steps)),
        (_("Attempts"), run.attempts if run.attempts > 1 else ""),
        (_("Recoveries"), runs.recoveries(run)),
        (_("Worker"), _worker(run)),
        (_("Canceled by"), run.canceled_by),
        (_("Reason"), run.cancel_reason),
    ]
    return [(label, value) for label, value in lines if value not in ("", None)]


def _worker(run: WorkflowRun) -> str:
    if run.worker_id is None or run.phase != run.Phase.TIMED:
        return ""
    worker = Worker.objects.filter(pk=run.worker_id).first()
    return str(worker) if worker is not None else ""
