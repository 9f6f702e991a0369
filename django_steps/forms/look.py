"""How the fields of a page without the admin look: the browser's own, without a script."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

from django import forms

from .fields import Look, YesNoField

BROWSERS_OWN = Look(
    widgets={
        int: forms.NumberInput(attrs={"step": 1}),
        float: forms.NumberInput(attrs={"step": "any"}),
        Decimal: forms.NumberInput(attrs={"step": "any"}),
        date: forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
        datetime: forms.DateTimeInput(format="%Y-%m-%dT%H:%M", attrs={"type": "datetime-local"}),
        time: forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
    },
    text_area=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
    boolean=YesNoField,
)
