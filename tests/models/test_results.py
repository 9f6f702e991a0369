"""Waiting for a run that nobody executes: it is said, once, what is missing; and nothing is said where all is well."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.utils import timezone

from django_steps import workflow
from django_steps.ledger import database
from django_steps.ledger.tables import RUN
from django_steps.models import results
from django_steps.models.diagnosis import why_unclaimed
from tests.app.workflows import sleeper, three_steps

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch):
    monkeypatch.setattr(results, "LOOK_FOR_WORKERS", 0)


def said(run, looks: int = 4) -> list[str]:
    """What is said while the run is looked at so many times."""
    reasons: list[str] = []
    pauses = results.pauses(run, None, lambda unclaimed: reasons.append(unclaimed.reason), [])
    for _ in range(looks):
        next(pauses)
    return reasons


def test_result_warns_once_that_no_worker_is_running_and_says_what_to_do(caplog):
    run = three_steps.start({})
    with pytest.raises(TimeoutError, match="it is pending"):
        run.result(timeout=0.05)

    assert [(record.name, record.levelno) for record in caplog.records] == [("django_steps", logging.WARNING)]
    assert caplog.messages == [
        f"Waiting for run {run.pk} of 'three_steps', which is pending. No worker is running. "
        "Start one with:   manage.py runworkflows"
    ]


def test_aresult_warns_too(caplog):
    run = three_steps.start({})
    with pytest.raises(TimeoutError):
        async_to_sync(run.aresult)(timeout=0.05)
    assert [message.partition("pending. ")[2][:21] for message in caplog.messages] == ["No worker is running."]


def test_result_of_a_run_that_has_ended_says_nothing(caplog, work):
    run = three_steps.start({})
    work()
    assert run.result() == "done"
    assert caplog.messages == []


@pytest.mark.parametrize("state", ["stopped", "silent"])
def test_worker_that_is_gone_counts_as_none(live_worker, state):
    fields = {
        "stopped": {"stopped_at": timezone.now()},
        "silent": {"last_seen_us": database.read_clock(connection) - 91_000_000},
    }
    live_worker(**fields[state])
    assert said(three_steps.start({})) == ["No worker is running."]


def test_advice_fits_the_reason(live_worker):
    def text(run):
        return why_unclaimed(connection, run).text()

    assert text(three_steps.start({})) == "No worker is running. Start one with:   manage.py runworkflows"
    live_worker(queues=["default"], workflows=[])
    assert text(three_steps.start({}, queue="the bulk")) == (
        "No live worker serves the queue 'the bulk'. "
        "Add this queue to one with --queue, or start one with:   manage.py runworkflows --queue 'the bulk'"
    )
    assert text(three_steps.start({})) == (
        "No live worker of the queue 'default' knows the workflow 'three_steps'. "
        "Deploy its code to the workers, or start one that has it."
    )


def test_queue_that_no_live_worker_serves_is_named(live_worker):
    live_worker(queues=["default", "reports"])
    assert said(three_steps.start({}, queue="bulk")) == ["No live worker serves the queue 'bulk'."]
    assert said(three_steps.start({}, queue="reports")) == []


def test_workflow_that_no_live_worker_of_the_queue_knows_is_named(live_worker):
    @workflow(version="2")
    def renewed(input): ...

    run = renewed.start({})
    live_worker(workflows=[["renewed", "1"]])
    live_worker(workflows=[["renewed", "2"]], queues=["bulk"])
    assert said(run) == [
        "No live worker of the queue 'default' knows the workflow 'renewed' in version '2', only in version '1'."
    ]


def test_nothing_is_said_while_a_live_worker_would_take_the_run(live_worker):
    live_worker()
    assert said(three_steps.start({})) == []


def test_worker_that_is_just_restarting_is_not_missed(live_worker):
    reasons: list[str] = []
    pauses = results.pauses(three_steps.start({}), None, lambda unclaimed: reasons.append(unclaimed.reason), [])
    next(pauses)
    live_worker()
    for _ in range(3):
        next(pauses)
    assert reasons == []


def test_worker_that_dies_while_the_run_is_waited_for_is_missed(live_worker, pass_time):
    worker = live_worker()
    run = sleeper.start({"duration": "1h"})
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET phase = 1, status = 'running', worker_id = %s", [worker.pk])
    reasons: list[str] = []
    pauses = results.pauses(run, None, lambda unclaimed: reasons.append(unclaimed.reason), [])
    for _ in range(3):
        next(pauses)
    assert reasons == []

    pass_time("91s")
    for _ in range(3):
        next(pauses)
    assert reasons == ["No worker is running."]


def test_looking_for_workers_costs_nothing_at_first(monkeypatch, django_assert_num_queries):
    monkeypatch.undo()
    run = three_steps.start({})
    with django_assert_num_queries(1), pytest.raises(TimeoutError):
        run.result(timeout=0)


def test_nobody_is_missed_before_five_seconds_have_passed(monkeypatch):
    monkeypatch.undo()
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(results, "time", SimpleNamespace(monotonic=lambda: clock.now))
    reasons: list[str] = []
    pauses = results.pauses(three_steps.start({}), None, lambda unclaimed: reasons.append(unclaimed.reason), [])
    for clock.now in (0.0, 2.4, 2.6, 4.9):
        next(pauses)
    assert reasons == []
    for clock.now in (5.2, 7.8, 10.4):
        next(pauses)
    assert reasons == ["No worker is running."]
