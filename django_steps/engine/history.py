"""What one run has recorded, as a pass reads it: look up, notice mismatches, hand out positions.

Which names are taken and what the body has been given is in `scopes.py`. Nothing is written here; the database's part of
reading is in `ledger/histories.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import takewhile

from ..core.names import is_gather
from ..core.states import PATCH, UNDO, WITH_CHILDREN, StepStatus
from ..errors import FailureWasHandled, HistoryMismatch
from ..ledger import contexts, database, order
from ..ledger.histories import Recorded
from ..ledger.order import Place
from ..ledger.records import StepWrite

_MAY_BE_LEFT = (PATCH, UNDO)


class History:
    """The records of a run, by name. All threads that execute the run share it.

    `load_long` fetches an output that is too long to be kept in memory for every run.
    """

    __slots__ = (
        "_begun",
        "_branches",
        "_calls",
        "_in_branch",
        "_load_long",
        "_lock",
        "_next_position",
        "_records",
        "has_loaded",
        "pending",
        "reached",
        "uncalled",
    )

    def __init__(self, records: Iterable[Recorded] = (), load_long: Callable[[str], str | None] | None = None) -> None:
        self._records = {record.name: record for record in records}
        self._load_long = load_long
        self._next_position = max((record.position for record in self._records.values()), default=-1) + 1
        self._lock = threading.Lock()
        # Made when they are first asked for: most runs have no branches.
        self._in_branch: dict[str, set[str]] | None = None
        self._begun: set[str] | None = None
        self._branches: dict[str, dict[str, str]] | None = None
        self._calls: dict[str, dict[str, int]] | None = None
        # Positions that were handed out and are not settled, where somebody asks for them: an async pass.
        self.pending: set[int] | None = None
        # What earlier passes have called and this one hasn't, where somebody asks for it: `to_be_called()`.
        self.uncalled: dict[str, int] = {}
        # Whether an earlier pass has recorded anything; and the names that this one has come to.
        self.has_loaded = bool(self._records)
        self.reached: set[str] = set()

    @property
    def has_any(self) -> bool:
        """Whether anything is recorded."""
        return bool(self._records)

    def to_be_called(self) -> dict[str, int]:
        """What a pass calls again that goes as the ones before: the names of what is recorded, and after which position each
        was called. What is in a branch or map that is over isn't called any more."""
        records = list(self._records.values())
        over = {record.name for record in records if record.is_final}
        places = [_place(record) for record in records]
        return {
            place.name: place.after
            for place in places
            if place.group not in over
            and not any(level.branch in over or level.group in over for level in place.levels)
        }

    def names_in(self, branch: str) -> set[str]:
        """The names that are recorded in a branch, or (an empty text) in the body itself; a set of the caller's own."""
        if not self._records:
            return set()
        with self._lock:
            if self._in_branch is None:
                self._in_branch = {}
                for record in list(self._records.values()):
                    self._in_branch.setdefault(record.branch, set()).add(record.name)
            return set(self._in_branch.get(branch, ()))

    def unreached_in(self, branch: str) -> list[Recorded]:
        """What is recorded in a branch, or (an empty text) in the body itself, and this pass has not come to; in the order of
        the positions. Of a group that is over only the record of the group counts, and a patch may be taken out at any time."""
        left = [self._records[name] for name in self.names_in(branch) - self.reached]
        found = [
            record for record in left if record.kind not in _MAY_BE_LEFT and not self._is_of_group_that_is_over(record)
        ]
        for path, group in self._branches_in(branch).items():
            known = self._records.get(path)  # once it is over its own record counts
            if path not in self.reached and known is None and not self._is_over(group):
                found += self._within(path)
        return sorted(found, key=lambda record: record.position)

    def _is_of_group_that_is_over(self, record: Recorded) -> bool:
        group = _place(record).group
        # The items of a map over a workflow are recorded by the map, and looked up by nobody.
        return self._is_over(group) or (record.kind == "invoke" and not is_gather(group) and group in self.reached)

    def _is_over(self, group: str) -> bool:
        record = self._records.get(group)
        return record is not None and record.is_final

    def _branches_in(self, branch: str) -> dict[str, str]:
        """The branches that are called in a branch or in the body and in which something is recorded, each with its group."""
        with self._lock:
            if self._branches is None:
                self._branches = {}
                for record in list(self._records.values()):
                    self._note_branches(record)
            return dict(self._branches.get(branch, ()))

    def _note_branches(self, record: Recorded) -> None:
        assert self._branches is not None
        if not record.branch:
            return
        around = ""
        for level in _place(record).levels:
            self._branches.setdefault(around, {})[level.branch] = level.group
            around = level.branch

    def _within(self, branch: str) -> list[Recorded]:
        """What is recorded in a branch, and in those within it."""
        found = [self._records[name] for name in self.names_in(branch)]
        for inner in self._branches_in(branch):
            found += self._within(inner)
        return [record for record in found if record.kind not in _MAY_BE_LEFT]

    def has_begun(self, branch: str) -> bool:
        """Whether anything is recorded in a branch, or in those within it."""
        with self._lock:
            if self._begun is None:
                self._begun = set()
                for record in list(self._records.values()):
                    self._begun.update(level.branch for level in _place(record).levels)
        return branch in self._begun

    def calls_in(self, branch: str) -> dict[str, int]:
        """What was called in a branch, or (an empty text) in the body itself, and after which position: the paths of steps,
        sleeps, branches and maps that are recorded, or of which something within is."""
        with self._lock:
            if self._calls is None:
                self._calls = {}
                for record in list(self._records.values()):
                    self._note_calls(_place(record))
            return dict(self._calls.get(branch, ()))

    def _note_calls(self, place: Place) -> None:
        branch = ""
        for level in place.levels:
            self._note_call(branch, level.branch, level.group, level.entry)
            branch = level.branch
        self._note_call(branch, place.name, place.group, place.after)

    def _note_call(self, branch: str, path: str, group: str, after: int) -> None:
        assert self._calls is not None
        calls = self._calls.setdefault(branch, {})
        called = group if group and not is_gather(group) else path  # a map calls its items
        calls[called] = max(calls.get(called, -1), after)

    def look_up(self, name: str, kind: str) -> Recorded | None:
        """What is recorded under a name; `HistoryMismatch` if it is of another kind."""
        record = self._records.get(name)
        if record is not None and record.kind != kind:
            raise HistoryMismatch(
                f"This run has recorded {name!r} as a {record.kind}, and the code now asks for a {kind}. "
                f"Give the new {kind} another name, or register the changed workflow under a new version."
            )
        return record

    def find(self, name: str) -> Recorded | None:
        """What is recorded under a name, of whatever kind."""
        return self._records.get(name)

    def recorded(self, name: str) -> Recorded:
        """What is recorded under a name that this pass has reached."""
        return self._records[name]

    def output_of(self, record: Recorded) -> str | None:
        """The recorded output, as encoded text; None if the record was reset since it was loaded."""
        if record.is_long and self._load_long is not None:
            return self._load_long(record.name)
        return record.output if record.output is not None else "null"

    def next_position(self) -> int:
        """The position of the next new record, higher than all others."""
        with self._lock:
            position = self._next_position
            self._next_position += 1
            if self.pending is not None:
                self.pending.add(position)
        return position

    def expect(self, position: int) -> None:
        """Something is about to be recorded at a position."""
        with self._lock:
            if self.pending is not None:
                self.pending.add(position)

    def settle(self, position: int) -> None:
        """What was to be recorded at a position is committed, or comes to nothing."""
        with self._lock:
            if self.pending is not None:
                self.pending.discard(position)

    def final_position(self, position: int) -> int:
        """The position of the outcome of a step whose earlier record is at `position`: a new one, unless that is the
        highest."""
        if position == self._next_position - 1:
            self.expect(position)
            return position
        self.settle(position)
        return self.next_position()

    def pass_over(self, record: Recorded) -> None:
        """What the record waits for is over, which is not written."""
        self._put(replace(record, status="succeeded"))

    def marked(self, keys: Collection[str]) -> dict[str, dict[str, Recorded]]:
        """The records whose context says something under these keys: by key and name."""
        found: dict[str, dict[str, Recorded]] = {key: {} for key in keys}
        for record in list(self._records.values()):
            if record.context:
                for key in keys:
                    if f'"{key}"' in record.context and key in contexts.read(record.context):
                        found[key][record.name] = record
        return found

    def mark(self, record: Recorded, context: str | None) -> None:
        """What the context of a record says by now."""
        self._records[record.name] = replace(record, context=context)

    def is_handled(self, steps: Collection[str]) -> bool:
        """Whether others are recorded that are later than the first failure of these steps: the body has handled it."""
        places = [_place(record) for record in list(self._records.values())]
        try:
            order.failures(places, steps)
        except FailureWasHandled:
            return True
        return False

    def add(self, record: Recorded) -> None:
        """Remember what this pass has just recorded; a long output only by name, since a pass asks for it once."""
        if len(record.output or "") > database.LONG_VALUE:
            record = replace(record, output=None, is_long=True)
        self._put(record)

    def waiting_for_children(self) -> list[Recorded]:
        """The steps and maps that wait for runs which they have started."""
        records = list(self._records.values())
        return [one for one in records if one.status == StepStatus.WAITING and one.kind in WITH_CHILDREN]

    def records(self) -> list[Recorded]:
        """What is final, in order, up to the first record that is not: what a later pass needs not load again.

        No later record comes in between, since whatever becomes final has a position that is higher than these.
        """
        ordered = sorted(self._records.values(), key=lambda record: record.position)
        return list(takewhile(lambda record: record.is_final, ordered))

    def _put(self, record: Recorded) -> None:
        self._records[record.name] = record
        if self._begun is not None and record.branch:
            with self._lock:
                self._begun.update(level.branch for level in _place(record).levels)
        if self._in_branch is not None:
            with self._lock:
                self._in_branch.setdefault(record.branch, set()).add(record.name)
        if self._branches is not None:
            with self._lock:
                self._note_branches(record)
        if self._calls is not None:
            with self._lock:
                self._note_calls(_place(record))


def _place(record: Recorded) -> Place:
    return Place.read(record.name, record.position, record.after, record.context)


def is_in_any(record: Recorded, paths: Collection[str]) -> bool:
    """Whether a record is that of one of these steps or branches, or within one."""
    place = _place(record)
    return any(place.is_in(path) for path in paths)


def as_recorded(write: StepWrite) -> Recorded:
    """What a history will say of a write once it is committed."""
    return Recorded(
        write.name,
        write.kind,
        write.position,
        write.after,
        write.status,
        write.attempts,
        write.output,
        write.error,
        write.attempt_log,
        write.wakes_at_us,
        write.branch,
        write.context,
        write.arguments,
    )
