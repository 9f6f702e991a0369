"""The spans of passes and of attempts, as an interceptor around every pass of the process.

A span begins and ends within one pass. Nothing is emitted for what is replayed, which is not executed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from typing import Any
from uuid import UUID

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ...core import traces
from ...core.names import without_keys
from ...definitions.registry import masked_keys, registered
from ...engine.ending import Ending
from ...engine.interceptors import Interceptor, everywhere
from ...engine.operations.attempts import Attempt, Executed
from ...failures import FailureRecord
from ...ledger.claims import Claim
from ...ledger.records import StepWrite
from ...values.search import MASK
from .carrier import Carried, carried

# A pass hands the spans of its attempts on when it ends, so that one that is lost with its worker leaves none without a parent;
# a long pass does so in between, once there are so many, or the first has waited for so many nanoseconds.
_MOST_KEPT, _LONGEST_KEPT = 100, 10_000_000_000


def install() -> None:
    """Trace what this process starts and executes, by the tracer provider that the project sets, now or later."""
    everywhere.append(Tracing(trace.get_tracer("django_steps")))
    traces.carry_by(carried)


class _Pass:
    """A pass with its span: those of the attempts that are executed, by the names of their steps, and those that have ended."""

    __slots__ = ("context", "ended", "executed", "span")

    def __init__(self, span: Span, context: Context) -> None:
        self.span, self.context = span, context
        self.executed: dict[str, Span] = {}
        self.ended: deque[tuple[Span, int]] = deque()  # each with the time of its end, in nanoseconds

    def keep(self, span: Span) -> None:
        """Keep a span that has ended, as long as there are few."""
        now = time.time_ns()
        self.ended.append((span, now))
        if len(self.ended) >= _MOST_KEPT or now - self.ended[0][1] > _LONGEST_KEPT:
            self.hand_on()

    def hand_on(self) -> None:
        """Hand on what was kept; several threads may do so at a time."""
        while self.ended:
            try:
                span, at = self.ended.popleft()
            except IndexError:
                return
            span.end(at)


class Tracing(Interceptor):
    """Makes the spans, by this tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._passes: dict[tuple[UUID, int], _Pass] = {}

    def around_pass(self, claim: Claim) -> Generator[None, Ending, Ending]:
        self._begin(claim)
        try:
            ending = yield
        except BaseException as error:
            self._end(claim, "broken off", FailureRecord.of(error))
            raise
        self._end(claim, *_said_of(ending))
        return ending

    def given_up(self, claim: Claim, ending: Ending) -> None:
        self._end(claim, *_said_of(ending))

    def around_attempt(self, attempt: Attempt) -> Generator[None, Executed, Executed]:
        claim, name = attempt.claim, attempt.request.name
        current = self._passes.get(_key(claim))
        if current is None:  # of a pass that was given up
            return (yield)
        current.executed[name] = self._tracer.start_span(
            without_keys(name), current.context, attributes=_attributes_of_attempt(attempt)
        )
        try:
            executed = yield
        except BaseException:  # the end of the pass, which is no failure of the step
            self._end_attempt(claim, name, "broken off", None)
            raise
        write, error = executed
        is_later = write.attempts < attempt.counted_before + attempt.number  # it has asked to be executed later
        record = None if is_later else _failure_of(write, error)
        self._end_attempt(claim, name, "postponed" if is_later else write.status, record)
        return executed

    def in_pass(self, claim: Claim) -> None:
        current = self._passes.get(_key(claim))
        if current is not None:
            contexts.attach(current.context)

    def in_attempt(self, attempt: Attempt) -> None:
        current = self._passes.get(_key(attempt.claim))
        span = None if current is None else current.executed.get(attempt.request.name)
        if span is not None:
            contexts.attach(trace.set_span_in_context(span))

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        # Of an attempt whose thread doesn't come back: else its span has ended by now.
        self._end_attempt(claim, write.name, write.status, _failure_of(write, error))

    def _begin(self, claim: Claim) -> None:
        now, before = claim.now(), Carried.read(claim.trace)
        is_new = before is None or before.is_over(now)
        parent = None if before is None else before.parent
        last = None if before is None else before.last or (parent if is_new else None)
        span = self._tracer.start_span(
            claim.workflow,
            Context()
            if is_new or parent is None
            else trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()),
            SpanKind.CONSUMER,
            _attributes_of_pass(claim),
            [Link(last)] if last is not None else [],
        )
        own = span.get_span_context()
        present = Carried(own, now) if before is None or is_new else before.after(own)
        self._passes[_key(claim)] = _Pass(span, present.around(span))
        if own.is_valid and own != parent:  # else nothing traces here
            claim.new_trace = present.text

    def _end(self, claim: Claim, outcome: str, failure: FailureRecord | None) -> None:
        current = self._passes.pop(_key(claim), None)
        if current is None:  # its thread has come back, and others have ended it
            return
        for name in list(current.executed):
            self._close(current, claim, name, "broken off", None)
        current.hand_on()
        current.span.set_attribute("django_steps.pass.outcome", outcome)
        if failure is not None:
            _set_failure(current.span, claim.workflow, failure)
        current.span.end()

    def _end_attempt(self, claim: Claim, name: str, outcome: str, failure: FailureRecord | None) -> None:
        current = self._passes.get(_key(claim))
        if current is not None:
            self._close(current, claim, name, outcome, failure)

    def _close(self, current: _Pass, claim: Claim, name: str, outcome: str, failure: FailureRecord | None) -> None:
        span = current.executed.pop(name, None)
        if span is None:
            return
        span.set_attribute("django_steps.step.outcome", outcome)
        if failure is not None:
            _set_failure(span, claim.workflow, failure)
        current.keep(span)


