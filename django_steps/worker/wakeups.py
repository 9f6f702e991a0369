"""How an idle worker learns of work at once: LISTEN/NOTIFY on PostgreSQL, `PRAGMA data_version` on SQLite, and a short question
every few milliseconds on MySQL and MariaDB, which tell nothing.

A wake-up is a hint and may be lost: workers look for themselves now and then. Behind a pooler that drops notifications they
only do that. The loop of a worker waits on the connection by which it claims, so that hearing of news takes no connection and
no thread of its own.
"""

from __future__ import annotations

import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from functools import partial
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..ledger import notify

# What is ready for a worker by now: another value than before if there is something new. An empty one is nothing.
Ask = Callable[[], Collection[Any]]

logger = logging.getLogger("django_steps")

# A worker that was woken looks again after a little more than `notify.INTERVAL`.
LOOK_AGAIN_AFTER = 0.025

_SQLITE_INTERVAL = 0.005
# So many times in a poll interval a worker asks where nothing tells it; and asking takes so small a part of its time at most.
_QUESTIONS, _PART_OF_TIME = 40, 0.05
_SHORTEST = 0.01  # seconds between two questions, however short the poll interval is
_PINGS, _PING_TIMEOUT = 3, 1.0  # one may come while a statement is executed, which shows nothing


