"""Executes runs on threads of this process, as many as the concurrency, each one pass at a time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import NamedTuple, NoReturn
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ...engine.ending import Ended, Ending
from ..crew import Crew
from ..prefetch import Prefetch
from ..task import Task
from ..thread_connections import ThreadConnections
from .base import Executor, HasEnded
from .turns import Turns

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


class _Errand(NamedTuple):
    """Something that a thread does for another executor."""

    number: int
    function: Callable[[], None]


class Threads(Executor[Task]):
    """Starts threads when there is something to do, up to `concurrency`, and keeps them; `alias`: the database of the runs."""

    def __init__(self, alias: str, concurrency: int, has_ended: HasEnded, has_room: Callable[[], None]) -> None:
        super().__init__(has_ended, has_room)
        self._concurrency = concurrency
        self._tasks: dict[UUID, Task] = {}
        self._waiting: Turns[Task, _Errand] = Turns()
        # True for everything that waits, and to look whether there is something to help with. False: the worker stops.
        self._looks: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._numbers = count()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._prefetch = Prefetch(concurrency)
        self._connections = ThreadConnections(alias)
        self._crew = _Crew(self._wake, self._park)
        self._helping: dict[int, float] = {}  # threads that help, since when with what they do now
        # Numbers of what other executors let threads do, since when it is done; infinite before.
        self._errands: dict[int, float] = {}
        self._idle = 0  # threads that wait for a task
        self._is_stopping = False
        self._is_more_ready = True

    def room(self) -> int:
        # A thread that helps is free as soon as what it does has ended, unless that takes long.
        long_ago = time.monotonic() - _SOON_FREE
        with self._lock:
            busy = sum(since < long_ago for since in [*self._helping.values(), *self._errands.values()])
            room = self._prefetch.room(len(self._tasks) + busy)
            if room <= 0:  # nobody looks for more meanwhile
                self._is_more_ready = True
            return room

    def widen(self, concurrency: int) -> None:
        """Have at least so many threads from now on, where there is that much to do."""
        self._concurrency = max(self._concurrency, concurrency)

    def run_errand(self, function: Callable[[], None]) -> None:
        """Let a thread do this, in its turn among the tasks."""
        with self._lock:
            number = next(self._numbers)
            self._errands[number] = math.inf
        self._waiting.add_errand(_Errand(number, function))
        self._looks.put(True)
        self._staff()

    def take(self, tasks: Sequence[Task], *, is_more_ready: bool) -> None:
        with self._lock:
            self._is_more_ready = is_more_ready
            for task in tasks:
                self._tasks[task.claim.run_id] = task
                task.abandon = self._abandon
        for task in tasks:
            self._waiting.add_task(task)
            self._looks.put(True)
        self._staff()

    def held(self) -> Mapping[UUID, Task]:
        with self._lock:
            return dict(self._tasks)

    def longest_wait(self) -> float | None:
        with self._lock:
            oldest = min((task.claimed_on for task in self._tasks.values() if not task.has_begun), default=None)
        return None if oldest is None else time.monotonic() - oldest

    def release_next(self, connection: BaseDatabaseWrapper) -> bool:
        task = self._waiting.next_task()
        if task is None:
            return False
        try:
            task.release(connection)
        except BaseException:
            self._waiting.add_task(task, first=True)
            raise
        self._prefetch.note_wait()
        self._drop(task)
        return True

    def stop(self, timeout: float | None) -> bool:
        self._is_stopping = True
        for task in self.held().values():
            task.stop(Ended.RELEASED)
        self._looks.put(False)  # which each thread hands on to the next one
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
            self._looks.put(True)
        if idle < most and not self._is_stopping:
            self._staff(len(self._threads) + 1)

    def _staff(self, at_least: int = 0) -> None:
        """Start threads for what waits, up to the concurrency."""
        with self._lock:
            known = len(self._threads)
            wanted = min(self._concurrency, max(len(self._tasks) + len(self._errands), at_least))
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
            if isinstance(task, _Errand):
                self._do(task)
                continue
            began = time.monotonic()
            try:
                self._has_ended(task, task.run())
            except BaseException:  # a thread that ends takes its share of the concurrency with it
                logger.exception("Run %s is recovered by others when its lease runs out.", task.claim.run_id)
            self._connections.return_pooled()
            self._prefetch.note(time.monotonic() - began)
            self._drop(task)
        self._looks.put(False)  # for a thread that was started when the others were told already
        self._connections.close()

    def _do(self, errand: _Errand) -> None:
        self._errands[errand.number] = time.monotonic()
        try:
            errand.function()
        except BaseException:  # a thread that ends takes its share of the concurrency with it
            logger.exception("A thread went on after an error.")
        self._connections.return_pooled()
        with self._lock:
            del self._errands[errand.number]
            has_none = not self._tasks and not self._errands
        if has_none or self._is_more_ready:
            self._has_room()

    def _next(self) -> Task | _Errand | None:
        """The next task; until there is one, this thread helps others with theirs. None: the worker stops."""
        while self._is_to_look():
            found = self._waiting.next()
            if found is not None:
                return found
            work = None if self._is_stopping else self._crew.work()
            if work is None:
                continue
            try:
                work.help(self._gives_way)
            except BaseException:  # a thread that ends takes its share of the concurrency with it
                logger.exception("A thread that helped another one broke off.")
            with self._lock:
                self._helping.pop(threading.get_ident(), None)
            self._connections.return_pooled()
        return None

    def _is_to_look(self) -> bool:
        """Wait for a reason to look for something to do; at once if there is work to help with. False: the worker stops."""
        with self._lock:
            self._idle += 1
        try:
            if not self._is_wanted() and self._crew.work() is not None:
                return True
            return self._connections.next_task(self._looks)
        finally:
            with self._lock:
                self._idle -= 1

    def _gives_way(self) -> bool:
        """Whether a thread that helps stops here: asked before it begins with the next of what it helps with."""
        self._helping[threading.get_ident()] = time.monotonic()
        return self._is_wanted()

    def _is_wanted(self) -> bool:
        """Whether a thread that helps is wanted for a task of its own."""
        return len(self._waiting) > 0 or self._is_stopping

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

    def give_up(self, thread_id: int) -> None:
        """Wait no more for this thread: what it executes has no end. The worker is about to stop, and needs no other one."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.ident != thread_id]
            self._helping.pop(thread_id, None)

    def let_go(self, task: Task, ending: Ending) -> None:
        """A task has ended although its thread goes on."""
        self._has_ended(task, ending)
        self._drop(task)

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
        if task.on_left is not None:
            task.on_left()
