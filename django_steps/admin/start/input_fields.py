"""Form fields for the input of a workflow, made from its dataclass or pydantic model; JSON where it has neither.

The fields only read what was typed. Whether the input fits is for the workflow to say, when it is started.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

from django import forms
from django.contrib.admin import widgets
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext_lazy as _

from ...definitions import Workflow, masked_keys
from ...presentation.text import portable

PREFIX = "input_"
WHOLE = "input"
# Of text that is none, or is nested too deep, or has a number that is too long; of values that have no JSON.
_NO_JSON = (ValueError, TypeError, RecursionError)
_FIELDS: dict[Any, tuple[Any, Any]] = {
    str: (forms.CharField, widgets.AdminTextInputWidget),
    int: (forms.IntegerField, widgets.AdminIntegerFieldWidget),
    float: (forms.FloatField, forms.NumberInput),
    Decimal: (forms.DecimalField, forms.NumberInput),
    date: (forms.DateField, widgets.AdminDateWidget),
    datetime: (forms.DateTimeField, widgets.AdminTextInputWidget),
    time: (forms.TimeField, widgets.AdminTextInputWidget),
}


@dataclasses.dataclass
class Member:
    """One field of a dataclass or pydantic model."""

    name: str
    annotation: Any
    is_required: bool
    default: Any = None
    help_text: str = ""


def fields_for(workflow: Workflow[Any, Any]) -> dict[str, forms.Field]:
    """The form fields for the workflow's input: one for each member of its type, or one for JSON."""
    found = members(workflow)
    if found is None:
        return {WHOLE: _json_field(label=_("Input"), help_text=_("As JSON; empty for none."))}
    mask = masked_keys(workflow.name)
    return {PREFIX + member.name: _field(member, is_masked=member.name in mask) for member in found}


def members(workflow: Workflow[Any, Any]) -> list[Member] | None:
    """The members of the type of the workflow's input; None where it has none that is known."""
    type_: Any = workflow.input_type.type if "input" in workflow.parameters else None
    if type_ is None:
        return None
    if hasattr(type_, "model_fields"):
        return [
            Member(
                name,
                info.annotation,
                info.is_required(),
                None if info.is_required() else info.get_default(call_default_factory=True),
                info.description or "",
            )
            for name, info in type_.model_fields.items()
        ]
    hints = typing.get_type_hints(type_)
    return [_member(field, hints.get(field.name)) for field in dataclasses.fields(type_) if field.init]


def collect(workflow: Workflow[Any, Any], cleaned: dict[str, Any]) -> Any:
    """The input from what the form has read: members that were left empty keep their defaults."""
    found = members(workflow)
    if found is None:
        return cleaned.get(WHOLE)
    values: dict[str, Any] = {}
    for member in found:
        value = cleaned.get(PREFIX + member.name)
        if value is None or (value == "" and not member.is_required):
            if member.is_required:
                values[member.name] = None
            continue
        values[member.name] = value
    return values


def _member(field: dataclasses.Field[Any], annotation: Any) -> Member:
    if field.default is not dataclasses.MISSING:
        return Member(field.name, annotation, False, field.default)
    if field.default_factory is not dataclasses.MISSING:
        return Member(field.name, annotation, False, field.default_factory())
    return Member(field.name, annotation, True)


def _field(member: Member, *, is_masked: bool) -> forms.Field:
    annotation, is_optional = _without_none(member.annotation)
    options: dict[str, Any] = {
        "label": member.name,
        "required": member.is_required and not is_optional,
        "initial": None if is_masked else member.default,
        "help_text": member.help_text,
    }
    if annotation is bool and not is_masked:
        return forms.BooleanField(**{**options, "required": False})
    if isinstance(annotation, type) and issubclass(annotation, Enum) and not is_masked:
        return forms.TypedChoiceField(
            choices=[("", "---------"), *((item.name, item.name) for item in annotation)],
            coerce=lambda name: annotation[name],
            empty_value=None,
            **{**options, "initial": getattr(member.default, "name", None)},
        )
    if typing.get_origin(annotation) is typing.Literal and not is_masked:
        choices = {str(item): item for item in typing.get_args(annotation)}
        return forms.TypedChoiceField(
            choices=[("", "---------"), *((text, text) for text in choices)],
            coerce=choices.__getitem__,
            empty_value=None,
            **options,
        )
    if annotation not in _FIELDS or (is_masked and annotation is not str):
        return _json_field(**options)
    field_class, widget = _FIELDS[annotation]
    field: forms.Field = field_class(widget=widget, **options)
    return field


class _JsonField(forms.JSONField):
    """JSON, with nothing for None, laid out for people. Text is text, and what Python can't read is invalid."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            try:
                return _parsed(value)
            except _NO_JSON:
                raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None
        return None if value in self.empty_values or isinstance(value, str) else value

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What was typed, as it was typed."""
        return None if data is None else InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        if value is None or isinstance(value, InvalidJSONInput):
            return value or ""
        return portable(json.dumps(value, indent=2, ensure_ascii=False))


def _parsed(text: str) -> Any:
    value = json.loads(text)
    json.dumps(value)  # what is nested too deep for that can't be shown again
    return value


def _json_field(**options: Any) -> _JsonField:
    options = {"required": False, **options}
    try:
        json.dumps(options.get("initial"))
    except _NO_JSON:
        options["initial"] = None
    return _JsonField(widget=widgets.AdminTextareaWidget(attrs={"rows": 10, "spellcheck": "false"}), **options)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [item for item in typing.get_args(annotation) if item is not type(None)]
        if len(others) < len(typing.get_args(annotation)):
            return (others[0] if len(others) == 1 else None), True
    return annotation, False
