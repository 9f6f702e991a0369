"""Letting passes look that wait in memory: a branch waits for an event or a child while a sibling of it is executed.

Such a run is not suspended, so that nobody wakes it. Where no pass waits this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from ..core.repeated import Repeated
from ..ledger import database, waits
from .held import Held

# After a notification others may follow that were not sent, so that the loop looks twice.
_LOOKS = 2


class News:
    """What others have for the passes of a worker. `heard()` and `look_if_heard()` are for the thread of its loop."""

    def __init__(
        self, alias: str, tasks: Callable[[], Mapping[UUID, Held]], found: Callable[[], None], repeated: Repeated
    ) -> None:
        self._alias, self._tasks, self._found, self._repeated = alias, tasks, found, repeated
        self._notifications = 0
        self._looks = 0

    def heard(self, notifications: int) -> None:
        """So many notifications have come since the worker began."""
        if notifications != self._notifications:
            self._notifications, self._looks = notifications, _LOOKS

    def look_if_heard(self) -> bool:
        """Look if there was a notification since the last look; whether to look again soon."""
        if not self._looks:
            return False
        self._looks = self._looks - 1 if self.look() else 0
        return self._looks > 0

    def look(self) -> bool:
        """Let those passes look that wait for something that is there; whether any pass waits."""
        tasks = self._tasks()
        waiting = {run_id: calls for run_id, task in tasks.items() if (calls := task.waits_for())}
        if not waiting:
            return False
        connection = database.connection_for(self._alias)
        try:
            found = waits.news(connection, waiting)
        except (DatabaseError, InterfaceError) as error:
            self._repeated.warning("news", "Nobody could look for events and children, trying again: %s", error)
            database.drop(connection)
            return True
        self._repeated.over("news", "Events and children can be looked for again.")
        for run_id in found:
            tasks[run_id].has_news()
        if found:
            self._found()
        return True
