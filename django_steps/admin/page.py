"""The page of a run: what it does, how it went, and what can be done about it.

A constant number of queries, and a bounded size: a page of steps at a time, and no value larger than `SHOWN` characters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.db.models import Case, F, When
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from ..models import StepRecord, Worker, WorkflowRun
from . import columns, display, retrying, timeline

if TYPE_CHECKING:
    from .runs import WorkflowRunAdmin

PER_PAGE = 100
SHOWN = 20_000  # characters of one step's value; larger ones are shown on a page of their own
_FIRST_LINE = 120
_LOGS = 300  # logs of failed attempts that the timeline reads


@dataclass
class StepRow:
    """One step in the table."""

    record: Any
    status: str
    result: str
    started: Any
    took: str
    errors: list[dict[str, Any]]
    retry_url: str = ""
    size: int = 0
    whole_url: str = ""

    @property
    def first_line(self) -> str:
        return display.clipped(self.result, _FIRST_LINE)


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
    admin: WorkflowRunAdmin, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
) -> HttpResponse:
    """Everything about one run, read-only."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    run: WorkflowRun = admin.get_object(request, object_id)
    if request.method != "GET" and request.method != "HEAD":
        raise PermissionDenied
    mask = display.Mask.of(run)
    steps = _all_steps(run)
    chosen = _chosen_page(request, steps)
    can_retry = admin.has_retry_permission(request) and run.status in (run.Status.FAILED, run.Status.CANCELED)
    context: dict[str, Any] = {
        **admin.admin_site.each_context(request),
        "title": run.workflow,
        "subtitle": " · ".join(columns.names_of(run)),
        "opts": admin.opts,
        "original": run,
        "run": run,
        "media": admin.media,
        "has_view_permission": True,
        "changelist_url": admin.url_of("changelist"),
        "is_live": not run.is_finished or run.phase != run.Phase.ENDED,
        "tools": list(_tools(admin, request, run, can_retry)),
        "summary": _summary(admin, run),
        "status": display.status_word(run.status, run.get_status_display()),
        "is_parked": run.phase == run.Phase.PARKED,
        "progress": display.progress_bar(run.progress_done, run.progress_total) if not _is_done(run) else "",
        "where": columns.where_now(run),
        "error": run.error if run.status == run.Status.FAILED else None,
        "timeline": timeline.draw(run, steps, _failures(run), PER_PAGE) if steps or run.current_step else None,
        "steps": _rows(admin, request, run, mask, chosen, can_retry),
        "page": chosen,
        "values": [Shown(_("Input"), display.readable(run.input_text, mask))]
        + ([Shown(_("Output"), display.readable(run.output_text, mask))] if run.output_text is not None else []),
        "mask": mask,
        "restart_of_url": admin.url_of("change", run.restart_of_id) if run.restart_of_id else "",
        "restarts": [(columns.short_id(other), other, admin.url_of("change", other.pk)) for other in _restarts(run)],
        **(extra_context or {}),
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, admin.change_form_template, context)


def _is_done(run: WorkflowRun) -> bool:
    return bool(run.status == run.Status.SUCCEEDED)


def _all_steps(run: WorkflowRun) -> list[StepRecord]:
    return list(run.steps.defer("output_text", "error_text", "attempt_log").order_by("position"))


def _failures(run: WorkflowRun) -> dict[int, list[Any]]:
    read = ("run", "position", "attempts", "status", "attempt_log")
    logged = run.steps.exclude(attempt_log="").only(*read).order_by("-position")[:_LOGS]
    return {step.position: _attempts(step) for step in logged}


def _attempts(step: StepRecord) -> list[dict[str, Any]]:
    try:
        return list(step.earlier_attempts)
    except (ValueError, TypeError, LookupError):
        return []


def _restarts(run: WorkflowRun) -> list[WorkflowRun]:
    return list(run.restarts.only("restart_of", "workflow", "status").order_by("-pk")[:20])


# -- Buttons -----------------------------------------------------------------------------------------


def _tools(admin: WorkflowRunAdmin, request: HttpRequest, run: WorkflowRun, can_retry: bool) -> Any:
    if can_retry:
        choice = retrying.retry_choice(run)
        label = _("Retry…") if choice.choices else choice.button
        yield Tool(label, admin.url_of("retry", run.pk), "primary", " ".join(choice.lines))
    if not run.is_finished and admin.has_cancel_permission(request):
        yield Tool(_("Cancel"), admin.url_of("cancel", run.pk))
    if admin.has_add_permission(request):
        yield Tool(_("Run again"), admin.url_of("restart", run.pk))
    yield Tool(_("History"), admin.url_of("history", run.pk))
    if admin.has_delete_permission(request, run):
        yield Tool(_("Delete"), admin.url_of("delete", run.pk), "danger")


# -- The summary -------------------------------------------------------------------------------------


