"""Cancel and undo, for one run: a page that lists what will be undone, and the POST that asks for it."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from ...errors import InvalidState
from ...models import StepRecord, WorkflowRun
from ...presentation import undos
from ..base import RunAdminBase
from . import confirmation

_NAMED = 30  # steps that are listed
UNDOABLE = (*WorkflowRun.CANCELABLE, WorkflowRun.Status.FAILED)


def undo_page(admin: RunAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Cancel a run that has not succeeded, and undo what its steps have done."""
    run: WorkflowRun = admin.get_permitted(request, object_id, admin.has_cancel_permission)
    if request.method == "POST":
        return _undo(admin, request, run)
    if run.status not in UNDOABLE:
        return _refuse(admin, request, run, _("A run that is %(status)s can't be undone."))
    return confirmation.ask(
        admin,
        request,
        run,
        title=_("Cancel and undo"),
        lines=_lines(run),
        button=_("Cancel and undo"),
        danger=True,
        asks_reason=True,
    )


def may_be_undone(run: WorkflowRun, records: Iterable[StepRecord]) -> bool:
    """Whether the button is of use: the run has not succeeded, and something is recorded that has an undo."""
    return run.status in UNDOABLE and bool(undos.names(records))


def may_be_canceled(run: WorkflowRun) -> bool:
    """Whether a run can be canceled plainly: it has not ended, or no live worker knows how to undo what it has done."""
    return run.status in run.CANCELABLE or is_stuck(run)


def is_stuck(run: WorkflowRun) -> bool:
    """Whether a run is to be undone, and was set aside since no live worker knows its workflow."""
    return run.status == run.Status.CANCELING and run.undoing is not None and run.phase == run.Phase.UNKNOWN


def _lines(run: WorkflowRun) -> list[str]:
    names = undos.names(run.steps.defer("output_text", "error_text", "attempt_log"))
    shown = ", ".join(f"“{name}”" for name in names[:_NAMED]) + ("…" if len(names) > _NAMED else "")
    if names:
        lines = [
            _("The run will be canceled, and these steps will be undone, in this order: %(steps)s.") % {"steps": shown}
        ]
    else:
        lines = [_("The run will be canceled. No step is recorded that is known to have an undo.")]
    lines.append(
        _(
            "It can't be known here which of them the present code of the workflow still comes to: the others are not undone,"
            " and the run fails and lists them. A step that got its undo after it was recorded is undone, too."
        )
    )
    if run.status == run.Status.RUNNING:
        lines.append(
            _("A worker is executing it now: the step that is being executed ends first, and is undone as well.")
        )
    lines.append(_("An undone run can't be retried, only restarted."))
    return lines


def _undo(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    if run.status not in UNDOABLE:
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    reason = confirmation.reason_of(request)
    try:
        run.cancel(reason=reason, by=str(request.user), undo=True)
    except InvalidState:
        return _refuse(admin, request, run, _("Nothing was done: the run is %(status)s already."))
    admin.log_change(request, run, confirmation.with_reason(_("Canceled with undo."), reason))
    done = _("Canceled.") if run.is_finished else _("Canceling: what its steps have done is being undone.")
    admin.message_user(request, done, messages.SUCCESS)
    return HttpResponseRedirect(admin.url_of("change", run.pk))


def _refuse(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, text: str) -> HttpResponse:
    run.refresh_from_db(fields=["status"])
    admin.message_user(request, text % {"status": run.get_status_display()}, messages.WARNING)
    return HttpResponseRedirect(admin.url_of("change", run.pk))
