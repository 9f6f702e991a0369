"""The form of a schedule of the database, to add one or to edit it: with its times in words and a preview."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.contrib.admin import widgets
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...definitions import PRIORITIES, masked_keys, registered
from ...errors import StepsError
from ...models import WorkflowSchedule
from ...presentation import schedules as texts
from ...presentation.text import clipped, portable
from ...presentation.values import UNREADABLE, Mask, plain
from ..start import masks
from . import page
from .base import ScheduleAdminBase

_LONGEST_COMPLAINT = 1000  # characters


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a schedule starts, and when."""

    workflow = forms.ChoiceField(label=gettext_lazy("Workflow"))
    input = forms.CharField(
        label=gettext_lazy("Input"),
        required=False,
        widget=widgets.AdminTextareaWidget(attrs={"rows": 6, "spellcheck": "false"}),
        help_text=gettext_lazy('JSON, such as {"customer": 7}; empty for none.'),
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        required=False,
        min_value=PRIORITIES[0],
        max_value=PRIORITIES[-1],
        widget=widgets.AdminIntegerFieldWidget,
    )

    class Meta:
        model = WorkflowSchedule
        fields: ClassVar[Any] = [
            "name",
            "workflow",
            "input",
            "cron",
            "every",
            "timezone",
            "overlap",
            "missed",
            "spread",
            "pause_after",
            "queue",
            "priority",
            "tags",
            "version",
        ]
        widgets: ClassVar[Any] = dict.fromkeys(
            ("name", "cron", "every", "timezone", "spread", "queue", "version"), widgets.AdminTextInputWidget
        )

    def __init__(self, data: Any, instance: WorkflowSchedule) -> None:
        super().__init__(data, instance=instance, label_suffix="")
        names = sorted({workflow.name for workflow in registered()} | {self.instance.workflow} - {""})
        field: Any = self.fields["workflow"]
        field.choices = [(name, name) for name in names]
        if self.instance.pk is not None:
            self.fields["name"].disabled = True
            self.fields["input"].initial = page.input_text(self.instance)

    def clean_queue(self) -> str | None:
        return self.cleaned_data["queue"] or None

    def clean_input(self) -> Any:
        text = self.cleaned_data["input"].strip()
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(_said(_("This is no JSON: %(error)s") % {"error": error})) from None

    def _post_clean(self) -> None:
        if "input" in self.cleaned_data and "workflow" in self.cleaned_data:
            self._take_input(self.cleaned_data["input"])
        super()._post_clean()  # type: ignore[misc]

    def _take_input(self, value: Any) -> None:
        """Give the schedule its input, with the values that masks stand for."""
        keys = masked_keys(self.cleaned_data["workflow"])
        mask, shown, original = Mask(keys), None, None
        if self.instance.pk is not None:
            shown = page.shown_input(self.instance)
            try:
                original = plain(self.instance.input_text, Mask(()))
            except UNREADABLE:
                shown = None
        try:
            value, unknown = masks.restore(value, shown, original, mask)
            if unknown:
                text = _("%(place)s: type this value, what the mask stands for is not certain.")
                self.add_error("input", _said(text % {"place": ", ".join(unknown)}))
            self.instance.input = value
        except (StepsError, RecursionError) as error:
            self.add_error("input", _said(str(error)))


def add_page(admin: ScheduleAdminBase, request: HttpRequest) -> HttpResponse:
    """Make a schedule."""
    if not admin.has_add_permission(request):
        raise PermissionDenied
    return _form_page(admin, request, WorkflowSchedule(), _("Add a schedule"))


def edit_page(admin: ScheduleAdminBase, request: HttpRequest, object_id: str) -> HttpResponse:
    """Edit a schedule of the database."""
    schedule: WorkflowSchedule = admin.get_object(request, object_id)
    if not admin.has_edit_permission(request, schedule):
        raise PermissionDenied
    return _form_page(admin, request, schedule, _("Edit %(name)s") % {"name": schedule.name})


def _form_page(admin: ScheduleAdminBase, request: HttpRequest, schedule: WorkflowSchedule, title: str) -> HttpResponse:
    is_new = schedule.pk is None
    form = ScheduleForm(request.POST if request.method == "POST" else None, schedule)
    preview = None
    if request.method == "POST" and form.is_valid():
        if "_preview" not in request.POST:
            return _saved(admin, request, form, is_new=is_new)
        preview = _preview(form.instance)
    back = admin.url_of("changelist") if is_new else admin.url_of("change", schedule.pk)
    return admin.render(
        request,
        admin.edit_template,
        title,
        original=None if is_new else schedule,
        media=admin.media + form.media,
        form=form,
        errors=form.errors,
        preview=preview,
        back_url=back,
    )


def _saved(admin: ScheduleAdminBase, request: HttpRequest, form: ScheduleForm, *, is_new: bool) -> HttpResponse:
    schedule = form.save()
    if is_new:
        admin.log_addition(request, schedule, _("Added."))
    else:
        admin.log_change(request, schedule, _("Changed: %(what)s.") % {"what": texts.when(schedule)})
    admin.message_user(request, _("Saved."), messages.SUCCESS)
    return HttpResponseRedirect(admin.url_of("change", schedule.pk))


def _preview(schedule: WorkflowSchedule) -> dict[str, Any]:
    """When a schedule would fire that is not saved yet."""
    times = [f"{moment:%Y-%m-%d %H:%M:%S %Z}" for moment in texts.next_times(schedule)]
    return {"when": texts.when(schedule), "times": times}


def _said(text: str) -> str:
    return portable(clipped(text, _LONGEST_COMPLAINT))
