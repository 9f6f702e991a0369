"""Ten minutes of steady load: memory, connections and threads of the workers are the same at the end as at the start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
from django.db import connection

from django_steps.models import WorkflowRun
from tests.app.models import Effect
from tests.staging import eventually

from .expectations import Started, writing_kind

MINUTES = float(os.environ.get("SOAK_MINUTES") or 10)
WORKERS, RUNS_AT_ONCE, LOOKS = 2, 30, 9
# Allocators round up and caches fill; what leaks a few bytes with every run is far beyond that after ten minutes.
GROWTH = 4.0  # MB per worker


@dataclass
class Look:
    """What the workers use at one moment: the median of some looks, each of all workers together."""

    memory: float  # MB
    connections: int
    threads: int


@pytest.mark.soak
def test_memory_connections_and_threads_stay_flat(workers, started, report):
    processes = [workers.start("--lease", "5").pid for _ in range(WORKERS)]
    started.pause = 0.002
    end = time.monotonic() + MINUTES * 60
    warm = time.monotonic() + max(20.0, MINUTES * 6)  # a tenth of the time, for what is allocated once
    runs, keep_going = 0, load(started)
    while time.monotonic() < warm:
        runs += keep_going()
    first = look(processes, keep_going)
    while time.monotonic() < end:
        runs += keep_going()
    last = look(processes, keep_going)
    eventually(started.are_finished, timeout=60)
    workers.assert_none_died()
    workers.stop()
    report(
        "soak",
        minutes=MINUTES,
        runs=runs,
        memory=f"{first.memory:.1f} MB, then {last.memory:.1f} MB",
        connections=f"{first.connections}, then {last.connections}",
        threads=f"{first.threads}, then {last.threads}",
    )
    assert last.memory - first.memory < GROWTH * WORKERS
    assert last.connections == first.connections
    assert last.threads == first.threads


def load(started: Started) -> Callable[[], int]:
    """What keeps a number of runs going: call it again and again; it returns how many it has checked and forgotten."""

    def keep_going() -> int:
        if len(started.kinds) < RUNS_AT_ONCE * 10:
            started.start_mixed(RUNS_AT_ONCE)
            started.start(writing_kind(20), steps=20)
            eventually(lambda: started.unfinished() < RUNS_AT_ONCE, timeout=60)
            return 0
        eventually(started.are_finished, timeout=60)
        checked = started.check().runs
        # The workers leave behind what a real system prunes, and this process forgets it, too.
        WorkflowRun.objects.finished().delete()
        Effect.objects.all().delete()
        started.kinds.clear()
        started.ids.clear()
        started.path.unlink()
        return checked

    return keep_going


def look(processes: list[int], keep_going: Callable[[], int]) -> Look:
    """The medians of several looks under load."""
    looks = []
    for _ in range(LOOKS):
        keep_going()
        looks.append((sum(map(memory_of, processes)), connections_of(processes), sum(map(threads_of, processes))))
    memory, connections, threads = (median(values) for values in zip(*looks, strict=True))
    return Look(memory, int(connections), int(threads))


def memory_of(pid: int) -> float:
    """Megabytes that are resident and the process's own."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def connections_of(processes: list[int]) -> int:
    """Open sockets to the server; on SQLite, how often the database file is open."""
    name = str(connection.settings_dict["NAME"])
    return sum(is_connection(descriptor, name) for pid in processes for descriptor in Path(f"/proc/{pid}/fd").iterdir())


def is_connection(descriptor: Path, name: str) -> bool:
    try:
        target = str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return False
    return target == name if connection.vendor == "sqlite" else target.startswith("socket:")
