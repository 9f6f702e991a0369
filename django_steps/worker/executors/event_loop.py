"""Executes the runs of async workflows on one event loop, as many at a time as the async concurrency."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import AsyncToSync
from django.db.backends.base.base import BaseDatabaseWrapper

from ...engine.ending import Ended
from ...engine.loops import PassLoop
from ..async_host import OnThreads, Put, WorkerAsyncHost
from ..confirmations import Confirmations
from ..group_commit import Entry, GroupCommit
from ..host import WorkerHost
from ..loop_watch import Blockage, LoopWatch
from ..orm_threads import OrmThreads
from ..task import AsyncTask, Task
from .base import Executor, HasEnded, HasRoom

logger = logging.getLogger("django_steps")

_AT_ONCE = 100  # runs to claim together, at most; and how many places are free before more are claimed
MOST_ORM_THREADS = 4
_QUIET_ENDINGS = (Ended.SUCCEEDED, Ended.FAILED, Ended.SUSPENDED)  # whose sequel asks no database
_LONG_SHORT = 0.2  # seconds after which few places are claimed for as well
_LOOK_AGAIN = 0.05  # seconds after which the end of the tasks is looked for anew


class EventLoop(Executor[Task]):
    """Starts its loop with the first run. `errand` puts a plain function of a step on one of the worker's threads."""

    def __init__(
        self,
        alias: str,
        concurrency: int,
        commits: GroupCommit,
        errand: Put,
        has_ended: HasEnded,
        has_room: HasRoom,
    ) -> None:
        super().__init__(has_ended, has_room)
        self._alias, self._concurrency, self._commits, self._errand = alias, concurrency, commits, errand
        self._tasks: dict[UUID, Task] = {}
        self._lock = threading.Lock()
        self._loop: PassLoop | None = None
        self._thread: threading.Thread | None = None
        self._watch: LoopWatch | None = None
        self._confirmations: Confirmations | None = None
        self._orm = OrmThreads(alias, min(MOST_ORM_THREADS, concurrency))
        self._is_more_ready, self._is_stopping = True, False
        self._short_since: float | None = None  # since when fewer places are free than are worth a claim

    # -- What the loop of the worker asks ---------------------------------------------------------

    def room(self) -> int:
        free = self._concurrency - len(self._tasks)
        if free >= self._worth_claiming():
            self._short_since = None
            return min(free, _AT_ONCE)
        self._is_more_ready = True  # nobody has looked
        if free <= 0:
            return 0
        now = time.monotonic()
        self._short_since = self._short_since or now
        return free if now - self._short_since >= _LONG_SHORT else 0

    def looks_again_soon(self) -> bool:
        return self._short_since is not None

    def _worth_claiming(self) -> int:
        return min(_AT_ONCE, (self._concurrency + 3) // 4)

    def host_for(self, base: WorkerHost) -> WorkerAsyncHost:
        """The place of a pass."""
        loop = self._running_loop()
        if self._confirmations is None:
            own = OnThreads(WorkerHost(self._commits, base.limits), self._alias)
            self._confirmations = Confirmations(loop, own, self._orm.put)
        host = OnThreads(base, self._alias)
        return WorkerAsyncHost(loop, host, self._commits, self._orm, self._errand, self._confirmations)

    def take(self, tasks: Sequence[Task], *, is_more_ready: bool) -> None:
        self._is_more_ready, self._short_since = is_more_ready, None
        if not tasks:
            return
        with self._lock:
            for task in tasks:
                self._tasks[task.claim.run_id] = task
        self._running_loop().call_soon_threadsafe(self._begin, tasks, context=Context())

    def held(self) -> Mapping[UUID, Task]:
        with self._lock:
            return dict(self._tasks)

    def longest_wait(self) -> float | None:
        return None  # each begins at once

    def release_next(self, connection: BaseDatabaseWrapper) -> bool:
        return False

    def stop(self, timeout: float | None) -> bool:
        self._is_stopping = True
        for task in self.held().values():
            task.stop(Ended.RELEASED)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._tasks and (deadline is None or time.monotonic() < deadline):
            time.sleep(_LOOK_AGAIN)
        if self._watch is not None:
            self._watch.stop()
        if self._tasks:  # their coroutines would be closed with the loop, and their `finally` executed at any time
            return False
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._orm.stop()
        return True

    def new_blockage(self) -> Blockage | None:
        """What has blocked the loop since this was asked last."""
        if self._watch is None:
            return None
        found, self._watch.last = self._watch.last, None
        return found

    # -- On the thread of the loop ------------------------------------------------------------------

    def _running_loop(self) -> PassLoop:
        if self._loop is None:
            self._loop = PassLoop()
            self._commits.receive = partial(_received, self._loop)
            self._thread = threading.Thread(target=self._run, args=[self._loop], name="django-steps-loop", daemon=True)
            self._thread.start()
            self._watch = LoopWatch(self._loop, self._thread)
            self._watch.start()
        return self._loop

    def _run(self, loop: PassLoop) -> None:
        asyncio.set_event_loop(loop)
        AsyncToSync.loop_thread_executors[loop] = self._orm  # type: ignore[assignment]
        try:
            while True:
                try:
                    loop.run_forever()
                    break
                except BaseException as error:  # SystemExit, say: it is the task's outcome, too
                    logger.debug("The event loop goes on after %r.", error)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            del AsyncToSync.loop_thread_executors[loop]
            loop.close()

    def _begin(self, tasks: Sequence[Any]) -> None:
        assert self._loop is not None
        for task in tasks:
            self._loop.create_task(self._execute_one(task), context=Context())

    async def _execute_one(self, task: AsyncTask) -> None:
        try:
            assert self._loop is not None
            ending = await task.run_async(self._loop)
            if ending.how in _QUIET_ENDINGS:
                self._has_ended(task, ending)
            else:
                await task.async_host.call(partial(self._has_ended, task, ending))
        except BaseException:
            logger.exception("Run %s is recovered by others when its lease runs out.", task.claim.run_id)
        finally:
            self._drop(task)

    def _drop(self, task: Task) -> None:
        with self._lock:
            if self._tasks.get(task.claim.run_id) is task:
                del self._tasks[task.claim.run_id]
            held = len(self._tasks)
        enough = self._concurrency - held >= self._worth_claiming()
        if not held or self._is_stopping or (self._is_more_ready and enough):
            self._has_room()
        if task.on_left is not None:
            task.on_left()


def _received(loop: PassLoop, entries: Sequence[Entry]) -> None:
    """What passes have submitted is answered; on the thread that has written it."""
    try:
        loop.call_soon_threadsafe(_hand_out, entries, context=Context())
    except RuntimeError:  # the loop is closed
        logger.debug("An answer came after the end of the loop.")


def _hand_out(entries: Sequence[Any]) -> None:
    for entry in entries:
        entry.answered(entry)
