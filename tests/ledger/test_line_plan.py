"""What limits cost where very many runs are in line: a claim nothing, a promotion the same as with few."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection

from django_steps import Limit, workflow
from django_steps.definitions import registered_kinds
from django_steps.ledger import circles, claims, dialect, lines, tables, timers
from django_steps.ledger.terms import Terms
from django_steps.models import WorkflowRun
from django_steps.worker.registration import write_limits
from tests.plans import NUMBERS, analyze, analyzed, id_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)

BLOCKED = 50_000
STEPS_PER_ROW = 30  # of SQLite's machine


def fill(name: str) -> None:
    """Runs in line, started before all others."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, phase, input, created_at, limit_1, line_key)"
            f" SELECT {id_of('n.n')}, 'blocked', {tables.IN_LINE}, '{{}}', %s, %s, %s FROM {NUMBERS} WHERE n.n < {BLOCKED}",
            [dialect.date_value(connection, time.time_ns() // 1000), f"u-{name}", name],
        )


def looked_at_by(function: Any) -> int:
    """How many rows the database looks at, and what for if it is many."""
    with rows_looked_at() as looked_at, recorded_statements() as statements:
        function()
    rows = looked_at[0] // STEPS_PER_ROW if connection.vendor == "sqlite" else looked_at[0]
    asked = [s for s in statements if s[0].lstrip().startswith(("SELECT", "WITH", "UPDATE"))]
    assert rows < 200, f"{rows}\n" + "\n".join(analyzed(*statement) for statement in asked)
    return rows


@pytest.fixture
def terms() -> Terms:
    workflow(name="blocked", limit=Limit(at_once=1, hold="unfinished"))(lambda: None)
    workflow(name="free")(lambda: None)
    write_limits(connection)
    return Terms(worker_id=1, kinds=registered_kinds(), lease_us=30_000_000, max_recoveries=3)


def test_fifty_thousand_blocked_runs_cost_a_look_for_circles_nothing(terms: Terms) -> None:
    from django_steps import get_workflow

    get_workflow("blocked").start()  # takes the slot
    fill("1:#blocked")
    analyze(tables.RUN)
    looked_at_by(lambda: circles.find(connection))


def test_fifty_thousand_blocked_runs_cost_a_claim_nothing(terms: Terms) -> None:
    from django_steps import get_workflow

    free = get_workflow("free")
    free.start_many([None] * 2_000)  # with few, a scan of the table is the better plan
    analyze(tables.RUN)
    claims.claim(connection, terms, 8)
    before = looked_at_by(lambda: claims.claim(connection, terms, 8))
    fill("1:#blocked")
    analyze(tables.RUN)
    claims.claim(connection, terms, 8)
    after = looked_at_by(lambda: claims.claim(connection, terms, 8))
    assert after <= before + 8


def test_promoting_one_of_fifty_thousand_looks_at_few(terms: Terms) -> None:
    fill("1:#blocked")
    lines.promote(connection, ["1:#blocked"])
    analyze(tables.RUN)
    assert WorkflowRun.objects.filter(phase=tables.READY).count() == 1
    looked_at_by(lambda: lines.promote(connection, ["1:#blocked"]))  # there is no room
    (claim,) = claims.claim(connection, terms, 8).runs
    WorkflowRun.objects.filter(pk=claim.run_id).cancel()
    WorkflowRun.objects.filter(pk=claim.run_id).update(slot_1=None)
    looked_at_by(lambda: lines.promote(connection, ["1:#blocked"]))
    assert WorkflowRun.objects.filter(phase=tables.READY).count() == 1


def test_looking_for_lines_reads_an_entry_of_each_however_long_they_are(terms: Terms) -> None:
    fill("1:#blocked")
    WorkflowRun.objects.filter(pk__in=list(WorkflowRun.objects.values_list("pk", flat=True)[:2])).update(
        line_key="1:a#blocked"
    )
    analyze(tables.RUN)
    found: list[str] = []
    looked_at_by(lambda: found.extend(lines.after(connection, "")))
    assert found == ["1:#blocked", "1:a#blocked"]
    assert lines.after(connection, "1:#blocked") == ["1:a#blocked"]
    assert lines.after(connection, "1:a#blocked") == []
    looked_at_by(lambda: timers.next_due(connection))
    assert timers.next_due(connection).lines == lines.LOOK_EACH_US
