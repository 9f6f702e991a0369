"""Sleeping until a recorded time: short sleeps in place, long ones by suspending the run."""

from __future__ import annotations

from ...core.states import StepStatus
from ...definitions.requests import Sleep
from ...ledger import contexts
from ...ledger.histories import Recorded
from ...ledger.records import StepWrite
from ..frame import Frame
from .base import Core, Operation, Record, record_and_wait, wait_until


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
            return (yield from _ended(frame, recorded))
        claim = frame.claim
        now = claim.now()
        until_us = request.until_us if request.until_us is not None else now + (request.duration_us or 0)
        write = _write(frame, name, frame.history.next_position(), now, until_us, frame.scope.after(name))
        yield from record_and_wait(frame, write, until_us)
        return (yield from _ended(frame, frame.history.recorded(name)))

    def outcome(self, frame: Frame, request: Sleep, recorded: Recorded) -> None:
        return None


def _ended(frame: Frame, recorded: Recorded) -> Core:
    """The record of a sleep that is over. In an async body that waits for more than this, the end has a place in the order of
    what came first, so that it is recorded; elsewhere nobody can ask for it."""
    desk = frame.state.desk
    if desk is None or desk.is_alone():
        return recorded
    since_us = contexts.number(contexts.read(recorded.context), "since_us") or recorded.wakes_at_us or 0
    position = frame.history.final_position(recorded.position)
    write = _write(frame, recorded.name, position, since_us, recorded.wakes_at_us or 0, recorded.after)
    write.status, write.finished_at, write.replaces = StepStatus.SUCCEEDED, frame.claim.now(), True
    frame.ensure_held((yield Record(write)))
    return frame.add(write)


def _write(frame: Frame, name: str, position: int, started_at: int, until_us: int, after: int) -> StepWrite:
    """The record of a sleep that was reached."""
    return frame.write_of(
        name,
        SleepOperation.kind,
        StepStatus.WAITING,
        {"since_us": started_at if frame.is_async else None},
        position=position,
        after=after,
        started_at=started_at,
        wakes_at_us=until_us,
    )
