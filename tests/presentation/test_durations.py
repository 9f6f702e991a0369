"""Durations and moments are short, and the same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_steps.presentation import durations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (-1, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.00 s"),
        (59.99, "59.99 s"),
        (59.996, "1m 00s"),
        (3599.6, "1h 00m"),
        (7380, "2h 03m"),
        (86400 * 3 + 3600 * 4, "3d 04h"),
    ],
)
def test_durations_are_short(seconds, text):
    assert durations.duration(timedelta(seconds=seconds)) == text
    assert durations.duration(seconds) == text


def test_duration_that_is_not_known_is_empty():
    assert durations.duration(None) == ""
    assert durations.between(None, timezone.now()) is None


def test_times_in_tables_are_as_short_as_can_be():
    now = timezone.localtime()
    assert durations.short_moment(now) == now.strftime("%H:%M:%S")
    assert durations.short_moment(now - timedelta(days=800)) == (now - timedelta(days=800)).strftime("%Y-%m-%d")
    assert durations.short_moment(None) == ""


def test_times_elsewhere_have_their_day(settings):
    settings.TIME_ZONE = "Europe/Berlin"
    value = datetime(2026, 3, 1, 3, 0, 5, tzinfo=UTC)
    assert durations.moment(value) == "2026-03-01 04:00:05"
    assert durations.full_moment(value) == "2026-03-01 04:00:05 CET"
    assert durations.moment(None) == durations.full_moment(None) == ""
