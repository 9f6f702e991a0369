"""The few threads on which async passes use the database: the ORM's `a…` methods, `sync_to_async`, and what the engine reads.

Each pass has one of them, so that what it does follows in order, on one connection; several passes share a thread. As it is,
asgiref would put all of them on one thread of the process, whose connection nobody looks after.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

from asgiref.sync import _restore_context

from ..core.context import active_pass
from ..engine.connections import Connections
from .thread_connections import ThreadConnections

logger = logging.getLogger("django_steps")

Work = Callable[[], None]


class OrmThreads:
    """Up to `most` threads, begun when needed. `submit()` is that of an executor; `alias`: the database of the runs."""

    def __init__(self, alias: str, most: int) -> None:
        self._connections = ThreadConnections(alias)
        self._queues: list[SimpleQueue[Work | None]] = [SimpleQueue() for _ in range(most)]
        self._threads: dict[int, threading.Thread] = {}
        self._numbers = count()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call something on the thread of the pass whose context this is."""
        future: Future[Any] = Future()
        self.put(partial(_answer, future, partial(function, *args, **kwargs)))
        return future

    def put(self, work: Work) -> None:
        """Do something on the thread of the pass whose context this is."""
        frame = active_pass.get()
        desk = None if frame is None else frame.state.desk
        if desk is None:
            number = next(self._numbers) % len(self._queues)
        else:
            if desk.thread_number is None:
                desk.thread_number = next(self._numbers) % len(self._queues)
            number = desk.thread_number
        if number not in self._threads:
            thread = threading.Thread(
                target=self._work, args=[number], name=f"django-steps-orm-{number + 1}", daemon=True
            )
            self._threads[number] = thread
            thread.start()
        self._queues[number].put(work)

    def stop(self) -> None:
        """Let the threads end once they have done what was given to them."""
        for number in self._threads:
            self._queues[number].put(None)

    def _work(self, number: int) -> None:
        own = Connections()
        with own.watched():
            while (work := self._connections.next_task(self._queues[number])) is not None:
                try:
                    with own.tidied("Async code"):
                        work()
                except BaseException:
                    logger.exception("A thread for the ORM went on after an error.")
                self._connections.return_pooled()
        self._connections.close()


def in_present_context(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same, in a copy of the context that is the present one now, wherever it is called."""
    context = copy_context()
    return partial(context.copy().run, _restored, context, function)


def _restored(context: Context, function: Callable[[], Any]) -> Any:
    _restore_context(context)  # asgiref hides from other threads what it has not brought there: language and time zone
    return function()


def _answer(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
