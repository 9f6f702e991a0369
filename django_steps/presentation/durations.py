"""Durations and moments as people read them. How people write durations is in `django_steps.durations`."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import gettext as _


def duration(value: timedelta | float | None) -> str:
    """How long something took: `12 ms`, `1.23 s`, `4m 05s`, `2h 03m`, `3d 04h`; empty for None. A number is seconds."""
    if value is None:
        return ""
    seconds = max(value.total_seconds() if isinstance(value, timedelta) else value, 0.0)
    if seconds < 0.9995:
        return _("%(ms).0f ms") % {"ms": seconds * 1000}
    if seconds < 59.995:
        return _("%(s).2f s") % {"s": seconds}
    whole = round(seconds)
    if whole < 3600:
        return _("%(min)dm %(s)02ds") % {"min": whole // 60, "s": whole % 60}
    if whole < 86400:
        return _("%(h)dh %(min)02dm") % {"h": whole // 3600, "min": whole % 3600 // 60}
    return _("%(d)dd %(h)02dh") % {"d": whole // 86400, "h": whole % 86400 // 3600}


def between(start: datetime | None, end: datetime | None) -> timedelta | None:
    """The time from one moment to another; None where one of them isn't known."""
    return None if start is None or end is None else end - start


def local_time(value: datetime) -> datetime:
    """The time in the current time zone; naive ones are local already."""
    return timezone.localtime(value) if timezone.is_aware(value) else value


def moment(value: datetime | None) -> str:
    """A time to the second: `2026-03-01 03:00:05`; empty for None."""
    return "" if value is None else f"{local_time(value):%Y-%m-%d %H:%M:%S}"


def full_moment(value: datetime | None) -> str:
    """The same with its zone: `2026-03-01 03:00:05 UTC`."""
    return "" if value is None else f"{local_time(value):%Y-%m-%d %H:%M:%S %Z}".rstrip()


def short_moment(value: datetime | None) -> str:
    """A time as short as it can be said, for tables: the time today, the day this year, with the year before."""
    if value is None:
        return ""
    value, now = local_time(value), local_time(timezone.now())
    if value.date() == now.date():
        return f"{value:%H:%M:%S}"
    return f"{value:%m-%d %H:%M}" if value.year == now.year else f"{value:%Y-%m-%d}"
