"""What every kind of operation is made of: a look at the history, a core, and what the body gets.

The core is a generator. It decides what happens and in which order, and yields each thing that takes time as an *effect*; a
driver (`engine/drivers/`) carries the effect out and sends back its answer. So the logic of an operation is written once,
and knows neither threads nor an event loop.

To add a kind of operation: a request in `definitions/requests.py`, a method of `Step` that makes it, a module here with
a subclass of `Operation`, and a line in `table.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from ...core import clock
from ...definitions.requests import CallBranch
from ...ledger import transitions, waits
from ...ledger.histories import Recorded
from ...ledger.records import Outcome, StepWrite, record_with
from ...ledger.transitions import Finish
from ...ledger.waits import Suspension, Waiting
from ..ending import Ended, Ending
from ..frame import Frame
from ..groups import Group
from .attempts import Attempt

Q = TypeVar("Q")


class Execute(NamedTuple):
    """Execute the function of a step once. Answer: what is to be recorded, and the error if it failed."""

    attempt: Attempt


class Record(NamedTuple):
    """Commit a record. Answer: its outcome. May raise what makes the value impossible to record."""

    write: StepWrite


class Commit(NamedTuple):
    """Carry out a statement that commits this record together with something else. Answer: what the statement returns."""

    write: StepWrite
    statement: Callable[[], Any]


class Call(NamedTuple):
    """Carry out another write, through an outage of the database if need be. Answer: what the statement returns."""

    statement: Callable[[], Any]


class Tell(NamedTuple):
    """Let a run know that a child of this step has ended, which is committed. Answer: the runs that ended because of it."""

    parent: UUID
    step: str
    status: str


class Announce(NamedTuple):
    """Send the signals of runs that were canceled without a pass. No answer."""

    run_ids: Collection[UUID]


class Confirm(NamedTuple):
    """Ask whether the run of the pass was canceled or lost. Answer: what was found."""


class Wait(NamedTuple):
    """Wait in place for so many seconds; less when there is a reason to look up. No answer."""

    seconds: float


class WaitForOthers(NamedTuple):
    """In an async body: wait until there may be something new for this call, or until a time. No answer.

    `news` is what `Waits.news` was before the call looked for the last time.
    """

    name: str
    until_us: int
    news: int


class Enter(NamedTuple):
    """Call the function of a branch, with a scope of its own. Answer: what it returned, and what it raised."""

    request: CallBranch


class SideBySide(NamedTuple):
    """Execute the units of a group as far as they go now. Answer: when the first suspended one is due, or None.

    `caller`: who calls it, where it is another frame than the one that is driven.
    """

    group: Group
    caller: Frame | None = None


class End(NamedTuple):
    """End the run. Answer: the outcome of that write."""

    finish: Finish


Effect = Execute | Record | Commit | Call | Tell | Announce | Confirm | Wait | WaitForOthers | Enter | SideBySide | End
Core = Generator[Effect, Any, Recorded]
Part = Generator[Effect, Any, None]  # of a core
Also = Callable[[], bool]  # what is done in the transaction of a record; False takes both back


class Operation(ABC, Generic[Q]):
    """One kind of operation; `Q` is its request. It has no state: what belongs to a pass is in the frame."""

    kind: str  # as records name it

    @abstractmethod
    def recorded_as(self, frame: Frame, request: Q) -> str:
        """The name under which a request is recorded; reserves it for this pass."""

    @abstractmethod
    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        """Whether the record says all, so that nothing is left to do."""

    def begin(self, frame: Frame, request: Q, name: str, recorded: Recorded | None) -> Core:
        """Do what is left to do, as far as this pass may."""
        replay = frame.replay
        if replay is None:
            return self.core(frame, request, name, recorded)
        core: Core = replay.begin(self, frame, request, name, recorded)
        return core

    @abstractmethod
    def core(self, frame: Frame, request: Q, name: str, recorded: Recorded | None) -> Core:
        """Do what is left to do; returns the record."""

    @abstractmethod
    def outcome(self, frame: Frame, request: Q, recorded: Recorded) -> Any:
        """What the body gets of a record, or the exception that it gets."""


# -- Parts that several kinds share ------------------------------------------------------------------


def wait_until(frame: Frame, until_us: int) -> Part:
    """Wait for a time: in place where it is near, else by suspending the run for something that is recorded."""
    while (remaining := until_us - frame.claim.now()) > 0:
        frame.end_if_interrupted()
        if suspends(frame, remaining):
            yield from suspend(frame, until_us)
        yield Wait(frame.state.no_longer_than(remaining) / 1_000_000)


def suspends(frame: Frame, remaining_us: int) -> bool:
    """Whether so long a wait is not waited out in place; none is beside others, which are executed meanwhile."""
    if frame.is_async:
        return False
    # What waits for others as well is woken by them only while it is suspended.
    return frame.unit is not None or bool(frame.state.waits) or remaining_us > frame.host.limits.inline_wait_us


def record_and_wait(frame: Frame, write: StepWrite, until_us: int, error: BaseException | None = None) -> Part:
    """Record why the run waits, and wait: a long wait suspends the run in the transaction of the record."""
    if suspends(frame, until_us - frame.claim.now()):
        yield from suspend(frame, until_us, write, error)
    frame.ensure_held((yield Record(write)))
    frame.add(write, error)
    yield from wait_until(frame, until_us)
    frame.end_if_interrupted()


def suspend(
    frame: Frame,
    until_us: int,
    write: StepWrite | None = None,
    error: BaseException | None = None,
    also: Also | None = None,
) -> Part:
    """Suspend the run until a time and end the pass; `write` says why, where that is not recorded yet. A unit is suspended
    alone: its group suspends the run once nothing else can go on. `also`: what is done in the transaction of the record."""
    if frame.unit is not None:
        if write is not None:
            frame.ensure_held((yield _recording(frame, write, also)))
            frame.add(write, error)
        frame.leave(until_us)
    suspension = frame.state.waits.suspension(until_us, frame.claim.now())
    outcome, suspension = yield from write_suspension(frame, suspension, write, also)
    frame.ensure_held(outcome)
    if write is not None:
        frame.add(write, error)
    frame.end(Ending(Ended.SUSPENDED, suspension.available_us, suspension=suspension))


def write_suspension(
    frame: Frame, suspension: Suspension, write: StepWrite | None = None, also: Also | None = None
) -> Generator[Effect, Any, tuple[Outcome, Suspension]]:
    """Suspend the run. Where it waits for others it looks once more after the commit: what has come in between could not wake
    a run that was not suspended."""
    host, run_id, token = frame.host, frame.claim.run_id, frame.claim.token
    suspension = suspension._replace(trace=frame.claim.new_trace)
    if write is None:
        details = frame.state.details.rest()
        yield from write_tags(frame)
        outcome = yield Call(lambda: transitions.suspend_again(host.connection(), run_id, token, suspension, details))
    else:
        outcome = yield Call(lambda: transitions.suspend(host.connection(), run_id, token, suspension, write, also))
    if outcome is not Outcome.WRITTEN or not suspension.is_waiting:
        return outcome, suspension
    is_woken = yield Call(lambda: waits.look_again(host.connection(), run_id))
    return outcome, suspension._replace(available_us=0) if is_woken else suspension


def write_tags(frame: Frame) -> Generator[Effect, Any, None]:
    """Write the tags that no record has carried, before the run is left: in most runs there are none. If the run is no longer
    this pass's, what leaves it says so."""
    host, claim, changes = frame.host, frame.claim, frame.state.details.pending_tags()
    if changes:
        yield Call(lambda: transitions.say_tags(host.connection(), claim.run_id, claim.token, changes))


def wait_for_others(
    frame: Frame,
    name: str,
    waiting: Waiting,
    write: StepWrite | None = None,
    also: Also | None = None,
    news: int | None = None,
) -> Part:
    """Wait for what others do; `write` says so, where it is not recorded yet, together with `also`.

    In a plain body that ends the pass: of the whole run, or of this branch. In an async one it returns when there may be
    something new. `news`: what `Waits.news` was before the caller looked; what has come since is looked at, at once.
    """
    until_us = clock.NEVER_US if waiting.until_us is None else waiting.until_us
    news = frame.state.waits.news if news is None else news
    with frame.state.waits.waiting(name, waiting):
        if not frame.is_async:
            yield from suspend(frame, until_us, write, also=also)
        if write is not None:
            frame.ensure_held((yield _recording(frame, write, also)))
            frame.add(write)
        yield WaitForOthers(name, until_us, news)


def _recording(frame: Frame, write: StepWrite, also: Also | None) -> Effect:
    """The effect that commits a record, and something else if there is such."""
    if also is None:
        return Record(write)
    host = frame.host
    return Commit(write, lambda: record_with(host.connection(), write, also))
