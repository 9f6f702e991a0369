"""How an idle worker learns of work at once: LISTEN/NOTIFY on PostgreSQL, `PRAGMA data_version` on SQLite.

A wake-up is a hint and may be lost: workers look for themselves now and then. On MySQL and MariaDB, and behind a pooler
that drops notifications, they only do that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("django_steps")

CHANNEL = "django_steps"
# At most one notification in this time and process: many at once would make each COMMIT wait for the others. A worker
# that was woken looks again after a little more than this.
NOTIFY_INTERVAL = 0.010
LOOK_AGAIN_AFTER = 0.025

_SQLITE_INTERVAL = 0.005
_RECONNECT_INTERVAL = 1.0
_PING_TIMEOUT = 2.0

_last_sent: dict[str, float] = {}


def notify(connection: BaseDatabaseWrapper) -> None:
    """Tell the workers, after the commit, that there may be something to do."""
    if connection.vendor == "postgresql":
        alias = connection.alias
        transaction.on_commit(lambda: _send(alias), using=alias, robust=True)


def _send(alias: str) -> None:
    now = time.monotonic()
    if now - _last_sent.get(alias, 0.0) < NOTIFY_INTERVAL:
        return
    _last_sent[alias] = now
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")
    except Exception:  # the run is committed; a worker finds it by looking
        logger.warning("Could not notify the workers.", exc_info=True)


class Watcher:
    """A thread that calls `wake()` when the database says that something changed.

    `is_reliable` tells whether it works at present; where it doesn't, the worker has to look often.
    """

    def __init__(self, alias: str, wake: Callable[[], None]) -> None:
        self.is_reliable = False
        self._alias, self._wake = alias, wake
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch, where the database has a way to."""
        watch = {"postgresql": self._listen, "sqlite": self._poll_file}.get(connections[self._alias].vendor)
        if watch is not None:
            self._thread = threading.Thread(target=self._run, args=(watch,), name="django-steps-wakeups", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching; the thread is daemonic and ends by itself."""
        self._stop.set()

    def _run(self, watch: Callable[[BaseDatabaseWrapper], None]) -> None:
        while not self._stop.is_set():
            # A connection of its own, outside any pool: it stays open for as long as the worker lives.
            connection = connections[self._alias].copy()
            try:
                watch(connection)
            except Exception as error:
                if not self._stop.is_set():
                    logger.debug("Wake-ups are interrupted: %s", error)
            finally:
                self.is_reliable = False
                connection.close()
            self._stop.wait(_RECONNECT_INTERVAL)

    def _listen(self, connection: BaseDatabaseWrapper) -> None:
        raw = _plain_psycopg_connection(connection)
        try:
            raw.execute(f"LISTEN {CHANNEL}")
            self._ping(connection)
            began = time.monotonic()
            while not self._stop.is_set():
                for _ in raw.notifies(timeout=1.0, stop_after=1):
                    self.is_reliable = True
                    self._wake()
                if not self.is_reliable and time.monotonic() - began > _PING_TIMEOUT:
                    logger.warning("PostgreSQL notifications don't arrive here (a pooler?); the worker polls instead.")
                    break
        finally:
            raw.close()
        self._stop.wait()

    def _ping(self, connection: BaseDatabaseWrapper) -> None:
        """Notify ourselves, from another connection: a pooler passes on what a client tells itself, and drops the rest."""
        with closing(_plain_psycopg_connection(connection)) as raw:
            raw.execute(f"NOTIFY {CHANNEL}")

    def _poll_file(self, connection: BaseDatabaseWrapper) -> None:
        """The version of a SQLite file changes when another connection commits; asking costs microseconds."""
        if connection.is_in_memory_db():  # type: ignore[attr-defined]
            self._stop.wait()
        connection.ensure_connection()
        raw: Any = connection.connection
        seen = raw.execute("PRAGMA data_version").fetchone()
        self.is_reliable = True
        while not self._stop.wait(_SQLITE_INTERVAL):
            version = raw.execute("PRAGMA data_version").fetchone()
            if version != seen:
                seen = version
                self._wake()


def _plain_psycopg_connection(connection: BaseDatabaseWrapper) -> Any:
    import psycopg

    parameters = connection.get_connection_params()
    parameters.pop("pool", None)
    return psycopg.connect(**parameters, autocommit=True)
