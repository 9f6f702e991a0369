"""The types of the commands' arguments: each takes the text that was typed and gives the value, or says what is wrong.

They only read what was typed. Whether a run or a workflow of that name exists is for the commands to find out.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta
from uuid import UUID

from django.utils.translation import gettext as _

from ..core.tags import parse
from ..definitions import check_priority
from ..durations import to_timedelta, to_timedelta_with_unit

_SHORTEST_LEASE = 0.1  # seconds; what is shorter can't be renewed in time


def run_id(text: str) -> UUID:
    """The id of a run."""
    try:
        return UUID(text)
    except ValueError:
        message = _("%(text)r is not the id of a run; ids look like 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f")
        raise ArgumentTypeError(message % {"text": text}) from None


def duration(text: str) -> timedelta:
    """A duration, such as `30d` or `1h30m`; a bare number is seconds."""
    try:
        return to_timedelta(_number(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error).rstrip(".")) from None


def duration_with_unit(text: str) -> timedelta:
    """A duration that deletes: a bare number is refused."""
    try:
        return to_timedelta_with_unit(_number(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error).rstrip(".")) from None


def seconds(text: str) -> float:
    """A duration as seconds, for options that count in them."""
    return duration(text).total_seconds()


def positive_seconds(text: str) -> float:
    """A duration in seconds that is not zero."""
    value = seconds(text)
    if value <= 0:
        raise ArgumentTypeError(_("it has to be longer than 0 seconds"))
    return value


def lease(text: str) -> float:
    """The length of a lease in seconds."""
    value = seconds(text)
    if value < _SHORTEST_LEASE:
        raise ArgumentTypeError(_("a lease has to be at least %(shortest)g seconds") % {"shortest": _SHORTEST_LEASE})
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(_("%(text)r is not a whole number of at least 1") % {"text": text})
    return value


def priority(text: str) -> int:
    """A priority, from -100 to 100."""
    try:
        return check_priority(int(text))
    except ValueError:
        message = _("%(text)r is not a priority: a whole number from -100 to 100, larger first")
        raise ArgumentTypeError(message % {"text": text}) from None


def tag(text: str) -> tuple[str, str]:
    """A tag: `tenant=acme`."""
    try:
        return parse(text)
    except ValueError:
        message = _("%(text)r is not a tag: write NAME=VALUE, as in tenant=acme")
        raise ArgumentTypeError(message % {"text": text}) from None


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def microseconds(value: timedelta) -> int:
    """A duration in the unit of machine times."""
    return value // timedelta(microseconds=1)
