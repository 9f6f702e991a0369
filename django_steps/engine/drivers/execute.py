"""Executing one attempt of a step on the calling thread: call its function, and make the record of how that went.

A plain step is recorded by whoever asked; an atomic one records itself, in the transaction of its own writes.
"""

from __future__ import annotations

import decimal
import inspect
import logging
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ...core.context import StepContext, active_step
from ...core.repeated import Repeated
from ...errors import ClaimLost, OwnRunChanged, PassEnded, StepInTransaction
from ...ledger import database, leases, records
from ...ledger.leases import Holding
from ...ledger.records import Outcome, StepWrite
from ..frame import Frame
from ..operations.attempts import Attempt, Executed
from ..overdue import TimedCall
from .limits import awaited_in_time, statements_in_time

logger = logging.getLogger("django_steps")
repeated = Repeated(logger)


class LeftAwaitable(BaseException):
    """A plain function has returned an awaitable, and it is not this thread that awaits it. Unwinds the execution."""

    def __init__(self, awaitable: Any, context: Context) -> None:
        super().__init__()
        self.awaitable, self.context = awaitable, context


PASS_THROUGH = (PassEnded, KeyboardInterrupt, GeneratorExit, LeftAwaitable)
# How often an atomic step is executed again because the database ended its transaction, and the waits in between.
_DATABASE_ATTEMPTS, _FIRST_DATABASE_PAUSE, _LAST_DATABASE_PAUSE = 60, 0.02, 0.5
# MySQL and MariaDB wait for a lock at least so long, in seconds, unless the statement says NOWAIT.
_SHORTEST_LOCK_WAIT = 0.9


def execute(attempt: Attempt, frame: Frame) -> Executed:
    """Execute the step once, and return what is to be recorded, with the error if it failed.

    It has a context of its own: what it sets in context variables (a tenant, a language, a time zone, the precision of
    decimals) is gone for later steps, as it is on every later pass, which only replays this one.
    """
    attempt.started_at = frame.claim.now()
    context = copy_context()
    context.run(enter_step, attempt, frame)
    try:
        with frame.connections.tidied(f"Step {attempt.request.name!r}"):
            if attempt.request.options.atomic:
                try:
                    return context.run(_execute_atomic, attempt, frame), None
                finally:
                    frame.asked_on = None
            return attempt.succeeded(context.run(_call, attempt, frame)), None
    except PASS_THROUGH:
        raise
    except BaseException as error:
        return attempt.failed(error), error


def enter_step(attempt: Attempt, frame: Frame) -> None:
    """Let the present context be that of a step."""
    active_step.set(StepContext(frame.run_id, attempt.request.name, attempt.number, attempt))
    decimal.setcontext(decimal.getcontext().copy())  # the copied context refers to the body's
    for interceptor in frame.interceptors:
        interceptor.in_attempt(attempt)


def _call(attempt: Attempt, frame: Frame) -> Any:
    request = attempt.request
    if time.monotonic() > frame.claim.held_until:  # this process was stopped or cut off: another may have done the step
        _ensure_held(frame)
    timed = None if request.options.timeout_us is None else TimedCall(attempt, frame)
    try:
        value = request.function(*request.args, **request.kwargs)
        if inspect.isawaitable(value):
            value = _result_of(value, attempt, frame)
        attempt.examine(value)
    finally:
        misuse = frame.guard.take_misuse()
        if timed is not None:
            timed.ended()
    if misuse is not None:  # and the function made nothing of it
        raise misuse
    return value


def _result_of(awaitable: Any, attempt: Attempt, frame: Frame) -> Any:
    if not frame.leaves_awaitables:
        return async_to_sync(awaited_in_time)(awaitable, attempt)
    if attempt.request.options.atomic:
        close = getattr(awaitable, "close", lambda: None)
        close()
        raise TypeError(
            f"Step {attempt.request.name!r} is atomic and its function is async. A transaction needs a plain function, which "
            "is executed on a thread: make it a plain def, or leave out atomic=True."
        )
    raise LeftAwaitable(awaitable, copy_context())


