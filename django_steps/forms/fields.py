"""Form fields for annotations: text, numbers, dates, choices; JSON for what has no field of its own.

The fields only read what was typed. Whether it fits is for the type to say.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from django import forms
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext_lazy as _

from ..presentation.text import portable
from .members import Member, without_none
from .schemas import schema_text

# Of text that is none, or is nested too deep, or has a number that is too long; of values that have no JSON.
_NO_JSON = (ValueError, TypeError, RecursionError)
_FIELDS: dict[Any, type[forms.Field]] = {
    str: forms.CharField,
    int: forms.IntegerField,
    float: forms.FloatField,
    Decimal: forms.DecimalField,
    date: forms.DateField,
    datetime: forms.DateTimeField,
    time: forms.TimeField,
    UUID: forms.UUIDField,
}
_NO_CHOICE = ("", "---------")


@dataclass(frozen=True)
class Look:
    """How a page shows its fields.

    - `widgets`: a widget for each type that has a field; Django's own where one is missing.
    - `text_area`: the widget of JSON.
    - `boolean`: the field of a bool that can't be None.
    """

    widgets: Mapping[Any, Any]
    text_area: Any
    boolean: Any = forms.BooleanField


def field_for(member: Member, look: Look, *, is_masked: bool = False) -> forms.Field:
    """The form field of a member. A masked one shows no default and no choices."""
    annotation, is_optional = without_none(member.annotation)
    options: dict[str, Any] = {
        "label": member.name,
        "required": member.is_required and not is_optional,
        "initial": None if is_masked else member.default,
        "help_text": member.help_text,
    }
    if is_masked:
        return _typed_field(str, look, options) if annotation is str else _json_for(member, look, options)
    if annotation is bool:
        if is_optional or look.boolean is YesNoField:
            return YesNoField(**options)
        boolean: forms.Field = look.boolean(**{**options, "required": False})
        return boolean
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        by_name = {item.name: item for item in annotation}
        return _choice(by_name, {**options, "initial": getattr(member.default, "name", None)})
    if typing.get_origin(annotation) is typing.Literal:
        return _choice({str(item): item for item in typing.get_args(annotation)}, options)
    if isinstance(annotation, type) and annotation in _FIELDS:
        return _typed_field(
            annotation, look, options | ({"empty_value": None} if annotation is str and is_optional else {})
        )
    return _json_for(member, look, options)


def has_field(annotation: Any) -> bool:
    """Whether a value so annotated is typed into a field of its own, and not as JSON."""
    annotation, _is_optional = without_none(annotation)
    if not isinstance(annotation, type):
        return typing.get_origin(annotation) is typing.Literal
    return annotation is bool or annotation in _FIELDS or issubclass(annotation, Enum)


def json_field(look: Look, **options: Any) -> JsonField:
    """A field for any value, typed as JSON."""
    options = {"required": False, **options}
    try:
        json.dumps(options.get("initial"))
    except _NO_JSON:
        options["initial"] = None
    return JsonField(widget=look.text_area, **options)


class JsonField(forms.JSONField):
    """JSON, with nothing for None, laid out for people. Text is text, and what Python can't read is invalid.

    `schema`: the JSON Schema of what is wanted, as text; empty where nothing is known of it.
    """

    empty_values = [None, ""]  # an empty list is a value
    schema = ""

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


class YesNoField(forms.TypedChoiceField):
    """Yes or no, to be said: a checkbox that nobody looked at would be a no. Takes what other forms send, too."""

    _SAID = {"true": "true", "on": "true", "yes": "true", "1": "true", "false": "false", "off": "false", "no": "false"}
    _SAID["0"] = "false"

    def __init__(self, *, required: bool = True, initial: Any = None, **options: Any) -> None:
        choices = [("true", _("Yes")), ("false", _("No"))]
        super().__init__(
            choices=choices if required or initial is not None else [("", _("No answer")), *choices],
            coerce=lambda text: text == "true",
            empty_value=None,
            required=required,
            initial=self.prepare_value(initial),
            widget=forms.RadioSelect,
            **options,
        )

    def to_python(self, value: Any) -> str:
        said: str = super().to_python(self._SAID.get(str(value).lower(), value))
        return said

    def prepare_value(self, value: Any) -> Any:
        return {True: "true", False: "false"}.get(value, value)


def _parsed(text: str) -> Any:
    value = json.loads(text)
    json.dumps(value)  # what is nested too deep for that can't be shown again
    return value


def _typed_field(annotation: Any, look: Look, options: dict[str, Any]) -> forms.Field:
    widget = look.widgets.get(annotation)
    return _FIELDS[annotation](**({} if widget is None else {"widget": widget}), **options)


def _choice(choices: Mapping[str, Any], options: dict[str, Any]) -> forms.Field:
    return forms.TypedChoiceField(
        choices=[_NO_CHOICE, *((text, text) for text in choices)],
        coerce=choices.__getitem__,
        empty_value=None,
        **options,
    )


def _json_for(member: Member, look: Look, options: dict[str, Any]) -> JsonField:
    field = json_field(look, **options)
    field.schema = schema_text(member.annotation)
    return field
