"""Celery workers and dispatchers: killed, cut off from their messages, and told things twice or too late."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from django_steps.worker.stopping import STUCK
from tests.app.models import Effect
from tests.app.workflows import hangs_once
from tests.staging import eventually, status_of

from .brokers import Redis
from .expectations import KINDS, Started, Tally
from .fleets import Fleet, claimed
from .processes import Workers


def test_celery_workers_of_both_pools_execute_runs_of_every_kind(fleet, workers, started):
    fleet.celery("prefork")
    fleet.celery("threads")
    fleet.dispatcher()
    fleet.wait_until_ready()
    started.start_mixed(16)
    started.finish(timeout=60)
    workers.assert_none_died()
    workers.stop()
    tally = started.check()
    assert tally.repeated == 0
    assert not WorkerRow.objects.filter(claims=False).exists()  # whoever ends in good order leaves no row


def test_what_is_killed_loses_nothing_and_repeats_nothing(fleet, workers, started, chance):
    campaign(fleet, workers, started, chance, faults=6, runs=16)


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_warm_shutdown_releases_runs_between_two_steps(fleet, workers, started, pool):
    process = fleet.celery(pool)
    fleet.dispatcher()
    run = started.start(KINDS[0], pause=2)
    eventually(lambda: run.steps.count() == 1, timeout=30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    run.refresh_from_db()
    recorded = run.steps.count()
    assert recorded < 4  # it was not executed to its end
    assert run.status in ("pending", "running")  # claimed again, perhaps
    assert not WorkerRow.objects.filter(claims=False).exists()
    fleet.celery(pool)
    started.finish(timeout=60)
    assert started.check().repeated == 0
    run.refresh_from_db()
    assert run.recoveries == 0


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_cold_shutdown_is_a_recovery(fleet, workers, started, pool):
    process = fleet.celery(pool)
    fleet.dispatcher()
    run = started.start(KINDS[0], pause=2)
    eventually(lambda: run.steps.count() == 1, timeout=30)
    process.send_signal(signal.SIGQUIT)
    process.wait(30)
    fleet.celery(pool)
    started.finish(timeout=60)
    started.check()


@pytest.mark.faults
def test_soft_time_limit_releases_a_run_between_two_steps(fleet, workers, started):
    fleet.celery("prefork", "--soft-time-limit", "2")
    fleet.dispatcher()
    run = started.start(KINDS[0], pause=1)
    started.finish(timeout=60)
    assert started.check().repeated == 0
    run.refresh_from_db()
    assert run.recoveries == 0


@pytest.mark.faults
def test_children_that_end_after_each_task_leave_no_rows(fleet, workers, started):
    fleet.celery("prefork", "--max-tasks-per-child", "1")
    fleet.dispatcher()
    started.start_mixed(8)
    started.finish(timeout=60)
    workers.stop()
    assert started.check().repeated == 0
    assert not WorkerRow.objects.filter(claims=False).exists()


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_process_that_a_step_is_stuck_in_is_ended_and_the_run_goes_on_in_another(
    fleet, workers, transactional_db, pool
):
    fleet.environment["FAULTS_STEP_GRACE"] = "500ms"
    process = fleet.celery(pool)
    fleet.dispatcher()
    run = hangs_once.start({"timeout": "500ms"})
    if pool == "prefork":  # it puts another child in the place of that one
        eventually(lambda: status_of(run) == "succeeded", timeout=60)
        assert process.poll() is None
    else:
        assert process.wait(30) == STUCK
        fleet.celery(pool)
        eventually(lambda: status_of(run) == "succeeded", timeout=60)
    first, second = Effect.objects.filter(name="stuck").values_list("pid", flat=True)
    assert first != second
    assert run.steps.get(name="stuck").attempts == 2
    assert not WorkerRow.objects.filter(claims=False, pid=first).exists()


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis that may be killed."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server here")
    server = Redis()
    server.start()
    yield server
    server.kill()


@pytest.mark.faults
def test_broker_that_goes_away_with_all_messages_costs_nothing_but_time(redis, workers, started):
    fleet = Fleet(workers, "redis", {"FAULTS_BROKER": redis.url, "FAULTS_CELERY_QUEUE": "workflows"})
    fleet.dispatcher()
    started.start_mixed(8)
    eventually(lambda: WorkflowRun.objects.filter(status="running").count() == 8, timeout=30)
    redis.kill()  # with the messages of eight runs
    started.start_mixed(16)
    eventually(lambda: "can't be reached, so no runs are claimed" in workers.log(), timeout=30)
    # At least the new ones: of the others, those whose message was not sent yet are released, too.
    eventually(lambda: WorkflowRun.objects.filter(status="pending").count() >= 16)
    redis.start()
    fleet.celery("prefork")
    started.finish(timeout=90)
    assert "Celery's broker can be reached again." in workers.log()
    workers.assert_none_died()
    workers.stop()
    assert started.check().repeated == 0
    fleet.close()


@pytest.mark.faults
@pytest.mark.parametrize("fleet", ["redis", "rabbitmq"], indirect=True)
def test_sixty_faults_lose_nothing_and_repeat_nothing(fleet, workers, started, chance, report):
    began = time.monotonic()
    tally = campaign(fleet, workers, started, chance, faults=60, runs=200)
    seconds = round(time.monotonic() - began)
    figures = {"faults": 60, "runs": tally.runs, "steps": tally.steps, "repeated": tally.repeated, "seconds": seconds}
    report(f"celery-{fleet.broker}", **figures)


def campaign(
    fleet: Fleet, workers: Workers, started: Started, chance: random.Random, *, faults: int, runs: int
) -> Tally:
    """One thing after the other goes wrong while runs are started; then they come to their end.

    Killed is a Celery worker (its main process, with which its children die), a dispatcher, or one of each at once.
    """
    running = [fleet.celery("prefork"), fleet.celery("threads")]
    dispatching = fleet.dispatcher()
    fleet.wait_until_ready()
    seen = set()
    kinds = ["celery", "dispatcher", "both", "purge", "twice", "late"]
    for number in range(faults):
        started.start_mixed(runs * (number + 1) // faults - len(started.kinds))
        time.sleep(chance.uniform(0.2, 1.5))
        seen.update(claimed())
        fault = kinds[number % len(kinds)] if number < len(kinds) else chance.choice(kinds)
        if fault in ("celery", "both"):
            victim = chance.randrange(2)
            running[victim].kill()
            running[victim].wait()
            running[victim] = fleet.celery(("prefork", "threads")[victim])
        if fault in ("dispatcher", "both"):
            dispatching.kill()
            dispatching.wait()
            dispatching = fleet.dispatcher()
        if fault == "purge":
            fleet.purge()
        if fault == "twice":
            fleet.send_again(claimed())
        if fault == "late":
            fleet.send_again(chance.sample(sorted(seen), min(len(seen), 20)))
    started.finish(timeout=240)
    fleet.wait_until_taken()  # what has come twice or late is to be tried, too
    workers.assert_none_died()
    workers.stop()
    return started.check()
