"""A branch: a function of the body with steps of its own. What it returned or raised is recorded once it has ended."""

from __future__ import annotations

from typing import Any

from ... import failures, values
from ...definitions.requests import CallBranch
from ...errors import UnserializableValue, ValueTooLarge
from ...ledger.histories import Recorded
from ...ledger.records import StepWrite
from ..ending import Ended, Ending
from ..frame import Frame
from .base import Core, Enter, Operation, Record


class BranchOperation(Operation[CallBranch]):
    """Until its outcome is recorded its function is called again on each pass, over the records of its steps."""

    kind = "branch"

    def recorded_as(self, frame: Frame, request: CallBranch) -> str:
        frame.scope.use_defined(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: CallBranch, name: str, recorded: Recorded | None) -> Core:
        started_at, after = frame.claim.now(), frame.scope.after(name)
        value, error = yield Enter(request)
        output, text = None, None
        if error is None:
            try:
                output = values.encode(value, max_bytes=frame.host.limits.max_value_bytes)
            except Exception as refused:
                error = refused
        if error is not None:
            text = _text_of(frame, error, name)
        write = _write(frame, request, after, started_at, output, text)
        try:
            frame.ensure_held((yield Record(write)))
        except (UnserializableValue, ValueTooLarge) as refused:  # by the database, which takes the failure instead
            error = refused
            text = _text_of(frame, refused, name)
            write = _write(frame, request, after, started_at, None, text, write.position)
            frame.ensure_held((yield Record(write)))
        final = frame.add(write, error)
        if frame.host.suspends_always:
            frame.end(Ending(Ended.RELEASED))
        return final

    def outcome(self, frame: Frame, request: CallBranch, recorded: Recorded) -> Any:
        return frame.outcome(recorded)


def _write(
    frame: Frame,
    request: CallBranch,
    after: int,
    started_at: int,
    output: str | None,
    error: str | None,
    position: int | None = None,
) -> StepWrite:
    return frame.write_of(
        request.name,
        BranchOperation.kind,
        "succeeded" if error is None else "failed",
        position=frame.history.next_position() if position is None else position,
        after=after,
        output=output,
        error=error,
        arguments=request.fingerprint,
        started_at=started_at,
        finished_at=frame.claim.now(),
    )


def _text_of(frame: Frame, error: BaseException, name: str) -> str:
    """The record of what a branch raised; where it is a step's own failure, the step's record, which has the traceback."""
    attribution = frame.state.attribution
    recorded = attribution.record_of(error)
    text = frame.history.recorded(recorded).error if recorded else None
    return failures.with_steps(text or failures.record(error), [*attribution.steps_of(error), name])
