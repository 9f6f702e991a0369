"""The attempts of one step call, and the records of how they went. They are executed by `engine/drivers/`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ... import failures, values
from ...core.retries import RetryPolicy
from ...core.states import FINAL, UNDO, StepStatus
from ...definitions.requests import RunStep
from ...errors import (
    NestedStep,
    OwnRunChanged,
    RetryAfter,
    StepInterrupted,
    StepInTransaction,
    StepTimedOut,
    UnserializableValue,
    ValueTooLarge,
    WrongThread,
)
from ...ledger import contexts, order
from ...ledger.claims import Claim
from ...ledger.histories import Recorded
from ...ledger.records import Outcome, StepWrite
from ..checkpoints import Checkpoints, OfAttempt
from ..history import History
from ..scopes import Scope

# How often in succession a step may ask by `RetryAfter` to be executed later: more is an endless loop.
_MOST_POSTPONEMENTS = 1000
# Mistakes in the code: trying again would only make the same one again.
_MISTAKES = (NestedStep, OwnRunChanged, StepInTransaction, WrongThread, UnserializableValue, ValueTooLarge)

Executed = tuple[StepWrite, BaseException | None]


class Attempt:
    """The attempts of one step call in one pass, the present one being `number`.

    `counted_before`: the attempts that its record counts, too, and the policy doesn't. A step has none.
    """

    kind = "step"  # of the record
    counted_before = 0
    says_more = False  # of a record that has succeeded, in its context

    def __init__(
        self,
        request: RunStep,
        claim: Claim,
        history: History,
        max_value_bytes: int,
        policy: RetryPolicy,
        recorded: Recorded | None,
        scope: Scope,
        group: str,
        checkpoints: Checkpoints,
    ) -> None:
        self.request, self.claim, self.policy = request, claim, policy
        self.max_value_bytes, self._history = max_value_bytes, history
        self._scope, self._group = scope, group
        self.number = recorded.attempts + 1 if recorded else 1
        self.was_interrupted = recorded is not None and recorded.status == StepStatus.BEGUN
        if self.was_interrupted:
            self.number -= 1
        self.log = recorded.attempt_log if recorded else ""
        self.replaces = recorded is not None
        self.position = recorded.position if recorded else None
        self.after = scope.after(request.name)
        self.started_at = 0
        self.postponements = failures.count_postponements(self.log) if self.log else 0  # in succession, up to now
        self.checkpoints = checkpoints
        self._keeper: OfAttempt | None = None  # of the present attempt, once it asks
        self._since_us: int | None = None  # when the first attempt began, if an earlier one did
        if recorded is not None:
            details = contexts.read(recorded.context)
            checkpoints.adopt(request.name, details.get("checkpoint"))
            self._since_us = contexts.number(details, "since_us")
        # Whether the function has ended: in an async body what it has begun may go on, and is then no part of the step.
        self.is_over = False
        self.returned: str | None = None  # what the function has returned at last, encoded
        self.outcome: Outcome | None = None  # of the record that an atomic step has committed itself

    def count(self, write: StepWrite) -> None:
        """The attempt that `write` records has failed; the next one begins."""
        self._since_us, self._keeper = self.since_us, None
        self.number, self.log, self.replaces = write.attempts - self.counted_before + 1, write.attempt_log, True
        self.postponements = failures.count_postponements(self.log)

    @property
    def _has_undo(self) -> bool:
        """Whether the step can be undone: the undo itself can't."""
        return self.request.options.undo is not None and self.kind != UNDO

    @property
    def since_us(self) -> int:
        """When the first attempt began."""
        return self.started_at if self._since_us is None else self._since_us

    @property
    def deadline_us(self) -> int | None:
        """When the time of the present attempt is over, machine time; None: never."""
        timeout_us = self.request.options.timeout_us
        return None if timeout_us is None else self.started_at + timeout_us

    def remaining_us(self) -> int:
        """How many microseconds the present attempt has left, at least 0."""
        return max((self.deadline_us or 0) - self.claim.now(), 0)

    def timeout_error(self) -> StepTimedOut:
        """The error of the present attempt if it has lasted too long."""
        return StepTimedOut(self.request.name, timedelta(microseconds=self.request.options.timeout_us or 0))

    def save(self, value: Any) -> None:
        """Keep a checkpoint of the present attempt."""
        self._checkpointing().save(value)

    def load(self) -> Any:
        """The last checkpoint of the attempts before."""
        return self._checkpointing().load()

    def _checkpointing(self) -> OfAttempt:
        request = self.request
        if self._keeper is None:
            is_atomic = request.options.atomic
            self._keeper = OfAttempt(self.checkpoints, request.name, self.max_value_bytes, is_atomic=is_atomic)
        return self._keeper

    def examine(self, value: Any) -> None:
        """Look at what the function has returned, as a part of the attempt: what this raises is its failure."""

    def begun(self) -> StepWrite:
        """The record that the present attempt begins."""
        self.started_at = self.claim.now()
        write = self._write(StepStatus.BEGUN)
        write.finished_at, self.replaces = None, True
        return write

    def not_begun(self) -> StepWrite:
        """The record that takes the one before back: the attempt did not begin after all."""
        write = self._write(StepStatus.RETRYING)
        write.attempts -= 1
        return write

    def interrupted(self, started_at: int) -> Executed:
        """The record of an attempt that began in an earlier pass, and of whose end nothing is known."""
        self.started_at, error = started_at, StepInterrupted(self.request.name)
        return self.failed(error), error

    def succeeded(self, value: Any) -> StepWrite:
        """The record of success; raises what makes the value impossible to record."""
        return self._write("succeeded", output=values.encode(value, max_bytes=self.max_value_bytes))

    def failed(self, error: BaseException) -> StepWrite:
        """The record of a failure: final, or of an attempt that is followed by another one."""
        asked_for = self.policy.delay_asked_for(error) if self.postponements < _MOST_POSTPONEMENTS else None
        if asked_for is not None and not self._is_too_late(asked_for):
            return self._retrying(error.__cause__ or error, asked_for, self.postponements + 1)
        delay = None
        if not isinstance(error, (*_MISTAKES, RetryAfter)):
            delay = self.policy.delay_after(self.number, error)
        if delay is None or self._is_too_late(delay):
            return self._write("failed", error=self._text(error))
        return self._retrying(error, delay)

    def _is_too_late(self, delay: timedelta) -> bool:
        return self.policy.is_too_late(timedelta(microseconds=self.claim.now() - self.since_us) + delay)

    def _retrying(self, error: BaseException, delay: timedelta, postponements: int = 0) -> StepWrite:
        """Another attempt follows after `delay`; where the step itself has asked for the delay, it is the same attempt."""
        write = self._write("retrying")
        write.attempts -= postponements > 0
        finished_at = write.finished_at or 0
        write.wakes_at_us = self._bounded(finished_at + delay // timedelta(microseconds=1))
        write.context = self._said(write.status, delay_us=write.wakes_at_us - finished_at)
        number = self.counted_before + self.number
        write.attempt_log = failures.append_attempt(
            self.log, number, self.started_at, finished_at, self._text(error), postponements
        )
        return write

    def _bounded(self, due_us: int) -> int:
        """When the next attempt is made that the policy puts at `due_us`."""
        return due_us

    def _text(self, error: BaseException) -> str:
        return failures.with_steps(failures.record(error), [self.request.name])

    def _details(self, status: str) -> dict[str, Any]:
        """What the context of the record says."""
        if status == StepStatus.SUCCEEDED:
            return {contexts.UNDO: True} if self._has_undo else {}
        goes_on = self.policy.give_up_after is not None and status in (StepStatus.RETRYING, StepStatus.BEGUN)
        return {
            "checkpoint": self.checkpoints.of(self.request.name),
            "since_us": self.since_us if goes_on else None,
        }

    def _said(self, status: str, **more: Any) -> str | None:
        """The text of the context."""
        place = order.details(self._scope.levels, self._group)
        return contexts.write({**more, **self._details(status), **place})

    def _context(self, status: str) -> str | None:
        """The same of a record whose details say it all; most that have succeeded say nothing but their place."""
        if status == StepStatus.SUCCEEDED and not (self.says_more or self._has_undo):
            return order.place_text(self._scope.levels, self._group)
        return self._said(status)

    def _write(self, status: str, output: str | None = None, error: str | None = None) -> StepWrite:
        claim = self.claim
        if self.position is None:  # at the end of the first attempt: what others record meanwhile comes before it
            self.position = self._history.next_position()
        elif status in FINAL:
            self.position = self._history.final_position(self.position)
        self.returned = output if status == StepStatus.SUCCEEDED else None
        return StepWrite(
            run_id=claim.run_id,
            token=claim.token,
            name=self.request.name,
            kind=self.kind,
            branch=self._scope.branch,
            position=self.position,
            after=self.after,
            status=status,
            attempts=self.counted_before + self.number,
            output=output,
            error=error,
            attempt_log=self.log,
            context=self._context(status),
            arguments=self.request.fingerprint,
            started_at=self.started_at,
            finished_at=claim.now(),
            replaces=self.replaces,
            details=self._scope.carried_by(self.request.name),
        )
