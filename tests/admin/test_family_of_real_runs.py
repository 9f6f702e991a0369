"""Waits and children of runs that workers have executed: what pages and commands say, and what retrying and canceling does."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.messages import get_messages

from django_steps import EventTimedOut, workflow
from django_steps.models import WorkflowRun
from tests.commands.conftest import run_command

from .conftest import url
from .test_bulk import answer, ask, report

__all__ = ["run_command"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True)

broken: set[int] = set()


@pytest.fixture(autouse=True)
def clean():
    broken.clear()


def second(number):
    if number in broken:
        raise ValueError(number)
    return number


@pytest.fixture
def page():
    """A child that fails at its second step where its input is broken."""

    @workflow(name="family_page")
    def page(input, step):
        step.define("first", lambda: None).run()
        return step.define("second", second).run(input)

    return page


@pytest.fixture
def importing(page):
    """A parent that waits for an event, then for a child for each item, then for one more."""

    @workflow(name="family_import")
    def importing(input, step):
        file = step.wait_for_event("file", timeout="1h", default=None)
        pages = step.map("page", page, input)
        return [file, pages, step.invoke("report", page).run(0)]

    return importing


@pytest.fixture
def approved():
    @workflow(name="family_approved")
    def approved(step):
        return step.wait_for_event("approval")

    return approved


@pytest.fixture
def show(root):
    """The context of the page of a run."""
    return lambda run, **parameters: root.get(url("change", run.pk), parameters).context


def lines_of(client, name, run, **parameters):
    text = client.get(url(name, run.pk), parameters).content.decode().partition('id="content-main"')[2]
    return [html.unescape(line) for line in re.findall(r"<p>(.*?)</p>", text)]


def said(response):
    return str(list(get_messages(response.wsgi_request))[-1])


def status_of(run):
    run.refresh_from_db()
    return run.status


def test_a_run_is_shown_from_its_wait_to_its_end(root, show, work, run_command, importing):
    run = importing.start([1, 2, 3])
    work()
    context = show(run)
    assert re.fullmatch(r"waits for event “file” until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", context["where"])
    assert [row.kind for row in context["steps"]] == ["event"]
    run.refresh_from_db()
    run.send_event("file", {"path": "a"}, by="eve")
    work(max_runs=1)
    context = show(run)
    assert context["where"] == "waits for 3 child runs"
    (wait, fold) = context["steps"]
    assert (wait.taken, fold.fold.counts) == ("event “file” from eve", "3 pending")
    assert context["events"].rows[0].step_url == f"#{wait.id}"
    work()
    assert status_of(run) == "succeeded"
    context = show(run)
    assert [(row.name, row.kind) for row in context["steps"]] == [
        ("file", "event"),
        ("page", "map"),
        ("report", "invoke"),
    ]
    fold = context["steps"][1].fold
    assert fold.counts == "3 succeeded" and {row.name for row in fold.rows} == {"page#1", "page#2", "page#3"}
    assert len({row.id for row in fold.rows}) == 3  # although they share a position
    assert context["steps"][2].child_url == url("change", run.children.get(parent_step="report").pk)
    assert [row.step for row in context["children"].rows] == ["page#1", "page#2", "page#3", "report"]
    printed = run_command("showworkflows", str(run.pk), "--tree").out
    assert printed.count("family_page") == 4


@pytest.mark.parametrize("fails", [(), (1, 11)])
def test_members_of_a_map_are_shown_in_the_order_of_the_items(root, show, work, run_command, page, fails):
    items = [3, 12, 0, 1, 2, 10, 11, 4, 100, 9]

    @workflow(name="family_ordered")
    def ordered(step):
        step.map("page", page, items, max_failures=2)

    broken.update(fails)
    run = ordered.start()
    work(max_runs=1)
    assert [row.step for row in show(run)["children"].rows] == [f"page#{item}" for item in items]
    work()
    expected = [f"page#{item}" for item in sorted(items, key=lambda item: (item not in fails, items.index(item)))]
    context = show(run)
    assert [row.step for row in context["children"].rows] == expected
    assert [row.name for row in context["steps"][0].fold.rows] == expected
    for options in ([], ["--tree"]):
        printed = run_command("showworkflows", str(run.pk), *options).out
        assert list(dict.fromkeys(re.findall(r"page#\d+(?=:| )", printed)))[-len(items) :] == expected


def test_result_of_each_item_can_be_shown_alone(root, show, work):
    @workflow
    def long(input, step):
        return input * 50_000

    @workflow
    def parent(step):
        step.map("page", long, ["a", "b", "c"])

    run = parent.start()
    work()
    rows = {row.name: row for row in show(run)["steps"][0].fold.rows}
    assert len(rows) == 3
    for letter in "abc":
        row = rows[f"page#{letter}"]
        (alone,) = root.get(url("change", run.pk) + row.whole_url.partition("#")[0]).context["steps"]
        assert (alone.name, alone.result) == (f"page#{letter}", f'"{letter * 50_000}"')


def test_a_default_that_was_taken_is_no_value(show, work, pass_time, importing):
    run = importing.start([])
    work()
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"
    row = show(run)["steps"][0]
    assert (row.taken, row.line) == ("timed out: the default was returned", "")
    assert run.steps.get(name="file").timed_out


def test_a_wait_that_timed_out_says_why(show, work, pass_time):
    @workflow
    def impatient(step):
        step.wait_for_event("reply", timeout="1h")

    run = impatient.start()
    work()
    pass_time("2h")
    work()
    assert status_of(run) == "failed"
    assert run.steps.get().timed_out and run.error["type"].endswith(EventTimedOut.__name__)
    (row,) = show(run)["steps"]
    assert "failed" in row.status and row.failures[0].line.startswith("EventTimedOut: ")


def test_a_retry_says_that_children_go_on_and_they_do(root, show, work, importing):
    broken.add(2)
    run = importing.start([1, 2, 3])
    run.send_event("file")
    work()
    assert status_of(run) == "failed"
    fold = show(run)["steps"][1].fold
    assert fold.counts.startswith("2 succeeded, 1 failed")
    failed = fold.rows[0]
    child = run.children.get(status="failed")
    assert failed.child_url == url("change", child.pk)
    lines = lines_of(root, "retry", run)
    assert "The child runs that failed are retried, too: each goes on from the step that failed." in lines
    broken.clear()
    root.post(url("retry", run.pk))
    work()
    assert (status_of(run), status_of(child)) == ("succeeded", "succeeded")
    assert run.children.count() == 4


def test_a_retry_from_a_step_says_what_becomes_of_events_and_children(root, work, importing):
    broken.add(0)
    run = importing.start([1])
    run.send_event("file", 7)
    work()
    lines = lines_of(root, "retry", run, from_step="report")
    assert "Other child runs are started: those there are stay as they are, and count no more." in lines
    assert "Events that were taken are taken again." not in lines
    lines = lines_of(root, "retry", run, from_step="file")
    assert "Events that were taken are taken again." in lines
    broken.clear()
    root.post(url("retry", run.pk), {"from_step": "file"})
    work()
    assert run.result(timeout=0) == [7, [1], 0]
    assert run.children.count() == 4 and run.children.filter(parent_item=None).count() == 2


def test_page_of_a_child_says_what_its_retry_does_not_change(root, work, importing):
    broken.add(0)
    run = importing.start([])
    run.send_event("file")
    work()
    child = run.children.get()
    assert any(line.startswith("It is a child run: ") for line in lines_of(root, "retry", child))
    assert not any(line.startswith("It is a child run: ") for line in lines_of(root, "retry", run))


def test_a_refused_retry_says_why(root, show, work, run_command, importing):
    broken.add(0)
    run = importing.start([])
    run.send_event("file")
    work()
    run.children.all().delete()
    assert root.get(url("change", run.pk)).status_code == 200
    (line,) = lines_of(root, "retry", run)[:1]
    assert "the run of 'report' is gone" in line
    assert "Nothing was done. " in said(root.post(url("retry", run.pk)))
    assert status_of(run) == "failed"
    done = report(answer(root, ask(root, "retry", [run])))
    assert done == "0 retried, 1 skipped: runs that it has invoked can't be retried: open it to see why"
    assert "the run of 'report' is gone" in run_command("showworkflows", str(run.pk)).out


def test_canceling_a_parent_says_that_its_children_are_canceled(root, work, approved):
    @workflow
    def parent(step):
        return step.invoke("page", approved).run(None)

    run = parent.start()
    work()
    child = run.children.get()
    assert (status_of(run), status_of(child)) == ("waiting", "waiting")
    line = "Its child runs that have not ended are canceled, too; until they have ended it is canceling."
    assert line in lines_of(root, "cancel", run) and line not in lines_of(root, "cancel", child)
    root.post(url("cancel", run.pk))
    work()
    assert (status_of(run), status_of(child)) == ("canceled", "canceled")


def test_run_that_a_step_has_started_is_linked(show, work, page):
    @workflow
    def parent(step):
        step.start("newsletter", page).run(1)

    run = parent.start()
    work()
    (row,) = show(run)["steps"]
    started = WorkflowRun.objects.get(workflow="family_page")
    assert (row.child_url, row.is_child, row.line) == (url("change", started.pk), False, "")
    assert show(run)["children"] is None
