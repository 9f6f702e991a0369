"""The page of a schedule: whether it fires, its next times, its last runs, what it has skipped, and what defines it."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ...definitions import get_workflow, masked_keys
from ...errors import UnknownWorkflow
from ...models import WorkflowSchedule
from ...presentation import durations, runs
from ...presentation import schedules as texts
from ...presentation.values import UNREADABLE, Mask, plain
from .. import html
from .base import ScheduleAdminBase

_LAST_RUNS = 20


def schedule_page(admin: ScheduleAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Everything about one schedule."""
    schedule: WorkflowSchedule = admin.get_object(request, object_id)
    if not admin.has_view_permission(request, schedule):
        raise PermissionDenied
    said = schedule.skipped
    return admin.render(
        request,
        admin.change_form_template,
        schedule.name,
        original=schedule,
        schedule=schedule,
        when=texts.when(schedule),
        state=texts.state(schedule),
        tools=_tools(admin, request, schedule),
        summary=[(label, value) for label, value in _summary(schedule) if value not in ("", None)],
        times=[(_said(moment), _said(moment.astimezone(UTC))) for moment in texts.next_times(schedule)],
        zone=schedule.timezone or "UTC",
        runs=[_run(admin, request, run) for run in schedule.runs[:_LAST_RUNS]],
        skipped=[(html.moment(skip["slot"]), texts.reason_text(skip["reason"])) for skip in said["last"]],
        skipped_counts=texts.skipped(schedule),
        skipped_since=html.moment(said["since"]) if said["since"] else "",
        definition=[(label, value) for label, value in _definition(schedule) if value not in ("", None)],
        input=input_text(schedule),
    )


def input_text(schedule: WorkflowSchedule) -> str:
    """The input of its runs as JSON, masked; empty for none."""
    shown = shown_input(schedule)
    return "" if shown is None else json.dumps(shown, indent=2, ensure_ascii=False)


def shown_input(schedule: WorkflowSchedule) -> Any:
    """The input of its runs as plain JSON types, masked; None also where it can't be read."""
    try:
        return plain(schedule.input_text, mask_of(schedule))
    except UNREADABLE:
        return None


def mask_of(schedule: WorkflowSchedule) -> Mask:
    """Which keys of the input are hidden: all of them where this process doesn't know the workflow."""
    try:
        get_workflow(schedule.workflow)
    except UnknownWorkflow:
        return Mask(None)
    return Mask(masked_keys(schedule.workflow))


def _tools(admin: ScheduleAdminBase, request: HttpRequest, schedule: WorkflowSchedule) -> list[dict[str, str]]:
    tools = []
    if admin.has_run_permission(request, schedule) and not schedule.is_disabled:
        tools.append({"label": _("Run now"), "url": admin.url_of("run_now", schedule.pk), "kind": "primary"})
    if admin.has_pause_permission(request, schedule):
        verb, label = ("resume", _("Resume")) if schedule.is_paused else ("pause", _("Pause"))
        tools.append({"label": label, "url": admin.url_of(verb, schedule.pk), "kind": ""})
    if admin.has_edit_permission(request, schedule):
        tools.append({"label": _("Edit"), "url": admin.url_of("edit", schedule.pk), "kind": ""})
    if admin.has_delete_permission(request, schedule):
        tools.append({"label": _("Delete"), "url": admin.url_of("delete", schedule.pk), "kind": "danger"})
    tools.append({"label": _("History"), "url": admin.url_of("history", schedule.pk), "kind": ""})
    return tools


def _summary(schedule: WorkflowSchedule) -> list[tuple[Any, Any]]:
    return [
        (_("Workflow"), schedule.workflow),
        (_("Next time"), html.moment(schedule.next_at) if schedule.next_at else ""),
        (_("Last time"), html.moment(schedule.last_slot) if schedule.last_slot else ""),
        (_("Paused"), html.moment(schedule.paused_at) if schedule.is_paused else ""),
        (_("Paused by"), schedule.paused_by),
        (_("Defined in"), schedule.get_source_display()),
    ]


def _definition(schedule: WorkflowSchedule) -> list[tuple[Any, Any]]:
    return [
        (_("Cron"), schedule.cron),
        (_("Every"), schedule.every),
        (_("Time zone"), schedule.timezone),
        (_("Spread"), schedule.spread),
        (_("Begins after its time by"), _shift(schedule)),
        (_("Version"), schedule.version),
        (_("If the last run is still active"), schedule.get_overlap_display()),
        (_("If no worker was there"), schedule.get_missed_display()),
        (_("Paused after failures in a row"), schedule.pause_after),
        (_("Queue"), schedule.queue),
        (_("Priority"), schedule.priority),
        (_("Tags"), ", ".join(f"{name}={value}" for name, value in texts.tags(schedule))),
    ]


def _shift(schedule: WorkflowSchedule) -> str:
    try:
        shift = schedule.timing().shift_us
    except (TypeError, ValueError):
        return ""
    return durations.duration(shift / 1_000_000) if shift else ""


def _run(admin: ScheduleAdminBase, request: HttpRequest, run: Any) -> dict[str, Any]:
    return {
        "url": admin.url_of_run(request, run),
        "id": str(run.pk),
        "slot": html.moment(run.scheduled_for),
        "status": html.status_word(run.status),
        "took": html.duration(runs.took(run)) if run.started_at else "",
        "detail": runs.detail(run),
    }


def _said(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
