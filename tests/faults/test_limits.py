"""Limits under starts, cancels, retries and killed workers: never more than allowed, never fewer for long, no deadlock."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.db.models import Count, Q

from django_steps.errors import InvalidState
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from tests.staging import Background, eventually

from .limited import AT_ONCE, KINDS, OWNERS, crowded, owned, random_tree, size
from .processes import Workers

LOOK_EACH = 0.03  # seconds between two looks of the observer
# Seconds for which a slot may stay free while runs are in line for it. A worker looks each second; where a process that has
# just been killed was the only one with time for it, others look a second later.
LONGEST_IDLE = 5.0
IN_LINE = WorkflowRun.Phase.IN_LINE


def test_storm_of_limited_runs_and_kills_never_lets_too_many_go_on(workers, chance):
    storm(workers, chance, processes=3, seconds=6, kills=3)


def test_trees_of_runs_under_limits_end(workers, chance):
    trees(workers, chance, processes=3, count=12)


@pytest.mark.faults
def test_storm_of_limited_runs_and_a_hundred_kills_of_eight_workers(workers, chance, report):
    report("limits", kills=100, **storm(workers, chance, processes=8, seconds=150, kills=100))


@pytest.mark.faults
def test_four_hundred_trees_of_runs_under_limits_end_beside_kills(workers, chance, report):
    runs = trees(workers, chance, processes=8, count=400, kills=20)
    report("limit-trees", kills=20, runs=runs)


class Observer:
    """Counts who goes on at once by what runs are and not by their slots, until it is stopped."""

    def __init__(self) -> None:
        self.looks = 0
        self.most: Counter[str] = Counter()
        self.longest_idle = 0.0
        self._stop = threading.Event()
        self._thread = Background(self._watch)

    def stop(self) -> None:
        self._stop.set()
        self._thread.result()

    def _watch(self) -> None:
        idle_since: float | None = None
        while not self._stop.wait(LOOK_EACH):
            self.looks += 1
            running = WorkflowRun.objects.filter(workflow=crowded.name, status="running").count()
            # A run that is retried has started long ago, and is in line again until somebody takes it.
            unfinished = WorkflowRun.objects.active().filter(workflow=owned.name, attempting_since_us__isnull=False)
            self._see("crowded", running)
            for row in unfinished.values("limit_1").annotate(number=Count("pk")):
                self._see("owned", row["number"])
            idle_since = (idle_since or time.monotonic()) if self._has_idle() else None
            if idle_since is not None:
                self.longest_idle = max(self.longest_idle, time.monotonic() - idle_since)

    def _see(self, kind: str, number: int) -> None:
        self.most[kind] = max(self.most[kind], number)

    def _has_idle(self) -> bool:
        found = WorkflowRun.objects.filter(workflow=crowded.name).aggregate(
            in_line=Count("pk", filter=Q(phase=IN_LINE)), held=Count("pk", filter=Q(slot_1__isnull=False))
        )
        return found["in_line"] > 0 and found["held"] < AT_ONCE


def storm(workers: Workers, chance: random.Random, *, processes: int, seconds: float, kills: int) -> dict[str, Any]:
    """Start, cancel, retry and kill for a while; the figures."""
    running = [workers.start() for _ in range(processes)]
    eventually(lambda: WorkerRow.objects.count() == processes, timeout=60)
    observer, stop = Observer(), threading.Event()
    chances = [random.Random(chance.random()) for _ in range(3)]
    senders = [Background(lambda own=own: send(own, stop)) for own in chances]
    kill(workers, chance, running, seconds, kills)
    stop.set()
    for sender in senders:
        sender.result()
    eventually(lambda: not WorkflowRun.objects.active().exists(), 120 + seconds)
    observer.stop()
    workers.assert_none_died()
    workers.stop()
    assert observer.looks > 20
    assert observer.most == {"crowded": AT_ONCE, "owned": 1}
    assert observer.longest_idle < LONGEST_IDLE
    nothing_is_left()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded", "canceled"}
    return {
        "runs": WorkflowRun.objects.count(),
        "looks": observer.looks,
        "idle": round(observer.longest_idle, 2),
    }


def send(chance: random.Random, stop: threading.Event) -> None:
    """Start limited runs, and cancel and retry some, never with many in line."""
    while not stop.wait(chance.uniform(0, 0.1)):
        if WorkflowRun.objects.filter(phase=IN_LINE).count() < 60:
            crowded.start({"pause": 0.02})
            owned.start_many([{"owner": chance.randrange(OWNERS), "pause": 0.02} for _ in range(2)])
        run = chance.choice(list(WorkflowRun.objects.order_by("-id")[:30]))
        with contextlib.suppress(InvalidState):  # it has ended, or has not
            chance.choice([run.cancel, run.cancel, run.retry])()
    connection.close()


def kill(workers: Workers, chance: random.Random, running: list[Any], seconds: float, kills: int) -> None:
    """Kill workers at random moments within so many seconds, and start others instead."""
    for _ in range(kills):
        time.sleep(chance.uniform(0, 2 * seconds / kills))
        victim = chance.randrange(len(running))
        running[victim].kill()
        running[victim].wait()
        running[victim] = workers.start()


def trees(workers: Workers, chance: random.Random, *, processes: int, count: int, kills: int = 0) -> int:
    """Let so many trees of runs end; how many runs there were."""
    planted = [random_tree(chance, 0.01) for _ in range(count)]
    roots = [KINDS[tree["kind"]].start(tree) for tree in planted]
    running = [workers.start() for _ in range(processes)]
    kill(workers, chance, running, count / 4, kills)
    eventually(lambda: not WorkflowRun.objects.active().exists(), 120 + 2 * count)
    workers.assert_none_died()
    workers.stop()
    for root, tree in zip(roots, planted, strict=True):
        root.refresh_from_db()
        assert (root.status, root.output) == ("succeeded", size(tree)), root.error
    assert WorkflowRun.objects.count() == sum(map(size, planted))
    nothing_is_left()
    return WorkflowRun.objects.count()


def nothing_is_left() -> None:
    """No run is in line, or holds a slot."""
    held = ~Q(line_key=None) | ~Q(slot_1=None) | ~Q(slot_2=None) | ~Q(slot_queue=None)
    assert not WorkflowRun.objects.filter(held).exists()
