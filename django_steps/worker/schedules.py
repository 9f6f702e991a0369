"""When a worker fires schedules: when the next one is due, which it learns with the next timed run; a busy one looks each
second.

What firing is, is in `ledger/schedules.py`.
"""

from __future__ import annotations

import math
import time

from django.db.backends.base.base import BaseDatabaseWrapper

from ..definitions import scheduling
from ..engine import afterwards
from ..ledger import schedules

# A worker that never gets to ask when something is due next looks this often, in seconds.
_LOOK_EACH = 1.0


class Schedules:
    """The schedules of the workflows that this process knows."""

    def __init__(self) -> None:
        self._targets = scheduling.targets()
        self.workflows = sorted(self._targets)
        # Monotonic: when the next one is due, as far as is known; and when to look whether that is still so.
        self._due_at = 0.0
        self._look_at = 0.0

    def fire(self, connection: BaseDatabaseWrapper) -> int:
        """Fire what is due; how many runs were started by that."""
        now, started = time.monotonic(), 0
        is_due = now >= self._due_at
        if not is_due and now >= self._look_at:
            is_due = bool(self.workflows) and schedules.is_due(connection, self.workflows)
            self._look_at = now + _LOOK_EACH
        while is_due:
            fired = schedules.fire(connection, self._targets)
            afterwards.schedules_fired(connection, fired)
            started += fired.runs
            is_due = fired.is_more
            self._due_at, self._look_at = math.inf, now + _LOOK_EACH
        return started

    def learn(self, wait_us: int | None) -> None:
        """The next one is due in so many microseconds; None: none is."""
        now = time.monotonic()
        self._due_at = math.inf if wait_us is None else now + wait_us / 1_000_000
        self._look_at = now + _LOOK_EACH
