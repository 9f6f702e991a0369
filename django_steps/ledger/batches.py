"""Several passes' records and ends of runs with one commit.

What is locked by somebody or refused is left out, and is to be written on its own by `records` or `endings`, which wait
and explain. So one run can't hold up the others: not even a write that comes alone waits here, since others queue
behind it meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from . import bulk_records, database, records, transitions
from .postgresql import prepared
from .postgresql.prepared import Statement
from .records import StepWrite
from .transitions import Finish

Write = StepWrite | Finish


def identity(write: Write) -> Any:
    """What the answer of `write_many` calls a write."""
    return write.write_id if isinstance(write, StepWrite) else write.run_id


def write_many(connection: BaseDatabaseWrapper, writes: Sequence[Write]) -> set[Any]:
    """Write new records and ends of runs with one commit; the identities of those that are written."""
    if len(writes) == 1:
        return {identity(writes[0])} if _write_one(connection, writes[0]) else set()
    if connection.vendor == "postgresql":
        return _write_as_one_statement(connection, writes)
    if connection.vendor == "sqlite" and _write_by_kind(connection, writes):
        return {identity(write) for write in writes}
    with database.writing(connection):
        return {identity(write) for write in writes if _write_in_turn(connection, write)}


def _write_one(connection: BaseDatabaseWrapper, write: Write) -> bool:
    """By one statement, which is its own transaction."""
    if isinstance(write, StepWrite):
        return records.insert_unlocked(connection, write)
    if connection.vendor == "mysql":
        return False  # no UPDATE can leave out a locked row
    if connection.vendor == "postgresql":
        return bool(_write_as_one_statement(connection, [write]))
    return transitions.finish_waiting(connection, write)


def _write_in_turn(connection: BaseDatabaseWrapper, write: Write) -> bool:
    if isinstance(write, StepWrite):
        return records.insert_unlocked(connection, write)
    return transitions.finish_unlocked(connection, write)


def _write_by_kind(connection: BaseDatabaseWrapper, writes: Sequence[Write]) -> bool:
    """SQLite: all of them, which is the rule, by one call for each kind; or none."""
    steps, finishes = _by_kind(writes)
    with suppress(_Refused), database.writing(connection):
        written = bulk_records.insert_all(connection, steps) if steps else 0
        written += transitions.finish_all(connection, finishes) if finishes else 0
        if written < len(writes):
            raise _Refused
        return True
    return False


class _Refused(Exception):
    """One of several writes was refused, and nothing tells which."""


def _by_kind(writes: Sequence[Write]) -> tuple[list[StepWrite], list[Finish]]:
    return [w for w in writes if isinstance(w, StepWrite)], [w for w in writes if isinstance(w, Finish)]


def _write_as_one_statement(connection: BaseDatabaseWrapper, writes: Sequence[Write]) -> set[Any]:
    steps, finishes = _by_kind(writes)
    if not steps:
        return _fetch(connection, transitions.FINISHING, transitions.as_json(finishes))
    columns = records.columns_of(steps)
    rows = bulk_records.as_json(steps, columns)
    if not finishes:
        return _fetch(connection, bulk_records.insertion(columns), rows)
    return _fetch(connection, _insertion_and_finishing(columns), rows, transitions.as_json(finishes))


@cache
def _insertion_and_finishing(columns: tuple[str, ...]) -> Statement:
    """Both as one statement, which is one transaction and one answer."""
    return Statement(
        f"WITH inserted AS ({bulk_records.insertion(columns).text}), finished AS ({transitions.FINISHING.text})"
        " SELECT write_id, NULL::uuid FROM inserted UNION ALL SELECT NULL, id FROM finished",
        ["json", "json"],
    )


def _fetch(connection: BaseDatabaseWrapper, statement: Statement, *parameters: str) -> set[Any]:
    with connection.cursor() as cursor:
        prepared.execute(connection, cursor, statement, parameters)
        return {row[0] if row[0] is not None else row[1] for row in cursor.fetchall()}
