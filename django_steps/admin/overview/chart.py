"""The chart of the last 24 hours: how many runs ended in each hour, and how many of them failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ...core import clock
from ...ledger import database, reports
from ...presentation.durations import local_time

HOURS = 24
COUNTED = 10_000  # runs in an hour; where there are more, the bar stops growing
HEIGHT = 90
_HOUR = 3600 * 1_000_000  # microseconds


@dataclass
class Hour:
    """One bar: places in percent of the width, heights in pixels."""

    start: datetime
    ended: int
    failed: int
    x: float
    width: float
    ended_height: float
    failed_height: float
    title: str


def hours(connection: BaseDatabaseWrapper) -> list[Hour]:
    """The bars, from the hour 23 hours ago to the present one: two queries."""
    now = database.read_clock(connection)
    first = now // _HOUR * _HOUR - (HOURS - 1) * _HOUR
    bounds = [first + number * _HOUR for number in range(HOURS + 1)]
    counts = reports.count_finished(connection, bounds, COUNTED)
    totals = [sum(counts[status][number] for status in counts) for number in range(HOURS)]
    highest = max([*totals, 1])
    return [
        _hour(number, clock.to_datetime(bounds[number]), totals[number], counts["failed"][number], highest)
        for number in range(HOURS)
    ]


def _hour(number: int, start: datetime, ended: int, failed: int, highest: int) -> Hour:
    local = local_time(start)
    more = "+" if ended >= COUNTED else ""
    title = _("%(hour)s: %(ended)s ended, %(failed)s failed") % {
        "hour": f"{local:%H:%M}",
        "ended": f"{ended}{more}",
        "failed": failed,
    }
    return Hour(
        start=local,
        ended=ended,
        failed=failed,
        x=round(number * 100 / HOURS, 3),
        width=round(100 / HOURS * 0.8, 3),
        ended_height=_height(ended, highest),
        failed_height=_height(failed, highest),
        title=title,
    )


def _height(count: int, highest: int) -> float:
    # A single failure among thousands must still be seen.
    return max(round(count / highest * HEIGHT, 1), 2.0) if count else 0.0
