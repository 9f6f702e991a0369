"""What a worker's thread does with its own connections between two passes: it returns or closes what it doesn't need.

A thread has connections only if steps or bodies used them. None of this looks at what a pass left open on them, which is
`engine/connections.py`'s.
"""

from __future__ import annotations

import queue
from contextlib import suppress
from typing import Any, TypeVar

from django.db import connections

from ..ledger import database
from .writers import LONG_IDLE

T = TypeVar("T")


class ThreadConnections:
    """For the threads of one worker; `alias` is the database of the runs."""

    def __init__(self, alias: str) -> None:
        # Its own pool has room for all threads: a system check sees to that.
        self._pooled = [other for other in connections if other != alias and is_pooled(other)]

    def next_task(self, tasks: queue.SimpleQueue[T]) -> T:
        """Wait for the next task. While there is none for long, this thread has no connection to any database."""
        with suppress(queue.Empty):
            return tasks.get(timeout=LONG_IDLE)
        self.close()
        return tasks.get()

    def return_pooled(self) -> None:
        """Return connections to the pools of other databases, which may be smaller than the number of threads."""
        for alias in self._pooled:
            database.close(connections[alias])

    def close(self) -> None:
        """Close all connections of this thread."""
        for connection in connections.all(initialized_only=True):
            database.close(connection)


def is_pooled(alias: str) -> bool:
    """Whether Django takes the connections to a database from a pool."""
    settings: dict[str, Any] = connections.settings[alias]
    return bool(settings.get("OPTIONS", {}).get("pool"))
