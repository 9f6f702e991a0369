"""SQLite with four worker processes on a disk that is full for a while: slower, never lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.staging import eventually

from .databases import default_database
from .disks import DISKS, Disk
from .expectations import Started, Tally
from .processes import Workers

PROCESSES = 4


@pytest.fixture(params=DISKS, ids=lambda disk: disk.__name__)
def disk(request, directory, django_db_blocker) -> Iterator[Disk]:
    """A disk that holds the default database of this process and of its workers."""
    mount = directory / "disk"
    mount.mkdir()
    database = default_database(NAME=str(mount / "shop.sqlite3"))
    with request.param(mount) as mounted, django_db_blocker.unblock(), database:
        yield mounted


@pytest.fixture
def workers(disk, directory) -> Iterator[Workers]:
    """Workers on the database of the disk."""
    running = Workers(directory)
    yield running
    running.end()
    print(running.log()[-5000:])


def test_full_disk_costs_time_only(disk, workers, started, chance):
    full(disk, workers, started, chance, times=1, runs=18)


@pytest.mark.faults
def test_disk_full_twenty_times_costs_time_only(disk, workers, started, chance, report):
    tally = full(disk, workers, started, chance, times=20, runs=60)
    report(f"full-{type(disk).__name__}", times=20, runs=tally.runs, steps=tally.steps, repeated=tally.repeated)


def full(disk: Disk, workers: Workers, started: Started, chance: random.Random, *, times: int, runs: int) -> Tally:
    """Fill the disk and free it again, time and again."""
    workers.start_registered(PROCESSES)
    for number in range(times):
        started.start_mixed(runs * (number + 1) // times - len(started.kinds))
        time.sleep(chance.uniform(0, 0.3))
        disk.fill(workers)
        time.sleep(chance.uniform(0.5, 1.5))
        disk.free(workers)
        time.sleep(0.2)
    eventually(started.are_finished, timeout=60)
    assert "disk" in workers.log(), "nobody noticed that the disk was full"
    workers.assert_none_died()
    workers.stop()
    return started.check()
