"""Where the calling code is: inside a body, inside a step, or outside both.

Only the two context variables and what may be asked of them; `execution.py` sets them.
"""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import get_ident as thread_id
from typing import Any, Protocol
from uuid import UUID

from ..errors import StartOutsideStep, StepsError

__all__ = [
    "StepContext",
    "active_pass",
    "active_step",
    "current_step",
    "refuse_control_outside_step",
    "refuse_outside_step",
    "thread_id",
]


class Checkpointing(Protocol):
    """What keeps the checkpoints of an attempt, and knows the last one of the attempts before."""

    def save(self, value: Any) -> None: ...

    def load(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step's function may ask about itself; see `current_step()`."""

    run_id: UUID
    name: str
    attempt: int
    _checkpoints: Checkpointing = field(repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """A string of 36 characters, the same on every attempt of this step in this run."""
        return str(uuid.uuid5(self.run_id, self.name))

    def checkpoint(self, value: Any) -> None:
        """Say how far a long step is, so that the next attempt can go on from there: `checkpoint({"page": 41})`.

        `value` is anything that a step may return. It is encoded at once, and written by the next renewal of the lease (three
        in each lease) or with the record of a failed attempt: so it costs no write of its own, and what was said since the
        last renewal is lost if the worker dies. Each one replaces the one before.

        Raises `UnserializableValue`, `ValueTooLarge`, and `StepsError` in an atomic step, whose writes are rolled back where
        it fails.
        """
        self._checkpoints.save(value)

    @property
    def last_checkpoint(self) -> Any:
        """What an earlier attempt of this step, in this process or another one, has said last; None if nothing.

        It is the same during the whole attempt. A plain retry of the run keeps it, a retry from this step forgets it.
        """
        return self._checkpoints.load()


# The pass whose body is being called, and the step that it is executing.
active_pass: ContextVar[Any] = ContextVar("django_steps_active_pass", default=None)
active_step: ContextVar[StepContext | None] = ContextVar("django_steps_active_step", default=None)


def current_step() -> StepContext:
    """The step that is being executed: its `run_id`, `name`, `attempt` (from 1) and `idempotency_key`, and its checkpoints.

    Raises `StepsError` outside a step.

    >>> stripe.Charge.create(amount=100, idempotency_key=current_step().idempotency_key)  # doctest: +SKIP
    """
    step = active_step.get()
    if step is None:
        raise StepsError("current_step() is only known inside a step: call it from the step's function.")
    return step


def refuse_outside_step(method: str) -> None:
    """Raise `StartOutsideStep` in a body outside a step: every pass would start another run."""
    if _is_in_body():
        raise StartOutsideStep(
            f"{method}() in a body starts another run on every pass. Wrap it in a step: "
            f'step.define("start_other", lambda: str(other.{method}(…).pk)).run()'
        )


def refuse_control_outside_step(method: str) -> None:
    """Raise `StartOutsideStep` in a body outside a step: every pass would do it again."""
    if _is_in_body():
        raise StartOutsideStep(
            f"{method}() in a body is called again on every pass. Wrap it in a step: "
            f'step.define("{method}_run", run.{method}).run()'
        )


def _is_in_body() -> bool:
    return active_pass.get() is not None and active_step.get() is None
