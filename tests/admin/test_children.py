"""Child runs on the page of a run: how they stand, whose child a run is, and what it goes on as. However many there are."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest

from django_steps.core.ids import uuid7
from django_steps.models import WorkflowRun

from .conftest import START, add_step, error_of, make_child, make_run, url, waiting_run


@pytest.fixture
def show(root):
    """The context of the page of a run: `show(run, **parameters)`."""
    return lambda run, **parameters: root.get(url("change", run.pk), parameters).context


def summary_of(context):
    return {str(label): str(value) for label, value in context["summary"]}


def add_invoke(run, name, status="waiting", child=None, **columns):
    """The record of an invoke, with the child that it started."""
    said = {"child": child.pk.hex} if child is not None else {}
    if status == "waiting":
        columns = {"finished_at": None, **columns}
    return add_step(run, name, status, kind="invoke", context_text=json.dumps(said), **columns)


def many_children(parent, count, *, failed=(), running=(), step="page"):
    """Children of a map, in bulk."""

    def child(number):
        status = "failed" if number in failed else "running" if number in running else "succeeded"
        is_open = status == "running"
        return WorkflowRun(
            id=uuid7(),
            workflow="scrape",
            status=status,
            phase=1 if is_open else 2,
            input_text="null",
            error_text=error_of(ValueError(number)) if number in failed else None,
            created_at=START,
            started_at=START,
            finished_at=None if is_open else START + timedelta(seconds=1),
            parent=parent,
            parent_step=step,
            parent_item=f"{step}#{number}",
            open_parent_id=parent.pk if is_open else None,
        )

    WorkflowRun.objects.bulk_create([child(number) for number in range(count)], batch_size=500)


# -- The children of a run ---------------------------------------------------------------------------


def test_page_of_a_parent_shows_its_children_by_status_with_the_lists_of_them(root, show):
    parent = waiting_run()
    error = error_of(ValueError("card declined"), "charge")
    failed = make_child(parent, "failed", step="page", item="page#2", error_text=error)
    make_child(parent, step="page", item="page#1")
    make_child(parent, step="page", item="page#0")
    running = make_child(parent, "running", current_step="print", key="receipt-7")
    context = show(parent)
    section = context["children"]
    assert [count.number for count in section.counts] == ["1", "1", "2"]
    assert (section.total, section.is_cut) == ("4", False)
    assert [row.step for row in section.rows] == ["page#2", "receipt", "page#1", "page#0"]
    first, second = section.rows[:2]
    assert (first.url, first.error) == (url("change", failed.pk), "ValueError: card declined")
    assert (second.url, second.name, second.now) == (url("change", running.pk), "receipt-7", "now: print")
    assert [run.pk for run in root.get(section.counts[0].url).context["cl"].result_list] == [failed.pk]
    assert len(root.get(section.url).context["cl"].result_list) == 4
    assert context["where"] == "waits for 1 child run"


def test_children_of_one_step_are_shown_alone(show):
    parent = make_run()
    make_child(parent, step="page", item="page#1")
    make_child(parent, step="receipt")
    section = show(parent, of="receipt")["children"]
    assert [row.step for row in section.rows] == ["receipt"]
    assert (section.of, section.total) == ("receipt", "2")
    assert show(parent, of="gone")["children"].rows == []
    assert show(parent, of="\0")["children"].rows


def test_what_was_replaced_counts_no_more_and_stays_linked(root, show):
    parent = make_run()
    make_child(parent, "failed", item=None)
    make_child(parent)
    section = show(parent)["children"]
    assert section.total == "1"
    assert [row.is_replaced for row in section.rows] == [False, True]
    assert "replaced by another run" in root.get(url("change", parent.pk)).content.decode()
    only = make_run()
    make_child(only, "failed", item=None)
    assert show(only)["children"].counts == []


def test_children_that_have_all_succeeded_are_folded_unless_they_are_few(show):
    many, few = make_run(), make_run()
    many_children(many, 6)
    many_children(few, 5)
    assert not show(many)["children"].is_open
    assert show(many, of="page")["children"].is_open and show(few)["children"].is_open


def test_run_without_children_has_no_section(root, show):
    run = make_run()
    assert show(run)["children"] is None
    assert "steps-children" not in root.get(url("change", run.pk)).content.decode()


@pytest.mark.any_database
def test_ten_thousand_children_make_a_page_of_bounded_size_in_bounded_time(root, show):
    parent = waiting_run()
    add_step(parent, "page", "waiting", kind="map", context_text='{"children": 10000}', finished_at=None)
    many_children(parent, 10_000, failed={9_990, 9_991}, running={5})
    began = time.process_time()
    response = root.get(url("change", parent.pk))
    assert time.process_time() - began < 5
    assert len(response.content) < 200_000
    section = response.context["children"]
    assert (section.shown, section.is_cut, section.is_open, section.total) == (20, True, True, "10,000")
    assert [row.step for row in section.rows][:3] == ["page#9990", "page#9991", "page#5"]
    (row,) = response.context["steps"]
    assert row.fold.counts == "9,997 succeeded, 2 failed, 1 running of 10,000"
    assert response.context["where"] == "waits for 1 child run"


def test_number_of_queries_does_not_depend_on_the_number_of_children(root, django_assert_max_num_queries):
    counts = []
    for children in (0, 1, 30):
        parent = make_run()
        many_children(parent, children)
        with django_assert_max_num_queries(30) as queries:
            root.get(url("change", parent.pk))
        counts.append(len(queries))
    assert counts[0] + 1 == counts[1] == counts[2]


def test_children_that_somebody_may_not_see_have_no_row(root, show, monkeypatch):
    from django_steps.admin import WorkflowRunAdmin

    parent = make_run()
    make_child(parent, key="secret-7")
    make_child(parent, item="x", key="open-7")
    allowed = WorkflowRunAdmin.has_view_permission
    monkeypatch.setattr(
        WorkflowRunAdmin,
        "has_view_permission",
        lambda self, request, obj=None: allowed(self, request, obj) and getattr(obj, "key", None) != "secret-7",
    )
    assert [row.name for row in show(parent)["children"].rows] == ["open-7"]


# -- In the table of steps, and in the timeline ------------------------------------------------------


def test_row_of_an_invoke_leads_to_the_child(show):
    parent = waiting_run()
    child = make_child(parent, "running")
    add_invoke(parent, "receipt", child=child)
    add_invoke(parent, "old", "succeeded", result=7)
    invoke, old = show(parent)["steps"]
    assert (invoke.child_url, invoke.child) == (url("change", child.pk), f"…{str(child.pk)[-12:]}")
    assert ">waiting<" in invoke.status and invoke.attempts == ""
    assert old.child_url == ""


def test_row_of_an_invoke_says_until_when(show):
    parent = waiting_run()
    due = int((START + timedelta(hours=1)).timestamp()) * 1_000_000
    add_step(
        parent, "receipt", "waiting", kind="invoke", context_text=json.dumps({"deadline_us": due}), finished_at=None
    )
    context = show(parent)
    assert context["steps"][0].until == "until 2026-03-01 04:00:00"
    assert context["where"] == "waits for child runs until 2026-03-01 04:00:00"


def test_map_of_children_says_how_they_stand_and_leads_to_them(root, show):
    parent = waiting_run()
    add_step(parent, "page", "waiting", kind="map", context_text='{"children": 4}', finished_at=None)
    for number, status in enumerate(("succeeded", "failed", "running")):
        make_child(parent, status, step="page", item=f"page#{number}")
    (row,) = show(parent)["steps"]
    assert row.fold.counts == "1 succeeded, 1 failed, 1 running of 4"
    assert row.fold.links == [("show", "?of=page#steps-children-title")]
    assert ">waiting<" in row.status
    row = show(parent)["timeline"].rows[0]
    assert [bar.kind for bar in row.bars] == ["wait"]
    assert row.note.startswith("4 child runs, ")


def test_map_whose_children_are_not_there_yet_says_how_many_there_will_be(show):
    parent = waiting_run()
    add_step(parent, "page", "waiting", kind="map", context_text='{"children": 4}', finished_at=None)
    (row,) = show(parent)["steps"]
    assert row.fold.counts == "4 child runs"


@pytest.mark.parametrize("child", [None, "x", 7, ["a"]])
def test_a_damaged_invoke_is_shown(root, child):
    parent = make_run()
    add_step(parent, "receipt", kind="invoke", context_text=json.dumps({"child": child}))
    assert root.get(url("change", parent.pk)).status_code == 200


# -- Whose child it is, and what it goes on as -------------------------------------------------------


def test_page_of_a_child_leads_to_its_parent(show):
    parent = make_run(key="order-7")
    child = make_child(parent)
    assert summary_of(show(child))["Parent"] == (
        f'<a href="{url("change", parent.pk)}">three_steps order-7</a>, step “receipt”'
    )
    replaced = make_child(parent, item=None)
    assert "which has another run in its place" in summary_of(show(replaced))["Parent"]


def test_page_of_a_child_whose_parent_is_gone_says_so(show):
    parent = make_run()
    child = make_child(parent)
    WorkflowRun.objects.filter(pk=parent.pk).delete()
    assert summary_of(show(child))["Parent"] == f"{parent.pk} (deleted)"


def test_names_of_steps_are_text(root):
    parent = make_run()
    child = make_child(parent, step="<b>{}%s</b>")
    page = root.get(url("change", child.pk)).content.decode()
    assert "step “&lt;b&gt;{}%s&lt;/b&gt;”" in page
    assert "<b>{}" not in page + root.get(url("change", parent.pk)).content.decode()


def test_runs_that_continue_each_other_are_linked(show):
    second = make_run("running")
    first = make_run(continued_as=second)
    assert url("change", second.pk) in summary_of(show(first))["Continued as"]
    assert url("change", first.pk) in summary_of(show(second))["Continues"]
    assert not {"Continues", "Continued as", "Parent"} & set(summary_of(show(make_run())))


def test_canceling_run_says_how_many_children_it_waits_for(show):
    parent = make_run("canceling")
    make_child(parent, "canceling")
    assert show(parent)["where"] == "waits for 1 child run"


def test_run_without_events_and_children_pays_one_query(root, django_assert_max_num_queries):
    run = make_run()
    add_step(run, "a")
    with django_assert_max_num_queries(30) as queries:
        root.get(url("change", run.pk))
    asked = [query["sql"] for query in queries.captured_queries]
    assert sum("workflowevent" in sql or "parent_id" in sql.partition(" FROM ")[2] for sql in asked) == 1
