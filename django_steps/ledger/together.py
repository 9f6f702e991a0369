"""Several passes' records and endings with one commit.

What is locked by somebody or refused is left out, and is to be written on its own by `records` or `endings`, which wait
and explain. So one run can't hold up the others: not even a write that comes alone waits here, since others queue
behind it meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from . import endings, records, sql
from .endings import Finish
from .records import StepWrite

Write = StepWrite | Finish


def identity(write: Write) -> Any:
    """What the answer of `write_many` calls a write."""
    return write.write_id if isinstance(write, StepWrite) else write.run_id


def write_many(connection: BaseDatabaseWrapper, writes: Sequence[Write]) -> set[Any]:
    """Write new records and endings with one commit; the identities of those that are written."""
    if len(writes) == 1:
        return {identity(writes[0])} if _write_alone(connection, writes[0]) else set()
    if connection.vendor == "postgresql":
        return _write_at_once(connection, writes)
    with sql.writing(connection):
        return {identity(write) for write in writes if _write(connection, write)}


def _write_alone(connection: BaseDatabaseWrapper, write: Write) -> bool:
    """By one statement, which is its own transaction."""
    if isinstance(write, StepWrite):
        return records.insert_unlocked(connection, write)
    if connection.vendor == "mysql":
        return False  # there is no UPDATE that passes over a locked row
    if connection.vendor == "postgresql":
        return bool(_write_at_once(connection, [write]))
    return endings.close(connection, write)


def _write(connection: BaseDatabaseWrapper, write: Write) -> bool:
    if isinstance(write, StepWrite):
        return records.insert_unlocked(connection, write)
    return endings.close_unlocked(connection, write)


def _write_at_once(connection: BaseDatabaseWrapper, writes: Sequence[Write]) -> set[Any]:
    steps = [write for write in writes if isinstance(write, StepWrite)]
    ends = [write for write in writes if isinstance(write, Finish)]
    statements = []
    if steps:
        statements.append(records.insertion(connection, steps))
    if ends:
        statements.append(endings.closing(connection, ends))
    if len(statements) > 1 and connection.features.uses_server_side_binding:  # type: ignore[attr-defined]
        with sql.writing(connection):
            return {key for statement in statements for key in _fetch(connection, [statement])}
    return _fetch(connection, statements)


def _fetch(connection: BaseDatabaseWrapper, statements: Sequence[tuple[str, list[Any]]]) -> set[Any]:
    """Send the statements in one message, which is one transaction, and collect what they return."""
    text = "; ".join(statement for statement, _ in statements)
    parameters = [value for _, values in statements for value in values]
    with connection.cursor() as cursor:
        cursor.execute(text, parameters)
        found = {row[0] for row in cursor.fetchall()}
        while cursor.nextset():
            found |= {row[0] for row in cursor.fetchall()}
    return found
