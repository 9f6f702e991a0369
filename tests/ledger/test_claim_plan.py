"""A claim costs the same whatever else is in the table: its plan, and the rows it looks at, among 300,000 others."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection, transaction

from django_steps import workflow
from django_steps.definitions import registered_kinds
from django_steps.ledger import claims, dialect, expiry, tables, timers
from django_steps.ledger.terms import Terms
from django_steps.models import WorkflowRun
from tests.plans import NUMBERS, analyze, analyzed, id_of, is_scan, plan_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)

ENDED, ASLEEP = 200_000, 100_000
# What a claim of 8 runs may look at: rows read by the server, or steps of SQLite's machine (about 20 a row).
MOST_ROWS, MOST_STEPS = 80, 5000


def fill() -> None:
    """Finished runs and sleeping ones that are far from due, in the middle of the ids of others."""
    yes = "TRUE" if connection.vendor != "sqlite" else "1"
    columns = (
        "id, workflow, version, queue, priority, status, phase, input, created_at, finished_at, available_at_us,"
        " attempts, recoveries, recovery_mark, generation, has_history, current_step, recovery_log"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} ({columns}) SELECT {id_of('n.n')}, 'claimed', '', 'default', n.n %% 7,"
            f" CASE WHEN n.n < {ENDED} THEN 'succeeded' ELSE 'sleeping' END, CASE WHEN n.n < {ENDED} THEN 2 ELSE 1 END, '{{}}',"
            " %s, %s,"
            f" CASE WHEN n.n < {ENDED} THEN 0 ELSE {dialect.now(connection)} + 3600000000 + n.n END,"
            f" 1, 0, 0, 0, {yes}, '', '' FROM {NUMBERS} WHERE n.n < {ENDED + ASLEEP}",
            [dialect.date_value(connection, time.time_ns() // 1000)] * 2,
        )


def test_claim_among_hundreds_of_thousands_uses_its_indexes_and_looks_at_few_rows(pass_time):
    body = workflow(name="claimed")(lambda: None)
    terms = Terms(worker_id=1, kinds=registered_kinds(), lease_us=30_000_000, max_recoveries=3)
    fill()
    body.start_many([None] * 2000)
    body.start_many([None] * 5, delay="1s")
    body.start_many([None] * 20, queue="bulk")
    analyze(tables.RUN)
    pass_time("2s")

    with rows_looked_at() as looked_at, recorded_statements() as statements:
        claimed = claims.claim(connection, terms, 8).runs
    assert len(claimed) == 8
    most = MOST_STEPS if connection.vendor == "sqlite" else MOST_ROWS
    assert 8 <= looked_at[0] <= most, "\n".join(analyzed(statement, params) for statement, params in statements)

    with recorded_statements() as more:
        claims.claim(connection, Terms(**{**_fields(terms), "queues": ["bulk"]}), 8)
        timers.next_due(connection)
        expiry.end_expired(connection)
    plans = {}
    with transaction.atomic():
        for statement, params in statements + more:
            if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE")):
                plans[statement] = plan_of(statement, params)
    for statement, plan in plans.items():
        assert not is_scan(plan), f"{statement}\n{plan}"
    used = " ".join(plans.values())
    for index in ("django_steps_ready", "django_steps_queue", "django_steps_timed", "django_steps_expiring"):
        assert index in used, used
    assert WorkflowRun.objects.filter(phase=WorkflowRun.Phase.ENDED).count() == ENDED


def _fields(terms: Terms) -> dict[str, Any]:
    return {name: getattr(terms, name) for name in terms.__dataclass_fields__}
