"""A poll: a step whose function checks again and again until it finds something, with one record for all its checks.

The record is written when the poll is first reached, which fixes its clock. Each check brings it up to date, and says there
when the next one is due: so between two checks a long wait suspends the run, and nothing is held.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from ... import values
from ...core.retries import RetryPolicy
from ...core.states import FINAL, StepStatus
from ...definitions.requests import Poll
from ...errors import PollTimedOut, StepsError, UnserializableValue, ValueTooLarge
from ...ledger import contexts, histories
from ...ledger.claims import Claim
from ...ledger.histories import Recorded
from ...ledger.records import StepWrite
from ..checkpoints import Checkpoints
from ..frame import Frame
from ..history import History
from ..scopes import Scope
from .attempts import Attempt, Executed
from .base import Call, Core, Effect, Operation, Record, record_and_wait, wait_until
from .step import conclude, execute_once


class PollOperation(Operation[Poll]):
    """The name is taken when the poll is defined."""

    kind = "poll"

    def recorded_as(self, frame: Frame, request: Poll) -> str:
        frame.scope.use_defined(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: Poll, name: str, recorded: Recorded | None) -> Core:
        host, policy = frame.host, request.options.retry or frame.default_retry
        if recorded is not None and recorded.is_long:  # each check writes it again, or another value
            text = yield Call(lambda: histories.long_output(host.connection(), frame.run_id, name))
            recorded = replace(recorded, output=text, is_long=False)
        limit, checkpoints = host.limits.max_value_bytes, frame.state.checkpoints
        check = Check(
            request, frame.claim, frame.history, limit, policy, recorded, frame.scope, frame.group, checkpoints
        )
        if recorded is None:
            write = check.reached()
            frame.ensure_held((yield Record(write)))
            frame.add(write)
        elif recorded.wakes_at_us:
            yield from wait_until(frame, recorded.wakes_at_us)
        write, error = yield from _checked(frame, check)
        return (yield from conclude(frame, check, write, error))

    def outcome(self, frame: Frame, request: Poll, recorded: Recorded) -> Any:
        try:
            return frame.outcome(recorded)
        except PollTimedOut as error:
            if error.step == recorded.name:
                _give_value(frame, recorded, error)
            raise


def _checked(frame: Frame, check: Check) -> Generator[Effect, Any, Executed]:
    """Check until the outcome is known."""
    while True:
        write, error = yield from execute_once(frame, check)
        if write.status in FINAL:
            return write, check.timed_out or error
        try:
            yield from record_and_wait(frame, write, write.wakes_at_us or 0, error)
        except (UnserializableValue, ValueTooLarge) as refused:  # by the database
            return check.failed(refused), refused
        check.count(write)


def _give_value(frame: Frame, recorded: Recorded, error: PollTimedOut) -> None:
    """What the last check returned is the output of the record: there it may be as long as any result."""
    try:
        error.value = values.decode(frame.history.output_of(recorded) or "null")
    except StepsError as unreadable:  # a deleted row, say: it must not keep the body from what it has come to before
        error.add_note(f"What the last check returned can't be read any more: {unreadable}")


class Check(Attempt):
    """The checks of one poll in one pass. The attempts of each are counted for itself; its record counts all of them."""

    kind = "poll"
    says_more = True
    request: Poll

    def __init__(
        self,
        request: Poll,
        claim: Claim,
        history: History,
        max_value_bytes: int,
        policy: RetryPolicy,
        recorded: Recorded | None,
        scope: Scope,
        group: str,
        checkpoints: Checkpoints,
    ) -> None:
        super().__init__(request, claim, history, max_value_bytes, policy, recorded, scope, group, checkpoints)
        self.timed_out: PollTimedOut | None = None
        details = contexts.read(recorded.context) if recorded else {}
        attempts, is_tried = (recorded.attempts, recorded.status == StepStatus.RETRYING) if recorded else (0, False)
        self.counted_before = (contexts.number(details, "counted_before") or 0) if is_tried else attempts
        self.number = attempts - self.counted_before + 1
        self._checks = contexts.number(details, "checks") or 0
        self._output = recorded.output if recorded else None
        self._is_done = False
        self._reached_us = contexts.number(details, "reached_us") or claim.now()
        self._deadline_us = contexts.number(details, "deadline_us")
        if recorded is None and request.polling.timeout_us is not None:
            self._deadline_us = self._reached_us + request.polling.timeout_us

    def reached(self) -> StepWrite:
        """The record that the poll is there, and its clock runs; the first check is due at once."""
        write = self._write(StepStatus.WAITING)
        write.attempts, write.wakes_at_us, write.finished_at = 0, self._reached_us, None
        self.replaces = True
        return write

    def examine(self, value: Any) -> None:
        self._is_done = self.request.polling.is_done(value)

    def succeeded(self, value: Any) -> StepWrite:
        """The record of a check: the last one, or one that is followed by another."""
        self._output = values.encode(value, max_bytes=self.max_value_bytes)
        self._checks += 1
        if self._is_done:
            return self._write(StepStatus.SUCCEEDED)
        if self._checks == self.request.polling.max_checks or self._is_over():
            return self._ended()
        write = self._write(StepStatus.WAITING)
        due_us = (write.finished_at or 0) + self.request.polling.interval_us(self._checks)
        write.wakes_at_us, write.finished_at = self._bounded(due_us), None
        return write

    def failed(self, error: BaseException) -> StepWrite:
        write = super().failed(error)
        return self._ended(error) if write.status == StepStatus.RETRYING and self._is_over() else write

    def count(self, write: StepWrite) -> None:
        if write.status == StepStatus.WAITING:  # the next attempt is the first one of another check
            self._since_us, self._keeper, self.counted_before = None, None, write.attempts
            self.number, self.log, self.replaces, self.postponements = 1, write.attempt_log, True, 0
        else:
            super().count(write)

    def _ended(self, cause: BaseException | None = None) -> StepWrite:
        """The record that the poll has come to its end; `cause` is what the last check raised."""
        self.timed_out = PollTimedOut(self.request.name, self._checks)
        self.timed_out.__cause__ = cause
        return self._write(StepStatus.FAILED, error=self._text(self.timed_out))

    def _is_over(self) -> bool:
        return self._deadline_us is not None and self.claim.now() >= self._deadline_us

    def _bounded(self, due_us: int) -> int:
        """Whatever is due later is due at the deadline."""
        return due_us if self._deadline_us is None else min(due_us, self._deadline_us)

    def _details(self, status: str) -> dict[str, Any]:
        return {
            **super()._details(status),
            "checks": self._checks,
            "counted_before": self.counted_before if status == StepStatus.RETRYING else None,
            "reached_us": self._reached_us,
            "deadline_us": self._deadline_us,
        }

    def _write(self, status: str, output: str | None = None, error: str | None = None) -> StepWrite:
        write = super()._write(status, self._output, error)
        write.started_at = self._reached_us
        return write
