"""What a step may leave behind on the database connections of its thread, and cleaning it up.

A transaction left open, autocommit switched off, a broken connection or a changed session (settings, a role, locks,
temporary tables) must not reach the next step on that thread. None of this asks the database, unless there was an error: it
is done for every step. So only statements that are sent through Django are seen to change a session.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..ledger import database, sessions

logger = logging.getLogger("django_steps")

_OPEN_IN_POSTGRESQL = (2, 3)  # libpq: in a transaction, in a failed one


class Connections:
    """The database connections of this thread, listed once for a whole pass: that takes as long as half a step.

    `depths`: how many `atomic()` blocks were open on each when it was asked.
    """

    __slots__ = ("_all", "_watched")

    def __init__(self) -> None:
        self._all: list[Any] = list(connections.all())
        self._watched = [(connection, _Watch()) for connection in self._all]

    def depths(self) -> list[int]:
        """How many `atomic()` blocks are open on each connection."""
        return [len(connection.atomic_blocks) for connection in self._all]

    def is_deeper(self, before: Sequence[int]) -> bool:
        """Whether an `atomic()` block was opened since `before`, or another kind of transaction, and is still open."""
        for connection, depth in zip(self._all, before, strict=True):
            if connection.in_atomic_block:
                if len(connection.atomic_blocks) > depth:
                    return True
            elif connection.connection is not None and _transaction_left(connection):
                return True
        return False

    def ended(self, alias: str) -> int:
        """How many transactions of a database statements have ended until now: `COMMIT` or `ROLLBACK`, not the end of an
        `atomic()`.
        """
        return sum(watch.ended for connection, watch in self._watched if connection.alias == alias)

    def watched(self) -> _Watched:
        """In this context it is noted what statements do to the sessions: for a whole pass."""
        return _Watched(self._watched)

    def tidied(self, what: str) -> _Tidied:
        """Whatever is executed in this context leaves no open transaction, no broken connection and no changed session;
        `what` names it in the log. A connection with an open `atomic()` block of the caller's is left alone.
        """
        return _Tidied(self._watched, what)


class _Watched:
    __slots__ = ("_watched",)

    def __init__(self, watched: list[tuple[Any, _Watch]]) -> None:
        self._watched = watched

    def __enter__(self) -> None:
        for connection, watch in self._watched:
            connection.execute_wrappers.append(watch)

    def __exit__(self, *raised: object) -> None:
        for connection, watch in self._watched:
            connection.execute_wrappers.remove(watch)


class _Tidied:
    __slots__ = ("_before", "_watched", "_what")

    def __init__(self, watched: list[tuple[Any, _Watch]], what: str) -> None:
        self._watched, self._what = watched, what

    def __enter__(self) -> None:
        self._before = []
        for connection, watch in self._watched:
            self._before.append((bool(connection.atomic_blocks), watch.is_changed))
            watch.is_changed = False
            if connection.connection is not None and connection.vendor != "sqlite" and not connection.in_atomic_block:
                drop_if_dead(connection)

    def __exit__(self, *raised: object) -> None:
        for (connection, watch), (is_in_atomic, was_changed) in zip(self._watched, self._before, strict=True):
            if connection.connection is not None and not is_in_atomic:
                _tidy(connection, watch, self._what)
                was_changed = was_changed and connection.connection is not None
            watch.is_changed = was_changed


def is_changed(connection: BaseDatabaseWrapper) -> bool:
    """Whether the body of a pass has changed the session of a connection, outside of its steps."""
    return any(isinstance(wrapper, _Watch) and wrapper.is_changed for wrapper in connection.execute_wrappers)


def drop_if_dead(connection: Any) -> None:
    """Close an idle connection that the server has closed, after a restart for example: nothing begins on it."""
    with suppress(Exception):  # the next use of it raises
        # Nothing was asked, so all that there can be to read is that the connection is over (or a notice).
        waiting = select.poll()
        waiting.register(connection.connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if waiting.poll(0) and not connection.is_usable():
            connection.close()


def socket_of(connection: Any) -> int | None:
    """The number of a connection's socket; None where it has none."""
    try:
        return int(connection.connection.fileno())
    except Exception:  # of the client, or it has no such method: SQLite
        return None


