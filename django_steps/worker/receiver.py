"""Executes in a process of another engine what dispatchers have claimed: adopts the claim, renews it, and waits for its pass.

The process needs nothing else of a worker: it claims nothing, and keeps no time. It begins with the first message, in the
process that executes it, so that an engine may fork before that.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core.ids import random_token
from ..core.repeated import Repeated
from ..definitions import registered_kinds
from ..engine.ending import Ended
from ..ledger import database, handovers, notify
from ..ledger.terms import Terms
from ..models import WorkflowRun
from . import registration
from .heartbeat import Heartbeat
from .host import WorkerHost
from .lines import Lines
from .messenger import Message
from .news import News
from .pauses import Pauses
from .station import Station
from .task import Task

logger = logging.getLogger("django_steps")

# Whoever looks for what is due finds out by itself what is later than that, in seconds.
_SOON = 20.0
_CLOSE_UNUSED = 15.0  # seconds between two looks for connections that were not used
_GOODBYE = 1.0  # seconds that a pass has to end when its process ends


class Execution:
    """A pass of a run that was adopted."""

    def __init__(self, task: Task, is_over: Callable[[], None]) -> None:
        self._task, self._after = task, is_over
        self._is_over = threading.Event()
        task.on_left = self._is_over.set

    def wait(self) -> None:
        """Wait until the pass has ended. What is raised in this thread meanwhile doesn't end the pass."""
        self._is_over.wait()
        self._after()

    def release(self) -> None:
        """Let the pass end after its present step; the run goes on in another process."""
        self._task.stop(Ended.RELEASED)


