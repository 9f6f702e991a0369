"""What tests of the engine need: claims without a worker, a second connection, waiting for others, lost answers.

Everything here uses the real tables on the real database; only answers that get lost are staged.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from django.apps import apps
from django.db import OperationalError, connection, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils import timezone

from django_steps.core import clock
from django_steps.definitions import registered_kinds
from django_steps.ledger import claims, database, dialect, tables, timers
from django_steps.ledger.claims import Claim
from django_steps.ledger.records import StepWrite
from django_steps.ledger.terms import Terms
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun

SECOND = 1_000_000
# Seconds within which a process has started where the machine is busy with many; no test is about how long it takes.
TO_START = 60.0


def make_terms(*, lease: int = 30 * SECOND, max_recoveries: int = 3, queues: tuple[str, ...] = ()) -> Terms:
    """The terms of a worker that has a row and no process."""
    row = WorkerRow.objects.create(
        host="a-host",
        pid=4711,
        concurrency=1,
        lease_us=lease,
        started_at=timezone.now(),
        last_seen_us=database.read_clock(connection),
    )
    kinds = registered_kinds()
    return Terms(worker_id=row.pk, kinds=kinds, queues=queues, lease_us=lease, max_recoveries=max_recoveries)


def claim(run: WorkflowRun, terms: Terms | None = None) -> Claim:
    """Claim a run that is ready, together with whatever comes before it."""
    found = claims.claim(connection, terms or make_terms(), 100).runs
    return next(claimed for claimed in found if claimed.run_id == run.pk)


def step_write(claim: Claim, name: str, position: int = 0, **fields: Any) -> StepWrite:
    """The record of a step that succeeded with None."""
    now = claim.now()
    fields = {"kind": "step", "status": "succeeded", "output": "null", "started_at": now, "finished_at": now, **fields}
    return StepWrite(run_id=claim.run_id, token=claim.token, name=name, position=position, **fields)


def recover(terms: Terms | None = None) -> timers.Woken:
    """What a claimer does about leases that have run out: suspect, wait, take over. Moves the clock."""
    terms = terms or make_terms()
    for _ in range(2):  # a suspicion first
        clock.offset_us += 60 * SECOND
        with database.writing(connection):
            woken = timers.wake(connection, terms)
    return woken


def status_of(run: WorkflowRun) -> str:
    """The status in the database."""
    run.refresh_from_db()
    return run.status


@contextlib.contextmanager
def second_connection() -> Iterator[BaseDatabaseWrapper]:
    """Another connection to the same database, to be used on this thread."""
    other = connections["default"].copy()
    try:
        yield other
    finally:
        other.close()


@contextlib.contextmanager
def locked(run: WorkflowRun) -> Iterator[None]:
    """Somebody's transaction holds the row of a run. On SQLite it can only hold the whole file."""
    with second_connection() as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            if other.vendor == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            else:
                cursor.execute(f"SELECT id FROM {tables.RUN} WHERE id = %s FOR UPDATE", [dialect.key(other, run.pk)])
        yield
        other.rollback()


class Background(threading.Thread):
    """A function on a thread with connections of its own; `join()` gives its value or raises its error."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function, self.value, self.error = function, None, None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()

    def result(self, timeout: float = 15) -> Any:
        self.join(timeout)
        assert not self.is_alive(), "the thread did not end"
        if self.error is not None:
            raise self.error
        return self.value


def at_once(functions: list[Callable[[], Any]]) -> list[Any]:
    """Call functions on threads of their own, at the same moment; their values, or the errors they raised."""
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return function()

    threads = [Background(lambda function=function: call(function)) for function in functions]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [thread.error or thread.value for thread in threads]


class LostAnswers:
    """While this is entered, the database carries out a write of the engine, and its answer is lost.

    `nth` counts the writes from 0; `None` loses none, and `seen` tells how many there were.
    """

    def __init__(self, nth: int | None) -> None:
        self.nth, self.seen, self.what = nth, 0, ""
        self._lock = threading.Lock()
        self._written: set[BaseDatabaseWrapper] = set()  # those with a transaction that wrote something

    def __enter__(self) -> LostAnswers:
        kind = type(connection._connections[connection._alias])
        lost, original = self, kind._commit

        def commit(wrapper: BaseDatabaseWrapper) -> None:
            original(wrapper)
            if wrapper in lost._written:  # a claim that finds nothing has nothing to lose
                lost._written.discard(wrapper)
                lost.count(wrapper, "COMMIT")

        # The class inherits it: set back by hand it would have one of its own from then on.
        self._patch = mock.patch.object(kind, "_commit", commit)
        self._patch.start()
        connection.execute_wrappers.append(self._execute)
        connection_created.connect(self._created)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._patch.stop()
        connection.execute_wrappers.remove(self._execute)
        connection_created.disconnect(self._created)

    def _created(self, connection: BaseDatabaseWrapper, **others: Any) -> None:
        if self._execute not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._execute)

    def _execute(self, execute: Callable[..., Any], statement: str, parameters: Any, many: bool, context: Any) -> Any:
        result = execute(statement, parameters, many, context)
        is_write = not statement.lstrip().startswith(("SELECT", "BEGIN", "SET", "PRAGMA", "SAVEPOINT", "RELEASE"))
        if is_write and "django_steps_" in statement and tables.WORKER not in statement:
            if context["connection"].in_atomic_block:
                self._written.add(context["connection"])
            self.count(context["connection"], statement)
        return result

    def count(self, wrapper: BaseDatabaseWrapper, what: str) -> None:
        with self._lock:
            number, self.seen = self.seen, self.seen + 1
        if number == self.nth:
            self.what = what
            lose_connection(wrapper)
            raise OperationalError("The answer was lost.")


def lose_connection(wrapper: BaseDatabaseWrapper) -> None:
    """Break a connection under Django's feet. SQLite has none that could break."""
    if wrapper.vendor != "sqlite" and wrapper.connection is not None:
        with (
            socket.socket(fileno=os.dup(wrapper.connection.fileno())) as network,
            contextlib.suppress(OSError),  # it is broken already
        ):
            network.shutdown(socket.SHUT_RDWR)


def eventually(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait for other threads or processes: the first true value of the condition, or an AssertionError."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"did not happen within {timeout} seconds")


@contextlib.contextmanager
def model_that_points_at(to: str, name: str, on_delete: Any, **options: Any) -> Iterator[type[models.Model]]:
    """A model of another app with a foreign key `target` to runs or steps, and its table."""

    class Meta:
        app_label = "app"

    body = {
        "__module__": __name__,
        "Meta": Meta,
        "target": models.ForeignKey(to, on_delete, null=True, related_name="+", **options),
        "__str__": lambda self: f"{name} {self.pk}",
    }
    model = type(name, (models.Model,), body)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield model
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
        apps.all_models["app"].pop(name.lower())
        apps.clear_cache()