class Wakeups:
    """How a worker's loop waits for work: until a thread of this process wakes it, or somebody elsewhere is heard of.

    `is_notified`: somebody elsewhere was heard of since the loop last set it to False; `notifications`: how often that has
    been. `is_reliable`: whether the database tells of news at present; where it doesn't, the loop has to look often. The loop
    begins by `clear()`, looks for work, and then waits. Only `wake()` is for other threads.
    """

    def __init__(self, alias: str) -> None:
        self.is_notified = self.is_reliable = False
        self.notifications = 0
        self._alias = alias
        self._event = threading.Event()
        self._is_called = threading.Event()  # by a thread of this process

    def wake(self) -> None:
        """End the wait that is going on, or the next one."""
        self._is_called.set()
        self._event.set()

    def clear(self) -> None:
        """Forget all wakes until now."""
        self._is_called.clear()
        self._event.clear()

    def rest(self, seconds: float) -> None:
        """Wait so long, or less if a thread of this process has a reason to look."""
        if seconds:
            self._is_called.wait(seconds)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or less if there is a reason to look; whether there is."""
        return self._event.wait(seconds)

    def close(self) -> None:
        """Wait no more."""

    def _hear(self) -> None:
        self.is_notified = True
        self.notifications += 1


class _FileWakeups(Wakeups):
    """The version of a SQLite file changes when another connection commits; asking costs microseconds."""

    _seen: Any = None

    def clear(self) -> None:
        super().clear()
        self._seen = self._version()  # whoever clears looks next, and sees all that came before

    def wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if self._event.wait(min(remaining, _SQLITE_INTERVAL)):
                return True
            seen, self._seen = self._seen, self._version()
            if self._is_newer(seen):
                self._hear()
                return True
        return False

    def _is_newer(self, seen: Any) -> bool:
        """Whether there was a commit since; versions of another connection, before a failure, tell nothing."""
        return self._seen is not None and seen is not None and self._seen[0] is seen[0] and self._seen != seen

    def _version(self) -> Any:
        """The version as this connection has seen it; None if there is nothing to look at."""
        connection: Any = connections[self._alias]
        try:
            connection.ensure_connection()
            version = connection.connection, connection.connection.execute("PRAGMA data_version").fetchone()
        except (DatabaseError, InterfaceError, connection.Database.Error) as error:  # whoever claims next says so
            logger.debug("Wake-ups are interrupted: %s", error)
            self.is_reliable = False
            return None
        self.is_reliable = not connection.is_in_memory_db()
        return version


class _AskedWakeups(Wakeups):
    """The database tells nothing, so it is asked what is ready. That is one statement of a claim, which locks nothing."""

    # News is only what has changed: a run that is ready and that a claim does not get, since somebody else holds its row, would
    # otherwise make the loop claim all the time. It is found when the loop looks by itself.

    def __init__(self, alias: str, ask: Ask, poll_interval: float) -> None:
        super().__init__(alias)
        self._ask, self._interval = ask, max(_SHORTEST, poll_interval / _QUESTIONS)
        self._known: Collection[Any] = ()

    def wait(self, seconds: float) -> bool:
        deadline, pause = time.monotonic() + seconds, self._interval
        while (remaining := deadline - time.monotonic()) > 0:
            if self._event.wait(min(remaining, pause)):
                return True
            asked_at = time.monotonic()
            try:
                known, self._known = self._known, self._ask()
            except (DatabaseError, InterfaceError) as error:  # whoever claims next says so
                logger.debug("Wake-ups are interrupted: %s", error)
                return False
            if self._known and self._known != known:
                self._hear()
                return True
            pause = max(self._interval, (time.monotonic() - asked_at) / _PART_OF_TIME)
        return False


class _NotifiedWakeups(Wakeups):
    """PostgreSQL tells on the connection itself; other threads, through a pair of sockets."""

    # The loop waits in `select()` on two sockets: the connection by which it claims, and one end of a pair whose other end
    # threads of this process write to. An event can't be selected, so it only says what has been heard already; a byte in
    # the pair ends the wait.
    #
    # Before changing anything here, know the ways in which a notification gets lost or is no proof:
    #
    # - It comes together with the answer to a statement. The client has read it then, and the socket has nothing left to
    #   read: `select()` would sleep on it. So each wait begins by taking in what the client has, and a handler hears of
    #   what comes during a statement.
    # - The connection was replaced: after an error, or by `CONN_MAX_AGE`. LISTEN belongs to a session of the server, so the
    #   new one hears nothing until it is sent again. What was notified in between is lost: until a notification has
    #   arrived on the new connection, `is_reliable` is False and the loop looks often.
    # - A pooler stands in between. In its transaction mode it may pass on what comes during a statement, and drop what
    #   comes while the client is idle; it also may pass on what a client notifies itself. So only a notification that
    #   arrives during a wait proves that they can be relied on, and the proof is a ping from a connection of its own.
    #   After three pings without an answer the worker polls.
    # - The connection went back to a pool of Django's, still listening, and serves another thread. Its handler is still
    #   called: it compares the connection and the thread, and UNLISTEN is sent before the connection is left.
    #
    # None of these may cost more than time: a worker polls in any case, only less often where wake-ups are reliable.

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._listening: Any = None  # the connection that LISTEN was sent on
        self._pings, self._pinged_at = 0, math.inf
        self._handler: Any = None
        self._sender: socket.socket | None = None
        self._receiver: Any = None

    def wake(self) -> None:
        self._is_called.set()
        if not self._event.is_set():
            self._event.set()
            if self._sender is not None:
                with suppress(OSError):  # full, so that there is enough to wake up from; or closed
                    self._sender.send(b"\0")

    def clear(self) -> None:
        # The event is cleared before the bytes are read. `wake()` sends no byte while the event is set, so in the other
        # order a thread that wakes in between would leave neither.
        super().clear()
        if self._sender is None:  # only here, since not everything that is made ever waits and is closed
            self._receiver, sender = socket.socketpair()
            self._receiver.setblocking(False)
            sender.setblocking(False)
            self._sender = sender
        with suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def wait(self, seconds: float) -> bool:
        raw = self._take_in()
        if self._event.is_set():
            return True
        if raw is not None and not self.is_reliable and time.monotonic() - self._pinged_at > _PING_TIMEOUT:
            self._ping_again()
        if raw is None:  # it was lost just now: how long to wait was decided by one that is reliable
            seconds = min(seconds, 1.0)
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            if raw is not None:
                selector.register(raw.fileno(), selectors.EVENT_READ)
            is_woken = bool(selector.select(seconds))
        if is_woken:
            self._take_in()
        return is_woken

    def close(self) -> None:
        connection = connections[self._alias]
        if self._listening is not None and connection.connection is self._listening:
            self._listening.remove_notify_handler(self._handler)
            with suppress(Exception), connection.cursor() as cursor:  # it may go back to a pool
                cursor.execute(f"UNLISTEN {notify.CHANNEL}")
        if self._sender is not None:
            self._sender.close()
            self._receiver.close()

    def _take_in(self) -> Any:
        """Take in what has come on the connection until now. Returns the connection to wait on, or None."""
        connection: Any = connections[self._alias]
        raw = connection.connection
        if raw is not self._listening:
            self.is_reliable = False
        if raw is None:
            return None
        try:
            if raw is not self._listening:
                self._listen(connection)
            # What came right behind the answer to a statement is read already, and has to be looked at.
            raw.pgconn.consume_input()
            while raw.pgconn.notifies() is not None:
                self.is_reliable = True
                self._hear()
                self._event.set()
        except Exception as error:  # the database is away, and whoever claims next says so
            logger.debug("Wake-ups are interrupted: %s", error)
            self.is_reliable = False
            with suppress(DatabaseError, InterfaceError):
                connection.close()
            return None
        return raw

    def _listen(self, connection: Any) -> None:
        raw = connection.connection
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {notify.CHANNEL}")
        self._handler = partial(self._on_notification, raw, threading.get_ident())
        raw.add_notify_handler(self._handler)
        self._listening, self._pings = raw, 0
        self._ping_again()

    def _ping_again(self) -> None:
        if self._pings == _PINGS:
            logger.warning("PostgreSQL notifications don't arrive here (a pooler?); the worker polls instead.")
            self._pinged_at = math.inf
            return
        self._pings += 1
        self._pinged_at = time.monotonic()
        try:
            _ping(connections[self._alias])
        except Exception as error:  # too many connections, for example: somebody else's notification will do
            logger.debug("No second connection to try the notifications by: %s", error)

    def _on_notification(self, raw: Any, thread: int, notification: Any) -> None:
        """Told by the client of what comes with the answer to a statement. This doesn't show that notifications can be
        relied on: a pooler may pass them on during a statement, and drop them while nothing is asked."""
        # A connection that was dropped may have gone back to a pool, still listening, and serve another thread.
        if raw is self._listening and thread == threading.get_ident():
            self._hear()
            self._event.set()


_KINDS = {"postgresql": _NotifiedWakeups, "sqlite": _FileWakeups}


def wakeups_of(alias: str, ask: Ask, poll_interval: float) -> Wakeups:
    """The best way to wait for work in this database: `ask` is called where it tells nothing, some times in the interval."""
    kind = _KINDS.get(connections[alias].vendor)
    return _AskedWakeups(alias, ask, poll_interval) if kind is None else kind(alias)


def _ping(connection: BaseDatabaseWrapper) -> None:
    """Notify ourselves, from another connection: a pooler passes on what a client tells itself, and drops the rest."""
    import psycopg

    parameters = connection.get_connection_params()
    parameters.pop("pool", None)
    with closing(psycopg.connect(**parameters, autocommit=True)) as raw:
        raw.execute(f"NOTIFY {notify.CHANNEL}")
