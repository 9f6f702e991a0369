"""What the loop of a worker asks of whoever executes the claimed runs.

The loop claims as many runs as there is room for, gives them to the executor, and is woken when an executor has room again.
The heartbeat renews the leases of all that an executor holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ...engine.ending import Ending
from ..crew import Crew
from ..task import Task

HasEnded = Callable[[Task, Ending], None]


class Executor(ABC):
    """Executes tasks until it is stopped.

    `has_ended` is called for each task that was executed, `has_room` when it is time for the loop to claim again; both from
    any thread.
    """

    def __init__(self, has_ended: HasEnded, has_room: Callable[[], None]) -> None:
        self._has_ended, self._has_room = has_ended, has_room

    @property
    def crew(self) -> Crew:
        """What the runs that it executes offer to idle threads; without such threads, nothing comes of it."""
        return Crew()

    @abstractmethod
    def room(self) -> int:
        """How many more runs to claim now."""

    @abstractmethod
    def take(self, tasks: Sequence[Task], *, is_more_ready: bool) -> None:
        """Execute these tasks, now or soon; `is_more_ready`: there are probably more where they came from."""

    @abstractmethod
    def held(self) -> Mapping[UUID, Task]:
        """The tasks that were taken and have not ended, by their run."""

    @abstractmethod
    def longest_wait(self) -> float | None:
        """For how many seconds a task has waited that has not begun; None if there is none."""

    @abstractmethod
    def release_next(self, connection: BaseDatabaseWrapper) -> bool:
        """Release the run of a task that has not begun; False if there is none.

        Raises what the database raises; the task goes on waiting then.
        """

    @abstractmethod
    def stop(self, timeout: float | None) -> bool:
        """Take nothing more, and let the tasks end at their next operation.

        Returns whether all have ended within `timeout` seconds (None: however long it takes).
        """
