"""Invoking a run of another workflow: it is started with the record that says so, and its outcome is recorded when it ends.

Meanwhile the parent is suspended. What the child's row says is copied, so that what somebody does to the child later doesn't
change what the parent has seen.
"""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

from ... import failures
from ...core.states import RETRYABLE, Cause, StepStatus
from ...definitions.requests import Invoke
from ...definitions.starting import new_run
from ...errors import ChildTimedOut, InvalidState, RunCanceled, RunFailed, StepsError
from ...failures import FailureRecord
from ...ledger import cascades, children, contexts, controls
from ...ledger.children import Found
from ...ledger.histories import Recorded
from ...ledger.inserts import Child, NewRun
from ...ledger.records import StepWrite, record_with
from ...ledger.waits import Waiting
from .. import stopping
from ..ending import Ended, Ending
from ..frame import Frame
from .base import Call, Commit, Core, Effect, Operation, Part, Record, wait_for_others

DEEPEST = 20  # ancestors of a run


class InvokeOperation(Operation[Invoke]):
    """The name is taken when the step is defined."""

    kind = "invoke"

    def recorded_as(self, frame: Frame, request: Invoke) -> str:
        frame.scope.use_defined(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: Invoke, name: str, recorded: Recorded | None) -> Core:
        frame.state.waits.over(name)
        call = _Call(frame, request, name, recorded)
        if not call.has_child and frame.claim.depth >= DEEPEST:
            return (yield from call.end(too_deep(frame)))
        if not call.has_child:
            yield from call.begin()
        elif recorded is not None and recorded.status == StepStatus.RETRYING:
            yield from call.wait_anew()
        return (yield from call.conclude())

    def outcome(self, frame: Frame, request: Invoke, recorded: Recorded) -> Any:
        return frame.outcome(recorded)


def too_deep(frame: Frame) -> InvalidState:
    """What is wrong where a run has too many ancestors to have children."""
    return InvalidState(
        f"Run {frame.run_id} has {frame.claim.depth} runs above it, which is the most: it can't invoke another one. Let it "
        "start an independent one, by step.start()."
    )


def child_of(frame: Frame, request: Invoke, step: str, item: str = "") -> NewRun:
    """The run that a step, or an item of a map, starts."""
    child = Child(frame.run_id, step, item, frame.claim.depth + 1)
    return new_run(request.workflow, request.input, child=child, inherited=frame.tags())


def failure_of(child: Found, name: str) -> StepsError:
    """What a child that failed or was canceled raises in its parent, where it was called `name`."""
    if child.status == "canceled" and child.cancel_cause == Cause.TIMED_OUT:
        return ChildTimedOut(name, child.run_id)
    if child.status == "canceled":
        return RunCanceled(f"Run {child.run_id} of {child.workflow!r} was canceled.", child.run_id)
    run = SimpleNamespace(pk=child.run_id, workflow=child.workflow, error=failures.summary(child.error))
    error = RunFailed(run)
    error.run = None
    if child.error:
        error.__cause__ = FailureRecord.read(child.error).rebuild()
    return error


