"""The pages that start a workflow: choose one, fill in its form, and go to the run."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from ...definitions import Workflow, get_workflow, registered
from ...errors import UnknownWorkflow
from ...models import WorkflowRun
from ...presentation.text import clipped
from ...values.types import TAG
from .. import html
from ..base import RunAdminBase
from . import input_fields
from .form import StartForm

_LONGEST_MESSAGE = 300  # characters; it repeats the address


def start_page(admin: RunAdminBase, request: HttpRequest) -> HttpResponse:
    """Choose a workflow; then the form; then its run."""
    if not admin.has_start_permission(request):
        raise PermissionDenied
    run_id = request.GET.get("run")
    pattern = admin.get_permitted(request, run_id, admin.has_start_permission) if run_id else None
    try:
        workflow = _chosen(request, pattern)
    except UnknownWorkflow as error:
        admin.message_user(request, clipped(str(error), _LONGEST_MESSAGE), messages.ERROR)
        return HttpResponseRedirect(admin.url_of("start"))
    if workflow is None:
        return _page(admin, request, _("Start a workflow"), choices=_choices(admin))
    form = StartForm(workflow, pattern, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() and (run := form.start()) is not None:
        return _started(admin, request, run)
    title = _("Restart with another input") if pattern else _("Start %(workflow)s") % {"workflow": workflow.name}
    loses_types = pattern is not None and f'"{TAG}":' in pattern.input_text and input_fields.members(workflow) is None
    return _page(admin, request, title, form=form, workflow=workflow, pattern=pattern, loses_types=loses_types)


def _started(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
    if run.created:
        admin.log_addition(request, run, _("Started."))
        admin.message_user(request, _("Started. This is the run."), messages.SUCCESS)
    else:
        text = _("Nothing was started: this run was started already with the same key.")
        admin.message_user(request, text, messages.WARNING)
    return HttpResponseRedirect(admin.url_of("change", run.pk))


def _chosen(request: HttpRequest, pattern: WorkflowRun | None) -> Workflow[Any, Any] | None:
    if pattern is not None:
        return get_workflow(pattern.workflow, pattern.version)
    name = request.GET.get("workflow")
    return get_workflow(name, request.GET.get("version", "")) if name else None


def _choices(admin: RunAdminBase) -> list[tuple[Workflow[Any, Any], str, str]]:
    """Each workflow, the address of its form, and the first line of what it says of itself."""
    start = admin.url_of("start")
    return [
        (
            workflow,
            f"{start}?{html.query(workflow=workflow.name, version=workflow.version)}",
            (workflow.__doc__ or "").strip().partition("\n")[0],
        )
        for workflow in registered()
    ]


def _page(admin: RunAdminBase, request: HttpRequest, title: str, **extra: Any) -> TemplateResponse:
    form, pattern = extra.get("form"), extra.get("pattern")
    return admin.render(
        request,
        admin.start_template,
        title,
        media=admin.media + form.media if form is not None else admin.media,
        errors=form.errors if form is not None else None,
        back_url=admin.url_of("change", pattern.pk) if pattern is not None else admin.url_of("start"),
        **extra,
    )
