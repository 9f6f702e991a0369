"""Threads of a worker that help others: how many there are, and how they stop."""

from __future__ import annotations

import sys
import time

import pytest

from django_steps.engine.host import Limits
from django_steps.worker.executors.threads import Threads
from django_steps.worker.group_commit import GroupCommit
from django_steps.worker.host import WorkerHost
from tests.staging import at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def threads():
    """Executors: `threads()`, stopped at the end."""
    made = []

    def make():
        made.append(Threads("default", 3, lambda task, ending: None, lambda: None))
        return made[-1]

    yield make
    for one in made:
        one.stop(5)


def test_threads_that_call_each_other_for_help_are_never_more_than_the_concurrency(threads):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            executor = threads()
            at_once([executor.crew.wake_all] * 8)
            assert len(executor._threads) <= 3
    finally:
        sys.setswitchinterval(interval)


def test_thread_that_is_started_while_the_worker_stops_ends(threads):
    executor = threads()
    assert executor.stop(5)
    executor._staff(1)  # by one that helps, and has looked before
    (late,) = executor._threads
    late.join(5)
    assert not late.is_alive()


def test_waits_of_a_thread_that_helps_end_when_the_run_is_to_end():
    commits = GroupCommit("default")
    host = WorkerHost(commits, Limits.from_settings())
    helper = host.for_helper()
    host.interrupt()
    began = time.monotonic()
    helper.wait(10)
    assert time.monotonic() - began < 5
    commits.close()


def test_runs_that_wait_behind_other_things_are_released(threads):
    executor = threads()
    released = []

    class Waiting:
        class claim:
            run_id = 1

        on_left = None

        def release(self, connection):
            released.append(connection)

    executor._looks.put(True)
    executor._waiting.add_errand("an errand of another executor")
    executor._waiting.add_task(Waiting())
    assert executor.release_next("connection")
    assert released == ["connection"]
