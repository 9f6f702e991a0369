"""How many runs a worker holds."""

from __future__ import annotations

import pytest

from django_steps.worker.prefetch import Prefetch


def quick(seconds: float = 0.004, concurrency: int = 8) -> Prefetch:
    pace = Prefetch(concurrency)
    pace.note(seconds)
    return pace


def test_nothing_is_claimed_ahead_before_a_pass_has_ended():
    pace = Prefetch(8)
    assert (pace.room(0), pace.room(7), pace.room(8)) == (8, 1, 0)
    assert not pace.prefetches


def test_behind_slow_passes_nothing_is_claimed_ahead():
    pace = quick(seconds=0.5)
    assert (pace.room(0), pace.room(7), pace.room(8)) == (8, 1, 0)


def test_as_many_are_claimed_ahead_as_will_have_begun_in_a_moment():
    assert quick(seconds=0.1).room(0) == 8 + 4
    assert quick(seconds=0.1, concurrency=1).room(0) == 1


def test_there_is_a_limit_to_what_is_claimed_ahead():
    assert quick(seconds=0.0).room(0) == 8 + 16
    assert quick(seconds=0.0, concurrency=1).room(0) == 1 + 8


def test_more_are_claimed_when_half_of_those_ahead_have_begun():
    pace = quick(seconds=0.01)
    assert pace.room(0) == 8 + 16
    assert (pace.room(16), pace.room(15)) == (0, 9)
    assert pace.low() == 15


def test_one_slow_pass_counts_at_once_and_is_forgotten_after_some_quick_ones():
    pace = quick()
    pace.note(2.0)
    assert not pace.prefetches
    for _ in range(10):
        pace.note(0.004)
    assert pace.prefetches


@pytest.mark.parametrize("concurrency", [1, 6, 8, 64])
def test_after_a_run_found_no_thread_none_is_claimed_ahead(concurrency):
    """Or else it would be given back and claimed again and again, and no other worker could get it."""
    pace = quick(concurrency=concurrency)
    pace.note_wait()
    assert pace.room(concurrency) == 0 and pace.room(concurrency - 1) == 1
    for _ in range(20):
        pace.note(0.004)
    assert pace.prefetches


@pytest.mark.parametrize("concurrency", [1, 2, 8, 64])
@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.003, 0.04, 0.06, 1.0, 3600.0])
def test_there_is_room_whenever_a_thread_has_nothing_to_do(seconds, concurrency):
    pace = quick(seconds, concurrency)
    for held in range(concurrency):
        assert pace.room(held) >= concurrency - held
