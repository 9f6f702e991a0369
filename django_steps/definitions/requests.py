"""What a body can ask for, as values: one class for each kind of operation.

A `Step` makes them from what users type. What carrying one out means is in `engine/operations/`, a module for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from ..errors import StepsError
from .options import PLAIN_CALL, CallOptions
from .polling import Polling


@dataclass(slots=True)
class RunStep:
    """Execute a step with these arguments, or replay what is recorded of it."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CallOptions = PLAIN_CALL


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


@dataclass(slots=True)
class CallBranch:
    """Call a branch: a function that gets a `step` of its own, and maybe `run` and `logger`."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    wanted: tuple[str, ...]  # which of step, run and logger it takes


@dataclass(slots=True)
class Gather:
    """Carry out defined steps and branches side by side."""

    members: Sequence[RunStep | CallBranch]
    return_exceptions: bool = False


@dataclass(slots=True)
class Map:
    """Carry out a step or a branch for each item, side by side. `members` by key, in the order of the items."""

    name: str
    members: Mapping[str, RunStep | CallBranch]
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


Request = RunStep | Sleep | CallBranch | Gather | Map


class Performer(Protocol):
    """What carries requests out: the pass of a run."""

    def path(self, name: str) -> str:
        """What is called `name` here is recorded under this name; raises `InvalidName` if that is too long."""
        ...

    def define(self, path: str) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        ...

    def refuse(self, mistake: StepsError) -> NoReturn:
        """Raise a mistake of the code, which fails the run even if the body catches it."""
        ...

    def perform(self, request: Request) -> Any:
        """Carry a request out, or replay what is recorded of it; what the body gets."""
        ...
