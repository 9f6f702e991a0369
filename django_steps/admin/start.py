"""Starting a workflow from the admin: choose one, give its input, press once or twice, and one run starts.

A run can be taken as the pattern, to run it again with another input. Masked values are neither shown nor lost: where
the mask is left in place, the value of that run is used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.contrib.admin import widgets
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..definitions import PRIORITIES, Workflow, get_workflow, registered
from ..durations import to_timedelta
from ..errors import InvalidInput, StepsError, UnknownWorkflow
from ..models import WorkflowRun
from ..values.search import MASK
from ..values.types import TAG
from . import display, input_fields, own_keys

if TYPE_CHECKING:
    from .runs import WorkflowRunAdmin


class StartForm(forms.Form):
    """How a run is started; its input is in further fields, made for the workflow."""

    queue = forms.CharField(label=gettext_lazy("Queue"), widget=widgets.AdminTextInputWidget)
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        min_value=PRIORITIES[0],
        max_value=PRIORITIES[-1],
        widget=widgets.AdminIntegerFieldWidget,
        help_text=gettext_lazy("-100 to 100; larger ones go first."),
    )
    key = forms.CharField(
        label=gettext_lazy("Key"),
        required=False,
        widget=widgets.AdminTextInputWidget,
        help_text=gettext_lazy("Starting the workflow with a key again gives the first run. Empty: a new run."),
    )
    delay = forms.CharField(
        label=gettext_lazy("Delay"),
        required=False,
        widget=widgets.AdminTextInputWidget,
        help_text=gettext_lazy("Such as 30s, 10m, 2h or 1d. Empty: at once."),
    )
    # Pressing twice sends the same one twice, and starts one run.
    press = forms.UUIDField(widget=forms.HiddenInput, required=False)

    def __init__(self, workflow: Workflow[Any, Any], pattern: WorkflowRun | None, data: Any = None) -> None:
        self.workflow, self.pattern = workflow, pattern
        super().__init__(data, initial=self._initial(), label_suffix="")
        self.input_names = list(input_fields.fields_for(workflow))
        self.fields = {**input_fields.fields_for(workflow), **self.fields}

    @property
    def rows(self) -> list[tuple[forms.BoundField, bool]]:
        """The visible fields, each with whether it belongs to the input."""
        return [(field, field.name in self.input_names) for field in self.visible_fields()]

    def clean_delay(self) -> str | None:
        value: str = self.cleaned_data["delay"]
        if not value:
            return None
        try:
            to_timedelta(value)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        return value

    def start(self) -> WorkflowRun | None:
        """The run, or None with the form saying what is wrong."""
        cleaned = self.cleaned_data
        value = input_fields.collect(self.workflow, cleaned)
        if self.pattern is not None:
            value = _unmasked(
                value, json.loads(display.readable(self.pattern.input_text, display.Mask(()))), self.workflow
            )
        key = cleaned["key"] or (own_keys.of_press(cleaned["press"]) if cleaned["press"] else None)
        runs = WorkflowRun.objects.using(router.db_for_write(WorkflowRun))
        try:
            with transaction.atomic(using=runs.db):
                run = self.workflow.start(
                    value, key=key, queue=cleaned["queue"], priority=cleaned["priority"], delay=cleaned["delay"]
                )
                if self.pattern is not None and run.created:
                    runs.filter(pk=run.pk).update(restart_of=self.pattern)
        except InvalidInput as error:
            self._attribution(error)
        except (StepsError, TypeError, ValueError) as error:
            self.add_error(None, str(error))
        else:
            return run
        return None

    def _initial(self) -> dict[str, Any]:
        workflow, pattern = self.workflow, self.pattern
        initial: dict[str, Any] = {"queue": workflow.queue, "priority": workflow.priority, "press": uuid4()}
        if pattern is None:
            return initial
        shown = json.loads(display.readable(pattern.input_text, display.Mask.of(pattern)))
        initial |= {"queue": pattern.queue, "priority": pattern.priority, input_fields.WHOLE: shown}
        if isinstance(shown, dict):
            initial |= {input_fields.PREFIX + name: value for name, value in shown.items()}
        return initial

    def _attribution(self, error: InvalidInput) -> None:
        """Put each complaint beside the field that it names."""
        for line in error.errors:
            name, _colon, text = line.partition(": ")
            field = input_fields.PREFIX + name.partition(".")[0]
            if field in self.fields:
                self.add_error(field, text)
            else:
                self.add_error(None, line)


def start_page(admin: WorkflowRunAdmin, request: HttpRequest) -> HttpResponse:
    """Choose a workflow; then the form; then its run."""
    if not (admin.has_add_permission(request) and admin.has_view_permission(request)):
        raise PermissionDenied
    run_id = request.GET.get("run")
    pattern = admin.get_object(request, run_id) if run_id else None
    try:
        workflow = _chosen(request, pattern)
    except UnknownWorkflow as error:
        admin.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(admin.url_of("start"))
    if workflow is None:
        return _page(admin, request, _("Start a workflow"), choices=_choices(admin))
    form = StartForm(workflow, pattern, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() and (run := form.start()) is not None:
        return _started(admin, request, run)
    title = _("Run again with another input") if pattern else _("Start %(workflow)s") % {"workflow": workflow.name}
    loses_types = pattern is not None and f'"{TAG}":' in pattern.input_text and input_fields.members(workflow) is None
    return _page(admin, request, title, form=form, workflow=workflow, pattern=pattern, loses_types=loses_types)


def _started(admin: WorkflowRunAdmin, request: HttpRequest, run: WorkflowRun) -> HttpResponse:
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


def _choices(admin: WorkflowRunAdmin) -> list[tuple[Workflow[Any, Any], str, str]]:
    """Each workflow, the address of its form, and the first line of what it says of itself."""
    start = admin.url_of("start")
    return [
        (
            workflow,
            f"{start}?{display.query(workflow=workflow.name, version=workflow.version)}",
            (workflow.__doc__ or "").strip().partition("\n")[0],
        )
        for workflow in registered()
    ]


def _page(admin: WorkflowRunAdmin, request: HttpRequest, title: str, **extra: Any) -> TemplateResponse:
    form, pattern = extra.get("form"), extra.get("pattern")
    request.current_app = admin.admin_site.name
    return TemplateResponse(
        request,
        admin.start_template,
        {
            **admin.admin_site.each_context(request),
            "title": title,
            "opts": admin.opts,
            "original": title,
            "media": admin.media + form.media if form is not None else admin.media,
            "has_view_permission": True,
            "errors": form.errors if form is not None else None,
            "back_url": admin.url_of("change", pattern.pk) if pattern is not None else admin.url_of("start"),
            **extra,
        },
    )


def _unmasked(value: Any, original: Any, workflow: Workflow[Any, Any]) -> Any:
    """The value with what the masks that were left in place stand for."""
    if isinstance(value, dict) and isinstance(original, dict):
        return {
            key: original[key]
            if key in workflow.mask and item == MASK and key in original
            else _unmasked(item, original.get(key), workflow)
            for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(original, list):
        padded = original + [None] * len(value)
        return [_unmasked(item, other, workflow) for item, other in zip(value, padded, strict=False)]
    return value
