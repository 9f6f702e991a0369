"""What monitoring asks for costs the same whatever has ended: plans, and the rows that are looked at."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from django_steps import Limit, workflow
from django_steps.ledger import database, dialect, tables
from django_steps.monitoring import health, metrics
from tests.plans import NUMBERS, analyze, analyzed, id_of, is_scan, plan_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)

ENDED = 100_000
# A handful of runs, over each of which several statements go; SQLite's machine makes about 20 steps for a row.
MOST_ROWS, MOST_STEPS = 500, 15_000


def fill() -> None:
    """Runs that ended an hour ago, of workflows and queues that others use, too."""
    an_hour_ago = dialect.date_value(connection, database.read_clock(connection) - 3600 * 1_000_000)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, queue, status, phase, input, created_at, finished_at)"
            f" SELECT {id_of('n.n')}, 'monitored', 'default', CASE WHEN n.n %% 9 = 0 THEN 'failed' ELSE 'succeeded' END, 2,"
            f" '{{}}', %s, %s FROM {NUMBERS} WHERE n.n < {ENDED}",
            [an_hour_ago, an_hour_ago],
        )


def test_finished_runs_cost_nothing(work, pass_time, live_worker):
    body = workflow(name="monitored", limit=Limit(at_once=2, hold="unfinished"))(lambda step: step.sleep("wait", "1h"))
    fill()
    work()
    body.start_many([None] * 5)
    work()
    body.start_many([None] * 5, queue="bulk")
    body.start_many([None] * 5, delay="1s")
    analyze(tables.RUN, tables.SCHEDULE, tables.LIMIT)
    pass_time("2m")
    live_worker()

    with rows_looked_at() as looked_at, recorded_statements() as statements:
        found = metrics.text(metrics.collect(connection))
        problems = health.problems(connection)
    assert 'django_steps_runs{workflow="monitored",status="sleeping"} 2' in found
    assert problems
    asked = [
        (statement, params) for statement, params in statements if statement.lstrip().startswith(("SELECT", "WITH"))
    ]
    most = MOST_STEPS if connection.vendor == "sqlite" else MOST_ROWS
    told = "\n".join(analyzed(*statement) for statement in asked)
    assert 10 <= looked_at[0] <= most, f"{looked_at[0]}\n{told}"
    with transaction.atomic():
        for statement, params in asked:
            if tables.RUN in statement and tables.LIMIT not in statement:  # PostgreSQL reads through the few limits
                plan = plan_of(statement, params)
                assert not is_scan(plan), f"{statement}\n{plan}"
