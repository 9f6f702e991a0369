"""The attempts of one step call, and the records of how they went. They are executed by `engine/drivers/`."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from ... import failures, values
from ...core.retries import RetryPolicy
from ...core.states import FINAL, StepStatus
from ...definitions.requests import RunStep
from ...errors import (
    NestedStep,
    OwnRunChanged,
    RetryAfter,
    StepInterrupted,
    StepInTransaction,
    UnserializableValue,
    ValueTooLarge,
    WrongThread,
)
from ...ledger.claims import Claim
from ...ledger.histories import Recorded
from ...ledger.records import Outcome, StepWrite
from ..history import History

# How often in succession a step may ask by `RetryAfter` to be executed later: more is an endless loop.
_MOST_POSTPONEMENTS = 1000
# Mistakes in the code: trying again would only make the same one again.
_MISTAKES = (NestedStep, OwnRunChanged, StepInTransaction, WrongThread, UnserializableValue, ValueTooLarge)

Executed = tuple[StepWrite, BaseException | None]


class Attempt:
    """The attempts of one step call in one pass, the present one being `number`."""

    def __init__(
        self,
        request: RunStep,
        claim: Claim,
        history: History,
        max_value_bytes: int,
        policy: RetryPolicy,
        recorded: Recorded | None,
    ) -> None:
        self.request, self.claim, self.policy = request, claim, policy
        self.max_value_bytes, self._history = max_value_bytes, history
        self.number = recorded.attempts + 1 if recorded else 1
        self.was_interrupted = recorded is not None and recorded.status == StepStatus.BEGUN
        if self.was_interrupted:
            self.number -= 1
        self.log = recorded.attempt_log if recorded else ""
        self.replaces = recorded is not None
        self.position = recorded.position if recorded else history.next_position()
        self.after = history.delivered
        self.started_at = 0
        self.postponements = failures.count_postponements(self.log)  # in succession, up to now
        self.outcome: Outcome | None = None  # of the record that an atomic step has committed itself

    def count(self, write: StepWrite) -> None:
        """The attempt that `write` records has failed; the next one begins."""
        self.number, self.log, self.replaces = write.attempts + 1, write.attempt_log, True
        self.postponements = failures.count_postponements(self.log)

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
        if asked_for is not None:
            return self._retrying(error.__cause__ or error, asked_for, self.postponements + 1)
        delay = None
        if not isinstance(error, (*_MISTAKES, RetryAfter)):
            delay = self.policy.delay_after(self.number, error)
        return self._write("failed", error=self._text(error)) if delay is None else self._retrying(error, delay)

    def _retrying(self, error: BaseException, delay: timedelta, postponements: int = 0) -> StepWrite:
        """Another attempt follows after `delay`; where the step itself has asked for the delay, it is the same attempt."""
        write = self._write("retrying")
        write.attempts -= postponements > 0
        finished_at, delay_us = write.finished_at or 0, delay // timedelta(microseconds=1)
        write.wakes_at_us, write.context = finished_at + delay_us, json.dumps({"delay_us": delay_us})
        write.attempt_log = failures.append_attempt(
            self.log, self.number, self.started_at, finished_at, self._text(error), postponements
        )
        return write

    def _text(self, error: BaseException) -> str:
        return failures.with_steps(failures.record(error), [self.request.name])

    def _write(self, status: str, output: str | None = None, error: str | None = None) -> StepWrite:
        claim = self.claim
        if status in FINAL:
            self.position = self._history.final_position(self.position)
        return StepWrite(
            run_id=claim.run_id,
            token=claim.token,
            name=self.request.name,
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
