"""What a step may leave behind on the database connections of its thread, and cleaning it up.

A transaction left open, autocommit switched off or a broken connection must not reach the next step on that thread.
None of this asks the database, unless there was an error: it is done for every step.
"""

from __future__ import annotations

import logging
import re
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("django_steps")

_OPEN_IN_POSTGRESQL = (2, 3)  # libpq: in a transaction, in a failed one


class Connections:
    """The database connections of this thread, listed once for a whole pass: that takes as long as half a step.

    `depths`: how many `atomic()` blocks were open on each when it was asked.
    """

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[Any] = list(connections.all())

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

    def tidied(self, what: str) -> _Tidied:
        """Whatever is executed in this context leaves no open transaction and no broken connection; `what` names it in
        the log. A connection with an open `atomic()` block of the caller's is left alone.
        """
        return _Tidied(self._all, what)


class _Tidied:
    __slots__ = ("_all", "_before", "_watched", "_what")

    def __init__(self, all: list[Any], what: str) -> None:
        self._all, self._what = all, what

    def __enter__(self) -> None:
        self._before = [bool(connection.atomic_blocks) for connection in self._all]
        self._watched: list[tuple[Any, _Watch]] = []
        for connection in self._all:
            vendor = connection.vendor
            if vendor == "sqlite":
                continue
            if vendor == "mysql":
                watch = _Watch()
                connection.execute_wrappers.append(watch)
                self._watched.append((connection, watch))
            if connection.connection is not None and not connection.in_atomic_block:
                drop_if_dead(connection)

    def __exit__(self, *raised: object) -> None:
        try:
            for connection, is_in_atomic in zip(self._all, self._before, strict=True):
                if connection.connection is not None and not is_in_atomic:
                    _tidy(connection, self._what)
        finally:
            for connection, watch in self._watched:
                connection.execute_wrappers.remove(watch)


def drop_if_dead(connection: Any) -> None:
    """Close an idle connection that the server has closed, after a restart for example: nothing begins on it."""
    with suppress(Exception):  # the next use of it raises
        # Nothing was asked, so all that there can be to read is that the connection is over (or a notice).
        waiting = select.poll()
        waiting.register(connection.connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if waiting.poll(0) and not connection.is_usable():
            connection.close()


def _tidy(connection: BaseDatabaseWrapper, what: str) -> None:
    trouble = "an atomic() block open" if connection.in_atomic_block else _transaction_left(connection)
    if not trouble and _is_broken(connection):
        trouble = "a broken connection"
    if trouble:
        logger.error("%s left %s on database %r; the connection is closed.", what, trouble, connection.alias)
        _reset(connection)
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


# -- MySQL, whose client doesn't tell whether a transaction is open ------------------------------


class _Watch:
    """Notes the statements that begin and end transactions. `atomic()` sends none: it switches autocommit."""

    is_open = False

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        control = _CONTROL.match(sql) if isinstance(sql, str) else None
        if control is not None:
            self.is_open = control["opens"] is not None
        return result


_CONTROL = re.compile(
    r"\s*(?:(?P<opens>BEGIN|START\s+TRANSACTION)\b|COMMIT\b|ROLLBACK\b(?!(\s+WORK)?\s+TO\b))", re.IGNORECASE
)
