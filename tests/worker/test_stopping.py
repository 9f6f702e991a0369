"""Stopping: what runs is ended and recorded, what is left is given back at once."""

import signal
import time

import pytest
from django.db import connection

from django_steps import workflow
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import sleeper, slow_middle
from tests.staging import Background, eventually

pytestmark = pytest.mark.django_db(transaction=True)


def test_sigterm_ends_the_step_records_it_and_gives_the_run_back(start_worker):
    run = slow_middle.start({"seconds": 1.5})
    worker = start_worker()
    eventually(lambda: effects.count("slow begins"))
    time.sleep(0.2)
    assert worker.stop() == 0
    run.refresh_from_db()
    assert run.status == "pending" and run.phase == WorkflowRun.Phase.READY  # claimable at once
    assert run.worker_id is None and run.recoveries == 0
    assert list(run.steps.values_list("name", "status")) == [("before", "succeeded"), ("slow", "succeeded")]
    assert WorkerRow.objects.get().stopped_at is not None
    start_worker("--until-idle").wait()
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert effects.names(run) == ["before", "slow begins", "slow ends", "after"]


def test_a_second_sigterm_ends_at_once(start_worker):
    run = slow_middle.start({"seconds": 20})
    worker = start_worker()
    eventually(lambda: effects.count("slow begins"))
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert worker.process.poll() is None
    began = time.monotonic()
    assert worker.stop() == 1
    assert time.monotonic() - began < 3
    run.refresh_from_db()
    assert run.status == "running"  # until its lease runs out


def test_the_shutdown_timeout_ends_at_once(start_worker):
    slow_middle.start({"seconds": 20})
    worker = start_worker("--shutdown-timeout", "0.3")
    eventually(lambda: effects.count("slow begins"))
    began = time.monotonic()
    assert worker.stop() == 1
    assert time.monotonic() - began < 5


def test_an_idle_worker_stops_at_once(start_worker):
    worker = start_worker()
    eventually(lambda: WorkerRow.objects.exists())
    time.sleep(0.3)
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 3


def test_a_sleeping_run_stays_asleep_when_its_worker_stops(start_worker):
    run = sleeper.start({"duration": "1h"})
    worker = start_worker()
    eventually(lambda: WorkflowRun.objects.filter(status="sleeping"))
    assert worker.stop() == 0
    run.refresh_from_db()
    assert run.status == "sleeping" and effects.names(run) == ["before"]


def test_runs_that_were_claimed_ahead_are_given_back(transactional_db):
    @workflow(name="blocks")
    def blocks(input, step):
        step.define("block", lambda: effects.leave("block") or time.sleep(0.5)).run()

    runs = [blocks.start({}) for _ in range(4)]
    worker = Worker(concurrency=1, lease=30)
    worker._place.threads._prefetch.usual = 0.001
    working = Background(worker.run)
    eventually(lambda: effects.count("block"))
    worker.stop()
    assert working.result() is True
    statuses = [WorkflowRun.objects.get(pk=run.pk).status for run in runs]
    assert sorted(statuses) == ["pending", "pending", "pending", "succeeded"]
    assert not WorkflowRun.objects.filter(worker__isnull=False, status="pending").exists()


def test_a_wait_in_place_is_cut_short(transactional_db, settings):
    settings.DJANGO_STEPS = {"INLINE_WAIT": "30s"}

    @workflow(name="waits_in_place")
    def waits_in_place(input, step):
        step.define("before", effects.leave).run("before")
        step.sleep("nap", "20s")

    run = waits_in_place.start({})
    worker = Worker(concurrency=1)
    working = Background(worker.run)
    eventually(lambda: run.steps.filter(name="nap").exists())
    began = time.monotonic()
    worker.stop()
    assert working.result() is True
    assert time.monotonic() - began < 3
    run.refresh_from_db()
    assert run.status == "pending"


def test_a_body_that_ends_after_its_last_step_is_finished_all_the_same(transactional_db):
    @workflow(name="last_step")
    def last_step(input, step):
        step.define("last", lambda: effects.leave("last") or time.sleep(0.3)).run()
        return "done"

    run = last_step.start({})
    worker = Worker(concurrency=1)
    working = Background(worker.run)
    eventually(lambda: effects.count("last"))
    worker.stop()
    working.result()
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", "done")


def test_a_stopping_worker_tells_the_others_what_it_gives_back(transactional_db):
    """An idle worker goes on with the run long before it would have looked by itself."""

    @workflow(name="given_back")
    def given_back(input, step):
        step.define("first", lambda: effects.leave("first") or time.sleep(0.4)).run()
        step.define("second", effects.leave).run("second")

    run = given_back.start({})
    first = Worker(concurrency=1, poll_interval=1 if connection.vendor == "mysql" else 30)
    working = Background(first.run)
    eventually(lambda: effects.count("first"))
    second = Worker(concurrency=1, poll_interval=1 if connection.vendor == "mysql" else 30)
    waiting = Background(second.run)
    eventually(lambda: second._wakeups.is_reliable or connection.vendor == "mysql")
    first.stop()
    working.result()
    try:
        run.result(timeout=5)
    finally:
        second.stop()
        waiting.result()
    assert effects.names(run) == ["first", "second"]
