"""Executes runs on threads of this process, as many as the concurrency, each one pass at a time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ...engine.ending import Ended, Ending
from ..crew import Crew
from ..prefetch import Prefetch
from ..task import Task
from ..thread_connections import ThreadConnections
from .base import Executor, HasEnded

logger = logging.getLogger("django_steps")

_SOON_FREE = 0.2  # seconds after which a thread that helps with one thing is not taken for free soon
_LOOK_AGAIN = 0.1  # seconds after which the end of a thread is waited for anew: it may be abandoned meanwhile
_ALL = 10_000  # more than there can be threads


class _Crew(Crew):
    """Wakes threads of the executor, and keeps the calling one waiting, by what the executor gives it for that."""

    def __init__(self, wake: Callable[[int], None], park: Callable[[], None]) -> None:
        super().__init__()
        self._wake, self._park = wake, park

    def park(self) -> None:
        self._park()

    def wake_one(self) -> None:
        self._wake(1)

    def wake_all(self) -> None:
        self._wake(_ALL)


# In the queue of tasks: look whether there is something to help with.
_LOOK: Any = object()


class Threads(Executor):
    """Starts threads when there is something to do, up to `concurrency`, and keeps them; `alias`: the database of the runs."""

    def __init__(self, alias: str, concurrency: int, has_ended: HasEnded, has_room: Callable[[], None]) -> None:
        super().__init__(has_ended, has_room)
        self._concurrency = concurrency
        self._tasks: dict[UUID, Task] = {}
        self._waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._prefetch = Prefetch(concurrency)
        self._connections = ThreadConnections(alias)
        self._crew = _Crew(self._wake, self._park)
        self._helping: dict[int, float] = {}  # threads that help, since when with what they do now
        self._idle = 0  # threads that wait for a task
        self._unbegun = 0  # tasks that wait for a thread
        self._is_stopping = False
        self._is_more_ready = True

    def room(self) -> int:
        # A thread that helps is free as soon as what it does has ended, unless that takes long.
        long_ago = time.monotonic() - _SOON_FREE
        with self._lock:
            busy = sum(since < long_ago for since in list(self._helping.values()))
            return self._prefetch.room(len(self._tasks) + busy)

    def take(self, tasks: Sequence[Task], *, is_more_ready: bool) -> None:
        with self._lock:
            self._is_more_ready = is_more_ready
            for task in tasks:
                self._tasks[task.claim.run_id] = task
                task.abandon = self._abandon
            self._unbegun += len(tasks)
        for task in tasks:
            self._waiting.put(task)
        self._staff()

    def held(self) -> Mapping[UUID, Task]:
        with self._lock:
            return dict(self._tasks)

    def longest_wait(self) -> float | None:
        with self._lock:
            oldest = min((task.claimed_on for task in self._tasks.values() if not task.has_begun), default=None)
        return None if oldest is None else time.monotonic() - oldest

    def release_next(self, connection: BaseDatabaseWrapper) -> bool:
        task, looks = None, 0
        try:
            while (task := self._waiting.get_nowait()) is _LOOK:  # not meant for this thread, either
                looks += 1
        except queue.Empty:
            return False
        finally:
            for _ in range(looks):
                self._waiting.put(_LOOK)
        if task is None:  # not meant for this thread
            self._waiting.put(task)
            return False
        try:
            task.release(connection)
        except BaseException:
            self._waiting.put(task)
            raise
        self._prefetch.note_wait()
        with self._lock:
            self._unbegun -= 1
        self._drop(task)
        return True

    def stop(self, timeout: float | None) -> bool:
        self._is_stopping = True
        for task in self.held().values():
            task.stop(Ended.RELEASED)
        self._waiting.put(None)  # which each thread hands on to the next one
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while (thread := self._any_alive()) is not None and time.monotonic() < deadline:
            thread.join(min(deadline - time.monotonic(), _LOOK_AGAIN))
        return thread is None

    # -- Threads --------------------------------------------------------------------------------

    @property
    def crew(self) -> Crew:
        return self._crew

    def _wake(self, most: int) -> None:
        """Let so many threads look for work that they can help with: those that are idle, or else a new one."""
        with self._lock:
            idle = self._idle
        for _ in range(min(idle, most)):
            self._waiting.put(_LOOK)
        if idle < most and not self._is_stopping:
            self._staff(len(self._threads) + 1)

    def _staff(self, at_least: int = 0) -> None:
        """Start threads for what waits, up to the concurrency."""
        with self._lock:
            known = len(self._threads)
            wanted = min(self._concurrency, max(len(self._tasks), at_least))
            started = [
                threading.Thread(target=self._work, name=f"django-steps-{number + 1}", daemon=True)
                for number in range(known, wanted)
            ]
            self._threads += started  # before another thread counts them
            for thread in started:  # before `stop()` looks which are alive
                thread.start()

    def _work(self) -> None:
        """What each thread does: one task after the other."""
        while (task := self._next()) is not None:
            began = time.monotonic()
            try:
                self._has_ended(task, task.run())
            except BaseException:  # a thread that ends takes its share of the concurrency with it
                logger.exception("Run %s is recovered by others when its lease runs out.", task.claim.run_id)
            self._connections.return_pooled()
            self._prefetch.note(time.monotonic() - began)
            self._drop(task)
        self._waiting.put(None)  # for a thread that was started when the others were told already
        self._connections.close()

    def _next(self) -> Task | None:
        """The next task; until there is one, this thread helps others with theirs. None: the worker stops."""
        while (found := self._next_or_look()) is _LOOK:
            work = None if self._is_wanted() else self._crew.work()
            if work is None:
                continue
            try:
                work.help(self._gives_way)
            except BaseException:  # a thread that ends takes its share of the concurrency with it
                logger.exception("A thread that helped another one broke off.")
            with self._lock:
                self._helping.pop(threading.get_ident(), None)
            self._connections.return_pooled()
        if isinstance(found, Task):
            with self._lock:
                self._unbegun -= 1
            return found
        return None

    def _next_or_look(self) -> Any:
        """What comes next; at once a reason to look if there is work to help with."""
        with self._lock:
            self._idle += 1
        try:
            if not self._is_wanted() and self._crew.work() is not None:
                return _LOOK
            return self._connections.next_task(self._waiting)
        finally:
            with self._lock:
                self._idle -= 1

    def _gives_way(self) -> bool:
        """Whether a thread that helps stops here: asked before it begins with the next of what it helps with."""
        self._helping[threading.get_ident()] = time.monotonic()
        return self._is_wanted()

    def _is_wanted(self) -> bool:
        """Whether a thread that helps is wanted for a task of its own."""
        return self._unbegun > 0 or self._is_stopping

    def _abandon(self, task: Task, ending: Ending) -> NoReturn:
        """Give up this thread, whose body never ends; another one takes its place.

        Python can't end a thread from outside, and this body catches whatever is raised in it. So the thread is kept waiting,
        where it costs no processor, until the process ends.
        """
        self._has_ended(task, ending)
        self._drop(task)
        self._park()

    def _park(self) -> NoReturn:
        self._connections.close()
        with self._lock:
            self._threads.remove(threading.current_thread())
            self._helping.pop(threading.get_ident(), None)
        self._staff()
        while True:
            threading.Event().wait()

    def _any_alive(self) -> threading.Thread | None:
        """A thread that has not ended, the abandoned ones left out."""
        with self._lock:
            return next((thread for thread in self._threads if thread.is_alive()), None)

    def _drop(self, task: Task) -> None:
        """A task has ended, or its run was released."""
        with self._lock:
            if self._tasks.get(task.claim.run_id) is task:
                del self._tasks[task.claim.run_id]
            held, low, prefetches = len(self._tasks), self._prefetch.low(), self._prefetch.prefetches
        # Where runs are prefetched, not every end is a reason to claim: there are others to go on with, or none at all.
        if held == 0 or not prefetches or (held <= low and self._is_more_ready) or self._is_stopping:
            self._has_room()
