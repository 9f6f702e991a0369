"""How the admin's pages show the fields of forms that are made from a type."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

from django import forms
from django.contrib.admin import widgets

from ..forms.fields import Look, YesNoField

_WIDGETS = {
    str: widgets.AdminTextInputWidget,
    int: widgets.AdminIntegerFieldWidget,
    float: forms.NumberInput,
    Decimal: forms.NumberInput,
    date: widgets.AdminDateWidget,
    datetime: widgets.AdminTextInputWidget,
    time: widgets.AdminTextInputWidget,
    UUID: widgets.AdminUUIDInputWidget,
}
_TEXT_AREA = widgets.AdminTextareaWidget(attrs={"rows": 10, "spellcheck": "false"})

# The input of a run: what is not ticked is False.
INPUT = Look(_WIDGETS, _TEXT_AREA)
# What is decided: yes or no has to be said.
ANSWER = Look(_WIDGETS, _TEXT_AREA, YesNoField)