# -- Atomic steps ------------------------------------------------------------------------------------


class _RunVanished(Exception):
    """The record was refused within the step's own transaction."""


def _execute_atomic(attempt: Attempt, frame: Frame) -> StepWrite:
    """Execute the step and record it in one transaction; again, if the database ended the transaction."""
    # What this withstands:
    #
    # - Long steps. The row of the run is locked by the record at the end, and not at the beginning: the heartbeat skips
    #   locked rows, so that a step longer than its lease would lose it. SQLite is the exception. It has one lock for the
    #   whole file, and a transaction that reads first and writes later fails as soon as another process has written in
    #   between, so it becomes a writer at once.
    # - A lost claim. The record is fenced. If the run is another worker's, the record raises, and the writes of the step
    #   are rolled back with it: they take effect once, whichever worker's record is committed. The fence refuses the record,
    #   too, where the step itself has deleted its run; after the rollback the run is there again, which tells the two apart.
    # - A lost answer. An error that comes after the record may come after the COMMIT as well. Executing the function again
    #   then would repeat its writes, so the database is asked for this very write first.
    # - A transaction that the database ended: a deadlock, a restart, a failover. That is no failure of the step and
    #   uses up no attempt. An error of the step's own statements looks the same, and must not be repeated here: what tells
    #   them apart is when it came (`is_ours`) and whether the connection survived it.
    # - An outage that is longer than the lease. Another worker may have executed the step meanwhile, so the claim is
    #   checked before the function is called again.
    # - A value that the database refuses by closing the connection. It would do so each time: `closings` gives up.
    #
    # - A step that makes its own transaction read-only. Its record is refused as after a failover; but then, new sessions are
    #   read-only, too. If they are not, the step has a second chance, since the failover may just be over.
    #
    # - A callback of the commit that raises. The step is done by then, and so are the other callbacks called.
    #
    # In a transaction of the caller (a `TestCase`) nothing can be executed again: the error has spoiled the whole of it.
    host, pause, closings = frame.host, _FIRST_DATABASE_PAUSE, database.Closings()
    was_read_only = False
    tries = 0
    while tries < _DATABASE_ATTEMPTS:
        write: StepWrite | None = None
        is_begun, began, frame.asked_on = False, time.monotonic(), None
        connection, raw = host.connection(), None
        is_nested = connection.in_atomic_block
        try:
            with transaction.atomic(using=connection.alias):
                if connection.vendor == "sqlite":
                    _hold(frame)
                depths, is_begun, raw = frame.connections.depths(), True, connection.connection
                callbacks = len(connection.run_on_commit)
                write = attempt.succeeded(_call_in_transaction(attempt, frame, connection))
                if frame.connections.is_deeper(depths):
                    raise StepInTransaction(f"Step {write.name!r} left a transaction open, so that it can't commit.")
                frame.asked_on = time.monotonic()
                attempt.outcome = _record(frame, write)
                if not is_nested:
                    _guard_callbacks(connection, callbacks, write.name)
            return write
        except PASS_THROUGH:
            raise
        except _RunVanished:
            # Rolled back, the run is there again if it was the step itself that took it away. Otherwise the claim is lost.
            _ensure_held(frame)
            raise OwnRunChanged(attempt.request.name) from None
        except BaseException as error:
            is_ours = not is_begun or write is not None  # an error of the engine's statements, not of the step's
            # To be judged before anything else uses the connection: Django would connect again, and whether this one was
            # broken could not be known any more.
            is_ended = not is_nested and _was_ended(connection, raw, error, is_ours, time.monotonic() - began)
            if is_ended and not database.is_transient(error):
                database.drop(connection)  # the end of atomic() may have left it closed, and without autocommit
            if write is not None and not is_nested and _is_recorded(frame, write):
                logger.exception("Step %r is done and recorded, but an error came after its commit.", write.name)
                return write
            attempt.outcome = None
            if not is_ended:
                raise
            if write is not None and not database.is_transient(error):
                closings.count(len(write.output or ""), error)
            text = "The database ended the transaction of step %r, which is executed again: %s"
            repeated.warning("ended", text, attempt.request.name, error)
            host.wait(pause)
            host.connect()
            _ensure_held(frame)
            frame.end_if_interrupted()
            if write is not None and _is_read_only_alone(frame, error):
                if was_read_only:
                    raise StepInTransaction(
                        f"Step {write.name!r} makes its own transaction read-only, so that it can't be recorded."
                    ) from error
                was_read_only = True
            pause = min(pause * 2, _LAST_DATABASE_PAUSE)
            tries += not database.is_full(error)  # a full disk is waited for, as for the record of any other step
    raise OperationalError(f"The database ended the transaction of step {attempt.request.name!r} {tries} times.")


