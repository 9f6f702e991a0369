"""Fixtures for tests that run the engine itself: in this process, or in worker processes of their own."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.management.color import no_style
from django.db import connection, connections
from django.test import TransactionTestCase
from django.utils import timezone

from django_steps.core import clock
from django_steps.definitions import registry as workflows
from django_steps.durations import to_microseconds
from django_steps.engine import fingerprints
from django_steps.engine.drivers import execute
from django_steps.ledger import database, notify
from django_steps.models import Worker as WorkerRow
from django_steps.worker import Worker
from django_steps.worker.host import WorkerHost

ROOT = Path(__file__).resolve().parent.parent

# Under nohup the processes that tests start would inherit that a hang-up is ignored.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

EVERYTHING = os.environ.get("ALL") == "1"
# What no database can change is tested once: on SQLite.
ELSEWHERE = os.environ.get("DATABASE", "sqlite") != "sqlite" and not EVERYTHING

collect_ignore = []
if ELSEWHERE:
    collect_ignore += [
        "core",
        "docs",
        "e2e",
        "typing",
        "test_benchmarks.py",
        "test_demo.py",
        "test_structure.py",
        "testing/test_pytest_plugin.py",
        "test_metadata.py",
        "test_packaging.py",
        "test_translations.py",
    ]
# Django has pools for PostgreSQL only.
if os.environ.get("DATABASE", "sqlite") != "postgresql":
    collect_ignore += ["worker/test_pools.py"]


# The tests of steps are executed a second time, with the run put down after every step and its body replayed; on SQLite.
STEP_TESTS = {
    "test_at_most_once",
    "test_async_children",
    "test_atomic_steps",
    "test_children",
    "test_children_retried",
    "test_context",
    "test_details",
    "test_failures_replayed",
    "test_groups",
    "test_history",
    "test_connections",
    "test_misplaced_steps",
    "test_polls",
    "test_checkpoints",
    "test_retries",
    "test_run_retries",
    "test_sleep",
    "test_step_names",
    "test_steps",
    "test_targets",
    "test_undo",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "start_worker" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")
    left_out = [item for item in items if ELSEWHERE and item.get_closest_marker("any_database")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("any_database")]
        config.hook.pytest_deselected(items=left_out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module, test = metafunc.module.__name__.rpartition(".")[2], metafunc.definition
    if module not in STEP_TESTS or "suspends_always" not in metafunc.fixturenames:
        return
    if test.get_closest_marker("counts_passes") is None:
        always = pytest.param(True, marks=pytest.mark.any_database, id="put down always")
        metafunc.parametrize("suspends_always", [pytest.param(False, id="straight through"), always], indirect=True)


@pytest.fixture
def suspends_always(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the workers of `work` put a run down after every step that they execute."""
    monkeypatch.setattr(WorkerHost, "suspends_always", getattr(request, "param", False))


@pytest.fixture
def work(transactional_db: None, suspends_always: None) -> Callable[..., None]:
    """Execute what is due with a real worker in this process, until nothing is left: `work(concurrency=2)`."""

    def run(**options: Any) -> None:
        Worker(**{"until_idle": True, "poll_interval": 0.05, **options}).run()

    return run


class WorkerProcess:
    """A real `manage.py runworkflows` on the test database."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "runworkflows", *arguments],
            cwd=ROOT,
            env={**process_environment(), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout: float = 15) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def wait(self, timeout: float = 30) -> int:
        """The exit code, once it ends by itself."""
        return self.process.wait(timeout)

    def output(self) -> str:
        """All it printed; ends it if it still runs."""
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        return self.process.stdout.read()


def process_environment() -> dict[str, str]:
    """The environment in which another process uses the test database."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_NAME": str(connection.settings_dict["NAME"]),
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def start_worker(transactional_db: None) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes; what still runs at the end of the test is killed: `start_worker("--lease", "1")`."""
    started: list[WorkerProcess] = []

    def start(*arguments: str, **options: Any) -> WorkerProcess:
        started.append(WorkerProcess(*arguments, **options))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
        assert worker.process.stdout is not None
        worker.process.stdout.close()


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Workflows that a test defines are forgotten after it."""
    before = dict(workflows._registry)
    yield
    workflows._registry.clear()
    workflows._registry.update(before)


