"""The virtual clock of tests: how far the engine's clock is ahead of the database's, who follows it, and when it goes back.

It goes back at the end of the test: of the `unittest` test case that is being executed, or, with pytest, as the plugin
says. Where there is neither it goes back at the end of each call, so that nothing ever leaks.

While runs are executed `timezone.now()` follows it. Other clocks don't: `datetime.now()`, `time.time()`, the database's.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Self
from unittest import mock

from django.utils import timezone

from ..core import clock as engine_clock
from .caller import calling_test

_is_kept = False


@contextmanager
def kept() -> Iterator[None]:
    """Let the time that passes in here stay passed until the end of this block, and no longer."""
    global _is_kept
    before = engine_clock.offset_us, _is_kept
    _is_kept = True
    try:
        yield
    finally:
        engine_clock.offset_us, _is_kept = before


@contextmanager
def running() -> Iterator[None]:
    """One call of the kit: whatever time passes in it stays passed until the end of the test."""
    before = engine_clock.offset_us
    is_restored_later = _restore_after_test(before) or _is_kept
    try:
        yield
    finally:
        if not is_restored_later:
            _restore(before)


def advance(microseconds: int) -> None:
    """Let time pass."""
    engine_clock.offset_us += microseconds


@contextmanager
def followed() -> Iterator[None]:
    """Let `timezone.now()` follow the clock in here, also where `now` was imported by its name.

    So the function stays, and what it calls is replaced. What the test itself has replaced there is left alone.
    """
    if timezone.datetime is not datetime:  # type: ignore[attr-defined]
        yield
        return
    with mock.patch.object(timezone, "datetime", _Following):
        yield


class _StandsForDatetime(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, datetime)


class _Following(datetime, metaclass=_StandsForDatetime):
    """What `datetime` is in the module `django.utils.timezone` meanwhile."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        # `datetime` is looked up here each time: freezegun may have replaced it.
        moment: Any = datetime.now(UTC) + timedelta(microseconds=engine_clock.offset_us)
        if tz is None:
            moment = timezone.make_naive(moment, timezone.get_default_timezone())
        elif tz is not UTC:
            moment = moment.astimezone(tz)
        following: Self = moment
        return following


def _restore(offset: int) -> None:
    engine_clock.offset_us = offset


def _restore_after_test(offset: int) -> bool:
    """Ask the test case that is being executed to restore the clock; whether there is one."""
    test = calling_test()
    if test is None:
        return False
    if isinstance(test, unittest.TestCase):
        test.addCleanup(_restore, offset)
    else:
        test.addClassCleanup(_restore, offset)
    return True
