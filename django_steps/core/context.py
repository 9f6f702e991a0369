"""Where the calling code is: inside a body, inside a step, or outside both.

Only the two context variables and what may be asked of them; `execution.py` sets them.
"""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from threading import get_ident as thread_id
from typing import Any, Protocol
from uuid import UUID

from ..errors import StartOutsideStep, StepsError
from . import clock

__all__ = [
    "StepContext",
    "active_pass",
    "active_step",
    "current_step",
    "refuse_control_outside_step",
    "refuse_outside_step",
    "step_around",
    "thread_id",
]


class Executing(Protocol):
    """The attempt that is being executed: it keeps its checkpoints, knows the last one of those before, and its time."""

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended."""
        ...

    @property
    def deadline_us(self) -> int | None:
        """When the time of the attempt is over, machine time; None: never."""
        ...

    def remaining_us(self) -> int:
        """How many microseconds it has left until then, at least 0."""
        ...

    def save(self, value: Any) -> None: ...

    def load(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step's function may ask about itself; see `current_step()`."""

    run_id: UUID
    name: str
    attempt: int
    _attempt: Executing = field(repr=False, compare=False)

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
        self._attempt.save(value)

    @property
    def last_checkpoint(self) -> Any:
        """What an earlier attempt of this step, in this process or another one, has said last; None if nothing.

        It is the same during the whole attempt. A plain retry of the run keeps it, a retry from this step forgets it.
        """
        return self._attempt.load()

    @property
    def deadline(self) -> datetime | None:
        """When the `timeout` of this attempt is over: a datetime, aware where `USE_TZ` is on. None if the step has none."""
        deadline_us = self._attempt.deadline_us
        return None if deadline_us is None else clock.to_datetime(deadline_us)

    def remaining(self) -> float | None:
        """How many seconds this attempt has left, at least 0.0; None if the step has no `timeout`.

        A plain function can't be interrupted: give this to whatever it waits for.

        >>> requests.post(url, json=order, timeout=current_step().remaining())  # doctest: +SKIP
        """
        return None if self._attempt.deadline_us is None else self._attempt.remaining_us() / 1_000_000


# The pass whose body is being called, and the step that it is executing.
active_pass: ContextVar[Any] = ContextVar("django_steps_active_pass", default=None)
active_step: ContextVar[StepContext | None] = ContextVar("django_steps_active_step", default=None)


def step_around() -> StepContext | None:
    """The step in which the calling code is executed; None outside steps, and in what outlasts the step that began it."""
    step = active_step.get()
    return None if step is None or step._attempt.is_over else step


def current_step() -> StepContext:
    """The step that is being executed: its `run_id`, `name`, `attempt` (from 1) and `idempotency_key`, its `deadline`, and its
    checkpoints.

    Raises `StepsError` outside a step.

    >>> stripe.Charge.create(amount=100, idempotency_key=current_step().idempotency_key)  # doctest: +SKIP
    """
    step = step_around()
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
    return active_pass.get() is not None and step_around() is None
