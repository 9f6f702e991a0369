"""The form for the payload of an event: an approval, an answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS
from django.utils.translation import gettext_lazy as _

from ..errors import InvalidInput
from ..presentation.text import clipped, portable
from .checking import check
from .fields import Look, field_for, has_field, json_field
from .members import Member, members_of
from .schemas import schema_text

WHOLE = "payload"
_LONGEST_COMPLAINT = 1000  # characters


class EventForm(forms.Form):
    """A field for each member of the type, with its name; for other types, and for none, the field `payload`.

    A valid form has the `payload`, which fits the type: a dict of the members, or the value itself. The wait makes the instance
    of it. `mask`: the keys of the workflow whose values are in no message, and whose defaults are not shown.

    >>> form = EventForm(bool, look, {"payload": "true"})  # doctest: +SKIP
    >>> form.is_valid() and form.payload  # doctest: +SKIP
    True
    """

    payload: Any = None

    def __init__(self, type_: Any, look: Look, data: Any = None, *, mask: Collection[str] = ()) -> None:
        super().__init__(data, label_suffix="")
        self._type, self._mask = type_, mask
        self._members = members_of(type_)
        if self._members is None:
            self.fields[WHOLE] = _whole(type_, look)
        else:
            for member in self._members:
                self.fields[member.name] = field_for(member, look, is_masked=member.name in mask)

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if not self.errors:
            self.payload = self._collected(cleaned)
            try:
                check(self._type, self.payload, self._mask)
            except InvalidInput as error:
                self.place(error)
        return cleaned

    def place(self, error: InvalidInput) -> None:
        """Put each complaint beside the field that it names."""
        for line in error.errors:
            place, colon, text = line.partition(": ")
            name = self._field_of(place) if colon else None
            self.add_error(name, portable(clipped(text if name else line, _LONGEST_COMPLAINT)))

    def complaints(self) -> list[str]:
        """All that is wrong, a line each, with the names of the fields."""
        found = ((name, text) for name, texts in self.errors.items() for text in texts)
        return [str(text) if name == NON_FIELD_ERRORS else f"{name}: {text}" for name, text in found]

    def _collected(self, cleaned: dict[str, Any]) -> Any:
        if self._members is None:
            return cleaned.get(WHOLE)
        found = ((member, cleaned.get(member.name)) for member in self._members)
        return {member.key: value for member, value in found if not member.leaves_out(value)}

    def _field_of(self, place: str) -> str | None:
        """The field that holds a place in the payload, such as `items[0].token`."""
        if self._members is None:
            return WHOLE
        first = re.split(r"[.\[]", place, maxsplit=1)[0]
        return next((member.name for member in self._members if first in (member.name, member.key)), None)


def _whole(type_: Any, look: Look) -> forms.Field:
    if type_ is not None and has_field(type_):
        return field_for(Member(WHOLE, type_, True), look)
    field = json_field(look, label=_("Payload"), help_text=_("As JSON; empty for none."))
    field.schema = schema_text(type_) if type_ is not None else ""
    return field
