"""`metrics/`: numbers that Prometheus reads."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from django_steps import Limit, Schedule, workflow
from django_steps.ledger import database
from django_steps.models import WorkflowPause, WorkflowRun, WorkflowSchedule
from django_steps.monitoring import cached
from django_steps.monitoring.metrics import Metric, Sample, text
from tests.app.workflows import sleeper, three_steps

parser = pytest.importorskip("prometheus_client.parser")

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scrape(client, monkeypatch):
    """What Prometheus reads: `scrape()["runs"]` is a dict by the values of the labels."""
    monkeypatch.setattr(cached, "GOOD_FOR", 0)

    def ask() -> dict[str, dict[Any, float]]:
        answer = client.get("/monitoring/metrics/")
        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return read(answer.content.decode())

    return ask


def read(source: str) -> dict[str, dict[Any, float]]:
    found = {}
    for family in parser.text_string_to_metric_families(source):
        assert family.type == "gauge"
        assert family.documentation
        name = family.name.removeprefix("django_steps_")
        found[name] = {tuple(sample.labels.values()): sample.value for sample in family.samples}
    return found


def test_nothing_at_all_is_read_too(scrape):
    found = scrape()
    assert found["runs"] == found["ready_runs"] == found["paused"] == {}
    assert found["workers"] == {("alive",): 0, ("silent",): 0}
    assert found["overdue_runs"] == found["late_schedules"] == {(): 0}


def test_runs_by_workflow_and_status(scrape, work, pass_time):
    work()
    three_steps.start({})
    work()
    sleeper.start({"duration": "1h"})
    work()
    three_steps.start_many([{}, {}], queue="bulk")
    three_steps.start({}).pause()
    pass_time("90s")
    three_steps.start({}, queue="bulk")
    found = scrape()
    assert found["runs"] == {
        ("sleeper", "sleeping"): 1,
        ("three_steps", "pending"): 3,
        ("three_steps", "paused"): 1,
    }
    assert found["ready_runs"] == {("bulk",): 3}
    assert 90 <= found["oldest_ready_run_age_seconds"][("bulk",)] < 150
    assert found["recently_finished_runs"] == {("three_steps", "succeeded"): 1}
    assert found["overdue_runs"] == {(): 0}

    pass_time("2h")
    found = scrape()
    assert found["recently_finished_runs"] == {}
    assert found["overdue_runs"] == {(): 1}


def test_a_run_that_was_retried_is_as_old_as_its_retry(scrape, pass_time):
    run = three_steps.start({})
    run.cancel()
    pass_time("2h")
    run.retry()
    assert scrape()["oldest_ready_run_age_seconds"][("default",)] < 60


def test_runs_that_no_worker_knows(scrape):
    three_steps.start({})
    WorkflowRun.objects.update(phase=WorkflowRun.Phase.UNKNOWN)
    found = scrape()
    assert found["unknown_runs"] == {("three_steps",): 1}
    assert found["runs"] == {("three_steps", "pending"): 1}


def test_workers_that_are_alive_and_that_have_stopped_answering(scrape, live_worker):
    now = database.read_clock(connection)
    live_worker(concurrency=4)
    live_worker(concurrency=8)
    live_worker(claims=False)
    live_worker(stopped_at=timezone.now())
    live_worker(last_seen_us=now - 100_000_000)
    live_worker(last_seen_us=now - 2 * 3600 * 1_000_000)
    found = scrape()
    assert found["workers"] == {("alive",): 2, ("silent",): 1}
    assert found["worker_concurrency"] == {(): 12}


def test_limits_pauses_and_late_schedules(scrape, work, pass_time):
    @workflow(limit=Limit(at_once=1, hold="unfinished"), schedule=Schedule(every="1h", name="metered-hourly"))
    def metered(input, step):
        step.sleep("wait", "2h")

    work()
    metered.start_many([None] * 3)
    work()
    WorkflowPause.objects.pause_queue("mail")
    found = scrape()
    assert found["limit_slots"][("metered",)] == found["limit_slots_held"][("metered",)] == 1
    assert found["limit_runs_in_line"][("metered",)] == 2
    assert found["runs"] == {("metered", "sleeping"): 1, ("metered", "pending"): 2}
    assert found["paused"] == {("queue", "mail"): 1}
    assert found["late_schedules"] == found["schedule_delay_seconds"] == {(): 0}

    due = WorkflowSchedule.objects.get(name="metered-hourly").next_at_us
    WorkflowSchedule.objects.exclude(name="metered-hourly").update(next_at_us=None)
    late = database.read_clock(connection) - 90_000_000
    WorkflowSchedule.objects.filter(next_at_us=due).update(next_at_us=late)
    found = scrape()
    assert found["late_schedules"] == {(): 1}
    assert 90 <= found["schedule_delay_seconds"][()] < 150


@pytest.mark.parametrize("name", ['say "hi"', "back\\slash", "two\nlines", "größer", "a{b}=c,d", "\\n"])
def test_labels_are_escaped(name):
    assert read(text([Metric("runs", "Two\nlines and a \\.", [Sample({"workflow": name}, 1)])])) == {
        "runs": {(name,): 1}
    }


def test_numbers_are_exact():
    assert "django_steps_a 1234567890123\n" in text([Metric("a", "A.", [Sample({}, 1234567890123)])])


def test_every_metric_is_described(scrape):
    from tests.docs.story import ROOT

    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    told = set(re.findall(r"^\| `django_steps_(\w+)`", page, re.MULTILINE))
    assert told == scrape().keys()
    assert set(re.findall(r"django_steps_(\w+)", page)) <= told | {"monitoring"}
