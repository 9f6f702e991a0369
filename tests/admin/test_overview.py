"""The overview, and what stands above the list."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from django_steps.core import clock
from django_steps.ledger import reports
from django_steps.models import Worker, WorkflowRun

from .conftest import make_run, url, waiting_run

LEASE = 30_000_000


def microseconds(delta=timedelta(0)):
    return clock.to_microseconds(timezone.now() + delta)


def make_worker(silent_for=timedelta(0), **columns):
    defaults = {"host": "web-1", "pid": 4711, "concurrency": 8, "lease_us": LEASE, "started_at": timezone.now()}
    return Worker.objects.create(last_seen_us=microseconds(-silent_for), **{**defaults, **columns})


def ended(status, seconds, ago=timedelta(minutes=1), **columns):
    end = timezone.now() - ago
    return make_run(status, started_at=end - timedelta(seconds=seconds), finished_at=end, **columns)


@pytest.fixture
def page(root):
    return lambda: root.get(url("overview")).content.decode()


def test_empty_database_has_an_overview(page):
    text = page()
    assert "No run has ended." in text
    assert "No worker is running. Start one with:   manage.py runworkflows" in text


def test_runs_are_counted_by_status(page):
    for status in ("failed", "failed", "succeeded", "sleeping"):
        make_run(status)
    text = " ".join(page().split())
    assert '<span class="steps-status steps-status-failed">failed</span> <b>2</b>' in text
    assert '<span class="steps-status steps-status-pending">pending</span> <b>0</b>' in text


def test_events_that_runs_wait_for_lead_to_these_runs(root):
    for event in ("approval", "paid", "approval"):
        waiting_run(event)
    waiting_run()
    awaited = root.get(url("overview")).context["awaited"]
    assert [(name, count) for name, count, _url in awaited] == [("approval", 2), ("paid", 1)]
    assert len(root.get(awaited[0][2]).context["cl"].result_list) == 2


def test_waiting_runs_are_counted_behind_any_number_of_sleepers(db, django_assert_num_queries):
    for number in range(5):
        make_run("sleeping", available_at_us=number)
    waiting_run("approval")
    with django_assert_num_queries(2):
        assert reports.count_by_status(connection, 3)["waiting"] == 1
    with django_assert_num_queries(1):
        assert reports.count_by_status(connection, 7)["waiting"] == 1


def test_hours_show_what_ended_and_what_failed(root):
    ended("failed", 1, ago=timedelta(0))
    ended("succeeded", 1, ago=timedelta(0))
    ended("succeeded", 1, ago=timedelta(days=3))
    hours = root.get(url("overview")).context["hours"]
    assert len(hours) == 24
    assert sum(hour.ended for hour in hours) == 2
    assert (hours[-1].failed, hours[-1].ended_height, hours[-1].failed_height) == (1, 90, 45)


def test_durations_and_failure_rate_of_each_workflow(root):
    for seconds in range(1, 101):
        ended("succeeded", seconds, workflow="slow")
    for _run in range(25):
        ended("failed", 999, workflow="slow")
    (row,) = root.get(url("overview")).context["measured"]
    assert (row.workflow, row.ended, row.failed, row.failure_rate) == ("slow", 125, 25, "20%")
    assert (row.succeeded, row.p50, row.p95) == (100, "50.50 s", "1m 35s")


@pytest.mark.parametrize(
    ("seconds", "p50", "p95"),
    [
        ([4], "4.00 s", "4.00 s"),
        ([2, 4], "3.00 s", "3.90 s"),
        ([9, 1, 2], "2.00 s", "8.30 s"),
        ([1, 2, 4, 50], "3.00 s", "43.10 s"),
    ],
)
def test_durations_of_a_few_runs_lie_between_them(root, seconds, p50, p95):
    for taken in seconds:
        ended("succeeded", taken)
    (row,) = root.get(url("overview")).context["measured"]
    assert (row.succeeded, row.p50, row.p95) == (len(seconds), p50, p95)


def test_durations_of_a_workflow_that_never_succeeded_are_left_open(root):
    ended("failed", 5)
    (row,) = root.get(url("overview")).context["measured"]
    assert (row.succeeded, row.p50, row.p95) == (0, "-", "-")


def test_live_worker_is_shown_with_what_it_runs(page):
    worker = make_worker(queues=["bulk"])
    make_run("running", worker=worker, available_at_us=microseconds() + LEASE, current_step="charge", workflow="order")
    text = page()
    assert "answers" in text
    assert "bulk" in text
    assert "order</a> (charge)" in text


def test_dispatchers_and_those_who_execute_for_them_are_told_apart(page):
    make_worker(executor="celery", queues=["mail"])
    assert 'mail <span class="steps-quiet">(dispatches to celery)</span>' in page()
    Worker.objects.update(claims=False, queues=[])
    text = page()
    assert "executes what is dispatched to celery" in text
    assert "dispatches to celery" not in text


def test_worker_that_stopped_answering_is_named(page):
    make_worker(silent_for=timedelta(minutes=10))
    text = page()
    assert "1 worker has stopped answering: web-1:4711." in text
    assert "10m 00s ago" in text


def test_worker_that_stopped_in_good_order_is_not_shown(page):
    make_worker(stopped_at=timezone.now())
    assert "web-1" not in page()


def test_work_without_a_worker_is_a_warning(root):
    make_run("pending")
    warning = "No worker is running. Start one with:   manage.py runworkflows"
    assert warning in root.get(url("changelist")).content.decode()
    make_worker()
    assert warning not in root.get(url("changelist")).content.decode()


def test_run_that_waits_for_long_is_shown_whatever_its_priority(root, page):
    oldest = make_run("pending", created_at=timezone.now() - timedelta(hours=2), priority=-5)
    make_run("pending", created_at=timezone.now(), priority=5)
    assert f'{url("change", oldest.pk)}">A run has been waiting for a worker for 2h 00m.' in page()


def test_run_that_was_retried_waits_since_then(page):
    make_run(
        "pending", created_at=timezone.now() - timedelta(hours=2), available_at_us=microseconds(-timedelta(seconds=3))
    )
    text = page()
    assert "A run has been waiting" not in text
    assert "has waited for a worker for 3." in text


def test_runs_that_no_worker_knows_are_listed_and_linked(root, page):
    make_run("pending", phase=WorkflowRun.Phase.UNKNOWN, workflow="from_the_future", version="9")
    text = page()
    assert "1 run is of a workflow or version that no worker knows." in text
    assert f'href="{url("changelist")}?status__exact=unknown&amp;workflow=from_the_future">from_the_future' in text
    found = root.get(url("changelist"), {"status__exact": "unknown", "workflow": "from_the_future"}).content.decode()
    assert "from_the_future" in found
    assert "no worker knows this workflow" in found


def test_overview_stands_above_the_page_of_the_app_for_those_who_may_see_runs(root, staff):
    make_run("failed")
    title = "Runs that ended in the last 24 hours"
    page = root.get("/admin/django_steps/").content.decode()
    assert title in page
    assert page.index(title) < page.index('id="content-main"')
    others = staff("view").get("/admin/django_steps/")
    assert title in others.content.decode()


def test_number_of_queries_does_not_depend_on_the_number_of_runs(root, django_assert_max_num_queries):
    counts = []
    for number in (1, 20):
        for _run in range(number):
            worker = make_worker()
            ended("failed", 1, workflow=f"workflow_{number}")
            make_run("running", worker=worker, available_at_us=microseconds() + LEASE)
            make_run("pending", phase=WorkflowRun.Phase.UNKNOWN)
        with django_assert_max_num_queries(30) as queries:
            root.get(url("overview"))
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_odd_names_are_shown_escaped(root):
    name = "<script>alert(1)</script>"
    worker = make_worker(host=name, queues=[name])
    make_run("running", workflow=name, worker=worker, available_at_us=microseconds() + LEASE, current_step=name)
    make_run("pending", workflow=name, version=name, phase=WorkflowRun.Phase.UNKNOWN)
    ended("failed", 1, workflow=name)
    assert "<script>alert" not in root.get(url("overview")).content.decode()


def test_only_the_version_may_be_what_no_worker_knows(root):
    make_worker(workflows=[["order", "2"], ["order", ""]])
    make_run("pending", workflow="order", version="3", phase=WorkflowRun.Phase.UNKNOWN)
    run = make_run("pending", workflow="order", version="4")
    text = " ".join(root.get(url("overview")).content.decode().split())
    assert "(workers know it without a version, in version &#x27;2&#x27;)" in text
    said = root.get(url("change", run.pk)).content.decode()
    assert (
        "knows the workflow &#x27;order&#x27; in version &#x27;4&#x27;, "
        "only without a version, in version &#x27;2&#x27;." in said
    )


def test_a_worker_that_died_long_ago_is_warned_of_only_while_it_holds_a_run(root):
    dead = make_worker(silent_for=timedelta(hours=3), pid=1)
    assert "has stopped answering" not in root.get(url("changelist")).content.decode()
    assert "stopped answering" in root.get(url("overview")).content.decode()
    make_run("running", worker=dead, available_at_us=microseconds(-timedelta(hours=3)))
    assert "1 worker has stopped answering: web-1:1." in root.get(url("changelist")).content.decode()
