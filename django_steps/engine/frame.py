"""What an operation needs of its pass: the claim, the history, the host, the scope, and how the pass is ending.

It calls no body and carries nothing out: the story of a pass is in `execution.py`, that of an operation in `operations/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol, cast

from .. import failures, values
from ..core import tags
from ..core.context import active_pass, step_around, thread_id
from ..core.retries import RetryPolicy
from ..core.tags import Changes, Tags
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
from ..ledger import order
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.records import Outcome, StepWrite
from .captured import Lines
from .checkpoints import Checkpoints
from .connections import Connections
from .details import Details, as_text, check_size, packed
from .ending import Ended, Ending
from .guard import Guard
from .history import History, as_recorded
from .host import Host, ThreadedHost, endless_body
from .interceptors import Interceptor
from .loops import OfPass
from .scopes import Scope
from .units import Unit
from .waits import Waits

# Mistakes of the code: a body that catches one can't go on as if nothing had happened.
MISTAKES = (DuplicateStepName, HistoryMismatch, NestedStep, OwnRunChanged, StepInTransaction, StepNotRun, WrongThread)

# After so many refused calls a body is taken for one that never ends.
MOST_REFUSALS = 1000


class Replaying(Protocol):
    """What a body or branch has come to that only replays: `replay.py`."""

    mistakes: list[StepsError]

    def begin(self, operation: Any, frame: Frame, request: Any, name: str, recorded: Recorded | None) -> Any:
        """The core of an operation, up to where it would do something."""
        ...

    def begin_group(self, core: Any, frame: Frame, name: str) -> Any:
        """The same of a group, which has no record."""
        ...


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
        lines: Lines | None = None,
    ) -> None:
        self.claim, self.history = claim, history
        self.lines = lines  # what is written to the log; None if that is not captured
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
        self.details = Details(claim.details, tags.read(claim.tags))
        # After a crash each step is announced before it is executed, and one at a time is, until one is recorded: for one
        # lease at most, since it may wait for the others.
        self.careful_until = claim.held_until if claim.recoveries else 0.0
        self.attribution = Attribution()
        # When the database last said that the run is this pass's and may go on, on the clock of this process.
        self.confirmed_on = time.monotonic()
        # Where the calls of an async pass wait for their turn; None for a plain one.
        self.desk: OfPass | None = None
        # An async body has returned or raised, and what it has begun comes to its end.
        self.is_closing = False
        # What the body has called `continue_as_new()` for, until it returns it.
        self.continuation: Any = None
        # What it waits for others for.
        self.waits = Waits()
        # Told of each call of a plain function that has a timeout; None where nobody watches them.
        self.watch: Callable[[Any], None] | None = None
        # Records in branches that have ended in this pass, to which it has not come.
        self.unreached: list[Recorded] = []
        # Records that it has called with other arguments, by name.
        self.changed: dict[str, Recorded] = {}
        # Whether nothing but a replay of the body is to come of this pass.
        self.only_replays = False
        # The frames in which something is executed now, the body's first.
        self.frames: dict[Frame, None] = {}
        self._waking: list[Callable[[], None]] = []

    @property
    def is_careful(self) -> bool:
        """Whether the pass comes after a crash, and nothing is recorded in it yet."""
        return self.careful_until > 0.0 and time.monotonic() < self.careful_until

    @property
    def is_ending(self) -> bool:
        """Whether no operation begins any more."""
        return self.ending is not None or self.mistake is not None or self.is_closing

    @property
    def is_expired(self) -> bool:
        """Whether the timeout of the run is over."""
        expires_at = self.claim.expires_at
        return expires_at is not None and self.claim.now() >= expires_at

    @property
    def is_interrupted(self) -> bool:
        """Whether something outside has asked for the end of the pass, or the timeout of the run is over."""
        if self.interrupt is None and self.is_expired:
            self.interrupt = Ended.TIMED_OUT
        return self.interrupt is not None

    def no_longer_than(self, wait_us: int) -> int:
        """So many microseconds, or those that the run has left."""
        expires_at = self.claim.expires_at
        return wait_us if expires_at is None else min(wait_us, max(expires_at - self.claim.now(), 0))

    def stop(self, reason: Ended) -> None:
        """Let the pass end at its next operation; may be called from any thread."""
        self.interrupt = self.interrupt or reason
        self.wake()

    def wake(self) -> None:
        """Let the groups of the pass look at what has changed; may be called from any thread."""
        for wake in tuple(self._waking):
            wake()

    def has_news(self) -> None:
        """There may be something new for what waits for others; may be called from any thread."""
        self.waits.news += 1
        self.wake()

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
        self.thread_id = thread_id()
        self.helps: Frame | None = None  # on a thread that helps: the frame that has called the group
        # In an async body, on the thread of a step: gives its call up, with this error, so that the pass goes on without it.
        self.give_up: Callable[[StepsError], None] | None = None
        # Since when the record of an atomic step, which is its own transaction's, waits for the database: monotonic.
        self.asked_on: float | None = None
        self.connections = Connections() if connections is None else connections
        self.guard = Guard(self.connections)
        # On the thread of a step: whether an awaitable that its function returns is awaited elsewhere.
        self.leaves_awaitables = False
        # What the interceptors of an async pass are told before the operation goes on.
        self.untold: list[Callable[[], None]] = []
        self.refusals = 0

    @property
    def is_async(self) -> bool:
        """Whether the body is `async def`: what waits stays where it is, until the whole pass is suspended."""
        return self.state.desk is not None

    @property
    def replay(self) -> Replaying | None:
        """What this body or branch has come to, where it only replays; None: what is not recorded is carried out."""
        replay: Replaying | None = self.scope.replay
        return replay

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
        self.refusals += 1
        if self.is_async:  # whose driver sees to that
            raise PassEnded(str(state.mistake or "ending"))
        if self.refusals == MOST_REFUSALS and self.unit is not None and self.unit.abandon is not None:
            self.unit.abandon(endless_body(self.run_id))
        elif self.refusals == MOST_REFUSALS:
            cast(ThreadedHost, self.host).has_endless_body(self.claim, state.ending or Ending(Ended.FAILED))
        raise PassEnded(state.ending.how.value if state.ending else str(state.mistake or "suspended"))

    # -- How the pass ends ------------------------------------------------------------------------

    def end(self, ending: Ending) -> NoReturn:
        """End the pass here, by an exception that unwinds the body."""
        self.state.ending = ending
        self.state.wake()
        raise PassEnded(ending.how.value)

    def end_if_interrupted(self) -> None:
        """End the pass here if something outside has asked for it."""
        if self.state.is_interrupted:
            assert self.state.interrupt is not None
            self.end(Ending(self.state.interrupt))

    def ensure_held(self, outcome: Outcome) -> None:
        """End the pass here if a write found that the run is no longer this pass's."""
        if outcome is not Outcome.WRITTEN:
            self.end(Ending(ended_by(outcome)))

    def leave(self, until_us: int) -> NoReturn:
        """Suspend this unit alone, by an exception that unwinds it."""
        assert self.unit is not None
        self.unit.suspended_until = until_us
        self.unit.waits_for_others = self.state.waits.is_any_in(self.unit.path)
        raise PassEnded("suspended")

    # -- What the body says of itself -------------------------------------------------------------

    def update_details(self, given: Mapping[str, Any]) -> None:
        """Say something of the run. In a body or branch that replays what it has said before, nothing is said again."""
        max_bytes, step = self.host.limits.max_value_bytes, step_around()
        nodes = packed(given, max_bytes)
        if step is not None:
            self.state.details.say(step.name, nodes, max_bytes)
            return
        if self.state.is_ending or self._is_left():
            return  # nothing is recorded any more, and the next pass comes by here again
        scope = self.scope
        said = {**scope.details, **nodes}
        check_size(as_text(said), max_bytes)
        if self.replay is None and not scope.is_behind():
            self.state.details.say(scope.branch, nodes, max_bytes)
        scope.details = said

    def set_tags(self, changes: Changes) -> None:
        """Change tags of the run, as `update_details()` says something."""
        said, step = self.state.details, step_around()
        if step is not None:
            said.say_tags(step.name, changes)
        elif self.state.is_ending or self._is_left() or self.replay is not None or self.scope.is_behind():
            return
        else:
            said.say_tags(self.scope.branch, changes)

    def tags(self) -> Tags:
        """The tags of the run, with what was said in this pass for the first time."""
        return self.state.details.tags()

    def details_text(self) -> str | None:
        """What the body or branch has said so far, as recorded text; None in a step, which reads what is written."""
        return None if step_around() is not None else as_text(self.scope.details)

    def _is_left(self) -> bool:
        """Whether this unit, or one that it is in, is executed no further in this call."""
        unit = self.unit
        while unit is not None:
            if unit.is_suspended or unit.is_left:
                return True
            unit = unit.outer
        return False

    # -- Records ----------------------------------------------------------------------------------

    def write_of(
        self, name: str, kind: str, status: str, said: Mapping[str, Any] | None = None, **columns: Any
    ) -> StepWrite:
        """The record of something that is called here; `said`: what its context says beside its place."""
        return StepWrite(
            run_id=self.run_id,
            token=self.claim.token,
            name=name,
            kind=kind,
            branch=self.scope.branch,
            status=status,
            context=order.context_of(self.scope.levels, self.group, said),
            details=self.scope.carried_by(name),
            **columns,
        )

    def has_left(self) -> None:
        """The branch has ended: what it has recorded before, and not come to now, it has left out."""
        if self.history.has_loaded:
            self.state.unreached += self.history.unreached_in(self.scope.branch)

    def add(self, write: StepWrite, error: BaseException | None = None) -> Recorded:
        """Take in what has just been committed."""
        state = self.state
        state.careful_until = 0.0
        state.confirmed_on = time.monotonic()
        if write.details is not None:
            write.details.is_written()
        recorded = as_recorded(write)
        self.history.add(recorded)
        if state.checkpoints.latest:
            state.checkpoints.recorded(write.name, is_final=recorded.is_final)
        if state.lines is not None:
            state.lines.recorded(write.name, write.output)
        if self.interceptors:
            self._tell(write, error)
        return recorded

    def _tell(self, write: StepWrite, error: BaseException | None) -> None:
        """Let the interceptors know of a record, from the inside out, as they are left."""
        told = [partial(interceptor.recorded, self.claim, write, error) for interceptor in reversed(self.interceptors)]
        if self.state.desk is not None:  # on its own thread nothing may wait
            self.untold += told
            return
        for tell in told:
            tell()

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
        if self.state.lines is not None:
            self.state.lines.knows(output)
        try:
            return values.decode(output)
        except RecordedInstanceGone as error:
            raise RecordedInstanceGone(error.model, error.pk, recorded.name) from None


def ended_by(outcome: Outcome) -> Ended:
    """How a pass ends whose write came to nothing. Of one that is to be paused its release says so."""
    return Ended.CANCELED if outcome is Outcome.NOT_RUNNING else Ended.LOST
