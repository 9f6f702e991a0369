"""What may stand around a pass and around each attempt of a step: signals, tracing, the testing kit.

A pass without interceptors pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

from ..definitions.requests import CallBranch
from ..ledger.claims import Claim
from ..ledger.records import StepWrite
from .ending import Ending
from .operations.attempts import Attempt, Executed

T = TypeVar("T")


class Interceptor:
    """Override what is of interest; every method leaves things as they are.

    What an interceptor raises is a mistake of its own, and ends the pass as failed. What is around something, and
    `missed()` and `recorded()`, is called on a thread that may wait: what is executed side by side may have several, and an
    async body has others than its own. `reached()` and `entered()` are called where the body is, and must not wait.

    What stands around something is a generator that yields once. What comes before the `yield` is done before it; the `yield`
    gives what came of it, or raises what it raised; and what the generator returns takes its place. So the same generator
    stands around plain code and around async code.
    """

    def around_pass(self, claim: Claim) -> Generator[None, Ending, Ending]:
        """Around a pass. Its ending is committed when the `yield` gives it."""
        return (yield)

    def around_attempt(self, attempt: Attempt) -> Generator[None, Executed, Executed]:
        """Around the function of a step. The `yield` gives what is to be recorded.

        Nothing is recorded yet, but for an atomic step, whose record is committed with its writes.
        """
        return (yield)

    def in_pass(self, claim: Claim) -> None:
        """What is set here in context variables is there in the body and its steps, and gone after the pass. Must not wait."""

    def in_attempt(self, attempt: Attempt) -> None:
        """What is set here in context variables is there in the function of the step, and gone after it. Must not wait."""

    def reached(self, claim: Claim, name: str, branch: str) -> None:
        """A body, or a branch (of which `branch` is the path), has come to an operation, which is going to be replayed or
        carried out."""

    def entered(self, claim: Claim, request: CallBranch) -> None:
        """The function of a branch is about to be called: on each pass until the branch is recorded, and again in the same
        pass after it was suspended."""

    def instead(self, claim: Claim, name: str) -> Callable[..., Any] | None:
        """What is called with the input of a run instead of starting it, or with nothing instead of asking a patch; its
        value is the result."""
        return None

    def missed(self, claim: Claim, events: Sequence[str]) -> bool:
        """A wait has looked for events of these names, and there is none. True lets it look once more."""
        return False

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        """A record is committed; `error` is the exception of an attempt that failed."""

    def unreached(self, claim: Claim, names: Sequence[str]) -> None:
        """The body has come as far as it could, and not to these records."""

    def given_up(self, claim: Claim, ending: Ending) -> None:
        """The pass was ended in place of its thread, which is lost: what stands around it is never left."""


# What stands around each pass of this process, whoever executes it; the outermost. It is read when a pass begins.
everywhere: list[Interceptor] = []


class Around(Generic[T]):
    """What stands around one thing, the first generator outermost."""

    def __init__(self, generators: Sequence[Generator[None, T, T]]) -> None:
        self._generators = generators
        self._entered: list[Generator[None, T, T]] = []

    def enter(self) -> None:
        """Do what comes before."""
        for generator in self._generators:
            next(generator)
            self._entered.append(generator)

    def leave(self, value: T | None, error: BaseException | None) -> T:
        """Do what comes after, from the inside out: what came of it in the end."""
        while self._entered:
            generator = self._entered.pop()
            try:
                generator.send(value) if error is None else generator.throw(error)  # type: ignore[arg-type]
            except StopIteration as returned:
                value, error = returned.value, None
            except BaseException as raised:
                error = raised
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def within(around: Around[T], proceed: Callable[[], T]) -> T:
    """Do something with all that stands around it."""
    value, error = None, None
    try:
        around.enter()
        value = proceed()
    except BaseException as raised:
        error = raised
    return around.leave(value, error)


def around_pass(interceptors: Sequence[Interceptor], claim: Claim) -> Around[Ending]:
    """What stands around a pass."""
    return Around([interceptor.around_pass(claim) for interceptor in interceptors])


def around_attempt(interceptors: Sequence[Interceptor], attempt: Attempt) -> Around[Executed]:
    """What stands around an attempt."""
    return Around([interceptor.around_attempt(attempt) for interceptor in interceptors])


def give_up(interceptors: Sequence[Interceptor], claim: Claim, ending: Ending) -> None:
    """Let the interceptors know that a pass has ended in place of its thread, from the inside out."""
    for interceptor in reversed(interceptors):
        interceptor.given_up(claim, ending)
