"""A worker and psycopg's pool: that of the database of the runs, and one of a second database, smaller than the worker has
threads.
"""

from __future__ import annotations

import copy

import pytest
from django.db import connections

from django_steps import workflow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app.models import Effect, Person
from tests.app.workflows import atomic_steps
from tests.staging import TO_START, Background, eventually

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "second"])


@pytest.fixture(scope="module", autouse=True)
def second(django_db_setup):
    """The same database by another alias, whose connections come from a pool of two."""
    settings = copy.deepcopy(connections.settings["default"])
    settings["OPTIONS"]["pool"] = {"min_size": 0, "max_size": 2, "timeout": 2.0, "max_idle": 60.0}
    settings["TEST"]["MIRROR"] = "default"  # there is nothing to empty after a test
    connections.settings["second"] = settings
    yield
    connections["second"].close_pool()
    del connections["second"], connections.settings["second"]


def test_worker_whose_own_connections_come_from_a_pool_executes_everything_and_ends(start_worker):
    """The loop listens on one of them, and each thread with atomic steps keeps one."""
    environment = {"DJANGO_SETTINGS_MODULE": "tests.faults.settings", "FAULTS_POOL": "13"}
    worker = start_worker("--concurrency", "4", "--poll-interval", "20", environment=environment)
    for _ in range(2):  # the second time it is told of news
        for run in atomic_steps.start_many([{"steps": 4}] * 8):
            run.result(timeout=TO_START)
    assert Effect.objects.count() == 2 * 8 * 4
    assert worker.stop() == 0


@pytest.fixture
def pooled():
    """A workflow with a step that uses the second database."""

    @workflow(name="pooled")
    def pooled(input, step):
        step.define("count", lambda: Person.objects.using("second").count()).run()

    return pooled


def test_threads_give_connections_back_after_each_pass(work, pooled):
    """So eight of them get on with two. A step that finds none for two seconds fails."""
    pooled.start_many([None] * 40)
    work(concurrency=8)
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}


def test_idle_threads_hold_no_connections_of_the_pool(pooled):
    worker = Worker(concurrency=8, poll_interval=0.1)
    working = Background(worker.run)
    try:
        for run in pooled.start_many([None] * 8):
            run.result(timeout=10)
        pool = connections["second"].pool

        def are_all_back():
            found = pool.get_stats()
            return found["pool_size"] and found["pool_available"] == found["pool_size"]

        eventually(are_all_back)
    finally:
        worker.stop()
        working.result()


def test_session_that_a_step_changed_does_not_return_to_its_pool(work):
    seen = []

    @workflow
    def changing(step):
        @step.define("change")
        def change():
            with connections["second"].cursor() as cursor:
                cursor.execute("SET search_path TO pg_catalog")
                cursor.execute("SELECT pg_backend_pid()")
                seen.append(cursor.fetchone()[0])

        change.run()

    @workflow
    def following(step):
        step.define("count", lambda: Person.objects.using("second").count()).run()

    changing.start_many([None] * 3)
    runs = following.start_many([None] * 3)
    work(concurrency=1)
    assert [run.result(timeout=0) for run in runs] == [None] * 3
    assert len(set(seen)) == 3
