"""When a schedule fires: its slots, by a cron expression or every so often, and what becomes of those that are late.

A *slot* is a time that the schedule stands for, such as half past two in the night. It fires a little later where the schedule
is spread. All times are whole microseconds since 1970 in UTC. Nothing here knows a database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ..durations import Duration, to_microseconds
from . import clock

OVERLAPS: Final = ("skip", "allow", "wait", "cancel")
MISSED: Final = ("latest", "skip")

# The keys of scheduled runs begin so, and no others.
KEY_PREFIX: Final = "schedule:"
# So that the key of a run fits: the prefix, the name, a colon, the slot in seconds.
MAX_NAME_LENGTH: Final = 200

# A slot that fires later than this was missed.
GRACE_US: Final = 60_000_000
# So many missed slots are counted one by one; who has more, has a number that says enough.
MOST_COUNTED: Final = 1000

_SECOND = 1_000_000
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The windows in which the latest slot is looked for, one after the other: so that few slots are walked over.
_WINDOWS_US = [hours * 3600 * _SECOND for hours in (1, 24, 24 * 32, 24 * 367, 24 * 367 * 9, 24 * 367 * 41)]


def slot_key(name: str, slot_us: int) -> str:
    """The key of the run of this slot.

    >>> slot_key("nightly", 0)
    'schedule:nightly:1970-01-01T00:00:00Z'
    """
    return f"{KEY_PREFIX}{name}:{moment(slot_us, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a schedule has its slots: by `cron` in a `zone`, or each `every_us`. It fires `shift_us` after each."""

    cron: str = ""
    every_us: int = 0
    zone: str = "UTC"
    shift_us: int = 0

    def next_slot(self, after_us: int) -> int | None:
        """The first slot after this time; None: there is none."""
        return next(self.slots(after_us), None)

    def slots(self, after_us: int) -> Iterator[int]:
        """The slots after this time, in order."""
        if self.every_us:
            slot = after_us - after_us % self.every_us
            while True:
                slot += self.every_us
                yield slot
        expression, zone = plain_cron(self.cron), zone_of(self.zone)
        last = after_us
        for found in CronSim(expression, moment(after_us, zone)):
            slot = clock.aware_to_microseconds(found)
            # A time that comes twice, when clocks go back, is named once: at its first coming, which may be over.
            if slot > last:
                last = slot
                yield slot

    def latest_slot(self, since_us: int, until_us: int) -> int:
        """The last slot up to `until_us`, or `since_us` where none is later."""
        if self.every_us:
            return max(since_us, until_us - until_us % self.every_us)
        for window in _WINDOWS_US:
            latest = max(since_us, until_us - window)
            found = latest
            for slot in self.slots(latest):
                if slot > until_us:
                    break
                found = slot
            if found > latest or latest == since_us:
                return found
        return since_us

    def next_fire(self, after_us: int) -> int | None:
        """When it fires for the first time after this time; None: never."""
        slot = self.next_slot(after_us - self.shift_us)
        return None if slot is None else slot + self.shift_us


def timing(*, name: str, cron: str = "", every: Duration = "", zone: str = "", spread: Duration = "") -> Timing:
    """The timing of a schedule as people write it, checked; raises `ValueError` or `TypeError`.

    `zone`: the name of a time zone; `spread`: over how long the schedules that have it are distributed.
    """
    if bool(cron) is bool(every):
        raise ValueError("A schedule has either cron, such as '30 2 * * *', or every, such as '10s'.")
    every_us = to_microseconds(every) if every else 0
    if every and (every_us < _SECOND or every_us % _SECOND):
        raise ValueError(f"every takes a duration of whole seconds, at least 1, got {every!r}.")
    spread_us = to_microseconds(spread) if spread else 0
    if every and spread_us > every_us:
        raise ValueError(f"spread takes at most as long as every, {every!r}, got {spread!r}.")
    if cron:
        check_cron(cron)
    found = Timing(cron=cron, every_us=every_us, zone=zone or "UTC", shift_us=shift(name, spread_us))
    zone_of(found.zone)
    try:
        never = cron and found.next_slot(0) is None
    except OverflowError:  # cronsim has looked for it up to the last year that there is
        never = True
    if never:
        raise ValueError(f"No day is like this, so that the schedule would never fire: {cron!r}.")
    return found


def plain_cron(cron: str) -> str:
    """A cron expression with five fields, where it has a name such as `@daily`."""
    return _NAMED.get(cron.lower(), cron)


def check_cron(cron: str) -> None:
    """Raise `TypeError` or `ValueError` unless this is a cron expression of five fields, or a name such as `@daily`."""
    if not isinstance(cron, str):
        raise TypeError(f"A cron expression is a string such as '30 2 * * *', got {cron!r}.")
    if cron.lower() in _NAMED:
        return
    if cron.startswith("@"):
        raise ValueError(f"Not a cron expression: {cron!r}. The names are: {', '.join(_NAMED)}.")
    if len(cron.split()) != 5:
        raise ValueError(
            f"Not a cron expression: {cron!r}. It has five fields: minute, hour, day of the month, month, day of the week, as"
            " in '30 2 * * *'. For seconds take every, such as '10s'."
        )
    try:
        CronSim(cron, _EPOCH)
    except CronSimError as error:
        raise ValueError(f"Not a cron expression: {cron!r}. {error}.") from None


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name; raises `ValueError` for one that this machine doesn't know."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError, TypeError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"Unknown time zone {name!r}. Take a name such as 'Europe/Berlin'.") from None


def shift(name: str, spread_us: int) -> int:
    """By how much a schedule of this name is shifted, which never changes: from 0 to less than `spread_us`, in whole
    milliseconds."""
    if spread_us < 1000:
        return 0
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % (spread_us // 1000) * 1000


class Turn(NamedTuple):
    """What is to happen with a schedule that is due: the slot to fire (None: none), how many slots were missed, the last of
    those, and when it fires again (None: never)."""

    slot: int | None
    missed: int
    last_missed: int
    next_at: int | None


def take_turn(timing: Timing, next_at: int, now: int, missed: str) -> Turn:
    """What is to happen with a schedule that was to fire at `next_at`, and it is `now`, the same or later.

    `missed`: whether the last one of the slots that nobody fired in time still fires ("latest") or not ("skip").
    """
    first, until = next_at - timing.shift_us, now - timing.shift_us
    latest = timing.latest_slot(first, until)
    count, last_missed = _count(timing, first, latest), 0
    if count:
        last_missed = max(first, timing.latest_slot(first, latest - 1))
    next_at_us = timing.next_fire(now)
    if missed == "skip" and until - latest > GRACE_US:
        return Turn(None, count + 1, latest, next_at_us)
    return Turn(latest, count, last_missed, next_at_us)


def _count(timing: Timing, first: int, latest: int) -> int:
    """How many slots there are from the first, included, to the latest, excluded; at most `MOST_COUNTED`."""
    if first >= latest:
        return 0
    if timing.every_us:
        return min(MOST_COUNTED, (latest - first) // timing.every_us)
    count = 1
    for slot in timing.slots(first):
        if slot >= latest or count >= MOST_COUNTED:
            break
        count += 1
    return count


def moment(microseconds: int, zone: tzinfo) -> datetime:
    """A machine time as a time of day in a zone."""
    return (_EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)
