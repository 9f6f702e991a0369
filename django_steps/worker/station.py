"""What executes runs in a process: threads for plain bodies, an event loop for those of `async def`, and what both share.

A worker has one, and so has each process of another engine that executes what dispatchers have claimed (`receiver.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core.repeated import Repeated
from ..definitions import get_workflow
from ..engine import captured
from ..engine.captured import Capture
from ..engine.ending import Ended, Ending
from ..engine.history_cache import HistoryCache, load_histories
from ..engine.host import Limits
from ..engine.interceptors import Interceptor
from ..ledger import database, lines, notify, workers
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.terms import Kind
from .executors.base import HasRoom, Place
from .executors.event_loop import EventLoop
from .executors.threads import Threads
from .group_commit import GroupCommit
from .host import WorkerHost
from .log_writer import LogWriter
from .overdue import Overdue
from .task import AsyncTask, Task
from .writers import LONG_IDLE

IsDueIn = Callable[[float], None]
HasRoomIn = Callable[[Collection[str]], None]


class Station(Place):
    """Executes runs of these kinds here.

    `is_due_in` is called when a run was suspended, with the seconds until it is due, and `has_room` when there is room for
    others; `has_room_in` with the limits that may have room for runs in line; `has_stuck` when a step was given up that can't
    be interrupted, so that the process is to end. All from any thread. `interceptors` stand around each pass.
    """

    def __init__(
        self,
        alias: str,
        kinds: Collection[Kind],
        *,
        concurrency: int,
        async_concurrency: int,
        interceptors: Sequence[Interceptor],
        is_due_in: IsDueIn,
        has_room: HasRoom,
        has_room_in: HasRoomIn,
        has_stuck: Callable[[], None],
        repeated: Repeated,
    ) -> None:
        self._alias, self._interceptors, self._repeated = alias, interceptors, repeated
        self._is_due_in, self._has_room_in = is_due_in, has_room_in
        self._limits = Limits.from_settings()
        self._histories = HistoryCache()
        self.commits = GroupCommit(alias, writers=1 if connections[alias].vendor == "sqlite" else 2)
        level = conf.capture_logs
        self._log_writer = None if level is None else LogWriter(self.commits, repeated)
        self._capture = None if level is None or self._log_writer is None else Capture(level, self._log_writer.put)
        self._is_captured = False
        self.threads = Threads(alias, concurrency, self.has_ended, has_room)
        self._overdue = Overdue(self.commits, WorkerHost(self.commits, self._limits), self.threads, repeated, has_stuck)
        self.event_loop: EventLoop | None = None
        self.executors = [(self.threads, frozenset(kind for kind in kinds if not is_async(kind)))]
        if async_kinds := frozenset(filter(is_async, kinds)):
            self.event_loop = EventLoop(
                alias, async_concurrency, self.commits, self.threads.run_errand, self.has_ended, has_room
            )
            self.executors.append((self.event_loop, async_kinds))

    def tasks(self, claims: Sequence[Claim], connection: BaseDatabaseWrapper) -> list[Task]:
        if self._capture is not None and not self._is_captured:
            self._is_captured = True
            captured.attach()
        histories = load_histories(connection, claims, self._histories)
        return [self._task(claim, histories.get(claim.run_id)) for claim in claims]

    def take(self, task: Task) -> None:
        """Execute one task that nobody counted upon: there is a thread for it in any case."""
        self.threads.widen(len(self.threads.held()) + 1)
        executor = self.event_loop if self.event_loop is not None and isinstance(task, AsyncTask) else self.threads
        executor.take([task], is_more_ready=False)

    def host(self) -> WorkerHost:
        """Where a pass writes."""
        return WorkerHost(self.commits, self._limits, self._repeated, self.threads.crew, capture=self._capture)

    def _task(self, claim: Claim, recorded: Sequence[Recorded] | None) -> Task:
        host = self.host()
        if self.event_loop is None or not is_async((claim.workflow, claim.version)):
            task = Task(claim, recorded, host, self._interceptors)
        else:
            task = AsyncTask(claim, recorded, host, self.event_loop.host_for(host), self._interceptors)
        self._overdue.watch(task)
        return task

    def has_ended(self, task: Task, ending: Ending) -> None:
        """A pass has ended: somebody may have to look for its run again."""
        task.end_lines()
        # On the thread of the pass. The history is kept before the loop is woken, which may claim the run at once.
        if ending.how is Ended.SUSPENDED:
            self._histories.keep(task.claim, task.recorded(), ending.reset)
            self._is_due_in(task.claim.wait_until(ending.wakes_at_us or 0) / 1_000_000)
        if task.claim.limits and ending.how is not Ended.LOST:
            self._has_room_in(lines.names(*task.claim.limits))
        if ending.how not in (Ended.SUSPENDED, Ended.SUCCEEDED, Ended.FAILED):
            with self.commits.connection() as connection:
                notify.workers(connection)  # others may go on with it at once

    def look_after(self, lease: float, worker_id: int) -> None:
        """What threads wait for too long, and what keeps the event loop."""
        self.commits.cut_silent(lease)
        self.threads.crew.look()
        blockage = self.event_loop.new_blockage() if self.event_loop is not None else None
        if blockage is not None:
            workers.note_blocked(database.connection_for(self._alias), worker_id, str(blockage))

    def has_news(self) -> None:
        self.threads.crew.look()

    def let_go(self) -> None:
        self._overdue.stop()

    def close_unused(self) -> None:
        self.commits.close_unused(LONG_IDLE)

    def close(self) -> None:
        if self._is_captured:
            captured.detach()
            self._is_captured = False
        if self._log_writer is not None:
            self._log_writer.stop()
        self.commits.close()


def is_async(kind: Kind) -> bool:
    """Whether a workflow that is registered here has an async body."""
    return get_workflow(*kind).is_async
