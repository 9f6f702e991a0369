"""What a run in line waits for, as people read it: in lists, on its page, in the overview."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.urls import reverse

from django_steps.ledger import reports
from django_steps.ledger.limits import Standing
from django_steps.models import WorkflowRun
from django_steps.presentation import limits
from django_steps.worker.registration import write_limits
from tests.app.workflows import customer, paced, pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def blocked() -> tuple[WorkflowRun, WorkflowRun]:
    """A run that holds a slot, and the one that waits for it."""
    write_limits(connection)
    first, second = (customer.start({"customer": 7}) for _ in range(2))
    second.refresh_from_db()
    return first, second


def shown(*arguments: str) -> str:
    out = StringIO()
    call_command("showworkflows", *arguments, stdout=out)
    return out.getvalue()


def test_the_list_says_what_a_run_waits_for(blocked: Any) -> None:
    assert "waits for a slot of “customer 7”" in shown()


def test_a_run_says_who_has_the_slot(blocked: Any) -> None:
    first, second = blocked
    said = shown(str(second.pk))
    assert f"a slot of “customer 7”: 1 of 1, taken by {first.pk}" in said
    assert "customer 7" in shown(str(first.pk))


def test_json_has_the_limits_of_a_run(blocked: Any) -> None:
    first, second = (json.loads(shown(str(run.pk), "--json")) for run in blocked)
    assert (first["limits"], first["waits_for_limit"]) == (["customer 7"], None)
    assert (second["limits"], second["waits_for_limit"]) == (["customer 7"], "customer 7")


def test_the_page_of_a_run_links_who_has_the_slot(blocked: Any, admin_client: Any) -> None:
    first, second = blocked
    page = admin_client.get(reverse("admin:django_steps_workflowrun_change", args=[second.pk])).content.decode()
    assert "a slot of “customer 7”: 1 of 1" in page
    assert reverse("admin:django_steps_workflowrun_change", args=[first.pk]) in page


def test_the_list_in_the_admin_says_it(blocked: Any, admin_client: Any) -> None:
    page = admin_client.get(reverse("admin:django_steps_workflowrun_changelist")).content.decode()
    assert "waits for a slot of “customer 7”" in page


def test_the_overview_has_a_table_of_limits(blocked: Any, admin_client: Any) -> None:
    pair.start_many([None] * 3)
    paced.start_many([None] * 30)
    page = admin_client.get(reverse("admin:django_steps_workflowrun_overview")).content.decode()
    assert "Runs in line" in page
    for text in ("customer 7", "1 of 1", "pair", "2 of 2", "paced", "1200 a minute"):
        assert text in page


def test_runs_in_line_count_as_pending(blocked: Any) -> None:
    assert reports.count_by_status(connection, 100)["pending"] == 2


@pytest.mark.parametrize(
    "interval, said",
    [(600_000, "100 a minute"), (200_000, "300 a minute"), (142_858, "420.0 a minute"), (86_400_000_000, "1 a day")],
)
def test_rates_are_said_by_the_minute_or_by_the_day(interval: int, said: str) -> None:
    assert limits.rate(Standing("q:#mail", None, interval, 0)) == said


def test_a_limit_that_is_but_a_rate_has_no_slots() -> None:
    write_limits(connection)
    run = [paced.start() for _ in range(30)][-1]
    run.refresh_from_db()
    standing = limits.standing_of(run)
    assert standing is not None and limits.line(standing) == "a slot of “paced”: 1200 a minute"
