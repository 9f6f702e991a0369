"""Calls of plain functions that have a timeout. Nothing can interrupt them, so that somebody else has to decide without them.

Who watches them, and what becomes of one that doesn't end, is in `worker/overdue.py`. Where nobody does, as in a test, a call
is judged when it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from ..core.context import thread_id
from ..durations import to_text
from ..errors import ClaimLost
from .frame import Frame
from .operations.attempts import Attempt

logger = logging.getLogger("django_steps")


class TimedCall:
    """One call of the function of a step, on the thread that makes this."""

    __slots__ = ("_undecided", "attempt", "forget", "frame", "is_reported", "thread_id")

    def __init__(self, attempt: Attempt, frame: Frame) -> None:
        self.attempt, self.frame, self.thread_id = attempt, frame, thread_id()
        self.is_reported = False  # that it is overdue
        self.forget: Callable[[TimedCall], None] | None = None  # to be called at its end
        # Whoever takes this out decides: the thread, when the function has ended, or who gives it up.
        self._undecided = [True]
        if frame.state.watch is not None:
            frame.state.watch(self)

    def late_us(self) -> int:
        """For how many microseconds its time has been over; negative until it is."""
        return self.attempt.claim.now() - (self.attempt.deadline_us or 0)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or was given up."""
        return not self._undecided

    def give_up(self) -> bool:
        """Take the decision from the thread; False if the function has ended. From now on its result is refused."""
        return self._decide()

    def ended(self) -> None:
        """The function has ended, by a result or an exception. Raises `ClaimLost` if that is refused, `StepTimedOut` if it
        comes too late."""
        is_in_time = self._decide()
        if self.forget is not None:
            self.forget(self)
        if not is_in_time:
            raise ClaimLost
        late_us = self.late_us()
        if late_us < 0:
            return
        if late_us >= self.frame.host.limits.step_grace_us:
            raise self.attempt.timeout_error()
        logger.warning(
            "Step %r of run %s has ended %s after its timeout. What it did stands, and so does its result.",
            self.attempt.request.name,
            self.frame.run_id,
            to_text(timedelta(microseconds=late_us)),
        )

    def _decide(self) -> bool:
        try:
            return self._undecided.pop()
        except IndexError:
            return False
