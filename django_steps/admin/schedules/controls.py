"""Pause, resume and run now: a page that asks, and the POST that does it. A GET changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from ...errors import StepsError
from ...models import WorkflowSchedule
from ...presentation.text import portable
from .base import ScheduleAdminBase

if TYPE_CHECKING:
    from collections.abc import Callable


_LONGEST_NOTE = 500  # characters


def pause_page(admin: ScheduleAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Pause a schedule, with a note for others."""
    schedule = _permitted(admin, request, object_id, admin.has_pause_permission)
    if schedule.is_paused:
        return _back(admin, request, schedule, _("Nothing was done: it is paused already."), messages.WARNING)
    if request.method != "POST":
        lines = [_("It starts no runs until somebody resumes it. A deploy does not resume it. Its active runs go on.")]
        return _ask(admin, request, schedule, _("Pause"), lines, _("Pause"), asks_why=True)
    reason = portable(request.POST.get("reason", "").replace("\0", "").strip()[:_LONGEST_NOTE])
    schedule.pause(reason, by=str(request.user.get_username()))
    done = _("Paused: %(reason)s") % {"reason": reason} if reason else _("Paused.")
    admin.log_change(request, schedule, done)
    return _back(admin, request, schedule, done, messages.SUCCESS)


def resume_page(admin: ScheduleAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Resume a paused schedule."""
    schedule = _permitted(admin, request, object_id, admin.has_pause_permission)
    if not schedule.is_paused:
        return _back(admin, request, schedule, _("Nothing was done: it is not paused."), messages.WARNING)
    if request.method != "POST":
        lines = [_("It starts runs again from its next time on. What it has left out is not made up for.")]
        return _ask(admin, request, schedule, _("Resume"), lines, _("Resume"))
    try:
        schedule.resume()
    except (TypeError, ValueError) as error:  # a damaged row
        return _back(admin, request, schedule, str(error), messages.ERROR)
    admin.log_change(request, schedule, _("Resumed."))
    return _back(admin, request, schedule, _("Resumed."), messages.SUCCESS)


def run_now_page(admin: ScheduleAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Start a run of a schedule now."""
    schedule = _permitted(admin, request, object_id, admin.has_run_permission)
    if request.method != "POST":
        lines = [_("A run starts now, beside those that are active. The next time of the schedule stays as it is.")]
        return _ask(admin, request, schedule, _("Run now"), lines, _("Run now"))
    try:
        run = schedule.run_now(by=str(request.user.get_username()))
    except StepsError as error:
        return _back(admin, request, schedule, str(error), messages.ERROR)
    admin.log_change(request, schedule, _("Run now: run %(id)s.") % {"id": run.pk})
    url = admin.url_of_run(request, run)
    if not url:
        return _back(admin, request, schedule, _("Started."), messages.SUCCESS)
    admin.message_user(request, _("Started. This is the run."), messages.SUCCESS)
    return HttpResponseRedirect(url)


def _permitted(
    admin: ScheduleAdminBase, request: HttpRequest, object_id: str, may: Callable[..., bool]
) -> WorkflowSchedule:
    schedule: WorkflowSchedule = admin.get_object(request, object_id)
    if not may(request, schedule):
        raise PermissionDenied
    return schedule


def _ask(
    admin: ScheduleAdminBase,
    request: HttpRequest,
    schedule: WorkflowSchedule,
    title: str,
    lines: list[str],
    button: str,
    *,
    asks_why: bool = False,
) -> HttpResponse:
    context: dict[str, Any] = {"lines": lines, "button": button, "asks_why": asks_why, "longest": _LONGEST_NOTE}
    back = admin.url_of("change", schedule.pk)
    return admin.render(
        request, admin.ask_template, title, subtitle=schedule.name, original=schedule, back_url=back, **context
    )


def _back(
    admin: ScheduleAdminBase, request: HttpRequest, schedule: WorkflowSchedule, text: str, level: int
) -> HttpResponse:
    admin.message_user(request, text, level)
    return HttpResponseRedirect(admin.url_of("change", schedule.pk))
