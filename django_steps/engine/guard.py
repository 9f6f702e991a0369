"""Where a step may be called: on the body's own thread, outside other steps, and outside transactions of the body."""

from __future__ import annotations

from ..core.context import step_around, thread_id
from ..errors import NestedStep, StepInTransaction, StepsError, WrongThread
from .connections import Connections


class Guard:
    """Made where the body begins; refuses the steps that could not keep their promise."""

    __slots__ = ("_connections", "_depths", "_misuse", "_thread")

    def __init__(self, connections: Connections) -> None:
        self._thread = thread_id()
        self._connections, self._depths = connections, connections.depths()
        self._misuse: StepsError | None = None

    def check(self, name: str) -> None:
        """Raise `NestedStep` or `WrongThread` if step `name` is called inside a step or on another thread."""
        inside = step_around()
        if inside is not None:
            self._misuse = called_inside(name, inside.name)
            raise self._misuse
        if thread_id() != self._thread:
            self._misuse = WrongThread(
                f"Step {name!r} was called from another thread. Call steps from the body's own thread; step.map() and "
                "step.gather() execute several at once."
            )
            raise self._misuse

    def check_transaction(self, name: str) -> None:
        """Raise `StepInTransaction` if the body has a transaction open."""
        if self._connections.is_deeper(self._depths):
            raise StepInTransaction(
                f"Step {name!r} was called inside an atomic() block (or another open transaction) of the body, which can be "
                f"rolled back after the step was done. Move it into the step's function, or give the step atomic=True."
            )

    def take_misuse(self) -> StepsError | None:
        """The error of a step that was called where none may be, once. It may have got lost in a thread or a future."""
        misuse, self._misuse = self._misuse, None
        return misuse


def called_inside(name: str, outer: str) -> NestedStep:
    """What is wrong with a step that is called in the function of another one."""
    return NestedStep(
        f"Step {name!r} was called inside step {outer!r}. Call steps from the body, or from a branch: a function with a "
        "parameter named step, for step.map() or step.branch()."
    )
