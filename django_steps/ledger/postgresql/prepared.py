"""Statements that PostgreSQL parses and plans once per connection, not each time: the ones that every step needs.

They are named after their text, so that behind a pooler, where a connection to the server may be another one each time,
a name either is the same statement or isn't known, and then the statement is sent as it is. So it is to other databases,
and in transactions of the caller, which an unknown name would break off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
    uses = _uses(connection)
    uses[statement.name] = number = uses.get(statement.name, 0) + 1
    if number < _WORTH_PREPARING:
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
        del uses[statement.name]
        cursor.execute(statement.text, parameters)  # a pooler may give each statement another server


def _prepare(cursor: Any, statement: Statement) -> None:
    try:
        cursor.execute(statement.preparation)
    except Error as error:
        if _sqlstate(error) != _KNOWN_ALREADY:
            raise


def _uses(connection: Any) -> dict[str, int]:
    """How often each statement was executed on this connection to the server."""
    raw, uses = getattr(connection, "_django_steps_uses", (None, {}))
    if raw is not connection.connection:
        uses = {}
        connection._django_steps_uses = connection.connection, uses
    return uses


def _sqlstate(error: Error) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