def _call_in_transaction(attempt: Attempt, frame: Frame, connection: Any) -> Any:
    """Call the function. To end its own transaction or to close the connection is the step's mistake, whatever comes of it."""
    cause: BaseException | None = None
    ended = frame.connections.ended(connection.alias)
    try:
        with statements_in_time(attempt, connection):
            value = _call(attempt, frame)
    except BaseException as error:
        is_mistake = connection.closed_in_transaction or frame.connections.ended(connection.alias) != ended
        if not is_mistake or isinstance(error, PASS_THROUGH):
            raise
        cause = error
    if connection.closed_in_transaction:
        raise StepInTransaction(
            f"Step {attempt.request.name!r} closed the connection of its own transaction, so that it can't commit."
        ) from cause
    if frame.connections.ended(connection.alias) != ended:
        raise StepInTransaction(
            f"Step {attempt.request.name!r} ended its own transaction, by a COMMIT or ROLLBACK or by a statement that commits"
            " (on MySQL and MariaDB: CREATE TABLE and the like), so that its writes and its record can't commit together."
            " Use atomic() inside the step, or a step without atomic=True."
        ) from cause
    return value


def _guard_callbacks(connection: Any, known: int, step: str) -> None:
    """Let each `on_commit` callback of the step be called, also after one that raises: the step is done by then."""
    connection.run_on_commit[known:] = [
        (savepoints, partial(_call_back, callback, step), True)
        for savepoints, callback, _ in connection.run_on_commit[known:]
    ]


def _call_back(callback: Callable[[], Any], step: str) -> None:
    try:
        callback()
    except Exception:
        logger.exception("Step %r is done and recorded, but an on_commit() callback raised.", step)


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
        raise _RunVanished
    return outcome


def _is_recorded(frame: Frame, write: StepWrite) -> bool:
    host = frame.host
    return host.write(lambda: records.is_recorded(host.connection(), write))


def _is_read_only_alone(frame: Frame, error: BaseException) -> bool:
    """Whether a write was refused as one in a read-only transaction, although a new session may write."""
    host = frame.host
    return database.is_read_only_refusal(error) and not host.write(lambda: database.is_read_only(host.connection()))


def _was_ended(connection: BaseDatabaseWrapper, raw: Any, error: BaseException, is_ours: bool, seconds: float) -> bool:
    """Whether the database, not the step, is why a transaction on the connection `raw` came to nothing.

    `seconds`: how long the transaction has lasted.
    """
    if database.ends_transactions(error):
        return True
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    if is_ours:
        return True
    if database.is_lock_refused(error):  # the step asked not to wait for a lock
        return connection.vendor == "mysql" and seconds > _SHORTEST_LOCK_WAIT
    if database.is_transient(error) or connection.connection is None:
        return True
    # The end of atomic() connects again where it finds the connection closed.
    return connection.connection is not raw or not connection.is_usable()
