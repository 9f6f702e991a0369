"""What the database does for a statement: its plan, and how many rows it looks at, in tables that hold much else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from django_steps.ledger import tables

_DIGITS = "SELECT 0 AS d" + "".join(f" UNION ALL SELECT {d}" for d in range(1, 10))
_SUM = " + ".join(f"{10**i} * t{i}.d" for i in range(6))
# A table of the numbers below a million: `n.n`.
NUMBERS = f"(SELECT {_SUM} AS n FROM {', '.join(f'({_DIGITS}) t{i}' for i in range(6))}) n"


def id_of(number: str) -> str:
    """SQL for the id of a run that is a number."""
    return {
        "postgresql": f"lpad(to_hex({number}), 32, '0')::uuid",
        "sqlite": f"printf('%%032x', {number})",
        "mysql": f"LPAD(HEX({number}), 32, '0')",
    }[connection.vendor]


def analyze(*names: str) -> None:
    """Let the database know what is in tables, as it does by itself before long.

    On PostgreSQL the entries that earlier tests have left in the indexes go too: a claim that is the first to come by
    such a row reads it, once, and would count it here.
    """
    for name in names:
        with connection.cursor() as cursor:
            if connection.vendor == "mysql":
                cursor.execute(f"ANALYZE TABLE {name}")
                cursor.fetchall()
            elif connection.vendor == "postgresql":
                cursor.execute(f"VACUUM (ANALYZE, INDEX_CLEANUP ON) {name}")
            else:
                cursor.execute(f"ANALYZE {name}")


@contextmanager
def recorded_statements() -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent, with their parameters."""
    found: list[tuple[str, Any]] = []

    def record(execute: Any, statement: str, params: Any, many: bool, context: Any) -> Any:
        found.append((statement, params))
        return execute(statement, params, many, context)

    with connection.execute_wrapper(record):
        yield found


@contextmanager
def rows_looked_at() -> Iterator[list[int]]:
    """How much the database looked at in the block; the number is there after it."""
    found: list[int] = []
    if connection.vendor == "sqlite":
        steps = [0]

        def count() -> int:
            steps[0] += 10
            return 0

        connection.connection.set_progress_handler(count, 10)
        try:
            yield found
        finally:
            connection.connection.set_progress_handler(None, 10)
        found.append(steps[0])
        return
    before = _rows_read()
    yield found
    found.append(_rows_read() - before)


_OURS = [tables.RUN, tables.STEP, tables.EVENT, tables.SCHEDULE, tables.TAG]


def _rows_read() -> int:
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in cursor.fetchall())
        # Entries of indexes and rows of sequential scans that this session's statements have read.
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT (SELECT COALESCE(SUM(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname = ANY(%s))"
            " + (SELECT SUM(seq_tup_read) FROM pg_stat_user_tables WHERE relname = ANY(%s))",
            [_OURS, _OURS],
        )
        return int(cursor.fetchone()[0])


def plan_of(statement: str, params: Any) -> str:
    """The plan of a statement, as the database tells it."""
    explain = {"postgresql": "EXPLAIN (FORMAT JSON)", "sqlite": "EXPLAIN QUERY PLAN", "mysql": "EXPLAIN"}[
        connection.vendor
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {statement}", params)
        return json.dumps([list(map(str, row)) for row in cursor.fetchall()])


_SHORT = ["e", "r", "s", "c"]  # what the tables are called in statements


def is_scan(plan: str) -> bool:
    """Whether a plan reads one of the tables here from the beginning to the end."""
    if connection.vendor == "postgresql":
        return "Seq Scan" in plan
    if connection.vendor == "mysql":
        return any(row[3] == "ALL" and row[2] in _SHORT + _OURS and row[1] != "INSERT" for row in json.loads(plan))
    # Of a partial index all may be read.
    steps = [row[3] for row in json.loads(plan)]
    scanned = {step.split()[1] for step in steps if step.startswith("SCAN ") and " USING INDEX " not in step}
    return not scanned.isdisjoint(_SHORT + _OURS)


class _TakenBack(Exception):
    """Rolls back, and holds what was to be known."""


def analyzed(statement: str, params: Any) -> str:
    """The plan of a statement with what it looks at, to tell why that is too much; what it writes is taken back."""
    if connection.vendor != "postgresql" or not statement.lstrip().startswith(("SELECT", "WITH", "UPDATE")):
        return statement
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", params)
            raise _TakenBack("\n".join(row[0] for row in cursor.fetchall()))
    except _TakenBack as plan:
        return f"{statement}\n{plan}"