def cut(number: int) -> bool:
    """Shut the socket of a connection that another thread waits on, which gets an error then; whether that was possible."""
    try:
        with socket.socket(fileno=os.dup(number)) as wire:
            wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def _tidy(connection: BaseDatabaseWrapper, watch: _Watch, what: str) -> None:
    trouble = "an atomic() block open" if connection.in_atomic_block else _transaction_left(connection)
    if not trouble and _is_broken(connection):
        trouble = "a broken connection"
    if trouble:
        logger.error("%s left %s on database %r; the connection is closed.", what, trouble, connection.alias)
        _reset(connection)
    elif watch.is_changed:
        # To open another one takes a few milliseconds, and is asked for by the next statement only. What would reset the
        # session instead would take away how the project has set it when it was opened.
        logger.info("%s changed the session of database %r, which is replaced.", what, connection.alias)
        database.drop(connection)
    connection.errors_occurred = False


def _transaction_left(connection: Any) -> str:
    """What is left open on a connection outside `atomic()`, or nothing."""
    if _is_closed(connection) or not connection.settings_dict["AUTOCOMMIT"]:
        return ""
    if _is_without_autocommit(connection):
        return "autocommit switched off"
    return "a transaction open" if _in_transaction(connection) else ""


def _is_without_autocommit(connection: Any) -> bool:
    if connection.vendor != "mysql":
        return not connection.autocommit
    # It may have been switched off by a statement; the client keeps what the server said last.
    return not connection.connection.get_autocommit()


def _in_transaction(connection: Any) -> bool:
    raw = connection.connection
    if connection.vendor == "postgresql":
        return raw.pgconn.transaction_status in _OPEN_IN_POSTGRESQL
    if connection.vendor == "sqlite":
        return bool(raw.in_transaction)
    return any(isinstance(wrapper, _Watch) and wrapper.is_open for wrapper in connection.execute_wrappers)


def _is_broken(connection: BaseDatabaseWrapper) -> bool:
    if connection.connection is None:
        return False
    return _is_closed(connection) or (connection.errors_occurred and not connection.is_usable())


def _is_closed(connection: Any) -> bool:
    """Whether the client itself knows that its connection is closed, or there is none yet."""
    raw = connection.connection
    if raw is None:
        return True
    if connection.vendor == "sqlite":
        try:
            return bool(raw.total_changes < 0)
        except connection.Database.Error:
            return True
    if connection.vendor == "mysql":
        return not raw.open
    return bool(getattr(raw, "closed", False))


def _reset(connection: BaseDatabaseWrapper) -> None:
    with suppress(DatabaseError, InterfaceError):  # the client may refuse to close what is closed
        connection.close()
    for watch in connection.execute_wrappers:
        if isinstance(watch, _Watch):
            watch.is_open = False
    # After an abandoned atomic() only connecting anew brings the wrapper's own bookkeeping back. Where the database is
    # away, the next use of the connection raises.
    with suppress(DatabaseError, InterfaceError), connection.wrap_database_errors:
        connection.connect()


# -- What statements do ------------------------------------------------------------------------------


class _Watch:
    """Notes the statements that change the session, and those that begin and end a transaction: MySQL's client doesn't tell
    whether one is open, and none tells whether it is the one of before. `atomic()` itself sends none that end one."""

    __slots__ = ("ended", "is_changed", "is_open")

    def __init__(self) -> None:
        self.is_open = self.is_changed = False
        self.ended = 0  # transactions, by statements of the step or body

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = sql if isinstance(sql, str) else sessions.text_of(sql)
        if sessions.may_change(text):
            self.is_changed = True  # also where the statement fails: several may be one text
        result = execute(sql, params, many, context)
        for statement in sessions.statements(text):
            opens = sessions.opens_transaction(statement)
            if opens is not None:
                self.is_open = opens
            is_implicit = context["connection"].vendor == "mysql" and sessions.commits_implicitly(statement)
            self.ended += opens is False or is_implicit
        return result


def _begins(*, connection: BaseDatabaseWrapper, **details: Any) -> None:
    """A session begins: what was sent to open it is how it has to be."""
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, _Watch):
            wrapper.is_changed = wrapper.is_open = False


# When this module is imported, the apps of a project have connected their own receivers, which come first then.
connection_created.connect(_begins, dispatch_uid="django_steps.engine.connections")
