"""Finding runs by a tag walks over no runs that don't have it, however many there are."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from django_steps import workflow
from django_steps.ledger import dialect, tables
from django_steps.models import WorkflowRun
from tests.plans import NUMBERS, analyze, id_of, is_scan, plan_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)

OLD = 30_000 if connection.vendor == "postgresql" else 6_000
STEPS_PER_ROW = 30  # SQLite's machine makes about 20 for a row that is looked at


@pytest.fixture
def much_else() -> None:
    """Runs that ended, each with a tag of its own, and one that all of them have."""
    text = {"postgresql": "n.n::text", "mysql": "CAST(n.n AS CHAR)", "sqlite": "CAST(n.n AS TEXT)"}[connection.vendor]
    moment = dialect.date_value(connection, time.time_ns() // 1000 - 30 * 24 * 3600 * 1_000_000)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, status, phase, input, created_at, finished_at)"
            f" SELECT {id_of('n.n')}, 'tags_old', 'succeeded', 2, '{{}}', %s, %s FROM {NUMBERS} WHERE n.n < {OLD}",
            [moment, moment],
        )
        for name, value in (("customer", text), ("kind", "'old'")):
            cursor.execute(
                f"INSERT INTO {tables.TAG} (run_id, name, value) SELECT {id_of('n.n')}, '{name}', {value}"
                f" FROM {NUMBERS} WHERE n.n < {OLD}",
                [],
            )
    analyze(tables.RUN, tables.TAG)


def price(find: Any) -> int:
    with rows_looked_at() as looked_at:
        find()
    return looked_at[0] // (STEPS_PER_ROW if connection.vendor == "sqlite" else 1)


def start_some() -> None:
    @workflow(name="tags_few")
    def few(step):
        return None

    few.start_many([None] * 5, tags={"customer": "acme", "kind": "new"})


def test_runs_of_a_rare_tag_are_found_by_an_index(much_else):
    start_some()
    found = WorkflowRun.objects.tagged(customer="acme").order_by("-pk")
    with recorded_statements() as sent:
        assert len(found[:50]) == 5
    assert not is_scan(plan_of(*sent[-1]))
    assert price(lambda: list(found.all()[:50])) < 200
    both = WorkflowRun.objects.tagged(customer="acme", kind="new").filter(workflow="tags_few").order_by("-pk")
    assert price(lambda: list(both[:50])) < 200


def test_list_of_the_admin_asks_as_much_for_many_as_for_few(much_else):
    start_some()
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    address = reverse("admin:django_steps_workflowrun_changelist")

    def queries(**parameters: str) -> int:
        with recorded_statements() as sent:
            assert root.get(address, parameters).status_code == 200
        return len(sent)

    queries()
    one, many = queries(tag="customer=17"), queries(tag="kind=old")
    assert one == many <= queries()
    # The price of counting up to the limit of the list, and no more.
    asked = WorkflowRun.objects.tagged(customer="acme").order_by("-pk")
    assert price(lambda: asked.values("pk")[:10_001].count()) < 200
