"""Cron expressions in words: the usual ones in the language of the reader, the others as `cronsim` explains them."""

from __future__ import annotations

from datetime import date

from cronsim import CronSim
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..core.schedules import check_cron, plain_cron

_MOST_TIMES = 4
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def in_words(expression: str) -> str:
    """A cron expression in words; the expression itself where it is none.

    >>> in_words("30 2 * * 1-5")
    'Monday to Friday at 02:30'
    """
    try:
        check_cron(expression)
    except (TypeError, ValueError):
        return expression
    parts = plain_cron(expression).upper().split()
    minute, hour, *day = parts
    often, days = _often(minute, hour), _days(*day)
    if often is not None and days is not None:
        return often if day == ["*", "*", "*"] else _("%(days)s, %(often)s") % {"days": days, "often": often}
    times = _times(minute, hour)
    if times is not None and days is not None:
        return _("%(days)s at %(times)s") % {"days": days, "times": times}
    return CronSim(expression, timezone.now()).explain()


def _often(minute: str, hour: str) -> str | None:
    """What happens several times a day."""
    if (minute, hour) == ("*", "*"):
        return _("every minute")
    step = _step(minute)
    if step is not None and hour == "*" and 60 % step == 0:
        return ngettext("every minute", "every %(count)d minutes", step) % {"count": step}
    hours = 1 if hour == "*" else _step(hour)
    if not minute.isdecimal() or hours is None or 24 % hours:
        return None
    each = ngettext("every hour", "every %(count)d hours", hours) % {"count": hours}
    if int(minute) == 0:
        return each
    past = ngettext("%(count)d minute past", "%(count)d minutes past", int(minute)) % {"count": int(minute)}
    return _("%(each)s, %(past)s") % {"each": each, "past": past}


def _times(minute: str, hour: str) -> str | None:
    """The times of a day, if they are few."""
    minutes, hours = _numbers(minute), _numbers(hour)
    if minutes is None or hours is None or len(minutes) * len(hours) > _MOST_TIMES:
        return None
    return ", ".join(f"{h:02}:{m:02}" for h in sorted(hours) for m in sorted(minutes))


def _days(day: str, month: str, weekday: str) -> str | None:
    if month == "*" and day == "*":
        return _("every day") if weekday == "*" else _weekdays(weekday)
    if weekday != "*":
        return None
    months = _numbers(month, _MONTHS, 1)
    if month != "*" and months is None:
        return None
    named = "" if months is None else ", ".join(_name_of_month(number) for number in sorted(months))
    if day == "*":
        return _("every day in %(months)s") % {"months": named}
    if day == "L":
        which = _("the last day")
    else:
        numbers = _numbers(day)
        if numbers is None:
            return None
        listed = ", ".join(map(str, sorted(numbers)))
        which = ngettext("day %(days)s", "days %(days)s", len(numbers)) % {"days": listed}
    if not named:
        return _("%(which)s of each month") % {"which": which}
    return _("%(which)s of %(months)s") % {"which": which, "months": named}


def _weekdays(text: str) -> str | None:
    first, dash, last = text.partition("-")
    if dash and "," not in text and "/" not in text:
        ends = [_number(part, _DAYS, 0) for part in (first, last)]
        if None in ends:
            return None
        return _("%(first)s to %(last)s") % {"first": _name_of_day(ends[0]), "last": _name_of_day(ends[1])}
    numbers = _numbers(text, _DAYS, 0)
    return None if numbers is None else ", ".join(_name_of_day(n) for n in sorted(numbers, key=lambda n: n or 7))


def _step(text: str) -> int | None:
    if not text.startswith("*/") or not text[2:].isdecimal():
        return None
    return int(text[2:]) or None


def _numbers(text: str, names: tuple[str, ...] = (), first: int = 0) -> set[int] | None:
    """The numbers of a plain list such as `1,15`; None for anything else."""
    found = [_number(part, names, first) for part in text.split(",")]
    return None if None in found else {number for number in found if number is not None}


def _number(text: str, names: tuple[str, ...], first: int) -> int | None:
    if text in names:
        return names.index(text) + first
    return int(text) if text.isdecimal() else None


def _name_of_day(number: int | None) -> str:
    # The first of August 2021 was a Sunday.
    return date_format(date(2021, 8, 1 + (number or 0) % 7), "l")


def _name_of_month(number: int) -> str:
    return date_format(date(2021, min(max(number, 1), 12), 1), "F")
