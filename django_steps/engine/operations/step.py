"""A step: its function is executed until an attempt succeeds or its policy gives up, and the outcome is recorded."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ...core.retries import ONE_ATTEMPT
from ...core.states import StepStatus
from ...definitions.requests import RunStep
from ...errors import UnserializableValue, ValueTooLarge
from ...ledger import histories, leases
from ...ledger.histories import Recorded
from ...ledger.records import Outcome, StepWrite
from ..ending import Ended, Ending
from ..frame import Frame
from .attempts import Attempt, Executed
from .base import Call, Confirm, Core, Effect, Execute, Operation, Part, Record, record_and_wait, wait_until


class StepOperation(Operation[RunStep]):
    """The name is taken when the step is defined."""

    kind = "step"
    attempt: type[Attempt] = Attempt

    def recorded_as(self, frame: Frame, request: RunStep) -> str:
        frame.scope.use_defined(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: RunStep, name: str, recorded: Recorded | None) -> Core:
        if recorded is not None and recorded.wakes_at_us:
            yield from wait_until(frame, recorded.wakes_at_us)
        policy = request.options.retry or (ONE_ATTEMPT if request.options.at_most_once else frame.default_retry)
        limit, checkpoints = frame.host.limits.max_value_bytes, frame.state.checkpoints
        attempt = self.attempt(
            request, frame.claim, frame.history, limit, policy, recorded, frame.scope, frame.group, checkpoints
        )
        write, error = yield from (_interrupted if attempt.was_interrupted else _executed)(frame, attempt)
        return (yield from conclude(frame, attempt, write, error))

    def outcome(self, frame: Frame, request: RunStep, recorded: Recorded) -> Any:
        return frame.outcome(recorded)


def conclude(frame: Frame, attempt: Attempt, write: StepWrite, error: BaseException | None) -> Core:
    """Record the outcome of a step."""
    try:
        frame.ensure_held(attempt.outcome or (yield Record(write)))
    except (UnserializableValue, ValueTooLarge) as refused:  # by the database, which takes the failure instead
        write, error = attempt.failed(refused), refused
        frame.ensure_held((yield Record(write)))
    final = frame.add(write, error)
    if frame.host.suspends_always:
        frame.end(Ending(Ended.RELEASED))
    return final


def execute_once(frame: Frame, attempt: Attempt) -> Generator[Effect, Any, Executed]:
    """Execute the next attempt, unless the run was canceled, paused or lost meanwhile."""
    name = attempt.request.name
    if frame.state.is_careful:
        yield from _announce(frame, name)
    if attempt.request.options.at_most_once:
        yield from _begin(frame, attempt)
    elif time.monotonic() - frame.state.confirmed_on > frame.host.limits.trusted:
        yield from _confirm(frame)
    executed: Executed = yield Execute(attempt)
    return executed


def _executed(frame: Frame, attempt: Attempt) -> Generator[Effect, Any, Executed]:
    """Execute attempts until one is final."""
    while True:
        write, error = yield from execute_once(frame, attempt)
        if write.status != StepStatus.RETRYING:
            return write, error
        yield from record_and_wait(frame, write, write.wakes_at_us or 0, error)
        attempt.count(write)


def _begin(frame: Frame, attempt: Attempt) -> Part:
    """Record that an `at_most_once` step begins. Whoever finds this record, and no outcome, does not execute the step."""
    begun = attempt.begun()
    outcome = yield Record(begun)
    if outcome is Outcome.NOT_RUNNING:  # it was canceled or paused, and begins no more
        outcome = yield Record(attempt.not_begun())
    frame.ensure_held(outcome)
    if begun.details is not None:
        begun.details.is_written()
    frame.state.confirmed_on = time.monotonic()


def _interrupted(frame: Frame, attempt: Attempt) -> Generator[Effect, Any, Executed]:
    """An earlier pass began this `at_most_once` step, and recorded no outcome: that is the outcome."""
    host, run_id, name = frame.host, frame.run_id, attempt.request.name
    started_at = yield Call(lambda: histories.started_at(host.connection(), run_id, name))
    return attempt.interrupted(started_at or frame.claim.now())


def _confirm(frame: Frame) -> Part:
    """Ask whether the run was canceled, paused or lost: no step is to begin after a cancel or a pause has returned.

    The record before this step said that it was not. That was a moment ago where steps follow one another, so that they pay
    nothing; a body that has computed or waited asks.
    """
    found = yield Confirm()
    if found.lost or found.halted:
        frame.end(Ending(Ended.LOST if found.lost else Ended.CANCELED))
    frame.state.confirmed_on = time.monotonic()


def _announce(frame: Frame, name: str) -> Part:
    """After a crash, say which step comes next before executing it: if it kills the worker, it can be named."""
    host, run_id, token = frame.host, frame.claim.run_id, frame.claim.token
    if not (yield Call(lambda: leases.enter_step(host.connection(), run_id, token, name))):
        yield from _confirm(frame)
        frame.end(Ending(Ended.LOST))