class Receiver:
    """Executes runs in this process for an engine, which `executor` names.

    `is_ending` is asked each second whether the process is about to end: then passes end after their present step. `end` is
    called, if the engine has a way to end the process and put another in its place, when a step was given up that can't be
    interrupted; by the thread that has waited for its pass. Without one, the process only takes nothing more.
    """

    def __init__(
        self, executor: str, is_ending: Callable[[], bool] = lambda: False, end: Callable[[], None] | None = None
    ) -> None:
        self._alias = router.db_for_write(WorkflowRun)
        self._is_ending, self._end = is_ending, end
        self.is_stuck = False
        self._is_stopping = self._is_to_notify = False
        self._lines = Lines()
        self._pauses = Pauses(parks=False)
        self._close_unused_on = time.monotonic() + _CLOSE_UNUSED
        self._repeated = Repeated(logger)
        self._station = Station(
            self._alias,
            registered_kinds(),
            concurrency=conf.concurrency,
            async_concurrency=conf.async_concurrency,
            interceptors=(),
            is_due_in=self._is_due_in,
            has_room=lambda: None,
            has_room_in=self._lines.add,
            has_stuck=self._has_stuck,
            repeated=self._repeated,
        )
        self._news = News(self._alias, self._station.held, self._station.has_news, self._repeated)
        lease = conf.lease.total_seconds()
        self._terms = self._enter(executor, int(lease * 1_000_000))
        self._heartbeat = Heartbeat(self._alias, self._terms.worker_id, lease, self._station.held, self._look_after)
        self._heartbeat.start()

    def _enter(self, executor: str, lease_us: int) -> Terms:
        host, kinds = self._station.host(), registered_kinds()
        return host.write(
            lambda: registration.register_receiver(host.connection(), kinds=kinds, lease_us=lease_us, executor=executor)
        )

    def begin(self, message: Message) -> Execution | None:
        """Adopt a claim and execute a pass of its run; None if that is not to be done here, or no longer."""
        if self.is_stuck:  # another process gets the message when it is sent again
            self._say_stuck()
            return None
        host, token = self._station.host(), random_token()
        claim = host.write(lambda: handovers.adopt(host.connection(), message.handover, self._terms, token))
        if claim is None:
            self._explain(host, message)
            return None
        (task,) = host.write(lambda: self._station.tasks([claim], host.connection()))
        if self._is_stopping or self._is_ending() or host.write(lambda: self._pauses.hold(host.connection(), claim)):
            host.write(lambda: task.release(host.connection()))
            host.write(lambda: notify.workers(host.connection()))
            return None
        execution = Execution(task, self._has_left)
        self._station.take(task)
        return execution

    def close(self) -> None:
        """Let the passes end, for a moment, and leave."""
        self._is_stopping = True
        deadline = time.monotonic() + _GOODBYE
        for held in self._station.held().values():
            held.stop(Ended.RELEASED)
        for executor, _ in reversed(self._station.executors):
            executor.stop(max(0.0, deadline - time.monotonic()))
        self._station.let_go()
        is_empty = not self._station.held()
        self._heartbeat.stop()
        self._station.close()
        if is_empty:
            registration.leave(connections[self._alias], self._terms.worker_id)
            connections[self._alias].close()

    def _explain(self, host: WorkerHost, message: Message) -> None:
        """Warn of a run whose workflow is not known here. Another process may know it, to which it is sent again."""
        kind = host.write(lambda: handovers.waiting_kind(host.connection(), message.handover))
        if kind is not None and kind not in self._terms.kinds:
            name, version = kind
            self._repeated.warning(
                "unknown",
                "Run %s is of workflow %r%s, which this process does not know: deploy its code here, too.",
                message.handover.run_id,
                name,
                f" version {version!r}" if version else "",
            )

    def _look_after(self, lease: float) -> None:
        """Each second, on the thread of the heartbeat."""
        self._station.look_after(lease, self._terms.worker_id)
        self._news.look()
        if self._is_ending():
            for held in self._station.held().values():
                held.stop(Ended.RELEASED)
        if time.monotonic() >= self._close_unused_on:
            self._close_unused_on = time.monotonic() + _CLOSE_UNUSED
            self._station.close_unused()

    def _is_due_in(self, seconds: float) -> None:
        # It may be the thread of the event loop, which asks no database. Whoever waits for the pass notifies.
        self._is_to_notify = self._is_to_notify or seconds < _SOON

    def _has_left(self) -> None:
        """A pass is over, as the thread knows that has waited for it."""
        self._tell()
        if self.is_stuck and self._end is not None:
            self._end()

    def _tell(self) -> None:
        """Tell the dispatchers of a run that is due before they look, and let runs go on that a limit has room for by now."""
        if self._is_to_notify:
            self._is_to_notify = False
            with self._station.commits.connection() as connection:
                notify.workers(connection)
        if self._lines.has_any:
            with self._station.commits.connection() as connection:
                self._promote(connection)

    def _promote(self, connection: BaseDatabaseWrapper) -> None:
        try:
            self._lines.promote(connection)
        except (DatabaseError, InterfaceError) as error:  # the next pass does it, or the maintenance of a dispatcher
            self._repeated.warning("promote", "Runs in line could not be let go on: %s", error)
            database.drop(connection)

    def _has_stuck(self) -> None:
        self.is_stuck = True
        for held in self._station.held().values():
            held.stop(Ended.RELEASED)
        if self._end is None:
            self._say_stuck()

    def _say_stuck(self) -> None:
        self._repeated.warning(
            "stuck",
            "Process %d has a step that can't be interrupted, and takes no more runs: restart it.",
            os.getpid(),
        )


# -- The receiver of this process --------------------------------------------------------------------

_lock = threading.Lock()
_receivers: dict[str, Receiver] = {}


def receiver_of(
    executor: str, is_ending: Callable[[], bool] = lambda: False, end: Callable[[], None] | None = None
) -> Receiver:
    """The receiver of this process for an engine, which is made when it is asked for first."""
    with _lock:
        if executor not in _receivers:
            _receivers[executor] = Receiver(executor, is_ending, end)
        return _receivers[executor]


def close_receivers() -> None:
    """Close what `receiver_of()` has made in this process."""
    with _lock:
        closed = list(_receivers.values())
        _receivers.clear()
    for receiver in closed:
        receiver.close()


def _after_fork() -> None:
    """The threads of the parent's receiver are not here."""
    global _lock
    _lock = threading.Lock()
    _receivers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
