"""The connections that the passes of a worker write by while their threads have none of their own.

A thread gets a connection of its own only when its steps or its body use the ORM. Records, endings and whatever else a
pass has to write or read go by one of a few connections that belong to the worker, each used by one thread at a time.
Who gets one when is decided in `group_commit.py`.
"""

from __future__ import annotations

import time
from contextlib import suppress

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine.connections import drop_if_dead
from ..ledger import database

LONG_IDLE = 30.0  # seconds after which a connection is closed rather than trusted
_TRUSTED = 1.0  # seconds for which an idle connection is not looked at before it is used


class Writer:
    """A connection that threads use one after the other. Who holds it alone may call anything here.

    `held_since`: when it was handed out, by `time.monotonic()`. `is_spare`: made because all others were held for long.
    """

    __slots__ = ("_alias", "_connection", "_used_on", "held_since", "is_spare")

    def __init__(self, alias: str, *, is_spare: bool = False) -> None:
        self._alias = alias
        self._connection: BaseDatabaseWrapper | None = None
        self._used_on = self.held_since = 0.0
        self.is_spare = is_spare

    def connection(self) -> BaseDatabaseWrapper:
        """The connection, which is opened by its first statement, and anew where it was found dead."""
        connection, now = self._connection, time.monotonic()
        if connection is None:
            connection = connections.create_connection(self._alias)
            connection.inc_thread_sharing()
            self._connection = connection
        elif now - self._used_on > _TRUSTED and connection.connection is not None:
            if now - self._used_on > LONG_IDLE:
                database.drop(connection)
            else:
                drop_if_dead(connection)
        self._used_on = now
        return connection

    def check(self, error: BaseException | None = None) -> None:
        """Close the connection unless it works, after an error: the next one begins on a good one. An `error` that may
        come from the session, which answers all the same (it is read-only since a failover, say), closes it, too."""
        connection = self._connection
        if connection is None:
            return
        if connection.in_atomic_block or database.may_be_of_session(error) or not is_usable(connection):
            self.close()
        connection.errors_occurred = False

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            database.drop(connection)

    def close_if_unused(self, seconds: float) -> None:
        """Close the connection if it was not used for so long."""
        if time.monotonic() - self._used_on >= seconds:
            self.close()


def is_usable(connection: BaseDatabaseWrapper) -> bool:
    """Whether a connection is open and the database answers on it."""
    with suppress(DatabaseError, InterfaceError):
        return connection.connection is not None and bool(connection.is_usable())
    return False
