"""Runs that are executed by `django.tasks`, whose messages are rows of this database."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from django_steps.models import Worker as WorkerRow
from tests.conftest import ROOT, process_environment

from .expectations import Started, Tally
from .processes import Workers

ENVIRONMENT = {"FAULTS_TASKS": "1", "FAULTS_LEASE": "1s"}


def manage(*arguments: str) -> None:
    environment = {**process_environment(), **ENVIRONMENT, "DJANGO_SETTINGS_MODULE": "tests.faults.settings"}
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, check=True)


@pytest.fixture
def table(transactional_db: None) -> Iterator[None]:
    """The table of the backend, which only these tests have."""
    manage("migrate", "django_tasks_database", "-v", "0")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {table_of_messages()}")
        cursor.execute("DELETE FROM django_migrations WHERE app = 'django_tasks_database'")


@pytest.fixture
def executing(workers: Workers, table: None) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts processes that execute tasks."""

    def start() -> subprocess.Popen[bytes]:
        return workers.start_command("db_worker", "--interval", "0.1", "--no-startup-delay", environment=ENVIRONMENT)

    yield start
    workers.end()  # before the table is dropped


def dispatching(workers: Workers) -> subprocess.Popen[bytes]:
    return workers.start("--executor", "tasks", "--concurrency", "20", environment=ENVIRONMENT)


def test_tasks_execute_runs_of_every_kind(executing, workers, started):
    executing()
    executing()
    dispatching(workers)
    started.start_mixed(8)
    started.finish(timeout=60)
    workers.assert_none_died()
    workers.stop()
    assert started.check().repeated == 0
    assert not WorkerRow.objects.filter(claims=False).exists()


@pytest.mark.faults
def test_what_is_killed_loses_nothing_and_repeats_nothing(executing, workers, started, chance, report):
    tally = campaign(executing, workers, started, chance, faults=30, runs=100)
    report("tasks", faults=30, runs=tally.runs, steps=tally.steps, repeated=tally.repeated)


def campaign(
    executing: Callable[[], subprocess.Popen[bytes]],
    workers: Workers,
    started: Started,
    chance: random.Random,
    *,
    faults: int,
    runs: int,
) -> Tally:
    """Kill whoever executes, or the dispatcher, or lose all messages; then the runs come to their end."""
    running = [executing(), executing()]
    dispatcher = dispatching(workers)
    for number in range(faults):
        started.start_mixed(runs * (number + 1) // faults - len(started.kinds))
        time.sleep(chance.uniform(0.2, 1.5))
        fault = chance.choice(["executing", "dispatcher", "both", "lost"])
        if fault in ("executing", "both"):
            victim = chance.randrange(2)
            running[victim].kill()
            running[victim].wait()
            running[victim] = executing()
        if fault in ("dispatcher", "both"):
            dispatcher.kill()
            dispatcher.wait()
            dispatcher = dispatching(workers)
        if fault == "lost":
            with connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {table_of_messages()} WHERE status = 'READY'")
    started.finish(timeout=120)
    workers.assert_none_died()
    workers.stop()
    return started.check()


def table_of_messages() -> str:
    return next(name for name in connection.introspection.table_names() if name.endswith("dbtaskresult"))
