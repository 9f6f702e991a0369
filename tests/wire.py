"""Counting what a connection really sends: statements without those that only begin and end transactions, and commits.

Each database is asked in its own way, below Django: the client library's trace of the protocol on PostgreSQL, SQLite's
trace of statements, the server's counters of the session on MySQL and MariaDB.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

_CONTROL = re.compile(r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)


@dataclass
class Wire:
    """What was sent: `statements`, and `transactions` (a statement outside of any is one of its own)."""

    statements: int = 0
    transactions: int = 0


@contextmanager
def counted(connection: BaseDatabaseWrapper) -> Iterator[Wire]:
    """Count what this connection sends inside the block; the numbers are there after it."""
    connection.ensure_connection()
    wire = Wire()
    with {"postgresql": _postgresql, "sqlite": _sqlite, "mysql": _mysql}[connection.vendor](connection, wire):
        yield wire


@contextmanager
def _postgresql(connection: Any, wire: Wire) -> Iterator[None]:
    protocol = connection.connection.pgconn
    with tempfile.TemporaryFile("w+") as trace:
        protocol.trace(trace.fileno())
        try:
            yield
        finally:
            protocol.untrace()
        trace.seek(0)
        for line in trace:
            if match := re.search(r'\tCommandComplete\t "(\w+)', line):
                wire.statements += not _CONTROL.match(match[1])
            elif re.search(r"\tReadyForQuery\t I", line):
                wire.transactions += 1


@contextmanager
def _sqlite(connection: Any, wire: Wire) -> Iterator[None]:
    seen: list[str] = []
    connection.connection.set_trace_callback(seen.append)
    try:
        yield
    finally:
        connection.connection.set_trace_callback(None)
    is_open = False
    for statement in seen:
        if _CONTROL.match(statement):
            was_open = is_open
            is_open = statement.upper().lstrip().startswith(("BEGIN", "SAVEPOINT", "RELEASE"))
            wire.transactions += was_open and not is_open
        else:
            wire.statements += 1
            wire.transactions += not is_open


@contextmanager
def _mysql(connection: Any, wire: Wire) -> Iterator[None]:
    alone: list[bool] = []

    def look(execute: Any, statement: str, *arguments: Any) -> Any:
        if not _CONTROL.match(statement):
            alone.append(connection.get_autocommit())
        return execute(statement, *arguments)

    before = _session(connection)
    with connection.execute_wrapper(look):
        yield
    after = _session(connection)
    sent = {name: after[name] - before[name] for name in after}
    # `atomic()` switches autocommit off and on again. The question for the counters is one, too.
    controls = ("Com_begin", "Com_commit", "Com_rollback", "Com_savepoint", "Com_release_savepoint", "Com_set_option")
    wire.statements = sent["Questions"] - sum(sent[name] for name in controls) - 1
    wire.transactions = sent["Com_commit"] + sum(alone)
    assert wire.statements == len(alone), "something was sent past Django"


def _session(connection: Any) -> dict[str, int]:
    with connection.connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS WHERE Variable_name = 'Questions' OR Variable_name LIKE 'Com\\_%'")
        return {name: int(value) for name, value in cursor.fetchall() if value.isdigit()}
