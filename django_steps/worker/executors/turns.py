"""What waits for a thread: runs, and errands of other executors. Where both do, they take turns.

With one queue for all, a thousand async runs with a plain step each would keep every plain run waiting until they are through.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E")


class Turns(Generic[T, E]):
    """Two queues; may be used on any thread. Its length is that of both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[T] = deque()
        self._errands: deque[E] = deque()
        self._was_errand = False

    def __len__(self) -> int:
        return len(self._tasks) + len(self._errands)

    def add_task(self, task: T, *, first: bool = False) -> None:
        """A run waits; `first`: before those that wait already."""
        with self._lock:
            if first:
                self._tasks.appendleft(task)
            else:
                self._tasks.append(task)

    def add_errand(self, errand: E) -> None:
        """An errand waits."""
        with self._lock:
            self._errands.append(errand)

    def next(self) -> T | E | None:
        """What a thread does next; None if nothing waits."""
        with self._lock:
            is_errand = bool(self._errands) and not (self._tasks and self._was_errand)
            if not is_errand and not self._tasks:
                return None
            self._was_errand = is_errand
            return self._errands.popleft() if is_errand else self._tasks.popleft()

    def next_task(self) -> T | None:
        """Take out the run that has waited longest."""
        with self._lock:
            return self._tasks.popleft() if self._tasks else None
