"""What the loop of a worker asks of whoever executes the claimed runs.

The loop claims as many runs as there is room for, gives them to the executor, and is woken when an executor has room again.
The heartbeat renews the leases of all that an executor holds. A `Place` is what the executors of one worker share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ...engine.ending import Ending
from ...ledger.claims import Claim
from ...ledger.terms import Kind
from ..crew import Crew
from ..held import Held
from ..task import Task

T = TypeVar("T", bound=Held)
HasEnded = Callable[[Task, Ending], None]
HasRoom = Callable[[], None]


class Executor(ABC, Generic[T]):
    """Executes tasks until it is stopped.

    `has_ended` is called for each task that was executed, `has_room` when it is time for the loop to claim again; both from
    any thread.
    """

    def __init__(self, has_ended: HasEnded, has_room: HasRoom) -> None:
        self._has_ended, self._has_room = has_ended, has_room

    @property
    def crew(self) -> Crew:
        """What the runs that it executes offer to idle threads; without such threads, nothing comes of it."""
        return Crew()

    @abstractmethod
    def room(self) -> int:
        """How many more runs to claim now."""

    def looks_again_soon(self) -> bool:
        """Whether there will be room within moments although nothing ends."""
        return False

    @abstractmethod
    def take(self, tasks: Sequence[T], *, is_more_ready: bool) -> None:
        """Execute these tasks, now or soon; `is_more_ready`: there are probably more where they came from."""

    @abstractmethod
    def held(self) -> Mapping[UUID, T]:
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


class Place(ABC):
    """Where the runs that a worker claims are executed: its executors, in the order in which they are to begin, each with the
    kinds that are claimed for it."""

    executors: Sequence[tuple[Executor[Any], Collection[Kind]]]
    executes_here = True  # in this process

    def held(self) -> dict[UUID, Held]:
        """All that its executors hold."""
        return {run_id: task for executor, _ in self.executors for run_id, task in executor.held().items()}

    @abstractmethod
    def tasks(self, claims: Sequence[Claim], connection: BaseDatabaseWrapper) -> Sequence[Held]:
        """What to give to the executors."""

    @abstractmethod
    def look_after(self, lease: float, worker_id: int) -> None:
        """What is to be done each second, on the thread of the heartbeat; `lease` in seconds. Must not take long."""

    @abstractmethod
    def has_news(self) -> None:
        """A pass that waits in memory was told to look."""

    def let_go(self) -> None:  # noqa: B027
        """Release what nothing goes on with, although its threads do; the leases are still renewed. May take seconds."""

    @abstractmethod
    def close_unused(self) -> None:
        """Close connections that were not used for a while."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; nothing is executed any longer."""
