"""Where the passes of a worker run: how they write, wait, and outlast an outage of the database.

What a claimed run is in a worker is `task.py`'s; whose connection writes is `group_commit.py`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.repeated import Repeated
from ..engine.captured import Capture
from ..engine.ending import Ending
from ..engine.host import Handed, Helpable, Limits
from ..errors import ClaimLost, UnserializableResult
from ..ledger import cascades, database, records, transitions
from ..ledger.claims import Claim
from ..ledger.records import Outcome, StepWrite
from ..ledger.transitions import Finish
from .crew import Crew
from .group_commit import Entry, GroupCommit
from .writers import is_usable

logger = logging.getLogger("django_steps")

T = TypeVar("T")
U = TypeVar("U")
_Lend = Callable[[], AbstractContextManager[BaseDatabaseWrapper]]

_LONGEST_PAUSE = 1.0  # seconds between two attempts to reach the database
# How long a pass that has to end goes on trying; its run is recovered then.
_LONGEST_GOODBYE = 5.0


@dataclass(slots=True)
class _Handed:
    write: StepWrite
    entry: Entry


class WorkerHost:
    """Where the passes of a worker run: commits are shared, outages survived, waits interrupted.

    Raises `ClaimLost` where an outage outlasts the worker's stop.
    """

    suspends_always = False
    lets_through = ()
    logs_failures = True

    def __init__(
        self,
        commits: GroupCommit,
        limits: Limits,
        repeated: Repeated | None = None,
        crew: Crew | None = None,
        interrupted: threading.Event | None = None,
        capture: Capture | None = None,
    ) -> None:
        self.limits, self.capture = limits, capture
        self._crew = crew or Crew()
        self._commits = commits
        self._repeated = repeated or Repeated(logger)
        self._lent: BaseDatabaseWrapper | None = None
        # Set when waits are to end at once; those who help have the same.
        self._interrupted = interrupted or threading.Event()
        # Called with the claim and the ending of a pass whose body doesn't let it end; need not return.
        self.on_endless_body: Callable[[Claim, Ending], None] = lambda claim, ending: None
        self._was_cut = False  # the connection of the last statement, by this worker itself
        # Since when a write of the engine waits for its answer, by the monotonic clock.
        self.asked_on: float | None = None

    def has_endless_body(self, claim: Claim, ending: Ending) -> None:
        self.on_endless_body(claim, ending)

    def connection(self) -> BaseDatabaseWrapper:
        """In a statement of `write`, the connection that was lent for it; else the calling thread's own."""
        return self._lent if self._lent is not None else database.connection_for(self._commits.alias)

    def record(self, write: StepWrite) -> Outcome:
        if not write.is_alone and self._commit(write):
            return Outcome.WRITTEN
        return self._persist(lambda: records.record(self.connection(), write), _size(write))

    def hand_over(self, write: StepWrite) -> Handed:
        return _Handed(write, self._commits.hand_over(write))

    def is_answered(self, handed: Handed) -> bool:
        assert isinstance(handed, _Handed)
        return handed.entry.is_answered

    def settle(self, handed: Handed) -> Outcome:
        assert isinstance(handed, _Handed)
        self.asked_on = time.monotonic()
        try:
            if self._commits.settle(handed.entry):
                return Outcome.WRITTEN
        except (DatabaseError, InterfaceError):
            pass
        finally:
            self.asked_on = None
        return self._persist(lambda: records.record(self.connection(), handed.write), _size(handed.write))

    def offer(self, work: Helpable) -> None:
        self._crew.offer(work)

    def withdraw(self, work: Helpable) -> None:
        self._crew.withdraw(work)

    def call_for_help(self) -> None:
        self._crew.wake_all()

    def park(self) -> None:
        self._crew.park()

    def for_helper(self) -> WorkerHost:
        return WorkerHost(self._commits, self.limits, self._repeated, self._crew, self._interrupted, self.capture)

    def arrange(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> Sequence[U]:
        return [*begun, *others]

    def finish(self, end: Finish) -> Outcome:
        if end.details is None and self._commit(end):
            return Outcome.WRITTEN
        return self._persist(lambda: transitions.finish(self.connection(), end), _size(end))

    def write(self, statement: Callable[[], T]) -> T:
        return self._persist(statement, 0)

    def tell_parent(self, parent: UUID, step: str, status: str) -> list[UUID]:
        return self._commits.tellings.tell(
            parent, step, status, lambda ends: self.write(lambda: cascades.tell_parents(self.connection(), ends))
        )

    def connect(self) -> None:
        own = database.connection_for(self._commits.alias)
        self._persist(own.ensure_connection, 0, lambda: nullcontext(own))

    def _persist(self, statement: Callable[[], T], size: int, lend: _Lend | None = None) -> T:
        """Write until the database answers. How long that takes doesn't matter: the fence tells whether the claim still
        stood. Only a long value that closes two good connections is given up: the database doesn't take it. Each attempt
        has another session, unless the reason passes: what is wrong may be the session, which answers all the same."""
        pause, closings, is_suspect = 0.02, database.Closings(), False
        began = time.monotonic()
        while True:
            with (lend or self._commits.connection)() as connection:
                is_good = is_suspect and _is_good(connection)
                try:
                    answer = self._on(connection, statement)
                except (DataError, IntegrityError) as error:
                    raise UnserializableResult(f"The database refused the value: {error}") from error
                except (DatabaseError, InterfaceError) as error:
                    if connection.in_atomic_block:
                        raise
                    if self._interrupted.is_set() and time.monotonic() - began > _LONGEST_GOODBYE:
                        raise ClaimLost from error
                    self._repeated.warning("write", "The database could not be written to, trying again: %s", error)
                    is_of_session = database.may_be_of_session(error)
                    is_suspect = is_of_session and not is_usable(connection)
                    if is_suspect and is_good and not self._was_cut:
                        closings.count(size, error)
                    if is_of_session:
                        database.drop(connection)
                else:
                    self._repeated.over("write", "The database can be written to again.")
                    return answer
            time.sleep(pause)  # holding nothing
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _on(self, connection: BaseDatabaseWrapper, statement: Callable[[], T]) -> T:
        self._lent = connection
        self.asked_on = time.monotonic()
        try:
            with self._commits.asking(connection) as asked:
                try:
                    return statement()
                finally:
                    self._was_cut = asked.is_cut
        finally:
            self._lent = self.asked_on = None

    def wait(self, seconds: float) -> None:
        self._interrupted.wait(seconds)

    def interrupt(self) -> None:
        """Let a wait end now, and every later one at once; may be called from any thread."""
        self._interrupted.set()

    def _commit(self, write: StepWrite | Finish) -> bool:
        self.asked_on = time.monotonic()
        try:
            return self._commits.commit(write)
        except (DatabaseError, InterfaceError):
            return False
        finally:
            self.asked_on = None


def _is_good(connection: BaseDatabaseWrapper) -> bool:
    """Whether the database answers on the connection, which is opened again if need be."""
    if not is_usable(connection):
        database.drop(connection)
        try:
            connection.ensure_connection()
        except (DatabaseError, InterfaceError):
            return False
    return True


def _size(write: StepWrite | Finish) -> int:
    size = len(write.output or "") + len(write.error or "")
    if isinstance(write, Finish):
        return size + len(write.details or "")
    size += len(write.attempt_log) + len(write.context or "")
    return size if write.details is None else size + write.details.size
