"""What asks for failures by kind looks at few rows, among 200,000 runs that have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from django_steps.ledger import dialect, reports, tables
from django_steps.models import WorkflowRun
from django_steps.models.failing import at_step, with_error
from tests.plans import NUMBERS, analyze, analyzed, id_of, is_scan, plan_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)

ENDED, FAILED, RARE = 200_000, 40_000, 480
STEPS_PER_ROW = 45  # of SQLite's machine
_FIRST = 1_700_000_000_000_000


def fill() -> None:
    """Each fifth has failed; some of them, long ago, by an error of their own."""
    error = (
        f"CASE WHEN n.n %% 5 THEN '' WHEN n.n < {RARE * 5} THEN 'shop.CardDeclined'"
        " WHEN n.n %% 15 = 0 THEN 'a.Timeout' ELSE 'b.Timeout' END"
    )
    step = f"CASE WHEN n.n %% 5 THEN '' WHEN n.n < {RARE * 5} THEN 'order/charge' ELSE 'fetch' END"
    if connection.vendor == "postgresql":
        error, step = (text.replace("n.n %% 5 THEN", "n.n %% 5 > 0 THEN") for text in (error, step))
    second = {
        "postgresql": "%s::timestamptz + n.n * interval '1 second'",
        "mysql": "DATE_ADD(%s, INTERVAL n.n SECOND)",
        "sqlite": "datetime(%s, '+' || n.n || ' seconds')",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, status, phase, input, created_at, finished_at, error, error_type,"
            f" failed_step) SELECT {id_of('n.n')}, 'planned', CASE WHEN n.n %% 5 = 0 THEN 'failed' ELSE 'succeeded' END, 2,"
            f" '{{}}', %s, {second}, CASE WHEN n.n %% 5 = 0 THEN '{{}}' END, {error}, {step}"
            f" FROM {NUMBERS} WHERE n.n < {ENDED}",
            [dialect.date_value(connection, _FIRST)] * 2,
        )
    analyze(tables.RUN)


@pytest.fixture
def costs(transactional_db: None) -> Callable[..., Any]:
    """Call something, and see that it looks at so many rows at most, and through indexes: `costs(rows, function)`."""
    fill()

    def check(most: int, function: Callable[[], Any]) -> Any:
        with rows_looked_at() as looked_at, recorded_statements() as statements:
            found = function()
        limit = most * STEPS_PER_ROW if connection.vendor == "sqlite" else most
        told = "\n".join(analyzed(*statement) for statement in statements)
        assert looked_at[0] <= limit, f"{looked_at[0]}\n{told}"
        with transaction.atomic():
            plans = [(text, plan_of(text, given)) for text, given in statements if text.startswith(("SELECT", "WITH"))]
        assert plans
        for text, plan in plans:
            assert not is_scan(plan), f"{text}\n{plan}"
        return found

    return check


def test_failures_by_kind_are_found_through_indexes(costs):
    kinds = costs(4 * 1000, lambda: reports.failure_kinds(connection, newest=1000))
    assert [(kind.error_type, kind.runs) for kind in kinds] == [("b.Timeout", 666), ("a.Timeout", 334)]

    types = costs(30, lambda: reports.error_types(connection))
    assert types == ["a.Timeout", "b.Timeout", "shop.CardDeclined"]

    failed = WorkflowRun.objects.filter(status="failed", finished_at__isnull=False, workflow="planned")
    chosen = at_step(with_error(failed, "CardDeclined"), "order/charge")
    assert costs(4 * RARE, chosen.count) == RARE
    page = chosen.order_by("-finished_at", "-pk").only("pk")[:50]
    assert len(costs(4 * RARE, lambda: list(page))) == 50
    assert costs(4 * RARE, with_error(failed, "shop.CardDeclined").count) == RARE
    batch = chosen.filter(pk__gt=WorkflowRun.objects.order_by("pk").values_list("pk", flat=True)[0]).order_by("pk")
    assert len(costs(4 * RARE, lambda: list(batch.values_list("pk", flat=True)[:200]))) == 200
    assert not with_error(failed, "Nobody").exists()