@pytest.fixture
def live_worker() -> Callable[..., WorkerRow]:
    """The row of a worker that is alive, without its process: `live_worker(queues=["bulk"])`."""

    def make(**fields: Any) -> WorkerRow:
        return WorkerRow.objects.create(
            **{
                "host": "here",
                "pid": 1,
                "queues": [],
                "workflows": [["three_steps", ""], ["sleeper", ""]],
                "concurrency": 8,
                "lease_us": 30_000_000,
                "started_at": timezone.now(),
                "last_seen_us": database.read_clock(connection),
                **fields,
            }
        )

    return make


@pytest.fixture(autouse=True)
def pass_time() -> Iterator[Callable[[str], None]]:
    """Move the engine's clock forward, in this process: `pass_time("2h")`. It is set back after each test."""

    def forward(duration: str) -> None:
        clock.offset_us += to_microseconds(duration)

    before = clock.offset_us  # a class of tests may have moved it for all of them
    yield forward
    clock.offset_us = before


@pytest.fixture(autouse=True)
def nothing_warned_of() -> None:
    """What one test was warned of is news in the next one."""
    notify.repeated.forget()
    execute.repeated.forget()
    fingerprints.warned.clear()


@pytest.fixture(autouse=True)
def no_worker_left() -> Iterator[None]:
    """A worker of one test that goes on in this process would execute the runs of the next ones."""
    yield
    end = time.monotonic() + 10
    while left := [each.name for each in threading.enumerate() if each.name == "django-steps-heartbeat"]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


# What `migrate` writes, and no test changes.
KEPT_TABLES = {"django_content_type", "auth_permission"}


@pytest.fixture(autouse=True, scope="session")
def quick_flush() -> Iterator[None]:
    """The tables are emptied after each test without the command, and without making content types and permissions anew; and
    the connection of this thread is kept: a new one costs PostgreSQL ten milliseconds, whose caches are empty.
    """
    with (
        mock.patch.object(TransactionTestCase, "_fixture_teardown", _empty_tables),
        mock.patch.object(TransactionTestCase, "_should_reload_connections", lambda case: False),
    ):
        yield


def _empty_tables(case: Any) -> None:
    for alias in case._databases_names(include_mirrors=False):
        operations = connections[alias].ops
        flush = _flush_postgresql if connections[alias].vendor == "postgresql" else type(operations).sql_flush
        if tables := _filled_tables(alias):
            statements = flush(operations, no_style(), tables, reset_sequences=False, allow_cascade=False)
            operations.execute_sql_flush(statements)
        if connections[alias].vendor == "mysql":  # which the engine limits for the whole session
            with connections[alias].cursor() as cursor:
                cursor.execute("SET SESSION innodb_lock_wait_timeout = DEFAULT")


def _filled_tables(alias: str) -> list[str]:
    """Those that a test has left something in: a few of thirty."""
    with connections[alias].cursor() as cursor:
        cursor.execute(_which_are_filled(alias))
        return [name for (name,) in cursor.fetchall()]


@functools.cache
def _which_are_filled(alias: str) -> str:
    quote = connections[alias].ops.quote_name
    each = "SELECT '{}' FROM (SELECT 1 AS one) one WHERE EXISTS (SELECT 1 FROM {})"
    return " UNION ALL ".join(each.format(name, quote(name)) for name in _emptied_tables(alias))


@functools.cache
def _emptied_tables(alias: str) -> list[str]:
    names = connections[alias].introspection.django_table_names(only_existing=True, include_views=False)
    return [name for name in names if name not in KEPT_TABLES]


def _flush_postgresql(operations: Any, style: Any, tables: list[str], **options: Any) -> list[str]:
    """TRUNCATE, which Django uses, makes a new file for every table and index: half a second after each test."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > 8000000")
        large = {name for (name,) in cursor.fetchall()}
    quoted = [(operations.quote_name(table), table in large) for table in tables]
    return [f"TRUNCATE {name} CASCADE" if is_large else f"DELETE FROM {name}" for name, is_large in quoted]
