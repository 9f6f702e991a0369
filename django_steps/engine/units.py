"""What is executed side by side with others: a step that is gathered, an item of a map, or a branch.

Here is only what is known of it. Who executes it is in `drivers/side_by_side.py`, and which comes next in `groups.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from ..errors import StepsError
from ..ledger.histories import Recorded
from .scopes import Scope


class UnitStatus(Enum):
    """How far a unit is in this pass."""

    NEW = "new"
    EXECUTING = "executing"  # until its outcome is committed
    SUSPENDED = "suspended"
    OVER = "over"  # its outcome is recorded
    LEFT = "left"  # the pass ended before that


class Unit:
    """One member of a group. `key`: what results and failures call it; `path`: what it is recorded under.

    `scope`: where the group was called; `group`: the path of the group, or an empty text where it has none.
    """

    __slots__ = (
        "abandon", "give_up", "group", "is_left", "key", "outer", "path", "recorded", "request", "scope", "status",
        "suspended_until", "waits_for_others",
    )  # fmt: skip

    def __init__(self, key: str, path: str, request: Any, scope: Scope, group: str) -> None:
        self.key, self.path, self.request, self.scope, self.group = key, path, request, scope, group
        self.status = UnitStatus.NEW
        self.suspended_until: int | None = None  # machine time, in microseconds
        self.waits_for_others = False  # while it is suspended: not only time can let it go on
        self.recorded: Recorded | None = None
        # Called on a thread that helps, for a unit that never ends; doesn't return.
        self.abandon: Callable[[StepsError], None] | None = None
        # Lets its group go on without it, on another thread than the one that executes it, and never comes back.
        self.give_up: Callable[[], None] | None = None
        # In an async body: the unit that its group is in, and whether it waits for a time while the group has ended.
        self.outer: Unit | None = None
        self.is_left = False

    @property
    def is_suspended(self) -> bool:
        """Whether it waits for a time: what it calls is refused until it is called anew."""
        return self.suspended_until is not None

    @property
    def has_failed(self) -> bool:
        """Whether its outcome is a failure."""
        return self.recorded is not None and self.recorded.status == "failed"


def with_outer(unit: Unit | None) -> Iterator[Unit]:
    """A unit, and those that it is in."""
    while unit is not None:
        yield unit
        unit = unit.outer


class Executing:
    """A context in which something is executed or written, for a unit or for the body."""

    __slots__ = ("_executed", "_note", "_unit")

    def __init__(
        self, note: Callable[[Unit | None, int], None], executed: Callable[[Unit | None], None], unit: Unit | None
    ) -> None:
        self._note, self._executed, self._unit = note, executed, unit

    def __enter__(self) -> None:
        self._note(self._unit, 1)

    def __exit__(self, *raised: object) -> None:
        self._executed(self._unit)
