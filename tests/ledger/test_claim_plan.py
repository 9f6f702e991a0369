"""A claim costs the same whatever else is in the table: its plan, and the rows it looks at, among 300,000 others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from django_steps import workflow
from django_steps.definitions import registered_kinds
from django_steps.ledger import claims, dialect, tables, timers
from django_steps.ledger.terms import Terms
from django_steps.models import WorkflowRun

pytestmark = pytest.mark.django_db(transaction=True)

ENDED, ASLEEP = 200_000, 100_000
# What a claim of 8 runs may look at: rows read by the server, or steps of SQLite's machine (about 20 a row).
MOST_ROWS, MOST_STEPS = 80, 5000

_DIGITS = "SELECT 0 AS d" + "".join(f" UNION ALL SELECT {d}" for d in range(1, 10))
_NUMBERS = " + ".join(f"{10**i} * t{i}.d" for i in range(6))
_TABLES = ", ".join(f"({_DIGITS}) t{i}" for i in range(6))


def fill() -> None:
    """Finished runs and sleeping ones that are far from due, in the middle of the ids of others."""
    make_id = {
        "postgresql": "lpad(to_hex(n.n), 32, '0')::uuid",
        "sqlite": "printf('%%032x', n.n)",
        "mysql": "LPAD(HEX(n.n), 32, '0')",
    }[connection.vendor]
    yes = "TRUE" if connection.vendor != "sqlite" else "1"
    columns = (
        "id, workflow, version, queue, priority, status, phase, input, created_at, finished_at, available_at_us,"
        " attempts, recoveries, recovery_mark, generation, has_history, current_step, recovery_log"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} ({columns}) SELECT {make_id}, 'claimed', '', 'default', n.n %% 7,"
            f" CASE WHEN n.n < {ENDED} THEN 'succeeded' ELSE 'sleeping' END, CASE WHEN n.n < {ENDED} THEN 2 ELSE 1 END, '{{}}',"
            " %s, %s,"
            f" CASE WHEN n.n < {ENDED} THEN 0 ELSE {dialect.now(connection)} + 3600000000 + n.n END,"
            f" 1, 0, 0, 0, {yes}, '', '' FROM (SELECT {_NUMBERS} AS n FROM {_TABLES}) n WHERE n.n < {ENDED + ASLEEP}",
            [dialect.date_value(connection, time.time_ns() // 1000)] * 2,
        )


def analyze() -> None:
    """Let the database know what is in the table, as it does by itself before long."""
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"ANALYZE TABLE {tables.RUN}")
            cursor.fetchall()
        else:
            cursor.execute(f"ANALYZE {tables.RUN}")


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


def _rows_read() -> int:
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in cursor.fetchall())
        # Entries of indexes and rows of sequential scans that this session's statements have read.
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT (SELECT COALESCE(SUM(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname = %s)"
            " + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = %s)",
            [tables.RUN, tables.RUN],
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


SCANS = {"postgresql": "Seq Scan", "sqlite": f"SCAN {tables.RUN}", "mysql": '"ALL"'}


def test_claim_among_hundreds_of_thousands_uses_its_indexes_and_looks_at_few_rows(pass_time):
    body = workflow(name="claimed")(lambda: None)
    terms = Terms(worker_id=1, kinds=registered_kinds(), lease_us=30_000_000, max_recoveries=3)
    fill()
    body.start_many([None] * 2000)
    body.start_many([None] * 5, delay="1s")
    body.start_many([None] * 20, queue="bulk")
    analyze()
    pass_time("2s")

    with rows_looked_at() as looked_at, recorded_statements() as statements:
        claimed = claims.claim(connection, terms, 8).runs
    assert len(claimed) == 8
    assert 8 <= looked_at[0] <= (MOST_STEPS if connection.vendor == "sqlite" else MOST_ROWS)

    with recorded_statements() as more:
        claims.claim(connection, Terms(**{**_fields(terms), "queues": ["bulk"]}), 8)
        timers.next_due(connection)
    plans = {}
    with transaction.atomic():
        for statement, params in statements + more:
            if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE")):
                plans[statement] = plan_of(statement, params)
    for statement, plan in plans.items():
        assert SCANS[connection.vendor] not in plan, f"{statement}\n{plan}"
    used = " ".join(plans.values())
    for index in ("django_steps_ready", "django_steps_queue", "django_steps_timed"):
        assert index in used, used
    assert WorkflowRun.objects.filter(phase=WorkflowRun.Phase.ENDED).count() == ENDED


def _fields(terms: Terms) -> dict[str, Any]:
    return {name: getattr(terms, name) for name in terms.__dataclass_fields__}
