"""The list of runs: what it shows, filters and finds, at a constant price."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_steps.admin.list import search
from django_steps.admin.list.changelist import CappedPaginator
from django_steps.core.ids import uuid7
from django_steps.models import Worker, WorkflowRun

from .conftest import START, add_step, error_of, failed_run, make_run, url


def shown(client, **parameters):
    """The runs that the list shows, in its order."""
    response = client.get(url("changelist"), parameters)
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def text(client, **parameters):
    return " ".join(client.get(url("changelist"), parameters).content.decode().split())


def test_list_shows_what_each_run_does_and_why_it_failed(root):
    failed_run(error=ValueError("card <declined>\nsecond line"))
    run = make_run("running", current_step="charge")
    add_step(run, "reserve")
    page = text(root)
    assert "ValueError: card &lt;declined&gt; second line" in page
    assert "1 step, now: charge" in page
    assert '<span class="steps-status steps-status-running">running</span>' in page


def test_steps_and_sleeps_are_counted_apart(root):
    run = make_run("running", current_step="charge")
    add_step(run, "reserve")
    add_step(run, "validate")
    add_step(run, "nap", kind="sleep")
    assert "2 steps, 1 sleep, now: charge" in text(root)


def test_list_without_runs(root):
    assert "0 workflow runs" in text(root)


def test_attempts_recoveries_and_progress_are_shown_where_they_matter(root):
    make_run("running", attempts=3, recoveries=1, progress_done=37, progress_total=100)
    page = text(root)
    assert "3 attempts, 1 recovery" in page
    assert '<progress class="steps-progress" value="37" max="100" aria-label="37 of 100">' in page
    WorkflowRun.objects.update(attempts=1, recoveries=0)
    assert "attempt" not in text(root)


def test_sleeping_run_says_until_when(root):
    make_run("sleeping", available_at_us=1_900_000_000_000_000)
    assert "waits until 2030-03-17 17:46:40" in text(root)


def test_newest_runs_come_first_and_of_failed_ones_those_that_failed_last(root):
    first, second = failed_run(), failed_run()
    WorkflowRun.objects.filter(pk=first.pk).update(finished_at=START + timedelta(days=1))
    assert shown(root) == [second, first]
    assert shown(root, status__exact="failed") == [first, second]


@pytest.mark.parametrize("status", WorkflowRun.Status.values)
def test_filter_by_status(root, status):
    runs = {other: make_run(other) for other in WorkflowRun.Status.values}
    assert shown(root, status__exact=status) == [runs[status]]


def test_filters_by_workflow_and_queue(root):
    bulk = make_run(workflow="import", queue="bulk")
    other = make_run(workflow="export")
    Worker.objects.create(
        host="h", pid=1, queues=["bulk"], concurrency=1, lease_us=1, started_at=START, last_seen_us=0, stopped_at=START
    )
    page = text(root)
    assert '<a href="?workflow=import">import</a>' in page
    assert '<a href="?queue=bulk">bulk</a>' in page
    assert shown(root, workflow="import") == shown(root, queue="bulk") == [bulk]
    assert shown(root, workflow="export") == [other]


def at(moment, **columns):
    """A run that was started and ended at that time, with the id that it would have had."""
    identifier = type(uuid7())(int=(int(moment.timestamp() * 1000) << 80) | (uuid7().int & (1 << 80) - 1))
    return make_run(id=identifier, created_at=moment, finished_at=moment + timedelta(hours=1), **columns)


def test_date_ranges_take_both_ends_in(root):
    runs = [at(datetime(2026, 3, day, 12, tzinfo=UTC)) for day in (1, 2, 3, 4)]
    ends = {"range__gte": "2026-03-02", "range__lte": "2026-03-03"}
    for field in ("created_at", "finished_at"):
        assert shown(root, **{f"{field}__{key}": value for key, value in ends.items()}) == [runs[2], runs[1]]
    assert shown(root, created_at__range__gte="2026-03-04") == [runs[3]]
    assert shown(root, finished_at__range__lte="2026-03-01") == [runs[0]]


# -- Searching ----------------------------------------------------------------------------------------


def test_search_by_id_in_every_form_that_is_shown(root):
    run = make_run()
    make_run()
    for term in (
        str(run.pk),
        str(run.pk).upper(),
        run.pk.hex,
        str(run.pk)[-12:],
        f"…{str(run.pk)[-12:]}",
        f" {run.pk} ",
    ):
        assert shown(root, q=term) == [run]


def test_search_by_key(root):
    run = make_run(key="order-7", workflow="a")
    other = make_run(key="order-7", workflow="b")
    make_run(key="order-77")
    assert shown(root, q="order-7") == [other, run]


def test_search_by_a_part_of_a_key_among_the_newest_runs(root, monkeypatch):
    runs = [make_run(key=f"order-{number}") for number in (1071, 107, 1072)]
    make_run()
    assert shown(root, q="der-107") == runs[::-1]
    assert shown(root, q="107") == runs[::-1]
    assert shown(root, q="order-107") == [runs[1]]  # a whole key means that one
    assert shown(root, q="107", status__exact="failed") == []
    monkeypatch.setattr(search, "NEWEST", 3)
    assert shown(root, q="107") == runs[:0:-1]


def test_search_that_finds_too_many_keys_says_so(root, monkeypatch):
    monkeypatch.setattr(search, "KEYS_FOUND", 2)
    runs = [make_run(key=f"order-{number}") for number in range(3)]
    assert shown(root, q="order") == runs[:0:-1]
    assert "More keys contain this text" in text(root, q="order")
    assert "More keys contain this text" not in text(root, q="order-1")


def test_search_that_finds_nothing_offers_to_search_texts(root, define):
    def order(input):
        pass

    define(order)
    run = at(timezone.now(), workflow="order", input={"customer": "Zuse"})
    page = root.get(url("changelist"), {"q": "zuse", "workflow": "order"})
    assert "No run has this id or key." in page.content.decode()
    for _label, address in page.context["cl"].wider:
        assert "workflow=order" in address
        assert list(root.get(url("changelist") + address).context["cl"].result_list) == [run]
    assert "No run has this id or key." not in text(root, q="nowhere", created_at__range__gte="2026-01-01")
    assert "No run has this id or key." not in text(root, workflow="nobody_knows_it")


@pytest.mark.parametrize("term", ["nothing", "%", "'", "\x00", "x" * 300, "🙂", "{}", "-", "…"])
def test_search_for_anything_else_finds_nothing_or_everything(root, term):
    run = make_run()
    assert shown(root, q=term) in ([], [run])


def test_text_is_searched_within_a_date_range_only(root, define):
    def order(input):
        pass

    define(order)
    found = at(START, workflow="order", input={"name": 'Zoë "Z" Müller'})
    failed = at(START, workflow="order", status="failed", error_text=error_of(ValueError("card declined"), "charge"))
    for term, run in (("no such", None), ("müller", found), ('"Z"', found), ("CARD declined", failed)):
        assert shown(root, q=term) == []
        assert shown(root, q=term, created_at__range__gte="2026-02-01") == ([run] if run else [])


def test_text_of_masked_and_unknown_workflows_is_never_searched(root, define):
    def charge(input):
        pass

    define(charge, mask=("token",))
    at(START, workflow="charge", input={"token": "s3cret"}, error_text=error_of(ValueError("s3cret")), status="failed")
    at(START, workflow="nobody_knows_it", input={"token": "s3cret"})
    assert shown(root, q="s3cret", created_at__range__gte="2026-02-01") == []


def test_search_says_which_workflows_have_texts_that_are_not_searched(root, define):
    def charge(input):
        pass

    def order(input):
        pass

    define(charge, mask=("token",))
    define(order)
    at(START, workflow="order", input={})
    note = "Inputs and errors of charge are not searched"
    assert note in text(root, q="s3cret", created_at__range__gte="2026-02-01")
    assert note not in text(root, q="s3cret")  # keys and ids only
    assert note not in text(root, created_at__range__gte="2026-02-01")


@pytest.mark.parametrize(
    "lookup", ["input_text__contains", "output_text__startswith", "error_text__regex", "steps__name"]
)
def test_free_lookups_into_values_are_refused(root, lookup):
    make_run(input={"token": "s3cret"})
    response = root.get(url("changelist"), {lookup: "s"})
    assert response.status_code in (302, 400)


# -- What it costs --------------------------------------------------------------------------------------


def queries_of(client, django_assert_max_num_queries, **parameters):
    with django_assert_max_num_queries(40) as queries:
        client.get(url("changelist"), parameters)
    return len(queries)


@pytest.mark.parametrize("parameters", [{}, {"status__exact": "failed"}, {"q": "order-1"}, {"workflow": "three_steps"}])
def test_number_of_queries_does_not_depend_on_the_number_of_runs(root, django_assert_max_num_queries, parameters):
    failed_run(key="order-1")
    one = queries_of(root, django_assert_max_num_queries, **parameters)
    for _run in range(20):
        add_step(failed_run(), "another")
        make_run("running")
    assert queries_of(root, django_assert_max_num_queries, **parameters) == one


def test_runs_are_counted_up_to_a_limit(root, monkeypatch):
    monkeypatch.setattr(CappedPaginator, "cap", 5)
    for _run in range(7):
        make_run()
    page = text(root)
    assert "5 workflow runs" in page
    assert "There are more: the newest 5 are counted here." in page


def test_large_values_stay_in_the_database(root, django_assert_max_num_queries):
    make_run("failed", input="x" * 10_000, error_text=error_of(ValueError("y" * 10_000)))
    with django_assert_max_num_queries(40) as queries:
        page = root.get(url("changelist"))
    selected = [query["sql"].replace("`", '"').partition("FROM")[0] for query in queries]
    assert not any(re.search(r'"(input|error|output)"(?!,)', sql) for sql in selected)  # only their beginnings
    (run,) = page.context["cl"].result_list
    assert len(run.error_start) < 2000
    assert len(run.input_start) < 1000


# -- Odd rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quo\"te's", "a/b?c&d=e", "🙂 é", "x" * 255, "<script>alert(1)</script>"])
def test_odd_names_are_shown_escaped(root, name):
    make_run("running", workflow=name, version=name, queue=name, key=name, current_step=name)
    page = text(root)
    assert "<script>alert" not in page
    assert len(shown(root, workflow=name)) == len(shown(root, queue=name)) == len(shown(root, q=name)) == 1


def test_undecodable_rows_are_listed(root):
    run = make_run("failed", error_text='{"type": "cut off', input_text="{", recovery_log_text="[")
    assert shown(root) == [run]
    assert "unreadable record" in text(root)


def test_error_that_is_cut_off_is_shown_as_far_as_it_goes(root):
    make_run("failed", error_text=error_of(ValueError("é" * 5000)))
    assert "ValueError: ééé" in text(root)


def test_queue_filter_offers_the_queues_that_only_runs_name(root):
    make_run("pending", queue="ad-hoc")
    assert "?queue=ad-hoc" in root.get(url("changelist")).content.decode()
