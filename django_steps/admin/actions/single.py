"""Retry, cancel, pause, resume and restart, for one run: a page that asks, and the POST that does it.

A GET changes nothing. Pressed twice, the second press finds what the first one did and says so.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from ...errors import FailureWasHandled, InvalidState, StepsError, UnknownStep
from ...models import WorkflowRun
from ...presentation import pauses
from ...presentation.text import clipped
from ..base import RunAdminBase
from . import confirmation, restarting, retrying, undoing


def retry_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Retry a failed or canceled run, from the step that failed or from `from_step`."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_retry_permission)
    from_step = request.POST.get("from_step", request.GET.get("from_step", "")).replace("\0", "") or None
    if request.method == "POST":
        return _retry(admin, request, run, from_step)
    if not retrying.is_possible(run):
        text = _("A run that is %(status)s can't be retried.")
        return _refuse(
            admin, request, run, text if run.undoing is None else _("A run that is undone can't be retried.")
        )
    try:
        choice = retrying.retry_choice(run, from_step)
    except UnknownStep:
        return _back(admin, request, run, _no_such_step(from_step), messages.ERROR)
    may_restart = admin.has_start_permission(request, run)
    lines = list(choice.lines)
    if choice.button and run.parent_id is not None:
        lines.append(
            _(
                "It is a child run: what its parent has recorded of it doesn't change. A retry of the parent goes on with it."
            )
        )
    return confirmation.ask(
        admin,
        request,
        run,
        title=_("Retry"),
        lines=lines,
        button=choice.button,
        fields={"from_step": from_step} if from_step else {},
        choices=choice.choices,
        restart_url=admin.url_of("restart", run.pk) if choice.choices and may_restart else "",
    )


def cancel_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Cancel a run that has not ended."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_cancel_permission)
    if request.method == "POST":
        return _cancel(admin, request, run)
    if not undoing.may_be_canceled(run):
        return _refuse(admin, request, run, _("A run that is %(status)s can't be canceled."))
    lines = [_("The run will be canceled. What its steps have done stays done, and it can be retried later.")]
    if undoing.is_stuck(run):
        lines = [_("No live worker knows the workflow: nothing more can be undone. The run will be canceled as it is.")]
    if _has_open_children(run):
        lines.append(_("Its child runs that have not ended are canceled, too; until they have ended it is canceling."))
    if run.status == run.Status.RUNNING:
        lines.append(
            _("A worker is executing it now: the step that is being executed ends, and no further one begins.")
        )
    return confirmation.ask(
        admin, request, run, title=_("Cancel"), lines=lines, button=_("Cancel the run"), danger=True
    )


def pause_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Pause a run that has not ended, with a reason."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_pause_permission)
    if request.method == "POST":
        return _pause(admin, request, run)
    if run.status not in run.PAUSABLE or run.is_pausing:
        return _refuse(admin, request, run, _("A run that is %(status)s can't be paused."))
    lines = [
        _(
            "The run will be paused: no further step begins until somebody resumes it. Events are kept, and deadlines go on."
        )
    ]
    if run.status == run.Status.RUNNING:
        lines.append(_("A worker is executing it now: the step that is being executed ends first."))
    return confirmation.ask(
        admin, request, run, title=_("Pause"), lines=lines, button=_("Pause the run"), asks_reason=True
    )


def resume_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Let a run go on that is paused, or held by the pause of its queue or workflow."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_pause_permission)
    held = pauses.held(run)
    if run.is_finished or (run.paused_at is None and not held):
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s, and not paused."))
    if request.method == "POST":
        return _resume(admin, request, run)
    lines = [_("The run will go on.")]
    if held:
        lines.append(_("%(held)s: that will not hold this run any more, until it ends.") % {"held": held})
    return confirmation.ask(admin, request, run, title=_("Resume"), lines=lines, button=_("Resume the run"))


def restart_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Start a new run of the same workflow, with the same input."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_start_permission)
    if request.method == "POST":
        return _restart(admin, request, run)
    lines = [_("A new run of this workflow starts from the beginning, with the same input.")]
    if (other := restarting.active(run)) is not None:
        return _back(admin, request, other, _("Nothing was done: this run was started already."), messages.WARNING)
    if not run.is_finished:
        lines.append(_("This run has not ended: it continues, and both will do their work."))
    return confirmation.ask(
        admin,
        request,
        run,
        title=_("Restart"),
        lines=lines,
        button=_("Restart"),
        edit_url=f"{admin.url_of('start')}?run={run.pk}",
    )


# -- What a POST does -------------------------------------------------------------------------------


def _retry(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, from_step: str | None) -> HttpResponse:
    is_possible = retrying.is_possible(run)
    try:
        choice = retrying.retry_choice(run, from_step) if is_possible else None  # before the failure is reset
        run.retry(from_step=from_step, by=str(request.user))
    except FailureWasHandled:
        return HttpResponseRedirect(admin.url_of("retry", run.pk))  # the page that offers the choices
    except UnknownStep:
        return _back(admin, request, run, _no_such_step(from_step), messages.ERROR)
    except InvalidState as refused:
        run.refresh_from_db(fields=["status"])
        if run.status in run.RETRYABLE:  # runs that it has invoked can't be retried
            return _back(admin, request, run, _("Nothing was done. %(reason)s") % {"reason": refused}, messages.ERROR)
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    done = choice.done if choice is not None else _("Retried.")
    admin.log_change(request, run, done)
    return _back(admin, request, run, done, messages.SUCCESS)


def _cancel(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    if not undoing.may_be_canceled(run):
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    try:
        run.cancel(by=str(request.user))
    except InvalidState:
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    admin.log_change(request, run, _("Canceled."))
    done = _("Canceled.")
    if run.status == run.Status.CANCELING and run.worker_id is None and _has_open_children(run):
        done = _("Canceling: its child runs are canceled first.")
    elif run.status == run.Status.CANCELING:
        done = _("Canceling: the step that a worker executes now will end, and no further one begins.")
    return _back(admin, request, run, done, messages.SUCCESS)


def _pause(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    if run.status not in run.PAUSABLE or run.is_pausing:
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    reason = confirmation.reason_of(request)
    try:
        run.pause(reason=reason, by=str(request.user))
    except InvalidState:
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    admin.log_change(request, run, confirmation.with_reason(_("Paused."), reason))
    done = _("Paused.")
    if run.is_pausing:
        done = _("Pausing: the step that a worker executes now will end, and no further one begins.")
    return _back(admin, request, run, done, messages.SUCCESS)


def _resume(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    try:
        run.resume(by=str(request.user))
    except InvalidState:
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    admin.log_change(request, run, _("Resumed."))
    return _back(admin, request, run, _("Resumed."), messages.SUCCESS)


def _restart(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    try:
        new, is_new = restarting.restart(run)
    except StepsError as error:
        return _back(admin, request, run, str(error), messages.ERROR)
    if not is_new:
        return _back(admin, request, new, _("Nothing was done: this run was started already."), messages.WARNING)
    restarting.log(admin, request, run, new)
    return _back(admin, request, new, _("This is the new run."), messages.SUCCESS)


def _has_open_children(run: WorkflowRun) -> bool:
    return WorkflowRun.objects.filter(open_parent_id=run.pk).exists()


def _refuse(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, text: str) -> HttpResponse:
    run.refresh_from_db(fields=["status"])
    return _back(admin, request, run, text % {"status": run.get_status_display()}, messages.WARNING)


def _back(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, text: str, level: int) -> HttpResponseRedirect:
    admin.message_user(request, text, level)
    return HttpResponseRedirect(admin.url_of("change", run.pk))


def _no_such_step(name: str | None) -> str:
    return _("The run has recorded no step “%(step)s”.") % {"step": clipped(name or "", 60)}
