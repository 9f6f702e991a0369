"""What a worker does not allow, or does not keep, and a test on one thread and one connection would.

What concerns transactions is in `autocommit.py`, what concerns variables in `watch.py`.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn
from unittest import mock

from django.db import DatabaseError, connections, transaction

_TEMPORARY_TABLE = re.compile(
    r"""\s*CREATE\s+(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:pg_temp\.|temp\.)?"""
    r"""(?P<name>"[^"]+"|`[^`]+`|\w+)""",
    re.IGNORECASE,
)
_DROP = {
    "postgresql": "DROP TABLE IF EXISTS pg_temp.{}",
    "sqlite": "DROP TABLE IF EXISTS temp.{}",
    "mysql": "DROP TEMPORARY TABLE IF EXISTS {}",
}


@contextmanager
def signals_refused() -> Iterator[None]:
    """Refuse `signal.signal()` as Python does in a worker, where runs are not executed by the main thread."""
    handle, pid = signal.signal, os.getpid()

    def refuse(*args: Any) -> Any:
        return _refuse() if os.getpid() == pid else handle(*args)

    with mock.patch.object(signal, "signal", refuse):
        yield


def _refuse() -> NoReturn:
    raise ValueError(
        "signal only works in main thread of the main interpreter, and a worker executes bodies and steps in other threads"
    )


@contextmanager
def temporary_tables_dropped() -> Iterator[None]:
    """Drop the temporary tables that are made in here: what follows has another connection in a worker."""
    made: list[tuple[str, str]] = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        result = execute(sql, params, many, context)
        if isinstance(sql, str) and (match := _TEMPORARY_TABLE.match(sql)):
            made.append((context["connection"].alias, match["name"]))
        return result

    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(note))
        yield
    for alias, name in made:
        _drop(alias, name)


def _drop(alias: str, name: str) -> None:
    connection: Any = connections[alias]
    statement = _DROP.get(connection.vendor)
    if statement is not None:
        with suppress(DatabaseError), transaction.atomic(using=alias), connection.cursor() as cursor:
            cursor.execute(statement.format(name))
