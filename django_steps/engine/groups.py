"""Which unit of a group is executed next, and when the group is decided. Knows no threads; any may ask.

The units begin in the order in which they are given.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from .units import Unit, UnitStatus


@dataclass(slots=True)
class Tolerance:
    """When a group stops, and whether it has failed. Neither number: at the first failure, unless `tolerates_all`."""

    total: int
    max_failures: int | None = None
    min_successes: int | None = None
    tolerates_all: bool = False
    failures: int = 0
    successes: int = 0
    is_decided: bool = False
    has_failed: bool = False

    def note(self, *, has_failed: bool) -> None:
        """A member has ended. What comes after the decision doesn't change it."""
        if has_failed:
            self.failures += 1
        else:
            self.successes += 1
        if self.is_decided or self.tolerates_all:
            return
        if self._is_too_much():
            self.is_decided = self.has_failed = True
        elif self.min_successes is not None and self.successes >= self.min_successes:
            self.is_decided = True

    def _is_too_much(self) -> bool:
        if self.min_successes is not None and self.total - self.failures < self.min_successes:
            return True
        most = self.max_failures
        if most is None:
            most = 0 if self.min_successes is None else self.total
        return self.failures > most


class Group:
    """Units that are executed side by side, at most `concurrency` of them begun and not over (None: all at once)."""

    def __init__(self, units: Sequence[Unit], concurrency: int | None, tolerance: Tolerance):
        self.units, self.tolerance = units, tolerance
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._numbers = count()
        self._suspended: list[tuple[int, int, Unit]] = []  # a heap: until when, in which order
        for unit in units:
            if unit.status is UnitStatus.SUSPENDED:
                self._suspend(unit)
        self._waiting = deque(unit for unit in units if unit.status is UnitStatus.NEW)
        self._executing = 0
        self._is_open = False
        # In the order in which they were recorded, so that the group is decided as it was then.
        for unit in sorted(
            (unit for unit in units if unit.recorded is not None and unit.status is UnitStatus.OVER),
            key=lambda unit: unit.recorded.position,  # type: ignore[union-attr]
        ):
            tolerance.note(has_failed=unit.has_failed)

    @property
    def is_executing(self) -> bool:
        """Whether any unit is executed now, or its record is on its way."""
        return self._executing > 0

    def open(self) -> None:
        """Let units be taken, until `close()`."""
        self._is_open = True

    def close(self) -> bool:
        """Let no more units be taken, unless one is executed now; whether it is closed.

        A thread that was about to help finds nothing then, also when the suspended units become due: by then they may be
        executed in another call of the branch, or in another pass.
        """
        with self._lock:
            self._is_open = self._is_open and self._executing > 0
            return not self._is_open

    def take(self, now_us: int, *, alone: bool = False) -> Unit | None:
        """The next unit to execute; `alone`: none while another one is executed."""
        with self._lock:
            if not self._has_work(now_us) or (alone and self._executing):
                return None
            unit = self._due(now_us) or self._waiting.popleft()
            unit.status = UnitStatus.EXECUTING
            self._executing += 1
            return unit

    def has_work(self, now_us: int) -> bool:
        """Whether a unit could be taken now."""
        with self._lock:
            return self._has_work(now_us)

    def put_back(self, unit: Unit) -> None:
        """A unit that was taken is executed no further in this pass: it is over, suspended, or left."""
        with self._lock:
            self._executing -= 1
            if unit.recorded is not None:
                unit.status = UnitStatus.OVER
                self.tolerance.note(has_failed=unit.has_failed)
            elif unit.is_suspended:
                unit.status = UnitStatus.SUSPENDED
                self._suspend(unit)
            else:
                unit.status = UnitStatus.LEFT

    def let_look(self, now_us: int) -> None:
        """Let the suspended units that wait for others be taken: there may be something new for them."""
        with self._lock:
            for entry in self._suspended:
                if entry[2].waits_for_others:
                    entry[2].suspended_until = now_us
            units = [entry[2] for entry in self._suspended]
            self._suspended.clear()
            for unit in units:
                self._suspend(unit)

    def may_leave(self, *, is_unfolding: bool) -> bool:
        """Whether what is suspended is to be left; `is_unfolding`: the pass has more to give to those who wait."""
        return self.tolerance.is_decided

    def next_due(self) -> int | None:
        """When the first of the suspended units is due, by machine time; None where the group waits for none."""
        with self._lock:
            if self.tolerance.is_decided:
                return None
            return self._suspended[0][0] if self._suspended else None

    def progress(self) -> tuple[int, int]:
        """How many units are over, of how many."""
        return self.tolerance.failures + self.tolerance.successes, len(self.units)

    def _has_work(self, now_us: int) -> bool:
        if not self._is_open or self.tolerance.is_decided:
            return False
        return self._is_due(now_us) or (bool(self._waiting) and self._has_room())

    def _due(self, now_us: int) -> Unit | None:
        if not self._is_due(now_us):
            return None
        unit = heappop(self._suspended)[-1]
        unit.suspended_until = None
        return unit

    def _is_due(self, now_us: int) -> bool:
        return bool(self._suspended) and self._suspended[0][0] <= now_us

    def _suspend(self, unit: Unit) -> None:
        heappush(self._suspended, (unit.suspended_until or 0, next(self._numbers), unit))

    def _has_room(self) -> bool:
        return self._concurrency is None or self._executing + len(self._suspended) < self._concurrency
