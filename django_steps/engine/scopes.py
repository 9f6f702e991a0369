"""The body of a run, or one call of a branch, as a place where steps are called: names that are taken, outcomes it was given.

A branch that is called again in the same pass, because its sleep is over, gets a scope of its own: it begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from heapq import heapify, heappop
from inspect import CORO_CLOSED, getcoroutinestate
from typing import Any, NoReturn

from ..core.names import MAX_LENGTH
from ..core.states import PATCH
from ..definitions.requests import CallBranch, Gather, Map, RunStep
from ..errors import DuplicateStepName, InvalidName, StepNotRun
from ..ledger.histories import Recorded
from ..ledger.order import Level
from .details import NOTHING, Carried, Details, Nodes
from .history import History

AnyCoroutine = Coroutine[Any, Any, Any]


class Scope:
    """Where steps are called. `branch` is the path of the branch, empty for the body; `levels` are the branches around a
    record that is made here."""

    __slots__ = (
        "_ahead",
        "_called",
        "_called_so_far",
        "_details",
        "_history",
        "_later",
        "_patches",
        "_reserved",
        "_sleeps",
        "_unawaited",
        "_unrun",
        "branch",
        "delivered",
        "details",
        "inners",
        "levels",
        "patching",
        "replay",
        "undoable",
        "undone",
    )

    def __init__(
        self,
        history: History,
        branch: str = "",
        levels: tuple[Level, ...] = (),
        delivered: int = -1,
        details: Details | None = None,
    ) -> None:
        self.branch, self.levels = branch, levels
        # What was said by `update_details()` in this call, replayed or not, and before it in the calls around it.
        self.details: Nodes = NOTHING
        self._details = details
        # A heap of what is recorded here, by what was delivered last when it was called, highest first; made when it is
        # first asked for.
        self._later: list[tuple[int, str]] | None = None
        # The highest position whose outcome has been given to this body or branch.
        self.delivered = delivered
        self._history = history
        self._ahead = history.names_in(branch)
        self._called: dict[str, int] = {}
        self._reserved: set[str] = set()
        self._sleeps: dict[str, int] = {}
        self._patches: set[str] = set()
        # The patches that are being asked for the first time: by several tasks of an async body, maybe.
        self.patching: set[str] = set()
        self._unrun: dict[str, None] = {}
        # In an async body: what was called and has not begun, by its number.
        self._unawaited: dict[int, tuple[Sequence[str], AnyCoroutine]] = {}
        self._called_so_far = 0
        # What this call, and those of the branches in it, only replay by; None: what is not recorded is carried out.
        self.replay: Any = None
        # The steps that can be undone, by their paths, and those that the body has undone; and the scopes of the branches in
        # here, or their requests where they were not called.
        self.undoable: dict[str, RunStep] = {}
        self.undone: dict[str, RunStep] = {}
        self.inners: dict[str, Scope | CallBranch] = {}

    def inner(self, path: str, group: str) -> Scope:
        """The scope of a branch that is called here, as a member of a group or (an empty text) of none."""
        levels = (*self.levels, Level(path, group, self.delivered))
        scope = Scope(self._history, path, levels, self.delivered, self._details)
        scope.details = self.details
        scope.replay = self.replay
        self.inners[path] = scope
        return scope

    def replaying(self, replay: Any) -> Scope:
        """The same place, for branches that are called once more and only replay."""
        scope = Scope(self._history, self.branch, self.levels, self.delivered, self._details)
        scope.details, scope.replay = self.details, replay
        return scope

    def go_on(self, details: Details) -> None:
        """What has only replayed goes on from here, in another pass."""
        self.replay, self._details = None, details

    def note(self, request: Any) -> None:
        """Something is called here: remember what can be undone of it."""
        kind = type(request)
        if kind is RunStep:
            if request.options.undo is not None:
                self.undoable[request.name] = request
        elif kind is CallBranch:
            self.inners[request.name] = request
        elif kind is Map or kind is Gather:
            for member in request.members.values() if kind is Map else request.members:
                self.note(member)

    def has_undo(self, path: str) -> bool:
        """Whether a step that was called here has an undo."""
        return path in self.undoable or path in self.undone

    # -- Names ----------------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """The name under which something is recorded that is called `name` here; raises `InvalidName` if it is too long."""
        path = f"{self.branch}/{name}" if self.branch else name
        return path if len(path) <= MAX_LENGTH else _too_long(path)

    def reserve(self, path: str) -> None:
        """Take a name; `DuplicateStepName` if it is taken."""
        if path in self._reserved:
            raise DuplicateStepName(path)
        self._reserved.add(path)

    def reserve_sleep(self, path: str) -> str:
        """Take a name for a sleep and return the one it is recorded under: the second of a name is `name#2`."""
        count = self._sleeps.get(path, 0) + 1
        recorded_as = path if count == 1 else f"{path}#{count}"
        self.reserve(recorded_as)
        self._sleeps[path] = count
        return recorded_as

    def ask_patch(self, path: str) -> None:
        """Take a name for a patch, which may be asked for again."""
        if path not in self._patches:
            self.reserve(path)
            self._patches.add(path)

    def reserve_undo(self, path: str) -> None:
        """Take the name of the undo of a step, which nothing else can have."""
        self._reserved.add(path)

    def define(self, path: str) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        if path in self._reserved:
            raise DuplicateStepName(path)
        self._reserved.add(path)
        self._unrun[path] = None

    def use_defined(self, path: str) -> None:
        """A defined step is run; raises `DuplicateStepName` the second time."""
        if path in self._unrun:
            del self._unrun[path]
        else:
            self.reserve(path)

    def expect_awaited(self, names: Sequence[str], begin: Callable[[int], AnyCoroutine]) -> AnyCoroutine:
        """Something of these names is called that has to be awaited: what `begin` makes, which is given a number."""
        self._called_so_far += 1
        coroutine = begin(self._called_so_far)
        self._unawaited[self._called_so_far] = names, coroutine
        return coroutine

    def is_awaited(self, number: int) -> None:
        """What has this number is awaited."""
        del self._unawaited[number]

    def mistake_at_the_end(self) -> StepNotRun | None:
        """What is wrong if the body or branch ends here: steps that were defined and not run."""
        never: list[str] = []
        for names, coroutine in self._unawaited.values():
            if getcoroutinestate(coroutine) == CORO_CLOSED:  # the body has canceled it before it began
                for name in names:
                    self._unrun.pop(name, None)
            else:
                never += [repr(name) for name in names] or ["gather()"]
        if never:
            return StepNotRun(f"Called and never awaited: {', '.join(never)}. Write await before it.")
        if not self._unrun:
            return None
        names = ", ".join(map(repr, self._unrun))
        return StepNotRun(
            f"Defined and never run: {names}. Call .run() on it, or give step.gather() what .bind() returned, or don't "
            "define it."
        )

    # -- Replay ---------------------------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        """Whether there are recorded steps that this call has not reached yet."""
        return bool(self._ahead) or self.replay is not None

    def has_passed(self) -> bool:
        """Whether an earlier pass has come past here: something is recorded that this call has not come to."""
        return not all(map(self._is_called, self._history.calls_in(self.branch)))

    def is_behind(self) -> bool:
        """Whether an earlier pass has gone on from here: something is recorded that it called after what was done here."""
        if self._later is None:
            self._later = [(-after, path) for path, after in self._history.calls_in(self.branch).items()]
            heapify(self._later)
        while self._later and self._is_called(self._later[0][1]):
            heappop(self._later)
        return bool(self._later) and -self._later[0][0] >= self.delivered

    def _is_called(self, path: str) -> bool:
        return path in self._reserved and path not in self._unrun

    def look_up(self, path: str, kind: str) -> Recorded | None:
        """What is recorded under a name; `HistoryMismatch` if it is of another kind."""
        recorded = self._history.look_up(path, kind)
        self._history.uncalled.pop(path, None)
        self._history.reached.add(path)
        if recorded is None and kind == PATCH:
            pass  # new lines may ask for it, and what follows is recorded
        elif recorded is None:
            self._ahead.clear()  # what this call has not come by until now, the code has left out
        else:
            self._ahead.discard(path)
        return recorded

    def called(self, path: str) -> int:
        """Something is called that may have to wait for its turn; what had been delivered by now."""
        self._called[path] = self.delivered
        return self.delivered

    def after(self, path: str) -> int:
        """What had been delivered when this was called."""
        return self._called.get(path, self.delivered)

    def deliver(self, record: Recorded) -> None:
        """The outcome of a step is given to the body or branch, or it goes on after a sleep."""
        self.delivered = max(self.delivered, record.position)
        if record.status == "waiting":
            self._history.pass_over(record)

    # -- What a record made here carries ----------------------------------------------------------

    def carried_by(self, name: str) -> Carried | None:
        """What was said by `update_details()` and goes with the record of this name: in the step or branch itself, here, or in
        the branches around."""
        details = self._details
        if details is None or not details.are_pending:
            return None
        return details.carried_by({name, "", *(level.branch for level in self.levels)})


def _too_long(path: str) -> NoReturn:
    raise InvalidName(
        f"A step is recorded with the branches that it is in and its key, together at most {MAX_LENGTH} characters; this has"
        f" {len(path)}: {path[:60]!r}…. Give shorter names, or shorter keys by key=."
    )
