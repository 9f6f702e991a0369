"""A database whose sessions have another isolation level than READ COMMITTED: workers get on all the same."""

from __future__ import annotations

import time

import pytest
from django.db import connection, connections

from django_steps import workflow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app.models import Person
from tests.staging import Background

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "mysql", reason="the others have no locks of gaps"),
]


@pytest.fixture
def repeatable_read(transactional_db):
    """The sessions of this process have the level of a server that nobody has set up."""
    options = connections.settings["default"]["OPTIONS"]
    before = options["isolation_level"]
    connection.close()
    options["isolation_level"] = "repeatable read"
    yield
    connections.close_all()
    options["isolation_level"] = before


def level():
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@tx_isolation" if connection.mysql_is_mariadb else "SELECT @@transaction_isolation")
        return cursor.fetchone()[0]


def test_runs_that_are_started_meanwhile_end_soon(repeatable_read, settings):
    settings.DJANGO_STEPS = {"INLINE_WAIT": "0s"}
    levels = []

    @workflow
    def busy(step):
        levels.append(level())
        for number in range(3):
            step.define(f"plain {number}", time.sleep).run(0)
            step.define(f"atomic {number}", lambda: Person.objects.create(name="x").name, atomic=True).run()
        step.sleep("short", "100ms")

    def start(count):
        for _ in range(count):
            busy.start()

    workers = [Worker(concurrency=4, poll_interval=0.05) for _ in range(3)]
    threads = [Background(worker.run) for worker in workers]
    starting = [Background(lambda: start(100)) for _ in range(4)]
    began = time.monotonic()
    try:
        for thread in starting:
            thread.result(60)
        while WorkflowRun.objects.exclude(status="succeeded").exists() and time.monotonic() - began < 40:
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.result(30)
    print("took", time.monotonic() - began, set(levels))
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}
    assert set(levels) == {"REPEATABLE-READ"}
