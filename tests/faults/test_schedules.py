"""Schedules that are fired by processes that are killed: every slot has exactly one run, or is counted as missed."""

from __future__ import annotations

import random
import time

import pytest
from django.db import connection

from django_steps.core import clock
from django_steps.ledger import database
from django_steps.models import WorkflowRun, WorkflowSchedule
from tests.staging import eventually

from .processes import Workers

SECOND = 1_000_000


def test_every_slot_is_fired_once_by_workers_that_are_killed(workers, chance):
    campaign(workers, chance, processes=3, schedules=10, seconds=8, kills=4)


@pytest.mark.faults
def test_every_slot_is_fired_once_by_eight_workers_and_a_hundred_kills(workers, chance, report):
    runs, missed = campaign(workers, chance, processes=8, schedules=50, seconds=120, kills=100)
    report("schedules", kills=100, runs=runs, missed=missed)


def campaign(
    workers: Workers, chance: random.Random, *, processes: int, schedules: int, seconds: float, kills: int
) -> tuple[int, int]:
    """Let schedules fire each second while workers are killed; how many runs there were, and how many slots were missed."""
    rows = [
        WorkflowSchedule.objects.create(
            name=f"s{number}", workflow="three_steps", every=f"{1 + number % 3}s", input={}, overlap="allow"
        )
        for number in range(schedules)
    ]
    first = {row.pk: row.next_at_us for row in rows}
    running = [workers.start() for _ in range(processes)]
    for _ in range(kills):
        time.sleep(chance.uniform(0, 2 * seconds / kills))
        victim = chance.randrange(processes)
        running[victim].kill()
        running[victim].wait()
        running[victim] = workers.start()
    eventually(lambda: WorkflowRun.objects.values("schedule").distinct().count() == schedules, timeout=60)
    until = database.read_clock(connection)
    eventually(lambda: not WorkflowSchedule.objects.filter(next_at_us__lte=until).exists(), timeout=60)
    for row in WorkflowSchedule.objects.all():
        row.pause()
    eventually(lambda: not WorkflowRun.objects.active().exists(), timeout=120)
    workers.assert_none_died()
    workers.stop()
    runs = missed = 0
    for row in WorkflowSchedule.objects.all():
        slots = [clock.to_microseconds(moment) for moment in row.runs.values_list("scheduled_for", flat=True)]
        assert len(slots) == len(set(slots)), f"a slot of {row.name} has two runs"
        every = row.timing().every_us
        assert row.last_slot_us == max(slots)
        left_out = row.skipped["counts"].get("missed", 0)
        assert len(slots) + left_out == (row.last_slot_us - first[row.pk]) // every + 1, row.name
        runs, missed = runs + len(slots), missed + left_out
    assert not WorkflowRun.objects.exclude(status="succeeded").exists()
    return runs, missed
