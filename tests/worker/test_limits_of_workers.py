"""Limits as workers keep them: an observer of its own counts who executes at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q

from django_steps.ledger import transitions
from django_steps.ledger.transitions import Finish
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from django_steps.worker.registration import write_limits
from tests.app.models import Effect
from tests.app.workflows import customer, itself, paced, pair, tiny
from tests.staging import claim, eventually, status_of

pytestmark = pytest.mark.django_db(transaction=True)

TICK = timedelta(
    milliseconds=1
)  # of SQLite's clock; an end is the time of the claim and what a finer clock has counted since


def most_at_once(kind: str) -> int:
    """How many steps of a kind executed at the same time, by the traces that they have left."""
    found = Effect.objects.filter(name__in=[f"{kind} in", f"{kind} out"]).order_by("at", "id")
    count = most = 0
    for name in found.values_list("name", flat=True):
        count += 1 if name.endswith("in") else -1
        most = max(most, count)
    return most


def longest_pause(kind: str) -> float:
    """For how many seconds nothing of a kind began, while there was more."""
    began = list(Effect.objects.filter(name=f"{kind} in").order_by("at").values_list("at", flat=True))
    return max((later - earlier for earlier, later in pairwise(began)), default=0.0)


def all_ended() -> bool:
    return not WorkflowRun.objects.active().exists()


def nothing_is_held() -> bool:
    held = ~Q(line_key=None) | ~Q(slot_1=None) | ~Q(slot_2=None) | ~Q(slot_queue=None)
    return not WorkflowRun.objects.filter(held).exists()


def test_no_more_runs_execute_at_once_than_the_limit_allows(running: Callable[..., Worker]) -> None:
    pair.start_many([None] * 20)
    for _ in range(2):
        running(concurrency=4)
    eventually(all_ended, 30)
    assert most_at_once("pair") == 2
    assert longest_pause("pair") < 1
    assert nothing_is_held()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}


def test_what_a_dead_process_has_not_promoted_goes_on_within_a_second(running: Callable[..., Worker]) -> None:
    write_limits(connection)
    first, second = customer.start_many([{"customer": "forgotten"}] * 2)
    held = claim(first)
    running(poll_interval=60)
    time.sleep(2.5)  # its first round of maintenance is over, the next one comes much later
    transitions.finish(
        connection, Finish(run_id=held.run_id, token=held.token, status="succeeded", finished_at=held.now())
    )
    eventually(lambda: status_of(second) == "succeeded", 5)


def test_one_run_of_each_key_at_a_time_from_its_beginning_to_its_end(running: Callable[..., Worker]) -> None:
    customer.start_many([{"customer": number % 3} for number in range(12)])
    running(concurrency=4)
    eventually(all_ended, 30)
    for number in range(3):
        runs = WorkflowRun.objects.filter(limit_1=f"u-1:{number}#customer").order_by("started_at")
        assert all(later.started_at >= earlier.finished_at - TICK for earlier, later in pairwise(runs))
        assert [run.pk for run in runs] == sorted(run.pk for run in runs)
    assert nothing_is_held()


def test_runs_begin_at_the_rate(running: Callable[..., Worker]) -> None:
    paced.start_many([None] * 40)
    running(concurrency=4)
    eventually(all_ended, 30)
    began = sorted(run.started_at.timestamp() for run in WorkflowRun.objects.all())
    assert 0.9 < began[-1] - began[0] < 6
    # In no second more than the rate and what may begin at once.
    assert all(later - earlier > 0.9 for earlier, later in zip(began, began[40:], strict=False))


def test_a_workflow_that_invokes_itself_does_not_wait_for_itself(running: Callable[..., Worker]) -> None:
    runs = [itself.start(3) for _ in range(3)]
    running(concurrency=2)
    eventually(all_ended, 30)
    for run in runs:
        run.refresh_from_db()
    assert [run.output for run in runs] == [3, 3, 3]


def test_runs_that_are_not_limited_pass_by_those_in_line(running: Callable[..., Worker]) -> None:
    customer.start_many([{"customer": 1, "nap": "1h"}] * 50)
    run = tiny.start({})
    running(concurrency=1)
    eventually(lambda: WorkflowRun.objects.get(pk=run.pk).is_finished)
    assert WorkflowRun.objects.filter(phase=WorkflowRun.Phase.IN_LINE).count() == 49


def test_killed_workers_leave_nothing_behind(start_worker: Callable[..., Any]) -> None:
    pair.start_many([None] * 20)
    customer.start_many([{"customer": 7}] * 5)
    options = ["--lease", "1", "--poll-interval", "0.1", "--concurrency", "4"]
    workers = [start_worker(*options) for _ in range(3)]
    for worker in workers[:2]:
        count = Effect.objects.count()
        eventually(lambda count=count: Effect.objects.count() > count + 5, 60)
        worker.kill()
    began = time.monotonic()
    eventually(all_ended, 60)
    assert time.monotonic() - began < 60
    assert nothing_is_held()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}
