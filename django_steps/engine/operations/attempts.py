"""Executing one attempt of one step: call its function, and make the record of how that went.

A plain step is recorded by whoever asked; an atomic one records itself, in the transaction of its own writes.
"""

from __future__ import annotations

import inspect
import json
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ... import failures, values
from ...core.context import StepContext, active_step
from ...core.retries import RetryPolicy
from ...core.states import FINAL
from ...definitions.step import Call
from ...errors import (
    ClaimLost,
    NestedStep,
    PassEnded,
    StepInTransaction,
    UnserializableValue,
    ValueTooLarge,
    WrongThread,
)
from ...ledger import database, leases, records
from ...ledger.histories import Recorded
from ...ledger.leases import Holding
from ...ledger.records import Outcome, StepWrite
from ...ledger.resets import append_attempt

if TYPE_CHECKING:
    from ..execution import Pass

logger = logging.getLogger("django_steps")

# Mistakes in the code: trying again would only make the same one again.
_MISTAKES = (NestedStep, StepInTransaction, WrongThread, UnserializableValue, ValueTooLarge)
_PASS_THROUGH = (PassEnded, KeyboardInterrupt, GeneratorExit)
# How often an atomic step is executed again because the database broke off its transaction, and the waits in between.
_DATABASE_ATTEMPTS, _FIRST_DATABASE_PAUSE, _LAST_DATABASE_PAUSE = 60, 0.02, 0.5

Executed = tuple[StepWrite, BaseException | None]


class Attempt:
    """The attempts of one step call in one pass, the present one being `number`."""

    def __init__(
        self,
        owner: Pass,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        policy: RetryPolicy,
        tried: Recorded | None,
    ) -> None:
        self.owner, self.call, self.args, self.kwargs, self.policy = owner, call, args, kwargs, policy
        self.number = tried.attempts + 1 if tried else 1
        self.log = tried.attempt_log if tried else ""
        self.replaces = tried is not None
        self.position = tried.position if tried else owner.history.next_position()
        self.after = owner.history.delivered
        self.started_at = 0
        self.outcome: Outcome | None = None  # of the record that an atomic step has committed itself

    def count(self, write: StepWrite) -> None:
        """The attempt that `write` records has failed; the next one begins."""
        self.number, self.log, self.replaces = write.attempts + 1, write.attempt_log, True

    def succeeded(self, value: Any) -> StepWrite:
        """The record of success; raises what makes the value impossible to record."""
        return self._write("succeeded", output=values.encode(value, max_bytes=self.owner.host.limits.max_value_bytes))

    def failed(self, error: BaseException) -> StepWrite:
        """The record of a failure: final, or of an attempt that is followed by another one."""
        text = failures.with_steps(failures.record(error), [self.call.name])
        delay = None if isinstance(error, _MISTAKES) else self.policy.delay_after(self.number, error)
        if delay is None:
            return self._write("failed", error=text)
        write = self._write("retrying")
        finished_at = write.finished_at or 0
        delay_us = delay // timedelta(microseconds=1)
        write.wakes_at_us, write.context = finished_at + delay_us, json.dumps({"delay_us": delay_us})
        write.attempt_log = append_attempt(self.log, self.number, self.started_at, finished_at, text)
        return write

    def _write(self, status: str, output: str | None = None, error: str | None = None) -> StepWrite:
        claim = self.owner.claim
        if status in FINAL:
            self.position = self.owner.history.final_position(self.position)
        return StepWrite(
            run_id=claim.run_id,
            token=claim.token,
            name=self.call.name,
            kind="step",
            position=self.position,
            after=self.after,
            status=status,
            attempts=self.number,
            output=output,
            error=error,
            attempt_log=self.log,
            started_at=self.started_at,
            finished_at=claim.now(),
            replaces=self.replaces,
        )


def execute(attempt: Attempt) -> Executed:
    """Execute the step once, and return what is to be recorded, with the error if it failed."""
    attempt.started_at = attempt.owner.claim.now()
    try:
        with attempt.owner.connections.tidied(f"Step {attempt.call.name!r}"):
            if attempt.call.atomic:
                return _execute_atomic(attempt), None
            return attempt.succeeded(_call(attempt)), None
    except _PASS_THROUGH:
        raise
    except BaseException as error:
        return attempt.failed(error), error


