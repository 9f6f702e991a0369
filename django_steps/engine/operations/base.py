"""What every kind of operation is made of: a look at the history, a core, and what the body gets.

The core is a generator. It decides what happens and in which order, and yields each thing that takes time as an *effect*; a
driver (`engine/drivers/`) carries the effect out and sends back its answer. So the logic of an operation is written once,
and knows neither threads nor an event loop.

To add a kind of operation: a request in `definitions/requests.py`, a method of `Step` that makes it, a module here with
a subclass of `Operation`, and a line in `table.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

from ...definitions.requests import CallBranch
from ...ledger import transitions
from ...ledger.histories import Recorded
from ...ledger.records import StepWrite
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


class Call(NamedTuple):
    """Carry out another write, through an outage of the database if need be. Answer: what the statement returns."""

    statement: Callable[[], Any]


class Wait(NamedTuple):
    """Wait in place for so many seconds; less when there is a reason to look up. No answer."""

    seconds: float


class Enter(NamedTuple):
    """Call the function of a branch, with a scope of its own. Answer: what it returned, and what it raised."""

    request: CallBranch


class SideBySide(NamedTuple):
    """Execute the units of a group as far as they go now. Answer: when the first suspended one is due, or None."""

    group: Group


Effect = Execute | Record | Call | Wait | Enter | SideBySide
Core = Generator[Effect, Any, Recorded]
Part = Generator[Effect, Any, None]  # of a core


class Operation(ABC, Generic[Q]):
    """One kind of operation; `Q` is its request. It has no state: what belongs to a pass is in the frame."""

    kind: str  # as records name it

    @abstractmethod
    def recorded_as(self, frame: Frame, request: Q) -> str:
        """The name under which a request is recorded; reserves it for this pass."""

    @abstractmethod
    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        """Whether the record says all, so that nothing is left to do."""

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
        yield Wait(remaining / 1_000_000)


def suspends(frame: Frame, remaining_us: int) -> bool:
    """Whether so long a wait is not waited out in place; none is beside others, which are executed meanwhile."""
    return frame.unit is not None or remaining_us > frame.host.limits.inline_wait_us


def record_and_wait(frame: Frame, write: StepWrite, until_us: int, error: BaseException | None = None) -> Part:
    """Record why the run waits, and wait: a long wait suspends the run in the transaction of the record."""
    if suspends(frame, until_us - frame.claim.now()):
        yield from suspend(frame, until_us, write, error)
    frame.ensure_held((yield Record(write)))
    frame.add(write, error)
    yield from wait_until(frame, until_us)


def suspend(frame: Frame, until_us: int, write: StepWrite | None = None, error: BaseException | None = None) -> Part:
    """Suspend the run until a time and end the pass; `write` says why, where that is not recorded yet. A unit is suspended
    alone: its group suspends the run once nothing else can go on."""
    if frame.unit is not None:
        if write is not None:
            frame.ensure_held((yield Record(write)))
            frame.add(write, error)
        frame.leave(until_us)
    host, run_id, token = frame.host, frame.claim.run_id, frame.claim.token
    if write is None:
        frame.ensure_held((yield Call(lambda: transitions.suspend_again(host.connection(), run_id, token, until_us))))
    else:
        frame.ensure_held((yield Call(lambda: transitions.suspend(host.connection(), run_id, token, until_us, write))))
        frame.add(write, error)
    frame.end(Ending(Ended.SUSPENDED, until_us))
