"""What an operation needs of its pass: the claim, the history, the host, and how the pass is ending.

It calls no body and carries nothing out: the story of a pass is in `execution.py`, that of an operation in `operations/`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import failures, values
from ..core.retries import RetryPolicy
from ..errors import (
    DuplicateStepName,
    HistoryMismatch,
    NestedStep,
    OwnRunChanged,
    PassEnded,
    RecordedInstanceGone,
    StepInTransaction,
    StepsError,
    WrongThread,
)
from ..failures.attribution import Attribution
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.records import Outcome, StepWrite
from .connections import Connections
from .ending import Ended, Ending
from .guard import Guard
from .history import History, as_recorded
from .host import Host
from .interceptors import Interceptor

# Mistakes of the code: a body that catches one can't go on as if nothing had happened.
MISTAKES = (DuplicateStepName, HistoryMismatch, NestedStep, OwnRunChanged, StepInTransaction, WrongThread)

# After so many refused calls a body is taken for one that never ends.
MOST_REFUSALS = 1000


class Frame:
    """The state of one pass. `interrupt` may be set from any thread, and ends the pass at its next operation.

    The frame remembers how the pass is ending, and that decides: what a body returns or raises afterwards doesn't matter,
    because bodies turn the signal into return values and other exceptions.
    """

    def __init__(
        self,
        claim: Claim,
        history: History,
        host: Host,
        default_retry: RetryPolicy,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.claim, self.history, self.host = claim, history, host
        self.run_id = claim.run_id
        self.default_retry, self.interceptors = default_retry, interceptors
        self.interrupt: Ended | None = None
        self.ending: Ending | None = None
        self.mistake: StepsError | None = None
        # Both are written by the next renewal of the lease.
        self.current_step = ""
        self.progress: tuple[int, int] | None = None
        # Since when the record of an atomic step, which is its own transaction's, waits for the database: monotonic.
        self.asked_on: float | None = None
        # After a crash each step is announced before it is executed, until one is recorded.
        self.is_careful = claim.recoveries > 0
        self.connections = Connections()
        self.guard = Guard(self.connections)
        self.attribution = Attribution()
        # When the database last said that the run is this pass's and not canceled, on the clock of this process.
        self.confirmed_on = time.monotonic()
        self._unrun: dict[str, None] = {}
        self._refusals = 0

    # -- May this be called here and now? ---------------------------------------------------------

    def check(self, name: str) -> None:
        """Whether an operation may be called: on the body's own thread, and while the pass is not ending."""
        self.guard.check(name)
        if self.ending is not None or self.mistake is not None:
            self._refuse()
        self.end_if_interrupted()

    def _refuse(self) -> NoReturn:
        """The pass is ending. A body that catches even this and calls again and again would never let it end."""
        self._refusals += 1
        if self._refusals == MOST_REFUSALS:
            self.host.has_endless_body(self.claim, self.ending or Ending(Ended.FAILED))
        raise PassEnded(self.ending.how.value if self.ending else str(self.mistake))

    def define(self, name: str) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        self.check(name)
        self.history.reserve(name)
        self._unrun[name] = None

    def use_defined(self, name: str) -> None:
        """A defined step is run; raises `DuplicateStepName` the second time."""
        if name in self._unrun:
            del self._unrun[name]
        else:
            self.history.reserve(name)

    def never_run(self) -> list[str]:
        """The steps that were defined and not run."""
        return list(self._unrun)

    # -- How the pass ends ------------------------------------------------------------------------

    def end(self, ending: Ending) -> NoReturn:
        """End the pass here, by an exception that unwinds the body."""
        self.ending = ending
        raise PassEnded(ending.how.value)

    def end_if_interrupted(self) -> None:
        """End the pass here if something outside has asked for it."""
        if self.interrupt is not None:
            self.end(Ending(self.interrupt))

    def ensure_held(self, outcome: Outcome) -> None:
        """End the pass here if a write found that the run is no longer this pass's."""
        if outcome is not Outcome.WRITTEN:
            self.end(Ending(ended_by(outcome)))

    # -- Records ----------------------------------------------------------------------------------

    def add(self, write: StepWrite, error: BaseException | None = None) -> Recorded:
        """Take in what has just been committed."""
        self.is_careful = False
        self.confirmed_on = time.monotonic()
        recorded = as_recorded(write)
        self.history.add(recorded)
        for interceptor in reversed(self.interceptors):  # from the inside out, as they are left
            interceptor.recorded(self.claim, write, error)
        return recorded

    def outcome(self, recorded: Recorded) -> Any:
        """The recorded result, decoded anew, or the recorded exception: on the first pass as on every later one."""
        if recorded.status == "failed":
            error = failures.rebuild(recorded.error or "")
            self.attribution.remember(error, recorded.name)
            raise error
        output = self.history.output_of(recorded)
        if output is None:  # it was reset since the history was loaded
            self.end(Ending(Ended.LOST))
        try:
            return values.decode(output)
        except RecordedInstanceGone as error:
            raise RecordedInstanceGone(error.model, error.pk, recorded.name) from None


def ended_by(outcome: Outcome) -> Ended:
    """How a pass ends whose write came to nothing."""
    return Ended.CANCELED if outcome is Outcome.NOT_RUNNING else Ended.LOST
