"""Sleeping until a recorded time: short sleeps in place, long ones by suspending the run."""

from __future__ import annotations

from ...definitions.requests import Sleep
from ...ledger import order
from ...ledger.histories import Recorded
from ...ledger.records import StepWrite
from ..frame import Frame
from .base import Core, Operation, record_and_wait, wait_until


class SleepOperation(Operation[Sleep]):
    """The end is fixed when the sleep is first reached. A name may be used again: that is a sleep of its own."""

    kind = "sleep"

    def recorded_as(self, frame: Frame, request: Sleep) -> str:
        return frame.scope.reserve_sleep(request.name)

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return (recorded.wakes_at_us or 0) <= frame.claim.now()

    def core(self, frame: Frame, request: Sleep, name: str, recorded: Recorded | None) -> Core:
        if recorded is not None:
            yield from wait_until(frame, recorded.wakes_at_us or 0)
            return recorded
        claim = frame.claim
        now = claim.now()
        until_us = request.until_us if request.until_us is not None else now + (request.duration_us or 0)
        write = StepWrite(
            run_id=claim.run_id,
            token=claim.token,
            name=name,
            kind=self.kind,
            branch=frame.scope.branch,
            position=frame.history.next_position(),
            after=frame.scope.delivered,
            status="waiting",
            started_at=now,
            wakes_at_us=until_us,
            context=order.context_of(frame.scope.levels, ""),
        )
        yield from record_and_wait(frame, write, until_us)
        return frame.history.recorded(name)

    def outcome(self, frame: Frame, request: Sleep, recorded: Recorded) -> None:
        return None
