"""What a body can ask for, as values: one class for each kind of operation.

A `Step` makes them from what users type. What carrying one out means is in `engine/operations/`, a module for each.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol, Self

from ..errors import StepsError
from .inputs import InputType
from .options import PLAIN_CALL, CallOptions, RunOptions
from .polling import Polling
from .undos import arguments_of


@dataclass(slots=True)
class RunStep:
    """Execute a step with these arguments, or replay what is recorded of it."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CallOptions = PLAIN_CALL
    fingerprint: int | None = None  # of the arguments, once the engine has taken it

    def checked(self) -> Self:
        """Itself; `TypeError` if its undo can't take its arguments."""
        if self.options.undo is not None:
            arguments_of(self.name, self.options.undo, self.args, self.kwargs)
        return self


@dataclass(slots=True, kw_only=True)
class Poll(RunStep):
    """Execute a step again and again until it finds what is waited for, or replay what is recorded of it."""

    polling: Polling


@dataclass(slots=True)
class Sleep:
    """Wait for a duration, or until a time; in microseconds."""

    name: str
    duration_us: int | None = None
    until_us: int | None = None


class _Missing:
    """What stands for an argument that was not given, where None is one."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(slots=True, kw_only=True)
class WaitForEvent:
    """Take the first event of these names, or wait for one: for a duration, or until a time; in microseconds.

    `type`: what a payload has to fit, and how records name that. `is_any`: the body gets the event, not its payload.
    """

    name: str = field(kw_only=False)
    events: tuple[str, ...] = field(kw_only=False)
    timeout_us: int | None = None
    until_us: int | None = None
    default: Any = MISSING
    type: InputType | None = None
    type_name: str | None = None
    is_any: bool = False


@dataclass(slots=True)
class Invoke:
    """Start a run of a workflow and wait for its result: at most so long, in microseconds."""

    name: str
    workflow: Any  # a Workflow
    input: Any
    timeout_us: int | None = None
    fingerprint: int | None = None  # of the input, once the engine has taken it


@dataclass(slots=True)
class StartRun:
    """Start a run of a workflow, and don't wait for it."""

    name: str
    workflow: Any  # a Workflow
    input: Any
    options: RunOptions
    fingerprint: int | None = None  # of the input, once the engine has taken it


@dataclass(slots=True)
class Patch:
    """Say whether the run goes the new way of a body that was changed."""

    name: str


@dataclass(slots=True)
class Undo:
    """Execute the undos of the steps that have succeeded here and in the branches below."""

    name: str
    reason: str


@dataclass(slots=True)
class CallBranch:
    """Call a branch: a function that gets a `step` of its own, and maybe `run` and `logger`."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    wanted: tuple[str, ...]  # which of step, run and logger it takes
    fingerprint: int | None = None  # of the arguments, once the engine has taken it


@dataclass(slots=True)
class Gather:
    """Carry out defined steps and branches side by side."""

    members: Sequence[RunStep | CallBranch | Invoke | StartRun]
    return_exceptions: bool = False

    @property
    def name(self) -> str:
        """What an error calls it, which has no name of its own."""
        return self.members[0].name if self.members else "gather()"


@dataclass(slots=True)
class Map:
    """Carry out a step, a branch or a run for each item, side by side. `members` by key, in the order of the items."""

    name: str
    members: Mapping[str, RunStep | CallBranch | Invoke]
    concurrency: int | None
    max_failures: int | None = None
    min_successes: int | None = None
    return_exceptions: bool = False

    def check_successes(self) -> None:
        """Raise `ValueError` if there are fewer items than successes are wanted; a finished map doesn't ask."""
        if self.min_successes is not None and self.min_successes > len(self.members):
            raise ValueError(
                f"Map {self.name!r} has min_successes={self.min_successes}, more than its number of items: "
                f"{len(self.members)}."
            )


@dataclass(slots=True)
class MapRuns(Map):
    """A map over a workflow: a run for each item."""


Request = RunStep | Sleep | Patch | Undo | WaitForEvent | Invoke | StartRun | CallBranch | Gather | Map


class Names(Protocol):
    """What knows the names of a body or branch, and what it has defined."""

    def path(self, name: str) -> str:
        """What is called `name` here is recorded under this name; raises `InvalidName` if that is too long."""
        ...

    def define(self, path: str) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        ...

    def continue_as_new(self, input: Any) -> Any:
        """What a body returns to go on as a new run with this input; raises `InvalidInput`."""
        ...

    def refuse(self, mistake: StepsError) -> NoReturn:
        """Raise a mistake of the code, which fails the run even if the body catches it."""
        ...


class Performer(Names, Protocol):
    """What carries requests out: the pass of a run."""

    def perform(self, request: Request) -> Any:
        """Carry a request out, or replay what is recorded of it; what the body gets."""
        ...


class AsyncPerformer(Names, Protocol):
    """What carries out the requests of an `async def` body."""

    def perform(self, request: Request) -> Coroutine[Any, Any, Any]:
        """A coroutine that carries a request out, or replays what is recorded of it; its value is what the body gets."""
        ...
