"""What may stand around a pass and around each attempt of a step: signals, tracing, the testing kit.

A pass without interceptors pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..definitions.requests import CallBranch
from ..ledger.claims import Claim
from ..ledger.records import StepWrite
from .ending import Ending
from .operations.attempts import Attempt, Executed


class Interceptor:
    """Override what is of interest; every method leaves things as they are.

    What an interceptor raises is a mistake of its own, and ends the pass as failed. All methods are called on a thread of the
    pass: what is executed side by side may have several.
    """

    def around_pass(self, claim: Claim, proceed: Callable[[], Ending]) -> Ending:
        """Call `proceed()` once, which carries the pass out, and return its ending. What it ends with is committed."""
        return proceed()

    def around_attempt(self, attempt: Attempt, proceed: Callable[[], Executed]) -> Executed:
        """Call `proceed()` once, which executes the function of the step, and return what is to be recorded.

        Nothing is recorded yet, but for an atomic step, whose record is committed with its writes.
        """
        return proceed()

    def reached(self, claim: Claim, name: str, branch: str) -> None:
        """A body, or a branch (of which `branch` is the path), has come to an operation, which is going to be replayed or
        carried out."""

    def entered(self, claim: Claim, request: CallBranch) -> None:
        """The function of a branch is about to be called: on each pass until the branch is recorded, and again in the same
        pass after it was suspended."""

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        """A record is committed; `error` is the exception of an attempt that failed."""


def around_pass(interceptors: Sequence[Interceptor], claim: Claim, proceed: Callable[[], Ending]) -> Ending:
    """Carry a pass out within all interceptors, the first one outermost."""
    for interceptor in reversed(interceptors):
        proceed = partial(interceptor.around_pass, claim, proceed)
    return proceed()


def around_attempt(interceptors: Sequence[Interceptor], attempt: Attempt, proceed: Callable[[], Executed]) -> Executed:
    """Execute an attempt within all interceptors, the first one outermost."""
    for interceptor in reversed(interceptors):
        proceed = partial(interceptor.around_attempt, attempt, proceed)
    return proceed()
