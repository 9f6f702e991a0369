"""`kill -9` of workers at random moments, and the random moments can be repeated."""

from __future__ import annotations

import random
import time

import pytest

from tests.staging import eventually

from .expectations import Started, Tally
from .processes import Workers

WORKERS = 3


def test_killed_workers_lose_nothing_and_repeat_nothing(workers, started, chance):
    campaign(workers, started, chance, kills=4, runs=12)


@pytest.mark.faults
def test_a_hundred_kills_lose_nothing_and_repeat_nothing(workers, started, chance, report):
    began = time.monotonic()
    tally = campaign(workers, started, chance, kills=100, runs=200)
    report(
        "kills",
        kills=100,
        runs=tally.runs,
        steps=tally.steps,
        repeated=tally.repeated,
        seconds=round(time.monotonic() - began),
    )


def campaign(workers: Workers, started: Started, chance: random.Random, *, kills: int, runs: int) -> Tally:
    """Kill one of the workers again and again, while runs are started; then let them come to their end."""
    running = [workers.start() for _ in range(WORKERS)]
    for number in range(kills):
        started.start_mixed(runs * (number + 1) // kills - len(started.kinds))
        time.sleep(chance.uniform(0.05, 1.5))
        victim = chance.randrange(WORKERS)
        running[victim].kill()
        running[victim].wait()
        running[victim] = workers.start()
    eventually(started.are_finished, timeout=90)
    workers.assert_none_died()
    workers.stop()
    return started.check()
