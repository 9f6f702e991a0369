"""Repeated warnings: the first at once, then one line in ten seconds with a count, and one when it is over."""

from __future__ import annotations

import logging

import pytest

from django_steps.core.repeated import Repeated
from tests.staging import at_once

logger = logging.getLogger("django_steps")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def repeated(clock):
    return Repeated(logger, clock)


def test_first_warning_is_written_at_once_and_the_next_ones_are_counted(repeated, clock, caplog):
    for _ in range(38):
        repeated.warning("write", "No answer: %s", "gone")
        clock.now += 0.1
    assert caplog.messages == ["No answer: gone"]
    clock.now += 10
    repeated.warning("write", "No answer: %s", "still")
    assert caplog.messages[1:] == ["No answer: still (37 more warnings in the last 14 s)"]


def test_a_minute_of_warnings_is_a_line_each_ten_seconds(repeated, clock, caplog):
    for _ in range(600):
        repeated.warning("write", "No answer")
        clock.now += 0.1
    assert len(caplog.messages) == 6


def test_a_warning_after_a_quiet_time_is_written_without_a_count(repeated, clock, caplog):
    repeated.warning("write", "No answer")
    clock.now += 60
    repeated.warning("write", "No answer")
    assert caplog.messages == ["No answer"] * 2


def test_keys_are_counted_apart(repeated, caplog):
    repeated.warning("write", "No answer")
    repeated.warning("renew", "Not renewed")
    assert caplog.messages == ["No answer", "Not renewed"]


def test_end_is_told_once_with_what_was_not_written(repeated, clock, caplog):
    repeated.over("write", "Writes work again.")
    assert caplog.messages == []
    for _ in range(4):
        repeated.warning("write", "No answer")
    clock.now += 2
    repeated.over("write", "Writes work again.")
    repeated.over("write", "Writes work again.")
    assert caplog.messages == ["No answer", "Writes work again. (3 more warnings in the last 2 s)"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_what_comes_and_goes_is_two_lines_in_ten_seconds(repeated, clock, caplog):
    """One thread gets through while another one still doesn't."""
    for _ in range(99):
        repeated.warning("write", "No answer")
        repeated.over("write", "Works again.")
        clock.now += 0.1
    assert caplog.messages == ["No answer", "Works again."]
    clock.now += 1
    repeated.warning("write", "No answer")
    assert caplog.messages[2:] == ["No answer (98 more warnings in the last 11 s)"]


def test_threads_write_one_line_together(repeated, clock, caplog):
    at_once([lambda: repeated.warning("write", "No answer") for _ in range(8)])
    clock.now += 10
    repeated.warning("write", "No answer")
    assert caplog.messages == ["No answer", "No answer (7 more warnings in the last 10 s)"]


def test_what_is_forgotten_is_written_at_once_again(repeated, caplog):
    repeated.warning("write", "No answer")
    repeated.forget()
    repeated.warning("write", "No answer")
    assert caplog.messages == ["No answer"] * 2
