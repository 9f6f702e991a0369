"""Durations as people write them: `"5s"`, `"1h30m"`, a timedelta, or a number of seconds.

This module knows nothing of runs or steps.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

Duration = str | int | float | timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdwy])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
# A hundred years: what lies beyond is a mistake (milliseconds given as seconds, say).
LONGEST = timedelta(days=36525)
_HELP = 'use "100ms", "5s", "10m", "2h", "1d", "1w", "1y", "1h30m", a timedelta, or seconds'


def to_timedelta(value: Duration) -> timedelta:
    """The duration as a `timedelta`, never negative.

    `value` is text such as `"1h30m"` (units ms, s, m, h, d, w, y; a year is 365 days), a `timedelta`, or a number of seconds.
    Raises `ValueError` for what is malformed, negative, not finite or longer than a hundred years, and
    `TypeError` for any other type.

    >>> to_timedelta("1h30m")
    datetime.timedelta(seconds=5400)
    """
    result = _parse(value)
    if result < timedelta(0):
        raise ValueError(f"A duration can't be negative, got {value!r}.")
    if result > LONGEST:
        raise ValueError(f"A duration of more than a hundred years: {value!r}.")
    return result


def to_timedelta_with_unit(value: Duration) -> timedelta:
    """As `to_timedelta`, for a duration after which something is deleted: a bare number is no answer to how long to keep
    it, and raises `ValueError`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(
            f"What is older is deleted, so say the unit: {value:g} seconds are '{value:g}s', days '{value:g}d'."
        )
    return to_timedelta(value)


def _parse(value: Duration) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError(f"Not a duration: {value!r} ({type(value).__name__}); {_HELP}.")
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value):
            raise ValueError(f"Not a duration: {value!r}; {_HELP}.")
        value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not math.isfinite(value):
        raise ValueError(f"Not a duration: {value!r}; {_HELP}.")
    try:
        return timedelta(seconds=value)
    except OverflowError:
        raise ValueError(f"A duration of more than a hundred years: {value!r}.") from None


def to_microseconds(value: Duration) -> int:
    """The duration in whole microseconds, the unit of the engine's machine times."""
    return to_timedelta(value) // timedelta(microseconds=1)


def to_text(value: Duration) -> str:
    """The duration as `to_timedelta()` reads it, in the largest units that fit.

    >>> to_text(timedelta(minutes=90))
    '1h30m'
    """
    left, parts = to_timedelta(value) // timedelta(milliseconds=1), []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


_RATE = re.compile(r"([0-9]{1,7})/([0-9.]*(?:ms|[smhdw]))")
_RATE_HELP = 'use a number and a time, as in "100/m", "5/s" or "10/30s"'


def rate_interval(rate: str) -> int:
    """The microseconds between two of so many in a time, evenly spread; rounded up, so that there are never more.

    Raises `TypeError` or `ValueError`.

    >>> rate_interval("100/m")
    600000
    """
    if not isinstance(rate, str):
        raise TypeError(f"Not a rate: {rate!r} ({type(rate).__name__}); {_RATE_HELP}.")
    match = _RATE.fullmatch(rate)
    wrong = ValueError(f"Not a rate: {rate!r}; {_RATE_HELP}.")
    if match is None:
        raise wrong
    count, time = int(match[1]), match[2]
    try:
        microseconds = to_microseconds(time if time[0].isdigit() else f"1{time}")
    except ValueError:
        raise wrong from None
    if not count or not microseconds:
        raise wrong
    return -(-microseconds // count)