def _call(attempt: Attempt) -> Any:
    call, owner = attempt.call, attempt.owner
    if time.monotonic() > owner.claim.held_until:  # this process was stopped or cut off: another may have done the step
        _ensure_held(attempt)
    token = active_step.set(StepContext(owner.run_id, call.name, attempt.number))
    try:
        assert call.function is not None
        value = call.function(*attempt.args, **attempt.kwargs)
        if inspect.isawaitable(value):
            value = async_to_sync(_awaited)(value)
    finally:
        active_step.reset(token)
        misuse = owner.guard.take_misuse()
    if misuse is not None:  # and the function made nothing of it
        raise misuse
    return value


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _execute_atomic(attempt: Attempt) -> StepWrite:
    """Execute the step and record it in one transaction; again, if the database broke the transaction off."""
    host, pause, closings = attempt.owner.host, _FIRST_DATABASE_PAUSE, database.Closings()
    for _ in range(_DATABASE_ATTEMPTS):
        write: StepWrite | None = None
        is_begun = False
        connection, raw = host.connection(), None
        is_nested = connection.in_atomic_block
        try:
            with transaction.atomic(using=connection.alias):
                if connection.vendor == "sqlite":
                    _hold(attempt)
                depths, is_begun, raw = attempt.owner.connections.depths(), True, connection.connection
                write = attempt.succeeded(_call(attempt))
                if attempt.owner.connections.is_deeper(depths):
                    raise StepInTransaction(f"Step {write.name!r} left a transaction open, so that it can't commit.")
                attempt.outcome = _record(attempt, write)
            return write
        except _PASS_THROUGH:
            raise
        except BaseException as error:
            is_ours = not is_begun or write is not None  # an error of our own statements, not of the step's
            # To be judged before anything else connects again.
            is_broken_off = not is_nested and _was_broken_off(connection, raw, error, is_ours)
            if is_broken_off and not database.is_transient(error):
                database.drop(connection)  # the end of atomic() may have left it closed, and without autocommit
            if write is not None and not is_nested and _is_recorded(attempt, write):
                logger.exception("Step %r is done and recorded, but an error came after its commit.", write.name)
                return write
            attempt.outcome = None
            if not is_broken_off:
                raise
            if write is not None and not database.is_transient(error):
                closings.count(len(write.output or ""), error)
            logger.warning("The database broke off step %r, which is executed again: %s", attempt.call.name, error)
            host.wait(pause)
            _ensure_held(attempt)
            attempt.owner.end_if_interrupted()
            pause = min(pause * 2, _LAST_DATABASE_PAUSE)
    raise OperationalError(f"The database broke off step {attempt.call.name!r} {_DATABASE_ATTEMPTS} times.")


def _hold(attempt: Attempt) -> None:
    claim = attempt.owner.claim
    if records.hold(attempt.owner.host.connection(), claim.run_id, claim.token) is None:
        raise ClaimLost


def _ensure_held(attempt: Attempt) -> None:
    """Wait until the database is back, which uses up no attempts. The run may be another's by then, and the step done."""
    claim, host = attempt.owner.claim, attempt.owner.host
    if host.write(lambda: leases.check(host.connection(), {claim.run_id: Holding(claim.token)})).lost:
        raise ClaimLost


def _record(attempt: Attempt, write: StepWrite) -> Outcome:
    """The fenced record, last in the transaction of the step's own writes."""
    outcome = records.record(attempt.owner.host.connection(), write)
    if outcome in (Outcome.LOST, Outcome.TAKEN):
        raise ClaimLost
    return outcome


def _is_recorded(attempt: Attempt, write: StepWrite) -> bool:
    host = attempt.owner.host
    return host.write(lambda: records.is_recorded(host.connection(), write))


def _was_broken_off(connection: BaseDatabaseWrapper, raw: Any, error: BaseException, is_ours: bool) -> bool:
    """Whether the database, not the step, is why a transaction on the connection `raw` came to nothing."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    if is_ours or database.is_transient(error) or connection.connection is None:
        return True
    # The end of atomic() connects again where it finds the connection closed.
    return connection.connection is not raw or not connection.is_usable()
