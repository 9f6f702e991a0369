"""Where the passes of a worker run: how they write, survive outages, and wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine.host import Limits
from ..errors import ClaimLost, UnserializableResult
from ..ledger import database, records, transitions
from ..ledger.records import Outcome, StepWrite
from ..ledger.transitions import Finish
from .group_commit import GroupCommit

logger = logging.getLogger("django_steps")

T = TypeVar("T")

_LONGEST_PAUSE = 1.0  # seconds between two attempts to reach the database
# How long a pass that was told to end goes on trying; its run is taken over then.
_LONGEST_GOODBYE = 5.0


class WorkerHost:
    """Where the passes of a worker run: commits are shared, outages survived, waits interrupted.

    Raises `ClaimLost` where an outage outlasts the worker's stop.
    """

    suspends_always = False
    lets_through = ()

    def __init__(self, alias: str, queue: GroupCommit, limits: Limits) -> None:
        self.limits = limits
        self._alias, self._queue = alias, queue
        self._waiting: threading.Event | None = None
        self._is_interrupted = False

    def connection(self) -> BaseDatabaseWrapper:
        return database.connection_for(self._alias)

    def record(self, write: StepWrite) -> Outcome:
        if not write.replaces and self._commit(write):
            return Outcome.WRITTEN
        return self._persist(lambda: records.record(self.connection(), write), _size(write))

    def finish(self, end: Finish) -> Outcome:
        if self._commit(end):
            return Outcome.WRITTEN
        return self._persist(lambda: transitions.finish(self.connection(), end), _size(end))

    def write(self, statement: Callable[[], T]) -> T:
        return self._persist(statement, 0)

    def _persist(self, statement: Callable[[], T], size: int) -> T:
        """Write until the database answers. How long that takes doesn't matter: the fence tells whether the claim still
        stood. Only a long value that closes two new connections is given up: the database doesn't take it."""
        pause, closings, is_new = 0.02, database.Closings(), False
        began = time.monotonic()
        while True:
            try:
                return statement()
            except (DataError, IntegrityError) as error:
                raise UnserializableResult(f"The database refused the value: {error}") from error
            except (DatabaseError, InterfaceError) as error:
                connection = self.connection()
                if connection.in_atomic_block:
                    raise
                if self._is_interrupted and time.monotonic() - began > _LONGEST_GOODBYE:
                    raise ClaimLost from error
                logger.warning("The database could not be written to, trying again: %s", error)
                is_closed = not database.is_transient(error) and not _is_usable(connection)
                if is_closed and is_new:
                    closings.count(size, error)
                is_new = is_closed and _reopen(connection)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def wait(self, seconds: float) -> None:
        self._waiting = threading.Event()
        if not self._is_interrupted:
            self._waiting.wait(seconds)

    def interrupt(self) -> None:
        """Let a wait end now, and every later one at once; may be called from any thread."""
        self._is_interrupted = True
        if self._waiting is not None:
            self._waiting.set()

    def _commit(self, write: StepWrite | Finish) -> bool:
        try:
            return self._queue.commit(self.connection, write)
        except (DatabaseError, InterfaceError):
            return False


def _is_usable(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and connection.is_usable()


def _reopen(connection: BaseDatabaseWrapper) -> bool:
    database.drop(connection)
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError):
        return False
    return True


def _size(write: StepWrite | Finish) -> int:
    log = write.attempt_log if isinstance(write, StepWrite) else ""
    return len(write.output or "") + len(write.error or "") + len(log)
