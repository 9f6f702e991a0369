"""What one run has recorded, as a pass over its body reads it: look up, notice duplicates and mismatches.

Nothing is written here. The database's part of reading is in `ledger/histories.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from ..errors import DuplicateStepName, HistoryMismatch
from ..ledger import database
from ..ledger.histories import Recorded
from ..ledger.records import StepWrite


class History:
    """The records of a run, by name, and which of them this pass has reached so far.

    `load_long` fetches an output that is too long to be kept in memory for every run.
    """

    __slots__ = ("_ahead", "_load_long", "_next_position", "_records", "_reserved", "_sleeps")

    def __init__(self, records: Iterable[Recorded] = (), load_long: Callable[[str], str | None] | None = None) -> None:
        self._records = {record.name: record for record in records}
        self._ahead = set(self._records)
        self._load_long = load_long
        self._reserved: set[str] = set()
        self._sleeps: dict[str, int] = {}
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
        """The position of the next new record: steps keep the order in which they were first reached."""
        position = self._next_position
        self._next_position += 1
        return position

    def names_since(self, names: Collection[str]) -> list[str]:
        """The recorded names in order, from the first of these on; nothing if none of them is recorded."""
        positions = [self._records[name].position for name in names if name in self._records]
        if not positions:
            return []
        found = [record for record in self._records.values() if record.position >= min(positions)]
        return [record.name for record in sorted(found, key=lambda record: record.position)]

    def add(self, record: Recorded) -> None:
        """Remember what this pass has just recorded; a long output only by name, since a pass asks for it once."""
        if len(record.output or "") > database.LONG_VALUE:
            record = replace(record, output=None, is_long=True)
        self._records[record.name] = record

    def records(self) -> list[Recorded]:
        """All that is recorded and final, in order: what a later pass needs not load again."""
        return sorted((r for r in self._records.values() if r.is_final), key=lambda record: record.position)


def as_recorded(write: StepWrite) -> Recorded:
    """What a history will say of a write once it is committed."""
    return Recorded(
        write.name,
        write.kind,
        write.position,
        write.status,
        write.attempts,
        write.output,
        write.error,
        write.attempt_log,
        write.wakes_at_us,
    )
