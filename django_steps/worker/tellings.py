"""Telling parents of the ends of their children, which come together where commits are shared: one look for several of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

from ..ledger.cascades import Ends

Look = Callable[[Ends], list[UUID]]


class _Round:
    """What one look is for; the ends that come while it is made wait for the next one."""

    __slots__ = ("ends", "is_over")

    def __init__(self) -> None:
        self.ends: dict[tuple[UUID, str], set[str]] = {}
        self.is_over = threading.Event()


class Tellings:
    """The ends that the passes of a worker tell of. Each returns once somebody has looked after its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: _Round | None = None
        self._looking = threading.Lock()
        self.waiting = 0  # ends that the next look is for

    def tell(self, parent: UUID, step: str, status: str, look: Look) -> list[UUID]:
        """Tell of an end, which is committed; `look` does so for several. Returns what it returned to this thread.

        Where the look of another thread fails it is left to the nets: it is looked at every parent that waits, now and then.
        """
        with self._lock:
            is_first = self._next is None
            own = self._next = self._next or _Round()
            own.ends.setdefault((parent, step), set()).add(status)
            self.waiting += 1
        if not is_first:
            own.is_over.wait()
            return []
        try:
            with self._looking:  # one at a time, and meanwhile others join
                with self._lock:
                    self._next, self.waiting = None, 0
                return look(own.ends)
        finally:
            own.is_over.set()
