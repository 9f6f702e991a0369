"""Executing one attempt of a step on the calling thread: call its function, and make the record of how that went.

A plain step is recorded by whoever asked; an atomic one records itself, in the transaction of its own writes.
"""

from __future__ import annotations

import inspect
import logging
import time
from typing import Any

from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ...core.context import StepContext, active_step
from ...errors import ClaimLost, PassEnded, StepInTransaction
from ...ledger import database, leases, records
from ...ledger.leases import Holding
from ...ledger.records import Outcome, StepWrite
from ..frame import Frame
from ..operations.attempts import Attempt, Executed

logger = logging.getLogger("django_steps")

_PASS_THROUGH = (PassEnded, KeyboardInterrupt, GeneratorExit)
# How often an atomic step is executed again because the database broke off its transaction, and the waits in between.
_DATABASE_ATTEMPTS, _FIRST_DATABASE_PAUSE, _LAST_DATABASE_PAUSE = 60, 0.02, 0.5


def execute(attempt: Attempt, frame: Frame) -> Executed:
    """Execute the step once, and return what is to be recorded, with the error if it failed."""
    attempt.started_at = frame.claim.now()
    try:
        with frame.connections.tidied(f"Step {attempt.request.name!r}"):
            if attempt.request.atomic:
                return _execute_atomic(attempt, frame), None
            return attempt.succeeded(_call(attempt, frame)), None
    except _PASS_THROUGH:
        raise
    except BaseException as error:
        return attempt.failed(error), error


def _call(attempt: Attempt, frame: Frame) -> Any:
    request = attempt.request
    if time.monotonic() > frame.claim.held_until:  # this process was stopped or cut off: another may have done the step
        _ensure_held(frame)
    token = active_step.set(StepContext(frame.run_id, request.name, attempt.number))
    try:
        value = request.function(*request.args, **request.kwargs)
        if inspect.isawaitable(value):
            value = async_to_sync(_awaited)(value)
    finally:
        active_step.reset(token)
        misuse = frame.guard.take_misuse()
    if misuse is not None:  # and the function made nothing of it
        raise misuse
    return value


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _execute_atomic(attempt: Attempt, frame: Frame) -> StepWrite:
    """Execute the step and record it in one transaction; again, if the database broke the transaction off."""
    # What this withstands:
    #
    # - Long steps. The row of the run is locked by the record at the end, and not at the beginning: the heartbeat skips
    #   locked rows, so that a step longer than its lease would lose it. SQLite is the exception. It has one lock for the
    #   whole file, and a transaction that reads first and writes later fails as soon as another process has written in
    #   between, so it becomes a writer at once.
    # - A lost claim. The record is fenced. If the run is another worker's, the record raises, and the writes of the step
    #   are rolled back with it: they take effect once, whichever worker's record is committed.
    # - A lost answer. An error that comes after the record may come after the COMMIT as well. Executing the function again
    #   then would repeat its writes, so the database is asked for this very write first.
    # - A transaction that the database broke off: a deadlock, a restart, a failover. That is no failure of the step and
    #   uses up no attempt. An error of the step's own statements looks the same, and must not be repeated here: what tells
    #   them apart is when it came (`is_ours`) and whether the connection survived it.
    # - An outage that is longer than the lease. Another worker may have executed the step meanwhile, so the claim is
    #   checked before the function is called again.
    # - A value that the database refuses by closing the connection. It would do so each time: `closings` gives up.
    #
    # In a transaction of the caller (a `TestCase`) nothing can be executed again: the error has spoiled the whole of it.
    host, pause, closings = frame.host, _FIRST_DATABASE_PAUSE, database.Closings()
    for _ in range(_DATABASE_ATTEMPTS):
        write: StepWrite | None = None
        is_begun = False
        connection, raw = host.connection(), None
        is_nested = connection.in_atomic_block
        try:
            with transaction.atomic(using=connection.alias):
                if connection.vendor == "sqlite":
                    _hold(frame)
                depths, is_begun, raw = frame.connections.depths(), True, connection.connection
                write = attempt.succeeded(_call(attempt, frame))
                if frame.connections.is_deeper(depths):
                    raise StepInTransaction(f"Step {write.name!r} left a transaction open, so that it can't commit.")
                attempt.outcome = _record(frame, write)
            return write
        except _PASS_THROUGH:
            raise
        except BaseException as error:
            is_ours = not is_begun or write is not None  # an error of our own statements, not of the step's
            # To be judged before anything else uses the connection: Django would connect again, and whether this one was
            # broken could not be told any more.
            is_broken_off = not is_nested and _was_broken_off(connection, raw, error, is_ours)
            if is_broken_off and not database.is_transient(error):
                database.drop(connection)  # the end of atomic() may have left it closed, and without autocommit
            if write is not None and not is_nested and _is_recorded(frame, write):
                logger.exception("Step %r is done and recorded, but an error came after its commit.", write.name)
                return write
            attempt.outcome = None
            if not is_broken_off:
                raise
            if write is not None and not database.is_transient(error):
                closings.count(len(write.output or ""), error)
            logger.warning("The database broke off step %r, which is executed again: %s", attempt.request.name, error)
            host.wait(pause)
            _ensure_held(frame)
            frame.end_if_interrupted()
            pause = min(pause * 2, _LAST_DATABASE_PAUSE)
    raise OperationalError(f"The database broke off step {attempt.request.name!r} {_DATABASE_ATTEMPTS} times.")


def _hold(frame: Frame) -> None:
    claim = frame.claim
    if records.hold(frame.host.connection(), claim.run_id, claim.token) is None:
        raise ClaimLost


def _ensure_held(frame: Frame) -> None:
    """Wait until the database is back, which uses up no attempts. The run may be another's by then, and the step done."""
    claim, host = frame.claim, frame.host
    if host.write(lambda: leases.check(host.connection(), {claim.run_id: Holding(claim.token)})).lost:
        raise ClaimLost


def _record(frame: Frame, write: StepWrite) -> Outcome:
    """The fenced record, last in the transaction of the step's own writes."""
    outcome = records.record(frame.host.connection(), write)
    if outcome in (Outcome.LOST, Outcome.TAKEN):
        raise ClaimLost
    return outcome


def _is_recorded(frame: Frame, write: StepWrite) -> bool:
    host = frame.host
    return host.write(lambda: records.is_recorded(host.connection(), write))


def _was_broken_off(connection: BaseDatabaseWrapper, raw: Any, error: BaseException, is_ours: bool) -> bool:
    """Whether the database, not the step, is why a transaction on the connection `raw` came to nothing."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    if is_ours or database.is_transient(error) or connection.connection is None:
        return True
    # The end of atomic() connects again where it finds the connection closed.
    return connection.connection is not raw or not connection.is_usable()