def _key(claim: Claim) -> tuple[UUID, int]:
    return claim.run_id, claim.token


def _attributes_of_pass(claim: Claim) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "django_steps",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": claim.queue,
        "messaging.message.id": str(claim.run_id),
        "django_steps.workflow.name": claim.workflow,
        "django_steps.run.id": str(claim.run_id),
        "django_steps.run.attempt": claim.attempts,
        "django_steps.run.recoveries": claim.recoveries,
    }
    if claim.version:
        attributes["django_steps.workflow.version"] = claim.version
    if claim.schedule is not None:
        attributes["django_steps.schedule.name"] = claim.schedule
    if claim.parent is not None:
        attributes["django_steps.parent.run.id"] = str(claim.parent[0])
        attributes["django_steps.parent.step.name"] = claim.parent[1]
    return attributes


def _attributes_of_attempt(attempt: Attempt) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "django_steps.workflow.name": attempt.claim.workflow,
        "django_steps.run.id": str(attempt.claim.run_id),
        "django_steps.step.name": attempt.request.name,
        "django_steps.step.attempt": attempt.number,
    }
    function: Any = attempt.request.function
    if qualified := getattr(function, "__qualname__", ""):
        attributes["code.function.name"] = f"{function.__module__}.{qualified}"
    return attributes


def _said_of(ending: Ending) -> tuple[str, FailureRecord | None]:
    """How a pass has ended, and the failure that its run has ended with, or is attempted again for."""
    text = ending.error or (ending.finish.error if ending.finish is not None else None)
    return "retrying" if ending.error else ending.how.value, _as_record(text)


def _failure_of(write: StepWrite, error: BaseException | None) -> FailureRecord | None:
    """The failure of an attempt; of a poll that has come to its end without one, that of the poll."""
    return _as_record(write.error) if error is None else FailureRecord.of(error)


def _as_record(text: str | None) -> FailureRecord | None:
    return None if text is None else FailureRecord.read(text)


def _set_failure(span: Span, workflow: str, failure: FailureRecord) -> None:
    """Say of a span what has failed. Of workflows that mask keys the type only: what is masked may be in any text."""
    event = {
        "exception.type": failure.type,
        "exception.message": failure.message,
        "exception.stacktrace": failure.traceback,
    }
    if _may_hold_masked(workflow, failure):
        event = {"exception.type": failure.type, "exception.message": MASK}
    span.add_event("exception", event)
    span.set_attribute("error.type", failure.type)
    span.set_status(Status(StatusCode.ERROR, event["exception.message"]))


def _may_hold_masked(workflow: str, failure: FailureRecord) -> bool:
    """Whether the text of a failure may hold what a workflow masks: this one, or one whose run has failed below it."""
    if masked_keys(workflow):
        return True
    is_of_another = any("RunFailed" in text for text in (failure.type, failure.message, failure.traceback))
    return is_of_another and any(known.mask for known in registered())
