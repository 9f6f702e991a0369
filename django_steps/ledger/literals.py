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
        elif kind is datetime:
            written.append(f"'{value.isoformat()}'")
        else:
            written.append(quote(value))
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
