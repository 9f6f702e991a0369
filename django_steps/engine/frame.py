"""What an operation needs of its pass: the claim, the history, the host, the scope, and how the pass is ending.

It calls no body and carries nothing out: the story of a pass is in `execution.py`, that of an operation in `operations/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import failures, values
from ..core.context import active_pass
from ..core.retries import RetryPolicy
from ..errors import (
    DuplicateStepName,
    HistoryMismatch,
    NestedStep,
    OwnRunChanged,
    PassEnded,
    RecordedInstanceGone,
    StepInTransaction,
    StepNotRun,
    StepsError,
    WrongThread,
)
from ..failures.attribution import Attribution
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.records import Outcome, StepWrite
from .checkpoints import Checkpoints
from .connections import Connections
from .ending import Ended, Ending
from .guard import Guard
from .history import History, as_recorded
from .host import Host, endless_body
from .interceptors import Interceptor
from .scopes import Scope
from .units import Unit

# Mistakes of the code: a body that catches one can't go on as if nothing had happened.
MISTAKES = (DuplicateStepName, HistoryMismatch, NestedStep, OwnRunChanged, StepInTransaction, StepNotRun, WrongThread)

# After so many refused calls a body is taken for one that never ends.
MOST_REFUSALS = 1000


class PassState:
    """The state of one pass, which all threads that execute it share: each attribute is set at once, and read at any time.

    The state remembers how the pass is ending, and that decides: what a body returns or raises afterwards doesn't matter,
    because bodies turn the signal into return values and other exceptions.
    """

    def __init__(
        self,
        claim: Claim,
        history: History,
        default_retry: RetryPolicy,
        interceptors: Sequence[Interceptor],
        arguments_of: Callable[[Frame, Sequence[str]], dict[str, Any]],
    ) -> None:
        self.claim, self.history = claim, history
        self.default_retry, self.interceptors = default_retry, interceptors
        # What a body or a branch gets by these names.
        self.arguments_of = arguments_of
        self.interrupt: Ended | None = None
        self.ending: Ending | None = None
        self.mistake: StepsError | None = None
        # What the body says of its progress, else how far its map is. Both and the checkpoints of its steps are written by the
        # next renewal of the lease.
        self.progress: tuple[int, int] | None = None
        self.map_progress: tuple[int, int] | None = None
        self.checkpoints = Checkpoints(claim.checkpoint)
        # After a crash each step is announced before it is executed, until one is recorded.
        self.is_careful = claim.recoveries > 0
        self.attribution = Attribution()
        # When the database last said that the run is this pass's and not canceled, on the clock of this process.
        self.confirmed_on = time.monotonic()
        # The frames in which something is executed now, the body's first.
        self.frames: list[Frame] = []
        self._waking: list[Callable[[], None]] = []

    @property
    def is_ending(self) -> bool:
        """Whether no operation begins any more."""
        return self.ending is not None or self.mistake is not None

    def stop(self, reason: Ended) -> None:
        """Let the pass end at its next operation; may be called from any thread."""
        self.interrupt = self.interrupt or reason
        self.wake()

    def wake(self) -> None:
        """Let the groups of the pass look at what has changed; may be called from any thread."""
        for wake in tuple(self._waking):
            wake()

    def woken_by(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when something has changed, until what is returned is called."""
        self._waking.append(wake)
        return lambda: self._waking.remove(wake)


class Frame:
    """One body or branch, or one step that is executed side by side with others, on the thread that executes it.

    `unit`: what is executed side by side with others, and is suspended alone; None in the body.
    """

    def __init__(
        self,
        state: PassState,
        host: Host,
        scope: Scope,
        unit: Unit | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.state, self.host, self.scope, self.unit = state, host, scope, unit
        self.claim, self.history, self.run_id = state.claim, state.history, state.claim.run_id
        self.default_retry, self.interceptors = state.default_retry, state.interceptors
        self.current_step = ""
        # Since when the record of an atomic step, which is its own transaction's, waits for the database: monotonic.
        self.asked_on: float | None = None
        self.connections = Connections() if connections is None else connections
        self.guard = Guard(self.connections)
        self._refusals = 0

    @property
    def group(self) -> str:
        """The group that what is recorded here is a member of; empty for none, as for the steps in a branch."""
        # A unit is recorded in the scope where its group was called; what its branch records, in a scope of its own.
        return "" if self.unit is None or self.unit.scope is not self.scope else self.unit.group

    # -- May this be called here and now? ---------------------------------------------------------

    def check(self, name: str) -> None:
        """Whether an operation may be called: on the body's own thread, and while the pass is not ending."""
        self.guard.check(name)
        active = active_pass.get()
        if active is not self and active is not None:
            raise NestedStep(
                f"Step {name!r} was called in branch {active.scope.branch!r} by the `step` of another one. "
                "Give the branch's function a parameter named step, and use that."
            )
        state = self.state
        if state.is_ending or (self.unit is not None and self.unit.is_suspended):
            self._refuse()
        self.end_if_interrupted()

    def _refuse(self) -> NoReturn:
        """The pass is ending. A body that catches even this and calls again and again would never let it end."""
        state = self.state
        self._refusals += 1
        if self._refusals == MOST_REFUSALS and self.unit is not None and self.unit.abandon is not None:
            self.unit.abandon(endless_body(self.run_id))
        elif self._refusals == MOST_REFUSALS:
            self.host.has_endless_body(self.claim, state.ending or Ending(Ended.FAILED))
        raise PassEnded(state.ending.how.value if state.ending else str(state.mistake or "suspended"))

    # -- How the pass ends ------------------------------------------------------------------------

    def end(self, ending: Ending) -> NoReturn:
        """End the pass here, by an exception that unwinds the body."""
        self.state.ending = ending
        self.state.wake()
        raise PassEnded(ending.how.value)

    def end_if_interrupted(self) -> None:
        """End the pass here if something outside has asked for it."""
        if self.state.interrupt is not None:
            self.end(Ending(self.state.interrupt))

    def ensure_held(self, outcome: Outcome) -> None:
        """End the pass here if a write found that the run is no longer this pass's."""
        if outcome is not Outcome.WRITTEN:
            self.end(Ending(ended_by(outcome)))

    def leave(self, until_us: int) -> NoReturn:
        """Suspend this unit alone, by an exception that unwinds it."""
        assert self.unit is not None
        self.unit.suspended_until = until_us
        raise PassEnded("suspended")

    # -- Records ----------------------------------------------------------------------------------

    def add(self, write: StepWrite, error: BaseException | None = None) -> Recorded:
        """Take in what has just been committed."""
        state = self.state
        state.is_careful = False
        state.confirmed_on = time.monotonic()
        recorded = as_recorded(write)
        self.history.add(recorded)
        if state.checkpoints.latest:
            state.checkpoints.recorded(write.name, is_final=recorded.is_final)
        for interceptor in reversed(self.interceptors):  # from the inside out, as they are left
            interceptor.recorded(self.claim, write, error)
        return recorded

    def outcome(self, recorded: Recorded) -> Any:
        """The recorded result, decoded anew, or the recorded exception: on the first pass as on every later one."""
        if recorded.status == "failed":
            raise self.failure(recorded)
        return self.value(recorded)

    def failure(self, recorded: Recorded) -> BaseException:
        """The exception of a failed record, made anew."""
        record = failures.FailureRecord.read(recorded.error or "")
        error = record.rebuild()
        self.state.attribution.remember(error, record.steps or (recorded.name,), recorded.name)
        return error

    def value(self, recorded: Recorded) -> Any:
        """The result of a record, decoded anew."""
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
