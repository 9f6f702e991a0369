"""Values as PostgreSQL literals. The client takes as long to bind a record's fifteen values as the server to insert them,
since it looks up how each is adapted; the ledger's values are of a few types only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DataError


def literals(connection: Any, values: Sequence[Any]) -> list[str]:
    """The values as literals: text, whole numbers, booleans, UUIDs, datetimes and None.

    Strings are quoted by libpq, for this connection. Raises Django's `DataError` for a string with a NUL, which no column
    takes.
    """
    quote = _quoting(connection)
    written = []
    for value in values:
        kind = type(value)
        if value is None:
            written.append("NULL")
        elif kind is int or kind is bool:
            written.append(str(value))
        elif kind is UUID:
            written.append(f"'{value.hex}'")
        elif isinstance(value, str):
            written.append(quote(value))
        elif isinstance(value, datetime):
            written.append(f"'{value.isoformat()}'")
        elif isinstance(value, int):  # an enum's member, for example
            written.append(str(int(value)))
        else:
            raise TypeError(f"No literal is known for {value!r}.")
    return written


def _quoting(connection: Any) -> Callable[[str], str]:
    from psycopg.pq import Escaping

    connection.ensure_connection()
    escape = Escaping(connection.connection.pgconn).escape_literal

    def quote(value: str) -> str:
        if "\0" in value:  # libpq would leave out what follows
            raise DataError("PostgreSQL text can't contain NUL.")
        return bytes(escape(value.encode())).decode()

    return quote


def execute_as_literals(cursor: Any, text: str, parameters: Sequence[Any], sent: str) -> None:
    """Send `sent`, and tell all that watches Django's cursors of `text` with `parameters`: what monitoring keeps of a
    statement's text must not hold what people entered."""
    raw = cursor.cursor
    cursor.cursor = _Sending(raw, sent)
    try:
        cursor.execute(text, parameters)
    finally:
        cursor.cursor = raw


class _Sending:
    """A client's cursor that sends another statement than the one it is given."""

    __slots__ = ("_raw", "_sent")

    def __init__(self, raw: Any, sent: str) -> None:
        self._raw, self._sent = raw, sent

    def execute(self, text: str, parameters: Sequence[Any]) -> Any:
        return self._raw.execute(self._sent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
