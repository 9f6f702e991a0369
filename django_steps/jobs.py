"""One claimed run in a worker: the pass over it, and the place where that pass runs.

The worker makes jobs and hands them to threads; the keeper interrupts them. Neither is known here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

from . import events, failures
from .commits import CommitQueue
from .definitions import get_workflow
from .endings import Ended, Ending, Limits
from .errors import ClaimLost, UnserializableResult
from .execution import Pass
from .history import History
from .ledger import endings, histories, leases, records, sql
from .ledger.claims import Claim
from .ledger.endings import Finish
from .ledger.histories import Recorded
from .ledger.leases import Holding
from .ledger.records import Outcome, StepWrite

logger = logging.getLogger("django_steps")

T = TypeVar("T")

_LONGEST_PAUSE = 1.0  # seconds between two attempts to reach the database
# How long a pass that was told to end goes on trying; its run is taken over then.
_LONGEST_GOODBYE = 5.0
# A run that has waited for a thread for so many seconds may have been canceled or lost meanwhile.
_LONG_WAIT = 0.2


class WorkerHost:
    """Where the passes of a worker run: commits are shared, outages survived, waits interrupted.

    Raises `ClaimLost` where an outage outlasts the worker's stop.
    """

    puts_down_always = False

    def __init__(self, alias: str, queue: CommitQueue, limits: Limits) -> None:
        self.limits = limits
        self._alias, self._queue = alias, queue
        self._waiting: threading.Event | None = None
        self._is_interrupted = False

    def connection(self) -> BaseDatabaseWrapper:
        return sql.connection_for(self._alias)

    def record(self, write: StepWrite) -> Outcome:
        if not write.replaces and self._commit(write):
            return Outcome.WRITTEN
        return self._persist(lambda: records.record(self.connection(), write), _size(write))

    def finish(self, end: Finish) -> Outcome:
        if self._commit(end):
            return Outcome.WRITTEN
        return self._persist(lambda: endings.finish(self.connection(), end), _size(end))

    def write(self, statement: Callable[[], T]) -> T:
        return self._persist(statement, 0)

    def _persist(self, statement: Callable[[], T], size: int) -> T:
        """Write until the database answers. How long that takes doesn't matter: the fence tells whether the claim still
        stood. Only a long value that closes two new connections is given up: the database doesn't take it."""
        pause, closings, is_new = 0.02, sql.Closings(), False
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
                is_closed = not sql.is_transient(error) and not _is_usable(connection)
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
    sql.drop(connection)
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError):
        return False
    return True


def _size(write: StepWrite | Finish) -> int:
    log = write.attempt_log if isinstance(write, StepWrite) else ""
    return len(write.output or "") + len(write.error or "") + len(log)


class Job:
    """A claimed run on its way through a worker."""

    def __init__(self, claim: Claim, records: Sequence[Recorded] | None, host: WorkerHost) -> None:
        self.claim = claim
        self.claimed_on = time.monotonic()
        self.interrupt: Ended | None = None
        self.recorded: list[Recorded] = []  # what the pass left behind, for the next one
        self._records, self._host = records, host
        self._pass: Pass | None = None
        self.has_begun = False

    def run(self) -> Ending:
        """Go over the run once. Never raises: what goes wrong here is the run's failure, or the next claim's affair."""
        self.has_begun = True
        try:
            ending = self._left_untouched() if self._is_unwanted() else self._go_over()
        except ClaimLost:
            ending = Ending(Ended.LOST)
        except Exception as error:
            logger.exception("The pass over run %s broke off.", self.claim.run_id)
            ending = self._fail(error)
        events.pass_ended(self.claim, ending)
        return ending

    def stop(self, reason: Ended) -> None:
        """Let the pass end at its next step; may be called from any thread."""
        self.interrupt = self.interrupt or reason
        if self._pass is not None:
            self._pass.interrupt = self.interrupt
        self._host.interrupt()

    def give_back(self, connection: BaseDatabaseWrapper) -> None:
        """Let go of a run that has found no thread. Raises what the database raises."""
        if self._let_go(connection):
            events.pass_ended(self.claim, Ending(Ended.CANCELED))

    def holding(self) -> Holding:
        """What the renewal of the lease writes about the run."""
        current = self._pass
        if current is None:
            return Holding(self.claim.token)
        return Holding(self.claim.token, current.current_step, current.progress)

    def _is_unwanted(self) -> bool:
        """Whether the run was canceled or lost, or the worker told to stop, while it waited for a thread."""
        if self.interrupt is None and time.monotonic() - self.claimed_on > _LONG_WAIT:
            claim = self.claim
            holding = {claim.run_id: Holding(claim.token)}
            found = self._host.write(lambda: leases.check(self._host.connection(), holding))
            if found.lost:
                self.stop(Ended.LOST)
            elif found.canceled:
                self.stop(Ended.CANCELED)
        return self.interrupt is not None

    def _left_untouched(self) -> Ending:
        has_ended = self._host.write(lambda: self._let_go(self._host.connection()))
        return Ending(Ended.CANCELED if has_ended else self.interrupt or Ended.GIVEN_BACK)

    def _let_go(self, connection: BaseDatabaseWrapper) -> bool:
        claim = self.claim
        return endings.give_back(connection, claim.run_id, claim.token, is_untouched=claim.is_first)

    def _go_over(self) -> Ending:
        claim, host = self.claim, self._host
        if self._records is None:
            loaded = host.write(lambda: histories.load(host.connection(), {claim.run_id: -1}))
            self._records = loaded[claim.run_id]
        history = History(
            self._records,
            lambda name: host.write(lambda: histories.long_output(host.connection(), claim.run_id, name)),
        )
        self._pass = Pass(get_workflow(claim.workflow, claim.version), claim, history, host)
        self._pass.interrupt = self.interrupt
        events.run_claimed(claim)
        ending = self._pass.run()
        if ending.how is Ended.PUT_DOWN:
            self.recorded = history.records()
        return ending

    def _fail(self, error: Exception) -> Ending:
        end = Finish(
            run_id=self.claim.run_id,
            token=self.claim.token,
            status="failed",
            error=failures.with_steps(failures.record(error), []),
            finished_at=self.claim.now(),
        )
        try:
            outcome = self._host.finish(end)
        except (Exception, ClaimLost):
            logger.exception("Run %s could not be ended; it is taken over when its lease runs out.", end.run_id)
            return Ending(Ended.LOST)
        return Ending(Ended.FAILED, finish=end) if outcome is Outcome.WRITTEN else Ending(Ended.LOST)
