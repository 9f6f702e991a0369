"""Pausing and resuming queues and workflows from the overview: a page that asks, and the POST that does it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import widgets
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...definitions import registered
from ...errors import InvalidName
from ...models import WorkflowPause, WorkflowRun
from ...presentation import pauses
from .. import html
from ..actions import confirmation
from ..base import RunAdminBase
from ..list.filters import queue_names


class PauseForm(forms.Form):
    """What is to be paused, and why."""

    kind = forms.ChoiceField(label=gettext_lazy("What"), choices=WorkflowPause.Kind.choices)
    name = forms.CharField(
        label=gettext_lazy("Name"), max_length=255, widget=widgets.AdminTextInputWidget({"list": "steps-names"})
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=2000, required=False, widget=widgets.AdminTextInputWidget
    )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if self.cleaned_data.get("kind") == WorkflowPause.Kind.WORKFLOW and not _is_workflow(name):
            raise ValidationError(_("There is no workflow of this name."))
        return name


def _is_workflow(name: str) -> bool:
    is_here = any(workflow.name == name for workflow in registered())
    return is_here or WorkflowRun.objects.filter(workflow=name).exists()


def context(admin: RunAdminBase, request: HttpRequest) -> dict[str, Any]:
    """What the overview shows of pauses."""
    listed = admin.url_of("changelist")
    return {
        "paused": [
            (pause, f"{listed}?{html.query(**{pause.kind: pause.name})}", admin.url_of("resume_more", pause.pk))
            for pause in pauses.all_pauses()
        ],
        "may_pause": admin.has_pause_permission(request),
        "pause_url": admin.url_of("pause_more"),
    }


def pause_page(admin: RunAdminBase, request: HttpRequest) -> HttpResponse:
    """Pause a queue or a workflow."""
    if not admin.has_pause_permission(request):
        raise PermissionDenied
    form = PauseForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and (pause := _paused(request, form)) is not None:
        if not pause.created:
            return _back(admin, request, _("Nothing was done: it is paused already."), messages.WARNING)
        admin.log_addition(request, pause, confirmation.with_reason(_("Paused."), pause.reason))
        return _back(admin, request, _("Paused: %(what)s.") % {"what": pause})
    return admin.render(
        request,
        admin.confirmation_template,
        _("Pause a queue or a workflow"),
        lines=[
            _(
                "Workers take no more runs of it until it is resumed, also after a deployment. What they execute goes on to"
                " its end, or until it is suspended."
            )
        ],
        form=form,
        names=_names(),
        button=_("Pause"),
        back_url=admin.url_of("overview"),
    )


def _paused(request: HttpRequest, form: PauseForm) -> WorkflowPause | None:
    said = form.cleaned_data
    pause = (
        WorkflowPause.objects.pause_queue
        if said["kind"] == WorkflowPause.Kind.QUEUE
        else WorkflowPause.objects.pause_workflow
    )
    try:
        return pause(said["name"], said["reason"], str(request.user))
    except InvalidName as error:
        form.add_error("name", str(error))
        return None


def _names() -> Iterable[str]:
    """Queues and workflows that one may want to pause."""
    return sorted({*queue_names(), *(workflow.name for workflow in registered())})


def resume_page(admin: RunAdminBase, request: HttpRequest, number: int) -> HttpResponse:
    """Resume a queue or a workflow."""
    if not admin.has_pause_permission(request):
        raise PermissionDenied
    pause = WorkflowPause.objects.filter(pk=number).first()
    if pause is None:
        return _back(admin, request, _("Nothing was done: it is not paused any more."), messages.WARNING)
    if request.method == "POST":
        text = str(pause)
        admin.log_change(request, pause, _("Resumed."))
        is_done = pause.resume(by=str(request.user))
        done = (
            _("Resumed: %(what)s.") % {"what": text} if is_done else _("Nothing was done: it is not paused any more.")
        )
        return _back(admin, request, done, messages.SUCCESS if is_done else messages.WARNING)
    said = pauses.said(pause)
    return admin.render(
        request,
        admin.confirmation_template,
        _("Resume"),
        lines=[f"{said[:1].upper()}{said[1:]}, {pauses.why(pause)}.", _("Workers will take runs of it again.")],
        button=_("Resume"),
        back_url=admin.url_of("overview"),
    )


def _back(admin: RunAdminBase, request: HttpRequest, text: str, level: int = messages.SUCCESS) -> HttpResponse:
    admin.message_user(request, text, level)
    return HttpResponseRedirect(admin.url_of("overview"))
