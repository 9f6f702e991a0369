"""What a body can ask for, as values: one class for each kind of operation.

A `Step` makes them from what users type. What carrying one out means is in `engine/operations/`, a module for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .options import PLAIN_CALL, CallOptions


@dataclass(slots=True)
class RunStep:
    """Execute a step with these arguments, or replay what is recorded of it."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CallOptions = PLAIN_CALL


@dataclass(slots=True)
class Sleep:
    """Wait for a duration, or until a time; in microseconds."""

    name: str
    duration_us: int | None = None
    until_us: int | None = None


Request = RunStep | Sleep


class Performer(Protocol):
    """What carries requests out: the pass of a run."""

    def define(self, name: str) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        ...

    def perform(self, request: Request) -> Any:
        """Carry a request out, or replay what is recorded of it; what the body gets."""
        ...
