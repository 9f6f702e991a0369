"""When a worker promotes runs that are in line for limits: where it knows that there may be room, and when one may begin by a
rate, which it learns with the next timed run. Whoever made room may have died before it could promote: so as long as runs
are in line, it also looks at some lines each second, from where it has stopped.

What promoting is, is in `ledger/lines.py`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..definitions.limits import known_limits
from ..ledger import lines

# A worker that knows of rates looks this often, in seconds, if it never gets to ask when a run may begin next.
_LOOK_EACH = 1.0


class Lines:
    """The limits that may have room for runs in line."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._look_each = math.inf
        if any(numbers.interval_us is not None for numbers in known_limits()[0].values()):
            self._look_each = _LOOK_EACH
        # Monotonic: when to look for runs that may begin by a rate, and at lines without a reason.
        self._looks_at_rates_at = 0.0 if self._look_each < math.inf else math.inf
        self._looks_at_lines_at = math.inf
        self._looked_up_to = ""

    def add(self, limits: Collection[str]) -> None:
        """There may be room for runs that are in line for these limits. From any thread."""
        with self._lock:
            self._names.update(limits)

    @property
    def has_any(self) -> bool:
        """Whether there may be room somewhere."""
        return bool(self._names)

    def promote(self, connection: BaseDatabaseWrapper) -> bool:
        """Let runs go on that are in line, where there may be room; whether any is ready now. Raises what the database
        raises, and knows of them as before."""
        now = time.monotonic()
        if now >= self._looks_at_rates_at:
            self._looks_at_rates_at = now + self._look_each
            self.add(lines.due(connection))
        if now >= self._looks_at_lines_at:
            self._looks_at_lines_at = now + lines.LOOK_EACH_US / 1_000_000
            found = lines.after(connection, self._looked_up_to)
            self._looked_up_to = found[-1] if found else ""
            self.add(found)
        if not self._names:
            return False
        with self._lock:
            some, self._names = self._names, set()
        try:
            return lines.promote(connection, some)
        except (DatabaseError, InterfaceError):
            self.add(some)
            raise

    def learn(self, rate_us: int | None, lines_us: int | None) -> None:
        """The next run in line may begin by a rate in so many microseconds, and lines are to be looked at in so many; None:
        none waits for that."""
        now = time.monotonic()
        if rate_us is not None:
            self._looks_at_rates_at = now + rate_us / 1_000_000
        if lines_us is None:
            self._looks_at_lines_at, self._looked_up_to = math.inf, ""
        else:
            self._looks_at_lines_at = min(self._looks_at_lines_at, now + lines_us / 1_000_000)
