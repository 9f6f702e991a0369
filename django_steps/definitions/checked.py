"""Checking single values that users give: numbers, times, flags, keys. Each returns what is to be used, or raises."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from ..core.names import check_name
from ..core.schedules import KEY_PREFIX
from ..durations import to_microseconds
from ..errors import InvalidName

PRIORITIES = range(-100, 101)
# For the times that users give. What lies beyond is meant as "never" or is a mistake, and is near the end of what Python
# and the databases can hold.
EARLIEST_YEAR, LATEST_YEAR = 1900, 9000


def check_priority(value: Any) -> int:
    """Return a priority from -100 to 100, or raise `TypeError` or `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority takes a whole number from -100 to 100, got {value!r}.")
    if value not in PRIORITIES:
        raise ValueError(f"priority takes a whole number from -100 to 100, got {value!r}.")
    return int(value)  # of an enum's member, the number


def check_datetime(moment: Any, what: str) -> datetime:
    """Return `moment` if it is a datetime that fits `USE_TZ` and is no mistake, else raise `TypeError` or `ValueError`."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{what} takes a datetime, got {moment!r}.")
    if timezone.is_naive(moment) and settings.USE_TZ:
        raise ValueError(f"{what} takes an aware datetime where USE_TZ is on, got the naive {moment!r}.")
    if timezone.is_aware(moment) and not settings.USE_TZ:
        raise ValueError(f"{what} takes a naive datetime where USE_TZ is off, got the aware {moment!r}.")
    # Neither a time zone nor a delay leads from here to where no datetime is: that would be met by whoever looks at the run.
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        raise ValueError(f"{what} takes a datetime of the years {EARLIEST_YEAR} to {LATEST_YEAR}, got {moment!r}.")
    return moment


def check_flag(value: Any, what: str) -> bool:
    """Return True or False, or raise `TypeError`."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} takes True or False, got {value!r}.")
    return value


def check_count(value: Any, what: str, *, least: int) -> int | None:
    """Return a whole number of at least `least`, or None, or raise `TypeError` or `ValueError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"{what} takes a number of at least {least}, got {value}.")
    return value


def check_key(key: Any, what: str = "key") -> str:
    """Return the key of a run, or raise `InvalidName`: one that could be of a scheduled run is refused."""
    checked = check_name(key, what)
    if checked.startswith(KEY_PREFIX):
        raise InvalidName(f"A {what} can't begin with {KEY_PREFIX!r}, as the keys of scheduled runs do: {checked!r}.")
    return checked


def check_timeout(value: Any, what: str) -> int | None:
    """Return the microseconds of a duration that something may take, or None, or raise `TypeError` or `ValueError`."""
    if value is None:
        return None
    try:
        microseconds = to_microseconds(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} {error}") from None
    if not microseconds:
        raise ValueError(f"{what} takes a duration of more than nothing, got {value!r}.")
    return microseconds
