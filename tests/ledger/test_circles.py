"""Limits that wait for each other: they are found, said where people look, and gone once one does what is said."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.urls import reverse

from django_steps import Limit, Workflow, get_workflow, workflow
from django_steps.ledger import circles
from django_steps.models import WorkflowRun
from django_steps.monitoring import health

pytestmark = pytest.mark.django_db(transaction=True)

CROSSED = ("1:#circle_left", "1:#circle_right")


def one_at_a_time() -> Limit[Any]:
    return Limit(at_once=1, hold="unfinished")


def invoking(name: str, other: str, limit: Limit[Any] | None, **options: Any) -> Workflow[Any, Any]:
    @workflow(name=name, limit=limit)
    def body(input: Any, step: Any) -> None:
        if input != "leaf":
            step.invoke("other", get_workflow(other), **options).run("leaf")

    return body


left = invoking("circle_left", "circle_right", one_at_a_time())
right = invoking("circle_right", "circle_left", one_at_a_time())
around = invoking("circle_around", "circle_left", one_at_a_time())
itself = invoking("circle_itself", "circle_itself", one_at_a_time())
spread = invoking("circle_spread", "circle_spread", Limit(at_once=1, hold="unfinished", rate="1/h"))
patient = invoking("circle_patient", "circle_impatient", one_at_a_time())
impatient = invoking("circle_impatient", "circle_patient", one_at_a_time(), timeout="1h")
wide = invoking("circle_wide", "circle_narrow", Limit(at_once=2, hold="unfinished"))
narrow = invoking("circle_narrow", "circle_wide", one_at_a_time())


def crossed(work: Any, *workflows: Workflow[Any, Any]) -> list[WorkflowRun]:
    """Runs that have begun and invoked what they do, each before any child begins."""
    runs = [body.start("root") for body in workflows]
    work(concurrency=1)
    return runs


def child_of(run: WorkflowRun) -> WorkflowRun:
    return WorkflowRun.objects.get(parent=run)


def shown(run: WorkflowRun) -> str:
    out = StringIO()
    call_command("showworkflows", str(run.pk), stdout=out)
    return " ".join(out.getvalue().split())


@pytest.fixture
def circle(work: Any) -> list[WorkflowRun]:
    return crossed(work, left, right)


def test_two_workflows_that_invoke_each_other_are_a_circle(circle: list[WorkflowRun]) -> None:
    found = circles.Circle(CROSSED, tuple(run.pk for run in circle))
    assert circles.find(connection) == [found]
    assert [circles.of_limit(connection, name) for name in CROSSED] == [found] * 2


def test_the_health_check_says_what_to_do_and_that_helps(
    circle: list[WorkflowRun], work: Any, live_worker: Any
) -> None:
    live_worker()
    (problem,) = [line for line in health.problems(connection) if "each other" in line]
    assert "“circle_left” → “circle_right” → “circle_left”" in problem
    assert f"Cancel {circle[0].pk} or {circle[1].pk}, or let more runs go on" in problem
    circle[0].cancel()
    work()
    assert not [line for line in health.problems(connection) if "each other" in line]
    assert WorkflowRun.objects.get(pk=circle[1].pk).status == "succeeded"


def test_the_pages_of_runs_in_line_name_the_circle(circle: list[WorkflowRun], admin_client: Any) -> None:
    for run in map(child_of, circle):
        url = reverse("admin:django_steps_workflowrun_change", args=[run.pk])
        for said in (shown(run), admin_client.get(url).content.decode()):
            assert "“circle_left” → “circle_right” → “circle_left”" in said
    assert "each other" not in shown(circle[0])


def test_a_limit_that_waits_for_a_circle_is_not_in_it(work: Any) -> None:
    *_, outside = crossed(work, left, right, around)
    assert [found.names for found in circles.find(connection)] == [CROSSED]
    assert circles.of_limit(connection, "1:#circle_around") is not None
    assert "“circle_left” → “circle_right” → “circle_left”" in shown(child_of(outside))


def test_a_workflow_that_invokes_itself_is_no_circle(work: Any) -> None:
    (run,) = crossed(work, itself)
    assert WorkflowRun.objects.get(pk=run.pk).status == "succeeded"
    assert circles.find(connection) == []


def test_what_waits_for_its_rate_only_is_no_circle(work: Any) -> None:
    (run,) = crossed(work, spread)
    assert child_of(run).line_key == "1:#circle_spread"
    assert circles.find(connection) == []


def test_a_wait_that_is_over_by_its_time_is_no_circle(work: Any) -> None:
    crossed(work, patient, impatient)
    assert WorkflowRun.objects.filter(line_key__isnull=False).count() == 2
    assert circles.find(connection) == []


def test_a_slot_whose_holder_goes_on_is_no_circle(work: Any) -> None:
    first, second, third = crossed(work, wide, wide, narrow)
    assert [found.names for found in circles.find(connection)] == [("1:#circle_narrow", "1:#circle_wide")]
    child = child_of(second)
    child.pause()  # it will be resumed: its parent goes on then
    assert circles.find(connection) == []
    child.resume()
    assert len(circles.find(connection)) == 1
    assert {first.pk, third.pk} == {*circles.find(connection)[0].holders}


@pytest.mark.parametrize("bound", ["MOST_LIMITS", "MOST_HOLDERS", "MOST_RUNS"])
def test_beyond_its_bounds_nothing_is_said(circle: list[WorkflowRun], bound: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(circles, "MOST_LINES", 1)
    assert len(circles.find(connection)) == 1
    monkeypatch.setattr(circles, bound, {"MOST_LIMITS": 1, "MOST_HOLDERS": 0, "MOST_RUNS": 3}[bound])
    assert circles.find(connection) == []


def test_where_no_run_is_in_line_one_statement_is_asked(work: Any, django_assert_num_queries: Any) -> None:
    crossed(work, itself)
    with django_assert_num_queries(1):
        assert circles.find(connection) == []


def test_runs_in_line_behind_one_that_is_ready_cost_little(work: Any, django_assert_num_queries: Any) -> None:
    work()  # which writes the limits
    left.start_many(["leaf"] * 50)
    with django_assert_num_queries(4):  # the lines, the limits of these, who holds their slots
        assert circles.find(connection) == []
