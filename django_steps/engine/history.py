"""What one run has recorded, as a pass reads it: look up, notice duplicates and mismatches.

Nothing is written here. The database's part of reading is in `ledger/histories.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import takewhile

from ..errors import DuplicateStepName, FailureWasHandled, HistoryMismatch
from ..ledger import database, order
from ..ledger.histories import Recorded
from ..ledger.records import StepWrite


class History:
    """The records of a run, by name, and which of them this pass has reached so far.

    `load_long` fetches an output that is too long to be kept in memory for every run.
    """

    __slots__ = ("_ahead", "_load_long", "_next_position", "_records", "_reserved", "_sleeps", "delivered")

    def __init__(self, records: Iterable[Recorded] = (), load_long: Callable[[str], str | None] | None = None) -> None:
        self._records = {record.name: record for record in records}
        self._ahead = set(self._records)
        self._load_long = load_long
        self._reserved: set[str] = set()
        self._sleeps: dict[str, int] = {}
        self.delivered = -1  # the highest position whose outcome the body has been given in this pass
        self._next_position = max((record.position for record in self._records.values()), default=-1) + 1

    @property
    def is_replaying(self) -> bool:
        """Whether there are recorded steps that this pass has not reached yet."""
        return bool(self._ahead)

    def reserve(self, name: str) -> None:
        """Take a step name for this pass; `DuplicateStepName` if it is taken."""
        if name in self._reserved:
            raise DuplicateStepName(name)
        self._reserved.add(name)

    def reserve_sleep(self, name: str) -> str:
        """Take a name for a sleep and return the one it is recorded under: the second of a name is `name#2`."""
        count = self._sleeps.get(name, 0) + 1
        recorded_as = name if count == 1 else f"{name}#{count}"
        self.reserve(recorded_as)
        self._sleeps[name] = count
        return recorded_as

    def look_up(self, name: str, kind: str) -> Recorded | None:
        """What is recorded under a name; `HistoryMismatch` if it is of another kind."""
        record = self._records.get(name)
        if record is None:
            self._ahead.clear()  # what this pass has not come by until now, the code has left out
            return None
        self._ahead.discard(name)
        if record.kind != kind:
            raise HistoryMismatch(
                f"This run has recorded {name!r} as a {record.kind}, and the code now asks for a {kind}. "
                f"Give the new {kind} another name, or register the changed workflow under a new version."
            )
        return record

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
        position = self._next_position
        self._next_position += 1
        return position

    def final_position(self, position: int) -> int:
        """The position of the outcome of a step whose earlier record is at `position`: a new one, unless that is the
        highest."""
        return position if position == self._next_position - 1 else self.next_position()

    def deliver(self, record: Recorded) -> None:
        """The body is given the outcome of a step, or goes on after a sleep."""
        self.delivered = max(self.delivered, record.position)
        if record.status == "waiting":
            self._records[record.name] = replace(record, status="succeeded")

    def is_handled(self, steps: Collection[str]) -> bool:
        """Whether others are recorded that are later than the first failure of these steps: the body has handled it."""
        places = [(record.name, record.position, record.after) for record in self._records.values()]
        try:
            order.failures(places, steps)
        except FailureWasHandled:
            return True
        return False

    def add(self, record: Recorded) -> None:
        """Remember what this pass has just recorded; a long output only by name, since a pass asks for it once."""
        if len(record.output or "") > database.LONG_VALUE:
            record = replace(record, output=None, is_long=True)
        self._records[record.name] = record

    def records(self) -> list[Recorded]:
        """What is final, in order, up to the first record that is not: what a later pass needs not load again.

        No later record comes in between, since whatever becomes final has a position that is higher than these.
        """
        ordered = sorted(self._records.values(), key=lambda record: record.position)
        return list(takewhile(lambda record: record.is_final, ordered))


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
    )
