"""The body of a run, or one call of a branch, as a place where steps are called: names that are taken, outcomes it was given.

A branch that is called again in the same pass, because its sleep is over, gets a scope of its own: it begins anew.
"""

from __future__ import annotations

from typing import NoReturn

from ..core.names import MAX_LENGTH
from ..errors import DuplicateStepName, InvalidName, StepNotRun
from ..ledger.histories import Recorded
from ..ledger.order import Level
from .history import History


class Scope:
    """Where steps are called. `branch` is the path of the branch, empty for the body; `levels` are the branches around a
    record that is made here."""

    __slots__ = ("_ahead", "_history", "_reserved", "_sleeps", "_unrun", "branch", "delivered", "levels")

    def __init__(self, history: History, branch: str = "", levels: tuple[Level, ...] = (), delivered: int = -1) -> None:
        self.branch, self.levels = branch, levels
        # The highest position whose outcome has been given to this body or branch.
        self.delivered = delivered
        self._history = history
        self._ahead = history.names_in(branch)
        self._reserved: set[str] = set()
        self._sleeps: dict[str, int] = {}
        self._unrun: dict[str, None] = {}

    def inner(self, path: str, group: str) -> Scope:
        """The scope of a branch that is called here, as a member of a group or (an empty text) of none."""
        return Scope(self._history, path, (*self.levels, Level(path, group, self.delivered)), self.delivered)

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

    def mistake_at_the_end(self) -> StepNotRun | None:
        """What is wrong if the body or branch ends here: steps that were defined and not run."""
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
        return bool(self._ahead)

    def look_up(self, path: str, kind: str) -> Recorded | None:
        """What is recorded under a name; `HistoryMismatch` if it is of another kind."""
        recorded = self._history.look_up(path, kind)
        if recorded is None:
            self._ahead.clear()  # what this call has not come by until now, the code has left out
        else:
            self._ahead.discard(path)
        return recorded

    def deliver(self, record: Recorded) -> None:
        """The outcome of a step is given to the body or branch, or it goes on after a sleep."""
        self.delivered = max(self.delivered, record.position)
        if record.status == "waiting":
            self._history.pass_over(record)


def _too_long(path: str) -> NoReturn:
    raise InvalidName(
        f"A step is recorded with the branches that it is in and its key, together at most {MAX_LENGTH} characters; this has"
        f" {len(path)}: {path[:60]!r}…. Give shorter names, or shorter keys by key=."
    )
