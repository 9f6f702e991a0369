"""What was found is good for some seconds, so that many who ask cost the database no more than one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

GOOD_FOR = 5.0  # seconds


class Cached(Generic[T]):
    """The value of a function, which is called at most every `GOOD_FOR` seconds in each process.

    In the memory of the process: Django's cache may be a table of the database that is asked about, or unreachable. Whoever
    asks while the function is called waits for its value. What it raises is not kept.
    """

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._found: tuple[float, T] | None = None

    def get(self) -> T:
        """The value, found now or less than `GOOD_FOR` seconds ago."""
        with self._lock:
            if self._found is None or time.monotonic() - self._found[0] >= GOOD_FOR:
                value = self._find()
                self._found = (time.monotonic(), value)
            return self._found[1]