def _summary(admin: WorkflowRunAdmin, run: WorkflowRun) -> list[tuple[Any, Any]]:
    lines: list[tuple[Any, Any]] = [
        (_("ID"), str(run.pk)),
        (_("Version"), run.version),
        (_("Queue"), run.queue),
        (_("Priority"), run.priority or ""),
        (_("Key"), run.key),
        (_("Created"), display.moment(run.created_at)),
        (_("Started"), display.moment(run.started_at) if run.started_at else ""),
        (_("Ended"), display.moment(run.finished_at) if run.finished_at else ""),
        (_("Duration"), display.duration(columns.took(run)) if run.started_at else ""),
        (_("Attempts"), columns.tries(run)),
        (_("Worker"), _worker(run)),
    ]
    return [(label, value) for label, value in lines if value not in ("", None)]


def _worker(run: WorkflowRun) -> str:
    if run.worker_id is None or run.phase != run.Phase.TIMED:
        return ""
    worker = Worker.objects.filter(pk=run.worker_id).first()
    return str(worker) if worker is not None else ""


# -- The table of steps ------------------------------------------------------------------------------


def _chosen_page(request: HttpRequest, steps: Sequence[StepRecord]) -> Page[StepRecord]:
    """The page that is asked for; else the one with the first failed step, else the first."""
    if (number := request.GET.get("step", "")).isdigit():
        steps = [step for step in steps if step.position == int(number)]
    failed = next((index for index, step in enumerate(steps) if step.status == StepRecord.Status.FAILED), 0)
    return Paginator(steps, PER_PAGE).get_page(request.GET.get("steps") or 1 + failed // PER_PAGE)


def _rows(
    admin: WorkflowRunAdmin,
    request: HttpRequest,
    run: WorkflowRun,
    mask: display.Mask,
    chosen: Page[StepRecord],
    can_retry: bool,
) -> list[StepRow]:
    limit = SHOWN if "step" not in request.GET else 1 << 30
    records = (
        StepRecord.objects.filter(pk__in=[step.pk for step in chosen])
        .defer("output_text")
        .annotate(size=Length("output_text"))
        .annotate(shown_output=Case(When(size__lte=limit, then=F("output_text"))))
        .order_by("position")
    )
    retry_url = admin.url_of("retry", run.pk) if can_retry else ""
    return [_step_row(run, record, mask, retry_url) for record in records]


def _step_row(run: WorkflowRun, record: Any, mask: display.Mask, retry_url: str) -> StepRow:
    row = StepRow(
        record=record,
        status=_step_status(run, record),
        result=display.readable(record.shown_output, mask),
        started=display.moment(record.started_at),
        took=display.duration(_took(run, record)),
        errors=_errors(record),
        retry_url=f"{retry_url}?{display.query(from_step=record.name)}" if retry_url else "",
    )
    if record.size and record.shown_output is None:
        row.size, row.whole_url = record.size, f"?step={record.position}#step-{record.position}"
    return row


def _step_status(run: WorkflowRun, record: StepRecord) -> str:
    """A sleep is recorded as succeeded when it begins: until its time is over, it says what the run says."""
    if _is_cut_short(run, record) and run.status in (run.Status.SLEEPING, run.Status.CANCELED):
        return display.status_word(run.status, run.get_status_display())
    return display.status_word(record.status, record.get_status_display())


def _is_cut_short(run: WorkflowRun, record: StepRecord) -> bool:
    """Whether a sleep's time was not over when the run ended, or is not yet."""
    if record.kind != StepRecord.Kind.SLEEP or record.wakes_at is None:
        return False
    return bool(record.wakes_at > (run.finished_at or timezone.now()))


def _took(run: WorkflowRun, record: StepRecord) -> Any:
    end = record.wakes_at if record.kind == StepRecord.Kind.SLEEP else record.finished_at
    if run.finished_at is not None and _is_cut_short(run, record):
        end = run.finished_at
    return end - record.started_at if end is not None else None


def _errors(record: StepRecord) -> list[dict[str, Any]]:
    """What went wrong in each attempt, the last one first.

    A retry of the run counts from 1 again: attempts before it have no number that would fit the count shown.
    """
    found = []
    if record.error_text is not None:
        found.append(_error(record.error, record.attempts, record.finished_at))
    for entry in reversed(_attempts(record)):
        number = 0 if entry["before_retry"] else entry["attempt"]
        found.append(_error(entry["error"], number, entry["finished_at"]))
    return [error for error in found if error]


def _error(error: dict[str, Any] | None, attempt: int, at: Any) -> dict[str, Any]:
    if error is None:
        return {}
    label = _("Attempt %(number)d") % {"number": attempt} if attempt else _("An earlier attempt")
    line = display.error_line(json.dumps({"type": error["type"], "message": error["message"]}))
    return {**error, "label": label, "line": line, "at": display.moment(at)}
