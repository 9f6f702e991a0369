"""Durations as people write them."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_steps.durations import to_microseconds, to_timedelta


@pytest.mark.parametrize(
    "written, expected",
    [
        ("100ms", timedelta(milliseconds=100)),
        ("5s", timedelta(seconds=5)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("1w", timedelta(weeks=1)),
        ("1y", timedelta(days=365)),
        ("1h30m", timedelta(minutes=90)),
        ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta(0)),
        (0, timedelta(0)),
        (90, timedelta(seconds=90)),
        (0.25, timedelta(milliseconds=250)),
        (timedelta(days=30), timedelta(days=30)),
    ],
    ids=repr,
)
def test_duration_is_read(written, expected):
    assert to_timedelta(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "5",
        "s",
        "5 s",
        " 5s",
        "5s ",
        "5S",
        "5 minutes",
        "5sec",
        "1h 30m",
        "-5s",
        "+5s",
        "1e3s",
        "\u0665s",
        "5s5",
        "nan",
    ],
)
def test_malformed_text_is_an_error_that_shows_how(written):
    with pytest.raises(ValueError, match="1h30m") as raised:
        to_timedelta(written)
    assert repr(written) in str(raised.value)


@pytest.mark.parametrize("written", [-1, -0.5, timedelta(microseconds=-1)])
def test_negative_duration_is_an_error(written):
    with pytest.raises(ValueError, match="can't be negative"):
        to_timedelta(written)


@pytest.mark.parametrize("written", [math.nan, math.inf, -math.inf, f"{'9' * 400}w"])
def test_what_is_not_finite_is_an_error(written):
    with pytest.raises(ValueError, match="Not a duration"):
        to_timedelta(written)


@pytest.mark.parametrize("written", [timedelta(days=36526), "99999999w", 1e300, 10**12])
def test_more_than_a_hundred_years_is_an_error(written):
    with pytest.raises(ValueError, match="a hundred years"):
        to_timedelta(written)


@pytest.mark.parametrize("written", [None, True, Decimal(5), [5], b"5s"])
def test_other_types_are_type_errors(written):
    with pytest.raises(TypeError, match="Not a duration"):
        to_timedelta(written)


def test_microseconds_are_whole():
    assert to_microseconds("1.5ms") == 1500
    assert to_microseconds("30d") == 30 * 86_400_000_000


@given(st.integers(0, 36524 * 86400), st.integers(0, 999))
def test_what_is_written_in_parts_is_their_sum(seconds, milliseconds):
    parts = timedelta(seconds=seconds, milliseconds=milliseconds)
    assert to_timedelta(f"{seconds}s{milliseconds}ms") == parts
    assert to_timedelta(f"{milliseconds}ms{seconds}s") == parts
