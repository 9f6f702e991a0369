"""Waiting for an event: what others send to the run, before, while or after it waits.

An event that is there is taken and recorded in one transaction. If none is there, that the run waits is recorded, with the
deadline, which is fixed by that; then the run is suspended. A wait never times out while an event for it is there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ... import failures, values
from ...core import clock
from ...core.event import Event
from ...core.states import StepStatus
from ...definitions.inputs import InputType
from ...definitions.requests import MISSING, WaitForEvent
from ...errors import EventTimedOut, InvalidEvent, InvalidInput, StepsError
from ...ledger import contexts, taking
from ...ledger.histories import Recorded
from ...ledger.records import Outcome, StepWrite
from ...ledger.taking import Found
from ...ledger.waits import Waiting
from ..ending import Ended, Ending
from ..frame import Frame
from .base import Call, Commit, Core, Effect, Operation, Record, wait_for_others


class EventOperation(Operation[WaitForEvent]):
    """As with sleeps a name may be used again: that is a wait of its own."""

    kind = "event"

    def recorded_as(self, frame: Frame, request: WaitForEvent) -> str:
        return frame.scope.reserve_sleep(request.name)

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: WaitForEvent, name: str, recorded: Recorded | None) -> Core:
        frame.state.waits.over(name)
        call = _Call(frame, request, name, recorded)
        while True:
            looked_at, news = frame.claim.now(), frame.state.waits.news
            found, error = yield Call(call.look)
            if found is not None and error is None:
                final = yield from call.take(found)
                if final is None:  # another branch has taken it meanwhile
                    continue
            elif error is not None:
                final = yield from call.end(StepStatus.FAILED, error)
            elif call.deadline_us is not None and looked_at >= call.deadline_us:
                final = yield from call.time_out()
            else:
                waiting = Waiting(request.events, until_us=call.deadline_us)
                yield from wait_for_others(frame, name, waiting, call.reached(), news=news)
                call.recorded = frame.history.recorded(name)
                continue
            if frame.host.suspends_always:
                frame.end(Ending(Ended.RELEASED))
            return final

    def outcome(self, frame: Frame, request: WaitForEvent, recorded: Recorded) -> Any:
        said = contexts.read(recorded.context)
        if said.get("timed_out") and recorded.status != StepStatus.FAILED:
            if request.default is MISSING:  # the code had one when the wait timed out
                raise EventTimedOut(recorded.name, request.events)
            return request.default
        payload = frame.outcome(recorded)
        if request.is_any:
            return _event(payload, said)
        if request.type is None:
            return payload
        taken = said.get("event", {}).get("name", request.events[0])
        return _validated(request.type, payload, recorded.name, taken)


def _event(payload: Any, said: dict[str, Any]) -> Event[Any]:
    event = said.get("event", {})
    made: Event[Any] = Event(event.get("name", ""), payload, id=event.get("id"), by=event.get("by", ""))
    made.sent_at = clock.to_datetime(event.get("sent_us", 0))
    return made


def _validated(type_: InputType, payload: Any, name: str, event: str) -> Any:
    """What the body gets of a payload, also of one that is recorded: the type may have become stricter since. Raises
    `InvalidEvent`, whatever the code of the type raises."""
    try:
        return type_.validate(payload)
    except InvalidInput as error:
        raise InvalidEvent(name, event, error.errors) from None
    except Exception as error:
        raise InvalidEvent(name, event, [f"{type(error).__name__}: {error}"]) from error


class _Call:
    """One call of a wait in one pass."""

    def __init__(self, frame: Frame, request: WaitForEvent, name: str, recorded: Recorded | None) -> None:
        self._frame, self._request, self._name = frame, request, name
        self.recorded = recorded
        self._after = frame.scope.after(name)
        self._reached_us = frame.claim.now()
        said = contexts.read(recorded.context) if recorded is not None else {}
        if recorded is not None and recorded.status == StepStatus.WAITING:
            self._reached_us = contexts.number(said, "reached_us") or self._reached_us
            self.deadline_us = contexts.number(said, "deadline_us")
        else:  # new, or waited for anew after a retry
            self.deadline_us = request.until_us
            if request.timeout_us is not None:
                self.deadline_us = self._reached_us + request.timeout_us

    def look(self) -> tuple[Found | None, StepsError | None]:
        """The event that is there to be taken, and what is wrong with it."""
        frame, request = self._frame, self._request
        found = taking.look(frame.host.connection(), frame.run_id, request.events)
        if found is None and any(around.missed(frame.claim, request.events) for around in frame.interceptors):
            found = taking.look(frame.host.connection(), frame.run_id, request.events)
        if found is None or request.type is None:
            return found, None
        try:
            payload = values.decode(found.payload)
        except StepsError as error:  # it can't be read
            return found, InvalidEvent(self._name, found.name, [str(error)])
        try:
            _validated(request.type, payload, self._name, found.name)
        except InvalidEvent as error:
            return found, error
        return found, None

    def take(self, found: Found) -> Generator[Effect, Any, Recorded | None]:
        """Take an event that is there; None: another call of the run was first."""
        said = {"name": found.name, "id": found.event_id, "by": found.by, "sent_us": found.sent_at}
        write = self._write(StepStatus.SUCCEEDED, {"event": said}, output=found.payload)
        host = self._frame.host
        outcome: Outcome | None = yield Commit(write, lambda: taking.take(host.connection(), write, found))
        if outcome is None:
            return None
        self._frame.ensure_held(outcome)
        return self._frame.add(write)

    def time_out(self) -> Core:
        """End the wait without an event."""
        if self._request.default is not MISSING:
            return (yield from self.end(StepStatus.SUCCEEDED, timed_out=True))
        error = EventTimedOut(self._name, self._request.events)
        return (yield from self.end(StepStatus.FAILED, error, timed_out=True))

    def end(self, status: str, error: StepsError | None = None, *, timed_out: bool | None = None) -> Core:
        """Record an outcome that takes no event."""
        text = None if error is None else failures.with_steps(failures.record(error), [self._name])
        write = self._write(status, {"timed_out": timed_out}, error=text)
        self._frame.ensure_held((yield Record(write)))
        return self._frame.add(write, error)

    def reached(self) -> StepWrite | None:
        """The record that the run waits; None where it is there already."""
        if self.recorded is not None and self.recorded.status == StepStatus.WAITING:
            return None
        write = self._write(StepStatus.WAITING, {"reached_us": self._reached_us, "type": self._request.type_name})
        write.finished_at, write.wakes_at_us = None, self.deadline_us
        return write

    def _write(
        self, status: str, said: dict[str, Any], *, output: str | None = None, error: str | None = None
    ) -> StepWrite:
        recorded, history = self.recorded, self._frame.history
        if recorded is None:
            position = history.next_position()
        elif status == StepStatus.WAITING:
            position = recorded.position
        else:
            position = history.final_position(recorded.position)
        return self._frame.write_of(
            self._name,
            EventOperation.kind,
            status,
            {"events": list(self._request.events), "deadline_us": self.deadline_us, **said},
            position=position,
            after=self._after if recorded is None else recorded.after,
            output=output,
            error=error,
            attempts=recorded.attempts + 1 if recorded is not None and recorded.status == StepStatus.RETRYING else 1,
            attempt_log=recorded.attempt_log if recorded is not None else "",
            started_at=self._reached_us,
            finished_at=self._frame.claim.now(),
            replaces=recorded is not None,
        )
