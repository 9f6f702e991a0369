"""Form fields for the input of a workflow, made from its dataclass or pydantic model; JSON where it has neither.

The fields only read what was typed. Whether the input fits is for the workflow to say, when it is started.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from ...definitions import Workflow, masked_keys
from ...forms.fields import field_for, json_field
from ...forms.members import Member, members_of
from ..fields import INPUT

PREFIX = "input_"
WHOLE = "input"


def fields_for(workflow: Workflow[Any, Any]) -> dict[str, forms.Field]:
    """The form fields for the workflow's input: one for each member of its type, or one for JSON."""
    found = members(workflow)
    if found is None:
        return {WHOLE: json_field(INPUT, label=_("Input"), help_text=_("As JSON; empty for none."))}
    mask = masked_keys(workflow.name)
    return {PREFIX + member.name: field_for(member, INPUT, is_masked=member.name in mask) for member in found}


def members(workflow: Workflow[Any, Any]) -> list[Member] | None:
    """The members of the type of the workflow's input; None where it has none that is known."""
    return members_of(workflow.input_type.type) if "input" in workflow.parameters else None


def collect(workflow: Workflow[Any, Any], cleaned: dict[str, Any]) -> Any:
    """The input from what the form has read: members that were left empty keep their defaults."""
    found = members(workflow)
    if found is None:
        return cleaned.get(WHOLE)
    values: dict[str, Any] = {}
    for member in found:
        value = cleaned.get(PREFIX + member.name)
        if not member.leaves_out(value):
            values[member.name] = value
    return values
