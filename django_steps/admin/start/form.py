"""The form that starts a workflow: its input, queue, priority, keys and times. Press once or twice, and one run starts.

A run can be taken as the pattern, to restart it with another input. Masked values are neither shown nor lost: where the
mask is left in place, the value of that run is used (`masks.py`).
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

from django import forms
from django.contrib.admin import widgets
from django.db import DatabaseError, router, transaction
from django.utils.translation import gettext, gettext_lazy

from ...definitions import PRIORITIES, Workflow, masked_keys
from ...durations import to_text, to_timedelta
from ...errors import InvalidInput, StepsError
from ...models import WorkflowRun
from ...presentation import own_keys
from ...presentation.text import clipped, portable
from ...presentation.values import UNREADABLE, Mask, plain
from . import input_fields, masks

_LONGEST_COMPLAINT = 1000  # characters


def _optional_text(label: Any, help_text: Any) -> forms.CharField:
    return forms.CharField(label=label, required=False, widget=widgets.AdminTextInputWidget, help_text=help_text)


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
    key = _optional_text(
        gettext_lazy("Key"),
        gettext_lazy("Starting the workflow with a key again gives the first run. Empty: a new run."),
    )
    active_key = _optional_text(
        gettext_lazy("Active key"), gettext_lazy("While a run is active under it, that one is given. Empty: a new run.")
    )
    delay = _optional_text(gettext_lazy("Delay"), gettext_lazy("Such as 30s, 10m, 2h or 1d. Empty: at once."))
    timeout = _optional_text(
        gettext_lazy("Timeout"),
        gettext_lazy("How long it may take, from when it begins to its end. Empty: as the workflow says."),
    )
    start_within = _optional_text(
        gettext_lazy("Start within"),
        gettext_lazy("How long it may wait to begin; then it is canceled. Empty: as the workflow says."),
    )
    # Pressing twice sends the same one twice, and starts one run.
    press = forms.Field(widget=forms.HiddenInput, required=False)

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
        return self._duration("delay")

    def clean_timeout(self) -> str | None:
        return self._duration("timeout")

    def clean_start_within(self) -> str | None:
        return self._duration("start_within")

    def _duration(self, name: str) -> str | None:
        value: str = self.cleaned_data[name]
        if not value:
            return None
        try:
            to_timedelta(value)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        return value

    def clean_press(self) -> UUID | None:
        """The press; None for what the page did not send, which starts a run each time."""
        try:
            return UUID(str(self.cleaned_data["press"]))
        except ValueError:
            return None

    def start(self) -> WorkflowRun | None:
        """The run, or None with the form saying what is wrong."""
        cleaned = self.cleaned_data
        value = input_fields.collect(self.workflow, cleaned)
        value, unknown = self._unmasked(value)
        for place in unknown:
            self._place_one(
                place,
                gettext("%(place)s: type this value, what the mask stands for is not certain.") % {"place": place},
            )
        if unknown:
            return None
        key = cleaned["key"] or (own_keys.of_press(cleaned["press"]) if cleaned["press"] else None)
        runs = WorkflowRun.objects.using(router.db_for_write(WorkflowRun))
        try:
            with transaction.atomic(using=runs.db):
                run = self.workflow.start(
                    value,
                    key=key,
                    active_key=cleaned["active_key"] or None,
                    queue=cleaned["queue"],
                    priority=cleaned["priority"],
                    delay=cleaned["delay"],
                    timeout=cleaned["timeout"],
                    start_within=cleaned["start_within"],
                )
                if self.pattern is not None and run.created:
                    runs.filter(pk=run.pk).update(restart_of=self.pattern)
        except InvalidInput as error:
            self._place(error)
        except (StepsError, TypeError, ValueError) as error:
            self.add_error(None, _said(str(error)))
        except DatabaseError:
            raise
        except Exception as error:  # the code of the input's class, which may object in any way
            self.add_error(None, _said(f"{type(error).__name__}: {error}"))
        else:
            return run
        return None

    def _initial(self) -> dict[str, Any]:
        workflow, pattern = self.workflow, self.pattern
        initial: dict[str, Any] = {"queue": workflow.queue, "priority": workflow.priority, "press": uuid4()}
        if pattern is None:
            return initial
        shown = _input_of(pattern, Mask.of(pattern))
        initial |= {
            "queue": pattern.queue,
            "priority": pattern.priority,
            "timeout": "" if pattern.timeout is None else to_text(pattern.timeout),
            "start_within": "" if pattern.start_within is None else to_text(pattern.start_within),
            input_fields.WHOLE: shown,
        }
        if isinstance(shown, dict):
            initial |= {input_fields.PREFIX + name: value for name, value in shown.items()}
        return initial

    def _unmasked(self, value: Any) -> tuple[Any, list[str]]:
        """The input with the values of the pattern in place of masks, and the places where these are not certain."""
        mask = Mask(masked_keys(self.workflow.name))
        shown = original = None
        if self.pattern is not None:
            shown, original = _input_of(self.pattern, mask), _input_of(self.pattern, Mask(()))
        try:
            return masks.restore(value, shown, original, mask)
        except RecursionError:  # far deeper than what can be recorded, which starting it says
            return value, []

    def _place(self, error: InvalidInput) -> None:
        """Put each complaint beside the field that it names."""
        for line in error.errors:
            name, _colon, text = line.partition(": ")
            self._place_one(name, text if self._field_of(name) else line)

    def _place_one(self, place: str, text: str) -> None:
        self.add_error(self._field_of(place), _said(text))

    def _field_of(self, place: str) -> str | None:
        """The form's field that holds a place in the input, such as `items[0].token`."""
        field = input_fields.PREFIX + re.split(r"[.\[]", place, maxsplit=1)[0]
        return field if field in self.fields else None


def _said(text: str) -> str:
    """A complaint that fits on the page; it may repeat what was typed."""
    return portable(clipped(text, _LONGEST_COMPLAINT))


def _input_of(run: WorkflowRun, mask: Mask) -> Any:
    """The input as plain JSON types; None where it can't be read."""
    try:
        return plain(run.input_text, mask)
    except UNREADABLE:
        return None