class _Call:
    """One call of a step that invokes a run, in one pass."""

    def __init__(self, frame: Frame, request: Invoke, name: str, recorded: Recorded | None) -> None:
        self._frame, self._request, self._name, self._recorded = frame, request, name, recorded
        self._after = frame.scope.after(name)
        self._reached_us = frame.claim.now()
        said = contexts.read(recorded.context) if recorded is not None else {}
        if recorded is not None and recorded.status == StepStatus.WAITING:
            self._reached_us = contexts.number(said, "reached_us") or self._reached_us
            self._deadline_us = contexts.number(said, "deadline_us")
        else:  # new, or waited for anew after a retry
            self._deadline_us = None if request.timeout_us is None else self._reached_us + request.timeout_us
        self._child: str | None = said.get("child")
        # The input with which the run was started, also if the call has another one now.
        self._arguments = recorded.arguments if recorded is not None and self.has_child else request.fingerprint

    @property
    def has_child(self) -> bool:
        """Whether it has started a run, by what is recorded."""
        return self._child is not None

    def begin(self) -> Part:
        """Start the child together with the record that it is waited for. In a plain body that suspends the run."""
        frame = self._frame
        child = child_of(frame, self._request, self._name)
        self._child = child.id.hex
        host = frame.host
        write = self._write(StepStatus.WAITING)
        yield from self._wait(write, also=lambda: children.insert(host.connection(), [child]))

    def wait_anew(self) -> Part:
        """Wait for the child once more, as the parent is retried; it goes on from where it failed."""
        frame, name = self._frame, self._name
        write, host = self._write(StepStatus.WAITING), frame.host
        frame.ensure_held((yield Record(write)))
        self._recorded = frame.add(write)
        child = yield Call(lambda: children.find(host.connection(), frame.run_id, name))
        if child is not None and child.status in RETRYABLE:
            yield from self._retry(child)

    def _retry(self, child: Found) -> Part:
        """Let the child go on; one that can't keeps its end."""
        frame, host, name = self._frame, self._frame.host, self._name
        run_id, token = frame.run_id, frame.claim.token
        frame.ensure_held((yield Call(lambda: children.retry(host.connection(), run_id, token, name, [child.run_id]))))

    def conclude(self) -> Core:
        """Wait for the end of the child, and record its outcome."""
        frame, host = self._frame, self._frame.host
        while True:
            looked_at = frame.claim.now()
            child = yield Call(lambda: children.find(host.connection(), frame.run_id, self._name))
            if child is None:
                return (yield from self.end(_gone(self._name)))
            self._child = child.run_id.hex  # the one that was there before, or that has taken over
            if (yield from self._was_stopped(child)):
                yield from self._retry(child)
            elif child.has_ended:
                error = None if child.status == "succeeded" else failure_of(child, self._name)
                return (yield from self.end(error, output=child.output))
            elif not child.is_open:  # somebody has retried it, who did not know that it is waited for
                yield Call(lambda: children.open_again(host.connection(), frame.run_id, self._name))
            elif self._deadline_us is not None and looked_at >= self._deadline_us:
                return (yield from self._time_out(child))
            else:
                yield from self._wait()

    def _was_stopped(self, child: Found) -> Generator[Effect, Any, bool]:
        """Whether a child was canceled only because its group was decided, or its parent had ended."""
        if child.status != "canceled":
            return False
        host, run_id = self._frame.host, self._frame.run_id
        found = yield Call(lambda: children.to_retry(host.connection(), run_id, self._name))
        return child.run_id in found

    def _wait(self, write: StepWrite | None = None, also: Any = None) -> Part:
        waiting = Waiting(step=self._name, until_us=self._deadline_us)
        yield from wait_for_others(self._frame, self._name, waiting, write, also)
        if write is not None:
            self._recorded = self._frame.history.recorded(self._name)

    def _time_out(self, child: Found) -> Core:
        """Record that the child has not ended in time, and cancel it, in one transaction."""
        frame, host = self._frame, self._frame.host
        error = ChildTimedOut(self._name, child.run_id)
        write = self._ended(error, timed_out=True)

        def cancel() -> bool:
            controls.cancel_if_possible(host.connection(), child.run_id, Cause.TIMED_OUT)
            return True

        frame.ensure_held((yield Commit(write, lambda: record_with(host.connection(), write, cancel))))
        final = frame.add(write, error)
        finished = yield Call(lambda: cascades.after_cancel(host.connection(), child.run_id))
        yield from stopping.tell(finished)
        return final

    def end(self, error: StepsError | None, output: str | None = None) -> Core:
        """Record an outcome."""
        frame = self._frame
        write = self._ended(error, output)
        frame.ensure_held((yield Record(write)))
        final = frame.add(write, error)
        if frame.host.suspends_always:
            frame.end(Ending(Ended.RELEASED))
        return final

    def _ended(
        self, error: StepsError | None, output: str | None = None, *, timed_out: bool | None = None
    ) -> StepWrite:
        if error is None:
            return self._write(StepStatus.SUCCEEDED, output=output)
        text = failures.with_steps(failures.record(error), [self._name])
        return self._write(StepStatus.FAILED, error=text, timed_out=timed_out)

    def _write(
        self, status: str, *, output: str | None = None, error: str | None = None, timed_out: bool | None = None
    ) -> StepWrite:
        recorded, frame = self._recorded, self._frame
        if recorded is None:
            position = frame.history.next_position()
        elif status == StepStatus.WAITING:
            position = recorded.position
        else:
            position = frame.history.final_position(recorded.position)
        said = {
            "child": self._child,
            "reached_us": self._reached_us,
            "deadline_us": self._deadline_us,
            "timed_out": timed_out,
        }
        return frame.write_of(
            self._name,
            InvokeOperation.kind,
            status,
            said,
            position=position,
            after=self._after if recorded is None else recorded.after,
            output=output,
            error=error,
            arguments=self._arguments,
            attempts=recorded.attempts + (recorded.status == StepStatus.RETRYING) if recorded is not None else 1,
            attempt_log=recorded.attempt_log if recorded is not None else "",
            started_at=self._reached_us,
            finished_at=None if status == StepStatus.WAITING else frame.claim.now(),
            replaces=recorded is not None,
        )


def _gone(name: str) -> InvalidState:
    return InvalidState(
        f"The run that step {name!r} has invoked is gone: it was deleted. retry(from_step={name!r}) invokes another one."
    )
