"""New records of several steps by one statement: what a batch of a worker writes, and what ends a map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import clock
from . import dialect, moves, records
from .postgresql import prepared
from .postgresql.prepared import Statement
from .records import StepWrite
from .tables import RUN, STEP

_AT_ONCE = 500


def insert_within(connection: BaseDatabaseWrapper, writes: Sequence[StepWrite]) -> None:
    """Write new records of a run that the transaction of the caller holds; names that are taken stay as they are."""
    for start in range(0, len(writes), _AT_ONCE):
        some = writes[start : start + _AT_ONCE]
        if connection.vendor == "postgresql":
            columns = records.columns_of(some)
            with connection.cursor() as cursor:
                prepared.execute(connection, cursor, insertion(columns), [as_json(some, columns)])
        elif connection.vendor == "sqlite":
            insert_all(connection, some)
        else:
            for write in some:
                records.insert(connection, write)


def insert_all(connection: BaseDatabaseWrapper, writes: Sequence[StepWrite]) -> int:
    """SQLite, whose client counts over all of them: write new records of several runs by one call; how many are written."""
    columns = records.columns_of(writes)
    statement = records.insertion_of_one(records.FENCE, "", False, columns)
    with connection.cursor() as cursor:
        cursor.executemany(statement.text, [records.fenced_parameters(connection, write, columns) for write in writes])
        return int(cursor.rowcount)


@cache
def insertion(columns: tuple[str, ...]) -> Statement:
    """PostgreSQL: new records of several runs, given as one JSON text, which costs it and us less than that many parameters.

    It returns the `write_id`s that it has written. Runs whose row is locked by somebody are left out, so that one of them
    can't hold up the others.
    """
    types = ", ".join(f"{column} {records.TYPES[column]}" for column in columns)
    return Statement(
        f"INSERT INTO {STEP} (run_id, {', '.join(columns)}) SELECT r.id, {', '.join(f'v.{column}' for column in columns)}"
        f" FROM json_to_recordset(%s) AS v (run_id uuid, {types})"
        f" JOIN {RUN} r ON {dialect.looked_up('r.id', 'v.run_id')} AND r.claim_token = v.claim_token AND {moves.goes_on('r.')}"
        f" WHERE {dialect.are_few('v.claim_token')}"
        " FOR SHARE OF r SKIP LOCKED ON CONFLICT DO NOTHING RETURNING write_id",
        ["json"],
    )


def as_json(writes: Sequence[StepWrite], columns: tuple[str, ...]) -> str:
    """The parameter of `insertion`."""
    # In the order of the ids, as every statement that locks several runs takes them.
    ordered = sorted(writes, key=lambda write: write.run_id)
    rows = [records.values_of(write, _iso) for write in ordered]
    return json.dumps(
        [
            {"run_id": write.run_id.hex, **{column: row[column] for column in columns}}
            for write, row in zip(ordered, rows, strict=True)
        ]
    )


def _iso(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    if not settings.USE_TZ:
        return clock.to_datetime(microseconds).isoformat()
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}+00:00"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """A second in UTC, as ISO 8601. What is recorded together is often of the same one."""
    return clock.to_datetime(seconds * 1_000_000).isoformat()[:19]
