"""Warnings that come again and again, as one line with a count: what 64 threads meet at once is one thing to read.

Not here: what is warned of, which each place says itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 10.0  # seconds between two lines about the same thing


class _Topic:
    """One thing that is warned of: when its last line was written, and what came since."""

    __slots__ = ("is_announced", "spoke_at", "unspoken")

    def __init__(self) -> None:
        self.spoke_at: float | None = None
        self.unspoken = 0
        self.is_announced = False  # a line says that it is wrong, and none yet that it is over


class Repeated:
    """Writes the first warning of each `key` at once, and then at most one line in 10 seconds, which has the count.

    For all threads. `now` gives seconds of a clock that never goes back.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._now = logger, now
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}

    def warning(self, key: str, text: str, *arguments: Any) -> None:
        """Warn of `key`, by a line of its own or by the count in a later one; `text` and `arguments` as in logging."""
        with self._lock:
            topic, now = self._topics.setdefault(key, _Topic()), self._now()
            if topic.spoke_at is not None and now - topic.spoke_at < INTERVAL:
                topic.unspoken += 1
                return
            count, since = self._spoken(topic, now)
            topic.is_announced = True
        self._write(text, arguments, count, since)

    def over(self, key: str, text: str, *arguments: Any) -> None:
        """Say that what was warned of works again, if a line said that it did not. Costs next to nothing otherwise."""
        topic = self._topics.get(key)
        if topic is None or not topic.is_announced:
            return
        with self._lock:
            if not topic.is_announced:
                return
            topic.is_announced = False
            # The next warning is no news before the interval is over, so the time of the last one stays.
            count, topic.unspoken = topic.unspoken, 0
            since = self._now() - (topic.spoke_at or 0.0)
        self._write(text, arguments, count, since)

    def forget(self) -> None:
        """Forget all that was warned of, as if it had never been."""
        with self._lock:
            self._topics.clear()

    def _spoken(self, topic: _Topic, now: float) -> tuple[int, float]:
        count, since = topic.unspoken, now - (topic.spoke_at or now)
        topic.unspoken, topic.spoke_at = 0, now
        return count, since

    def _write(self, text: str, arguments: tuple[Any, ...], count: int, since: float) -> None:
        if count:
            text += " (%d more warnings in the last %.0f s)"
            arguments = (*arguments, count, since)
        self._logger.warning(text, *arguments)
