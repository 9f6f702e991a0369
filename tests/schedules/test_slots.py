"""When schedules fire: against an oracle that goes through the year minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest

from django_steps.core import schedules
from django_steps.core.schedules import Timing, shift, slot_key, take_turn, timing

SECOND = 1_000_000
HOUR = 3600 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(*moment: int, zone: str = "UTC", fold: int = 0) -> int:
    return (datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold) - EPOCH) // timedelta(microseconds=1)  # type: ignore[arg-type]


def local(slot: int, zone: str) -> str:
    return f"{schedules.moment(slot, ZoneInfo(zone)):%Y-%m-%d %H:%M %z}"


def slots(found: Timing, start: int, end: int) -> list[int]:
    """From the start, included, to the end, excluded."""
    return list(takewhile(lambda slot: slot < end, found.slots(start - 1)))


# -- The oracle -------------------------------------------------------------------------------------

NAMES = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}


def values(field: str, lowest: int, highest: int) -> set[int]:
    """The values of a field of a cron expression; as the manual of cron says it."""

    def number(text: str) -> int:
        return int(text) if text.isdigit() else NAMES[text]

    found: set[int] = set()
    for part in field.split(","):
        body, _, step = part.partition("/")
        first, _, last = body.partition("-")
        if body == "*":
            begin, end = lowest, highest
        else:
            begin, end = number(first), number(last) if last else highest if step else number(first)
        found.update(range(begin, end + 1, int(step or 1)))
    return found


BLOCK = 30  # minutes; no zone changes its offset within one of them
DAY_ONE = date(1970, 1, 1)


def expected(expression: str, zone: str, start: int, end: int) -> list[int]:
    """The slots of an expression, minute by minute. What has a star as its minute or hour follows the hands of the clock.
    Anything else is a time of day: if it comes twice the first one counts, and if it is left out what follows does."""
    minute, hour, day, month, weekday = expression.split()
    minutes, hours, days, months = values(minute, 0, 59), values(hour, 0, 23), values(day, 1, 31), values(month, 1, 12)
    weekdays = {number % 7 for number in values(weekday, 0, 7)}
    follows, tz = minute[0] == "*" or hour[0] == "*", ZoneInfo(zone)
    # Either the day or the weekday, unless one begins with a star.
    both = day[0] == "*" or weekday[0] == "*"

    @cache
    def is_day(number: int) -> bool:
        found = DAY_ONE + timedelta(days=number)
        each = (found.day in days, found.isoweekday() % 7 in weekdays)
        return found.month in months and (all(each) if both else any(each))

    def is_slot(wall: int) -> bool:  # minutes since 1970 on the clock on the wall
        return wall % 60 in minutes and wall // 60 % 24 in hours and is_day(wall // 1440)

    found, next_wall = [], None
    for at in range(start, end, BLOCK * 60 * SECOND):
        moment = (EPOCH + timedelta(microseconds=at)).astimezone(tz)
        offset = moment.utcoffset()
        assert offset is not None
        wall = at // (60 * SECOND) + offset // timedelta(minutes=1)
        is_late = not follows and next_wall is not None and any(map(is_slot, range(next_wall, wall)))
        for number in range(BLOCK):
            is_due = is_slot(wall + number) and (follows or not moment.fold)
            if is_due or (is_late and number == 0):
                found.append(at + number * 60 * SECOND)
        next_wall = wall + BLOCK
    return found


EXPRESSIONS = [
    ("30 2 * * *", "Europe/Berlin"),
    ("30 2 * * *", "Australia/Sydney"),
    ("*/15 * * * *", "Europe/Berlin"),
    ("0 * * * *", "Australia/Sydney"),
    ("0 3 * * 1-5", "Europe/Berlin"),
    ("15 1,2,3 * * *", "Europe/Berlin"),
    ("0 0 1 * *", "America/New_York"),
    ("0 0 * * 0", "America/Santiago"),
    ("30 23 31 * *", "Asia/Kolkata"),
    ("5 */6 * * *", "Europe/London"),
    ("59 2 * 3,10 7", "Europe/Berlin"),
    ("0 12 13 * 5", "UTC"),
    ("10-20/5 4 * * *", "Australia/Lord_Howe"),
    ("*/30 2 * * *", "Europe/Berlin"),
    ("0 2 */2 * *", "Australia/Sydney"),
    ("45 0 29 2 *", "UTC"),
    ("0 9 * * MON,WED,FRI", "Asia/Tokyo"),
    ("1 0 1 1 *", "Pacific/Auckland"),
    ("30 1 * * *", "Europe/London"),
    ("0 4 1-7 * *", "America/Sao_Paulo"),
]


@pytest.mark.parametrize(("expression", "zone"), EXPRESSIONS)
def test_a_year_of_slots_is_what_the_oracle_says(expression, zone):
    start, end = us(2027, 12, 31), us(2029, 1, 2)  # a leap year
    found = slots(timing(name="x", cron=expression, zone=zone), start, end)
    assert [local(slot, zone) for slot in found] == [
        local(slot, zone) for slot in expected(expression, zone, start, end)
    ]


# -- Changes of the clock ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "found"),
    [
        (
            "Europe/Berlin",
            (2026, 3, 29),
            ["2026-03-28 02:30 +0100", "2026-03-29 03:00 +0200", "2026-03-30 02:30 +0200"],
        ),
        (
            "Europe/Berlin",
            (2026, 10, 25),
            ["2026-10-24 02:30 +0200", "2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"],
        ),
        (
            "Australia/Sydney",
            (2026, 10, 4),
            ["2026-10-03 02:30 +1000", "2026-10-04 03:00 +1100", "2026-10-05 02:30 +1100"],
        ),
        (
            "Australia/Sydney",
            (2026, 4, 5),
            ["2026-04-04 02:30 +1100", "2026-04-05 02:30 +1100", "2026-04-06 02:30 +1000"],
        ),
    ],
)
def test_half_past_two_comes_once_when_the_clocks_change(zone, day, found):
    start = us(*day, zone=zone) - 24 * HOUR
    at_half_past_two = timing(name="x", cron="30 2 * * *", zone=zone)
    assert [local(slot, zone) for slot in slots(at_half_past_two, start, start + 72 * HOUR)] == found


def test_what_is_looked_for_between_the_two_half_past_twos_is_not_found_again():
    zone = "Europe/Berlin"
    at_half_past_two = timing(name="x", cron="30 2 * * *", zone=zone)
    between = us(2026, 10, 25, 2, 10, zone=zone, fold=1)
    assert local(at_half_past_two.next_slot(between), zone) == "2026-10-26 02:30 +0100"
    assert local(at_half_past_two.latest_slot(between - 48 * HOUR, between), zone) == "2026-10-25 02:30 +0200"


# -- Every so often ---------------------------------------------------------------------------------


def test_slots_of_every_are_multiples_since_the_epoch():
    each = timing(name="x", every="10s")
    start = us(2026, 11, 27, 12, 0, 3)
    assert slots(each, start, start + 25 * SECOND) == [start + 7 * SECOND, start + 17 * SECOND]
    assert timing(name="x", every="1d").next_slot(start) == us(2026, 11, 28)


def test_spread_is_stable_and_differs_by_name():
    shifts = [shift(f"customer-{number}", 600 * SECOND) for number in range(1000)]
    assert shifts == [shift(f"customer-{number}", 600 * SECOND) for number in range(1000)]
    assert 0 <= min(shifts) < 20 * SECOND and 580 * SECOND < max(shifts) < 600 * SECOND
    assert len(set(shifts)) > 900
    assert shift("x", 0) == 0


def test_it_fires_shifted_after_its_slot():
    spread = timing(name="x", cron="0 * * * *", spread="10m")
    noon = us(2026, 11, 27, 12)
    assert 0 < spread.shift_us < 600 * SECOND
    assert spread.next_slot(noon - 1) == noon
    assert spread.next_fire(noon) == noon + spread.shift_us, "the slot of noon is still to come"
    assert spread.next_fire(noon + spread.shift_us) == noon + HOUR + spread.shift_us


# -- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"cron": "61 * * * *"}, "Bad minute"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "0 30 2 * * *"}, "For seconds take every"),
        ({"cron": "@reboot"}, "@daily"),
        ({"cron": "0 0 30 2 *"}, "day-of-month"),
        ({"cron": "0 0 31 9 *"}, "day-of-month"),
        ({"cron": "0 0 * * *", "zone": "Europe/Berln"}, "Unknown time zone 'Europe/Berln'"),
        ({"cron": "0 0 * * *", "zone": "../etc/passwd"}, "Unknown time zone"),
        ({"every": "1500ms"}, "whole seconds"),
        ({"every": "500ms"}, "whole seconds"),
        ({"every": "often"}, "Not a duration"),
        ({"every": "10s", "spread": "11s"}, "at most as long as every"),
        ({"cron": "0 0 * * *", "every": "10s"}, "either"),
        ({}, "either"),
    ],
)
def test_what_could_never_fire_is_refused(options, what):
    with pytest.raises(ValueError, match=what):
        timing(name="x", **options)


# -- Late -------------------------------------------------------------------------------------------


def test_on_time():
    each = timing(name="x", every="10s")
    assert take_turn(each, 100 * SECOND, 100 * SECOND + 3000, "latest") == (100 * SECOND, 0, 0, 110 * SECOND)
    assert take_turn(each, 100 * SECOND, 109 * SECOND, "skip") == (100 * SECOND, 0, 0, 110 * SECOND)


def test_only_the_latest_of_several_fires_and_the_others_are_counted():
    each = timing(name="x", every="10s")
    assert take_turn(each, 100 * SECOND, 125 * SECOND, "latest") == (120 * SECOND, 2, 110 * SECOND, 130 * SECOND)
    nightly = timing(name="x", cron="30 2 * * *", zone="Europe/Berlin")
    slot = us(2026, 11, 20, 2, 30, zone="Europe/Berlin")
    turn = take_turn(nightly, slot, slot + 60 * HOUR, "latest")
    assert turn == (slot + 48 * HOUR, 2, slot + 24 * HOUR, slot + 72 * HOUR)


def test_with_skip_nothing_fires_that_is_more_than_a_minute_late():
    nightly = timing(name="x", cron="30 2 * * *")
    slot = us(2026, 11, 20, 2, 30)
    assert take_turn(nightly, slot, slot + 60 * SECOND, "skip").slot == slot
    assert take_turn(nightly, slot, slot + 61 * SECOND, "skip") == (None, 1, slot, slot + 24 * HOUR)
    assert take_turn(nightly, slot, slot + 48 * HOUR + 61 * SECOND, "skip") == (
        None,
        3,
        slot + 48 * HOUR,
        slot + 72 * HOUR,
    )


def test_a_year_of_missed_minutes_is_not_walked_over():
    each_minute = timing(name="x", cron="* * * * *", zone="Europe/Berlin")
    slot = us(2026, 11, 20)
    turn = take_turn(each_minute, slot, slot + 365 * 24 * HOUR, "latest")
    assert (turn.slot, turn.missed) == (slot + 365 * 24 * HOUR, schedules.MOST_COUNTED)


def test_spread_moves_what_is_late_as_well():
    spread = timing(name="x", cron="0 * * * *", spread="10m")
    noon = us(2026, 11, 27, 12)
    fires = noon + spread.shift_us
    assert take_turn(spread, fires, fires + 5, "skip") == (noon, 0, 0, fires + HOUR)
    assert take_turn(spread, fires, fires + HOUR - 5, "latest") == (noon, 0, 0, fires + HOUR)
    assert take_turn(spread, fires, fires + HOUR, "latest") == (noon + HOUR, 1, noon, fires + 2 * HOUR)


def test_key_of_a_slot_fits_whatever_the_name():
    assert slot_key("nightly", us(2026, 11, 27, 2, 30)) == "schedule:nightly:2026-11-27T02:30:00Z"
    assert len(slot_key("x" * schedules.MAX_NAME_LENGTH, us(9998, 12, 31))) <= 255
