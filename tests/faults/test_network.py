"""A worker without network to the database for longer than its lease, then back."""

from __future__ import annotations

import time

import pytest
from django.db import connection

from django_steps import workflow
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from django_steps.worker.group_commit import GroupCommit
from tests.app.models import Effect
from tests.staging import Background, eventually
from tests.standing_still import without_locks

from . import evidence
from .expectations import KINDS, writing_kind
from .proxies import Proxy, proxy  # noqa: F401

PLAIN, ATOMIC = KINDS[0], KINDS[1]


@pytest.mark.parametrize("way", ["cut", "freeze"])
def test_worker_cut_off_past_its_lease_is_replaced_and_goes_on_later(way, proxy, workers, started):  # noqa: F811
    """Cut: connections are reset and refused. Frozen: what is sent doesn't arrive, and nobody is told."""
    cut_off = workers.start(environment=proxy.environment())
    started.pause = 0.1
    for _ in range(2):
        started.start(PLAIN)
        started.start(ATOMIC)
    eventually(lambda: evidence.read(started.path))  # it is in the middle of them
    if way == "cut":
        proxy.cut()
    else:
        without_locks(proxy.freeze, proxy.mend)
    other = workers.start()
    eventually(started.are_finished, timeout=30)
    other.terminate()
    assert other.wait(15) == 0

    proxy.mend()
    later = started.start(ATOMIC)
    eventually(lambda: WorkflowRun.objects.get(pk=later.pk).is_finished)
    assert cut_off.poll() is None
    workers.stop()
    started.check()


def test_step_whose_connection_is_reset_in_its_transaction_is_executed_again(proxy, work):  # noqa: F811
    """Also where the next connection comes about at once: the step has no retries, and needs none."""
    executed = []

    @workflow(name="reset")
    def reset(step):
        step.define("write", write, atomic=True).run()

    def write():
        executed.append("write")
        Effect.objects.create(name="first", pid=0, at=0)
        if len(executed) == 1:
            proxy.cut()
            proxy.mend()
        Effect.objects.create(name="second", pid=0, at=0)

    run = reset.start()
    with proxy.used_by_new_connections():
        work()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert executed == ["write", "write"]
    assert list(Effect.objects.order_by("id").values_list("name", flat=True)) == ["first", "second"]


def test_step_that_finds_its_connection_closed_at_its_end_is_done(work):
    """Closing it once more is refused by MySQL's client, which is no failure of the step."""

    @workflow(name="closing")
    def closing(step):
        return step.define("close", close).run()

    def close():
        connection.ensure_connection()
        connection.connection.close()
        return "closed"

    run = closing.start()
    work()
    assert run.result(timeout=0) == "closed"


def test_network_that_comes_and_goes_costs_time_only(proxy, workers, started, chance):  # noqa: F811
    """Nobody else is there to take over: the one worker does it all, in spite of its connections."""
    outages(proxy, workers, started, chance, count=2, runs=4)


@pytest.mark.faults
def test_a_hundred_outages_of_the_network_lose_nothing(proxy, workers, started, chance, report):  # noqa: F811
    tally = outages(proxy, workers, started, chance, count=100, runs=100)
    report("network", outages=100, runs=tally.runs, steps=tally.steps, repeated=tally.repeated)


def outages(proxy, workers, started, chance, *, count, runs):  # noqa: F811
    workers.start(environment=proxy.environment())
    eventually(WorkerRow.objects.exists)  # one that never had a connection doesn't start
    for number in range(count):
        for _ in range(runs * (number + 1) // count - len(started.kinds)):
            started.start(writing_kind(20), steps=20)
        down, up = chance.uniform(0, 0.5), chance.uniform(0.1, 0.6)
        time.sleep(up)
        chance.choice([proxy.cut, proxy.freeze])()
        time.sleep(down)
        proxy.mend()
    eventually(started.are_finished, timeout=60)
    workers.assert_none_died()
    workers.stop()
    return started.check()


# -- A connection that goes silent: no answer comes any more, and the heartbeat's connection is well ---------------------

RECORD = rb"INSERT INTO .?django_steps_steprecord"


def silenced(proxy, has_connection, atomic=False):  # noqa: F811
    """A workflow whose second step's record gets no answer."""

    @workflow(name="silenced")
    def silenced(step):
        def second():
            if has_connection:
                Effect.objects.create(name="second", pid=0, at=0)
            if not begun:
                proxy.silence(*[RECORD, b"COMMIT"][: 1 + atomic])
            begun.append(1)

        step.define("second", second, atomic=atomic).run()
        return "done"

    begun = []
    return silenced


@pytest.mark.parametrize("has_connection", [False, True], ids=["by a writer", "by its own connection"])
def test_write_whose_answer_never_comes_is_written_on_another_connection(proxy, transactional_db, has_connection):  # noqa: F811
    run = silenced(proxy, has_connection).start()
    with proxy.used_by_new_connections():
        worker = Worker(concurrency=1, poll_interval=0.1, lease=1)
        working = Background(worker.run)
        try:
            assert run.result(timeout=10) == "done"
        finally:
            worker.stop()
            working.result()
    run.refresh_from_db()
    assert (run.recoveries, run.steps.get().attempts) == (0, 1)
    assert Effect.objects.count() == has_connection


@pytest.mark.parametrize("atomic", [False, True])
def test_run_whose_thread_waits_for_good_goes_to_another_worker(proxy, transactional_db, monkeypatch, atomic):  # noqa: F811
    """The connection can't be cut from here, and the lease is not renewed any more."""
    monkeypatch.setattr(GroupCommit, "cut_silent", lambda self, seconds: None)
    run = silenced(proxy, True, atomic).start()
    with proxy.used_by_new_connections():
        workers = [Worker(concurrency=1, poll_interval=0.1, lease=1) for _ in range(2)]
        working = [Background(worker.run) for worker in workers]
        try:
            assert run.result(timeout=20) == "done"
        finally:
            proxy.cut()
            proxy.mend()
            for worker in workers:
                worker.stop()
            for thread in working:
                thread.result()
    run.refresh_from_db()
    assert run.recoveries == 1
    assert not atomic or Effect.objects.count() == 1
