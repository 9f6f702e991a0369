"""Statements that PostgreSQL parses and plans once per connection, not each time: the ones that every step needs.

Behind a pooler, where each statement may go to another connection to the server, nothing is prepared: names would be unknown
there time and again, and the server writes each statement that fails into its log, with the values in it. A pooler is known by
the process of the server, which is not the one that the client was told of. One that isn't recognized does no harm: statements
are named after their text, so that a name either is the same statement or isn't known, and then the statement is sent as it is.
So it is to other databases, and in transactions of the caller, which an unknown name would break off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from .literals import execute_as_literals, literals

_WORTH_PREPARING = 3  # the third time; preparing costs a round trip, which what is done once or twice doesn't repay
_UNKNOWN, _KNOWN_ALREADY = "26000", "42P05"  # SQLSTATEs


class Statement:
    """A statement with `%s` for its parameters, and the PostgreSQL types of these."""

    def __init__(self, text: str, types: Sequence[str]) -> None:
        self.text = text
        pieces = text.split("%s")
        numbered = pieces[0] + "".join(f"${number}{piece}" for number, piece in enumerate(pieces[1:], start=1))
        digest = hashlib.sha1(f"{types} {numbered}".encode(), usedforsecurity=False).hexdigest()
        self.name = f"django_steps_{digest[:16]}"
        self.preparation = f"PREPARE {self.name} ({', '.join(types)}) AS {numbered}"


def execute(connection: BaseDatabaseWrapper, cursor: Any, statement: Statement, parameters: Sequence[Any]) -> None:
    """Execute a statement on a cursor of the connection."""
    # EXECUTE takes no parameters that are bound by the server.
    is_bound = getattr(connection.features, "uses_server_side_binding", False)
    is_in_transaction = connection.in_atomic_block or not connection.get_autocommit()
    if connection.vendor != "postgresql" or is_bound or is_in_transaction:
        cursor.execute(statement.text, parameters)
        return
    session = _session(connection)
    session.uses[statement.name] = number = session.uses.get(statement.name, 0) + 1
    if number < _WORTH_PREPARING or not session.is_direct(cursor):
        cursor.execute(statement.text, parameters)
        return
    if number == _WORTH_PREPARING:
        _prepare(cursor, statement)
    execution = f"EXECUTE {statement.name} ({', '.join(literals(connection, parameters))})"
    try:
        execute_as_literals(cursor, statement.text, parameters, execution)
    except Error as error:
        if _sqlstate(error) != _UNKNOWN:
            raise
        del session.uses[statement.name]
        cursor.execute(statement.text, parameters)  # a pooler may give each statement another server


def _prepare(cursor: Any, statement: Statement) -> None:
    try:
        cursor.execute(statement.preparation)
    except Error as error:
        if _sqlstate(error) != _KNOWN_ALREADY:
            raise


@dataclass(slots=True)
class _Session:
    """What is known of a connection to the server: how often each statement was executed, and whether there is a pooler."""

    raw: Any
    uses: dict[str, int] = field(default_factory=dict)
    _is_direct: bool | None = None

    def is_direct(self, cursor: Any) -> bool:
        """Whether the server's process is the one that the client has connected to; asked once."""
        if self._is_direct is None:
            cursor.execute("SELECT pg_backend_pid()")
            self._is_direct = cursor.fetchone()[0] == self.raw.info.backend_pid
        return self._is_direct


def _session(connection: Any) -> _Session:
    session: _Session | None = getattr(connection, "_django_steps_session", None)
    if session is None or session.raw is not connection.connection:
        session = connection._django_steps_session = _Session(connection.connection)
    return session


def _sqlstate(error: Error) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
