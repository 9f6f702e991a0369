"""SQLite with four worker processes, while somebody else holds the lock for longer than they wait: slower, never lost."""

from __future__ import annotations

import random
import sqlite3
import time

import pytest
from django.db import connection

from tests.staging import eventually

from .expectations import Started, Tally
from .processes import Workers

PROCESSES = 4


def test_locked_database_costs_time_only(workers, started, chance):
    locked(workers, started, chance, locks=2, runs=12)


@pytest.mark.faults
def test_database_locked_a_hundred_times_costs_time_only(workers, started, chance, report):
    tally = locked(workers, started, chance, locks=100, runs=300)
    report("locked", locks=100, runs=tally.runs, steps=tally.steps, repeated=tally.repeated)


def locked(workers: Workers, started: Started, chance: random.Random, *, locks: int, runs: int) -> Tally:
    """The workers wait for a lock for a tenth of a second at most; somebody else holds it for longer, time and again."""
    workers.start_registered(PROCESSES, {"SQLITE_TIMEOUT": "0.1"})
    somebody_else = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, timeout=30)
    try:
        for number in range(locks):
            started.start_mixed(runs * (number + 1) // locks - len(started.kinds))
            time.sleep(chance.uniform(0, 0.4))
            somebody_else.execute("BEGIN IMMEDIATE")
            time.sleep(chance.uniform(0.2, 1))
            somebody_else.execute("COMMIT")
    finally:
        somebody_else.close()
    eventually(started.are_finished, timeout=60)
    workers.assert_none_died()
    workers.stop()
    return started.check()
