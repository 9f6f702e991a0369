"""Runs that wait for events and for children in the list: what they wait for, and the filters for that."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest

from django_steps.core import clock
from django_steps.ledger.moves import listed as listed_names

from .conftest import START, add_step, attempt_log, make_child, make_run, url, waiting_run


@pytest.fixture
def listed(root):
    """The ids that the list shows: `listed(**parameters)`."""
    return lambda **parameters: {run.pk for run in root.get(url("changelist"), parameters).context["cl"].result_list}


@pytest.fixture
def text_of(root):
    """What the list shows, without markup."""

    def read(**parameters):
        page = root.get(url("changelist"), parameters).content.decode().partition('id="content-main"')[2]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())

    return read


def choices(root, **parameters):
    """What the filter offers: the texts of its choices, by their values."""
    found = root.get(url("changelist"), parameters).context["cl"].filter_specs
    spec = next((spec for spec in found if spec.title == "what it waits for"), None)
    return None if spec is None else dict(spec.lookup_choices)


def test_row_of_a_waiting_run_says_for_which_event_and_until_when(text_of):
    waiting_run("approval", until=timedelta(hours=2))
    assert "waits for event “approval” until 2026-03-01 05:00:00" in text_of()


def test_row_names_three_of_many_events(text_of):
    waiting_run("a", "b", "c", "d", "e")
    assert "waits for events “a”, “b”, “c” and 2 more" in text_of()


def test_row_counts_the_children_that_have_not_ended(text_of):
    run = waiting_run()
    for number, status in enumerate(("running", "pending", "succeeded")):
        make_child(run, status, step="page", item=str(number))
    other = waiting_run("approval")
    make_child(other, "sleeping")
    text = text_of()
    assert "waits for 2 child runs" in text
    assert "waits for event “approval” and 1 child run" in text


def test_row_of_a_run_whose_children_have_just_ended(text_of):
    waiting_run()
    assert "waits for child runs" in text_of()


def test_row_of_a_waiting_run_that_also_tries_a_step_again(text_of):
    run = waiting_run("approval", until=timedelta(hours=1))
    wakes = clock.to_microseconds(START + timedelta(hours=3))
    log = attempt_log(OSError("no answer"))
    add_step(run, "charge", "retrying", attempts=1, finished_at=None, wakes_at_us=wakes, attempt_log=log)
    text = text_of()
    assert "waits for event “approval” until 2026-03-01 04:00:00" in text
    assert "charge failed at attempt 1: OSError: no answer" in text
    assert "next attempt" not in text


def test_a_child_is_marked_and_leads_to_its_parent(root):
    parent = make_run()
    make_child(parent)
    page = root.get(url("changelist")).content.decode()
    assert page.count(f'<a href="{url("change", parent.pk)}">child run</a>') == 1


def test_filter_finds_waits_for_any_event_for_one_and_for_children(root, listed):
    approval, both = waiting_run("approval"), waiting_run("paid", "#receipt", "approval")
    other, children = waiting_run("approval_2"), waiting_run()
    make_run("sleeping"), make_run("failed", waits_for=listed_names(["approval"]))
    assert listed(waits_for="events") == {approval.pk, both.pk, other.pk}
    assert listed(waits_for="event:approval") == {approval.pk, both.pk}
    assert listed(waits_for="event:Approval") == listed(waits_for="event:approv") == set()
    assert listed(waits_for="children") == {both.pk, children.pk}
    assert listed(waits_for="odd") == set()
    assert listed(status__exact="waiting") == {approval.pk, both.pk, other.pk, children.pk}


def test_filter_offers_the_events_that_most_runs_wait_for(root):
    for event in ("b", "a", "b"):
        waiting_run(event)
    assert list(choices(root).values()) == ["any event", "event “b”", "event “a”", "child runs"]
    assert "event:gone" in choices(root, waits_for="event:gone")


def test_filter_is_left_out_where_no_run_waits(root):
    make_run("sleeping")
    assert choices(root) is None
    waiting_run()
    assert list(choices(root)) == ["events", "children"]


def test_filter_offers_a_bounded_number_of_events(root):
    for number in range(30):
        waiting_run(f"signature-{number}")
    assert len(choices(root)) == 22


def test_children_of_one_run_are_a_list(listed, root):
    parent, other = make_run(), make_run()
    failed, done = make_child(parent, "failed", item="1"), make_child(parent, item="2")
    make_child(parent, "failed", item=None)
    make_child(other)
    assert listed(parent=str(parent.pk)) == {failed.pk, done.pk}
    assert listed(parent=str(parent.pk), status__exact="failed") == {failed.pk}
    assert listed(parent="none") == {parent.pk, other.pk}


def test_odd_parents_are_refused_like_other_filters(root):
    assert root.get(url("changelist"), {"parent": "x"}).status_code == 302


def test_filter_by_parent_is_left_out_where_there_are_no_children(root):
    run = make_run()
    titles = [spec.title for spec in root.get(url("changelist")).context["cl"].filter_specs]
    make_child(run)
    assert "parent" not in titles
    assert "parent" in [spec.title for spec in root.get(url("changelist")).context["cl"].filter_specs]


def test_waiting_runs_are_counted_above_the_list(root):
    waiting_run("approval")
    strip = root.get(url("changelist")).context["strip"]
    assert [item["count"] for item in strip["statuses"] if item["status"] == "waiting"] == ["1"]


def test_number_of_queries_does_not_depend_on_the_number_of_waiting_runs(root, django_assert_max_num_queries):
    counts = []
    for runs in (1, 10):
        for number in range(runs):
            make_child(waiting_run("approval"), "running", item=str(number))
        with django_assert_max_num_queries(40) as queries:
            root.get(url("changelist"))
        counts.append(len(queries))
    assert counts[0] == counts[1]
