"""Async runs in worker processes that are stopped, killed, or stand still for longer than their lease."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from django_steps.models import WorkflowRun
from tests.app import effects
from tests.app.workflows import several_at_once
from tests.staging import eventually
from tests.standing_still import stand_still

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = {"before", "a", "b", "plain", "after"}


def succeeded():
    return WorkflowRun.objects.filter(status="succeeded").count()


def check(runs, *, once=("before", "after")):
    """Everything was executed, atomic steps once, and nothing after it was recorded."""
    for run in runs:
        times = Counter(effects.names(run))
        assert set(times) == NAMES
        assert {name: times[name] for name in once} == dict.fromkeys(once, 1)
        records = {step.name: step for step in run.steps.all()}
        assert set(records) == NAMES | {"nap"}
        for effect in effects.Effect.objects.filter(run=str(run.pk)):
            # The clock of the database is known to within the time that its answer takes.
            assert effect.at < records[effect.name].finished_at.timestamp() + 0.2


def test_async_concurrency_of_the_command_bounds_the_runs_in_memory(start_worker):
    several_at_once.start_many([{"seconds": 1}] * 6)
    worker = start_worker("--async-concurrency", "2", "--concurrency", "8")
    eventually(lambda: effects.count("before") == 2)
    time.sleep(0.5)
    assert effects.count("before") == 2
    assert WorkflowRun.objects.filter(status="running").count() == 2
    assert worker.stop() == 0


def test_runs_of_a_killed_worker_go_on_elsewhere(start_worker):
    runs = several_at_once.start_many([{"seconds": 0.5}] * 10)
    killed = start_worker("--lease", "1", "--concurrency", "4")
    eventually(lambda: effects.count("a") == 10)
    killed.kill()
    start_worker("--lease", "1", "--concurrency", "4")
    eventually(lambda: succeeded() == 10, 20)
    check(runs)


def test_sigterm_lets_steps_end_and_releases_the_runs(start_worker):
    runs = several_at_once.start_many([{"seconds": 1}] * 5)
    worker = start_worker("--concurrency", "5")
    eventually(lambda: effects.count("a") == effects.count("plain") == 5)
    assert worker.stop() == 0
    assert set(WorkflowRun.objects.values_list("status", "worker", "recoveries")) == {("pending", None, 0)}
    assert start_worker("--until-idle").wait() == 0
    assert succeeded() == 5
    check(runs, once=NAMES)


def test_worker_that_stood_still_past_its_lease_records_nothing_twice(start_worker):
    runs = several_at_once.start_many([{"seconds": 0.5}] * 10)
    stopped = start_worker("--lease", "1", "--concurrency", "4")
    eventually(lambda: effects.count("a") == effects.count("b") == 10 and effects.count("plain") >= 4)
    stand_still(stopped.process)
    other = start_worker("--lease", "1", "--concurrency", "4")
    eventually(lambda: succeeded() == 10, 20)
    assert other.stop() == 0
    before = effects.Effect.objects.count()
    stopped.process.send_signal(signal.SIGCONT)
    later = several_at_once.start({"seconds": 0})
    later.result(timeout=10)
    assert stopped.stop() == 0
    assert effects.Effect.objects.count() == before + len(NAMES)
    check(runs)
