"""What events and waits cost in statements and commits, counted on the wire; and that who uses none pays nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction

from django_steps import workflow
from django_steps.core import clock
from django_steps.engine.ending import Ended
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.ledger import test_budget as budget
from tests.ledger.test_budget import claim, execute, notifications, start_and_execute
from tests.wire import Wire, counted

pytestmark = pytest.mark.django_db(transaction=True)

steps_warmed_up = budget.warmed_up  # a fixture
POSTGRESQL, SQLITE, MYSQL = (connection.vendor == vendor for vendor in ("postgresql", "sqlite", "mysql"))


@pytest.fixture
def waiting() -> Any:
    """A workflow that waits for two events."""

    @workflow(name="waiting")
    def waiting(step):
        return [step.wait_for_event("paid"), step.wait_for_event("sent")]

    return waiting


@pytest.fixture(autouse=True)
def waits_warmed_up(steps_warmed_up: None, waiting: Any) -> None:
    """What is done once on a connection is done already."""
    for _ in range(4):
        run = waiting.start()
        run.send_event("paid")
        execute(*claim())
        run.send_event("sent")
        execute(*claim())


# The INSERT, and the wake-up that notes that the run was told. MySQL reads the run before it inserts: to select it while
# inserting would lock it, in the caller's transaction.
SENDING = 1 if not MYSQL else 2
WAKING = 1 if POSTGRESQL else 2
# Where nothing was woken: whether the run has continued as another one, which PostgreSQL tells in the same statement.
FOLLOWING = 0 if POSTGRESQL else 1


@pytest.mark.parametrize("status", ["pending", "waiting"])
def test_send_event_is_an_insert_and_a_wake_up(waiting, status):
    run = waiting.start()
    if status == "waiting":
        execute(*claim())
    with counted(connection) as wire:
        run.send_event("paid", 5)
    more = FOLLOWING if status == "pending" else 0
    assert wire == Wire(SENDING + WAKING + notifications() + more, SENDING + 1 + notifications())
    run.refresh_from_db()
    assert run.status == "pending"


def test_send_event_by_key_costs_what_it_costs_by_run(waiting):
    waiting.start(key="order-7")
    for key in ("order-7", "nobody"):
        with counted(connection) as wire:
            waiting.send_event("paid", 5, key=key)
        # Where there was no run MySQL looks once more before it locks one.
        more = FOLLOWING + (1 if MYSQL and key == "nobody" else 0)
        assert wire == Wire(SENDING + WAKING + notifications() + more, SENDING + 1 + notifications())


def test_send_event_in_a_transaction_is_an_insert_of_it(waiting):
    run = waiting.start()
    with counted(connection) as wire, transaction.atomic():
        run.send_event("paid")
        run.send_event("sent")
    assert wire == Wire(2 * (SENDING + WAKING + FOLLOWING + notifications()), 1 + 2 * (1 + notifications()))


def test_event_that_was_sent_before_costs_one_statement_more_and_wakes_nobody(waiting):
    run = waiting.start()
    run.send_event("paid", id="evt_1")
    with counted(connection) as wire:
        assert not run.send_event("paid", id="evt_1").created
    assert wire == Wire(SENDING + 1, SENDING + 1 if not MYSQL else 2)  # its INSERT is rolled back


def test_wait_whose_event_is_there_is_a_look_and_a_commit(waiting):
    run = waiting.start()
    run.send_event("paid")
    run.send_event("sent")
    (claimed,) = claim()
    ending, wire = execute(claimed)
    assert ending.how is Ended.SUCCEEDED
    take = 1 if POSTGRESQL else 2  # the record, and the event
    assert wire == Wire(2 * (1 + take) + 1, 2 * 2 + 1)


def test_wait_whose_event_has_come_meanwhile_is_a_look_and_a_commit(waiting):
    run = waiting.start()
    execute(*claim())
    run.send_event("paid")
    run.send_event("sent")
    ending, wire = execute(*claim())
    assert ending.how is Ended.SUCCEEDED
    take, held = (1, 1) if POSTGRESQL else (2, {"sqlite": 4, "mysql": 3}[connection.vendor])
    assert wire == Wire(1 + held + 1 + take + 1, 2 * 2 + 1)


def test_wait_for_which_nothing_is_there_is_a_look_a_commit_and_a_look(waiting):
    waiting.start()
    (claimed,) = claim()
    ending, wire = execute(claimed)
    assert ending.how is Ended.SUSPENDED
    assert wire == Wire(2 + budget.putting_down().statements, 2 + 1)


def test_wait_that_goes_on_waiting_is_the_same(waiting):
    run = waiting.start()
    execute(*claim())
    WorkflowRun.objects.filter(pk=run.pk).update(status="pending", phase=0)
    ending, wire = execute(*claim())
    assert ending.how is Ended.SUSPENDED
    assert wire == Wire(3, 3)  # it is recorded already


def test_wait_that_times_out_is_a_look_and_a_commit(pass_time):
    @workflow
    def timing_out(step):
        step.wait_for_event("paid", timeout="1h", default=None)

    start_and_execute(timing_out)
    pass_time("2h")
    (claimed,) = claim()
    ending, wire = execute(claimed)
    assert ending.how is Ended.SUCCEEDED
    replacing = {"postgresql": 1, "mysql": 2, "sqlite": 3}[connection.vendor]
    assert wire == Wire(1 + replacing + 1, 3)


@pytest.mark.parametrize("served", [0, 3])
def test_first_check_of_a_hundred_waits_is_three_statements_of_a_claim(waiting, pass_time, served):
    waiting.start_many([None] * 100)
    while claimed := claim():
        for one in claimed:
            execute(one)
    runs = list(WorkflowRun.objects.filter(status="waiting")[:served])
    WorkflowEvent.objects.bulk_create(_untold(run) for run in runs)
    pass_time("61s")
    costs = []
    for _ in range(2):  # with waits that are due, and without
        with counted(connection) as wire:
            assert len(claim()) == (served if not costs else 0)
        costs.append(wire)
        WorkflowRun.objects.filter(status="running").update(status="sleeping", available_at_us=clock.NEVER_US)
    taking = {"postgresql": 0, "sqlite": 2, "mysql": 1}[connection.vendor] if served else 0
    taking += 1 if SQLITE and not served else 0  # the selection
    assert costs[0].statements - costs[1].statements == (3 if served else 2) + taking
    assert costs[0].transactions <= (2 if SQLITE else 1)
    assert WorkflowRun.objects.filter(status="waiting", available_at_us=clock.NEVER_US).count() == 100 - served


def _untold(run: WorkflowRun) -> WorkflowEvent:
    return WorkflowEvent(run=run, name="paid", payload_text="1", sent_at=run.created_at)


@pytest.mark.parametrize("others", [0, 30])
def test_who_uses_no_events_pays_nothing_for_those_of_others(waiting, others, pass_time):
    """The counts of `test_budget` hold beside waiting runs and events."""
    for number in range(others):
        waiting.start(key=f"order-{number}").send_event("other")
        waiting.send_event("paid", key=f"nobody-{number}")
    while claimed := claim():
        for one in claimed:
            execute(one)
    budget.test_successful_step_is_one_statement_and_one_commit_and_so_is_the_end(3)
    budget.test_putting_a_run_down_to_sleep_is_one_transaction_of_two_statements_at_most()
    budget.test_start_with_a_key_is_one_statement_and_one_commit()
    WorkflowRun.objects.active().exclude(status="waiting").cancel()
    budget.test_idle_claim_takes_no_write_and_at_most_two_statements()
