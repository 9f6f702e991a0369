"""The engine's clock: whole microseconds since 1970 in UTC, always from the database.

Here is what turns them into datetimes and back, and how far tests have moved the clock. Reading the database's clock is in
`ledger/database.py`, the SQL expression for it in `ledger/dialect.py`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_FIRST_US = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime(9998, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
# When what waits for good is due: the latest time that is still one on every database and in every time zone.
NEVER_US: Final = _LAST_US

# How far the engine's clock is ahead of the database's, in microseconds; not 0 in tests only.
offset_us = 0


def host_time() -> int:
    """This host's time in microseconds, for what people read and nothing is decided by."""
    return time.time_ns() // 1000 + offset_us


def to_datetime(microseconds: int) -> datetime:
    """A machine time as people read it: aware where `USE_TZ` is on, naive local where it is off.

    What no datetime can hold in every time zone, as only a damaged row says it, becomes the first or last one that can:
    one row must not keep people from looking at the others.
    """
    moment = _EPOCH + timedelta(microseconds=min(max(microseconds, _FIRST_US), _LAST_US))
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def utc_text(microseconds: int) -> str:
    """A machine time as the text of a datetime in UTC without its zone: `2026-11-27 10:30:00.123456`."""
    return str(_NAIVE_EPOCH + timedelta(microseconds=min(max(microseconds, _FIRST_US), _LAST_US)))


def to_microseconds(moment: datetime) -> int:
    """The machine time of a datetime that fits `USE_TZ`."""
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return aware_to_microseconds(moment)


def aware_to_microseconds(moment: datetime) -> int:
    """The machine time of an aware datetime, whatever `USE_TZ` is."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
