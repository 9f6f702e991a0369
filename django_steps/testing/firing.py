"""The schedules in a test: those of the code and those of the database fire slot by slot, as the virtual clock moves on."""

from __future__ import annotations

from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..definitions import scheduling
from ..engine import afterwards
from ..ledger import database, schedules
from . import clock
from .errors import DoesNotEnd


class FiredNow(NamedTuple):
    """How much time has passed until a slot, in microseconds, and how many runs it has started."""

    passed: int
    runs: int


class Firing:
    """What fires in one call of `drain()`: the slots of the next `advance_us` microseconds, at most `most` runs."""

    def __init__(self, connection: BaseDatabaseWrapper, advance_us: int, most: int) -> None:
        scheduling.sync(connection.alias)
        self._connection, self._most, self._started = connection, most, 0
        self._targets = scheduling.targets()
        now = database.read_clock(connection)
        self._until = now + advance_us
        self.runs = self._fire(now)  # what became due meanwhile: as after a time without workers

    def fire_before(self, wait: int | None) -> FiredNow | None:
        """Fire the next slot, unless a run is due before it, in `wait` microseconds; None: nothing is to be fired."""
        at = schedules.next_at(self._connection, self._targets) if self._targets else None
        if at is None or at > self._until:
            return None
        passed = max(0, at - database.read_clock(self._connection))
        if wait is not None and wait < passed:
            return None
        clock.advance(passed)
        return FiredNow(passed, self._fire(at))

    def _fire(self, at: int) -> int:
        runs, is_more = 0, True
        while is_more:
            fired = schedules.fire(self._connection, self._targets, at)
            afterwards.schedules_fired(self._connection, fired)
            runs, is_more = runs + fired.runs, fired.is_more
        self._started += runs
        if self._started > self._most:
            raise DoesNotEnd(
                f"Schedules have started {self._started:,} runs in this call of drain(). Let less time pass, leave them alone"
                " by schedules=False, or allow for them with max_steps=."
            )
        return runs
