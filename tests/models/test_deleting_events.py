"""With a run go its events, whichever way it is deleted; events that nobody wanted go after a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.utils import timezone

from django_steps import workflow
from django_steps.ledger import database, events, pruning
from django_steps.models import WorkflowEvent, WorkflowRun
from django_steps.models.deleting import Pruner
from django_steps.worker.maintenance import Maintenance
from tests.staging import locked, model_that_points_at, status_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def order(pass_time: None) -> Any:
    """A workflow that takes an event, if one is there."""

    @workflow(name="order")
    def order(step):
        return step.wait_for_event("paid", timeout=0, default=None)

    return order


@pytest.fixture
def waiting() -> Any:
    """A workflow that waits for an event."""

    @workflow(name="waiting")
    def waiting(step):
        return step.wait_for_event("paid")

    return waiting


def prune(runs: Sequence[WorkflowRun]) -> None:
    pruner = Pruner()
    while pruner.batch(connection, database.read_clock(connection) + 1):
        pass
    assert pruner.deleted == len(runs)


def prune_with_care(runs: Sequence[WorkflowRun]) -> None:
    with model_that_points_at("django_steps.WorkflowRun", "Cascading", models.CASCADE):
        prune(runs)


def delete_each(runs: Sequence[WorkflowRun]) -> None:
    for run in runs:
        run.delete()


def delete_all(runs: Sequence[WorkflowRun]) -> None:
    WorkflowRun.objects.filter(pk__in=[run.pk for run in runs]).delete()


@pytest.mark.parametrize("delete", [prune, prune_with_care, delete_each, delete_all], ids=lambda f: f.__name__)
def test_run_takes_along_what_was_sent_to_it_and_to_its_key(work, order, delete):
    runs = []
    for number in range(3):
        key = f"order-{number}"
        order.send_event("paid", number, key=key, id="before")  # taken
        order.send_event("paid", number, key=key, id="also before")  # left
        runs.append(order.start(key=key))
        runs[-1].send_event("other")
    runs.append(order.start())
    runs[-1].send_event("other")
    order.send_event("paid", key="another")
    work()
    assert [run.result(timeout=0) for run in runs] == [0, 1, 2, None]
    delete(runs)
    assert list(WorkflowEvent.objects.values_list("key", flat=True)) == ["another"]
    again = order.start(key="order-0")
    assert order.send_event("paid", "new", key="order-0", id="before").created
    work()
    assert again.result(timeout=0) == "new"


def test_deleting_hundreds_of_runs_takes_few_statements(order, django_assert_max_num_queries):
    with transaction.atomic():
        for number in range(600):
            order.start(key=f"order-{number}")
    WorkflowEvent.objects.bulk_create(
        WorkflowEvent(workflow="order", key=f"order-{number}", name="paid", payload_text="1", sent_at=timezone.now())
        for number in range(600)
    )
    with django_assert_max_num_queries(60):
        WorkflowRun.objects.all().delete()
    assert not WorkflowEvent.objects.exists()


def test_what_was_sent_to_keys_that_nobody_starts_is_deleted_after_a_week(order, waiting, pass_time, monkeypatch):
    monkeypatch.setattr(pruning, "_EVENTS_AT_ONCE", 2)
    waiting.send_event("paid", key="started")
    for number in range(3):
        order.send_event("paid", number, key=f"nobody-{number}")
    waiting.start(key="started")
    order.start(key="to a run").send_event("other")
    maintenance = Maintenance("default")
    pass_time("6d")
    maintenance._do()
    assert WorkflowEvent.objects.count() == 5
    order.send_event("paid", key="new")
    pass_time("2d")
    maintenance._do()
    assert WorkflowEvent.objects.count() == 6  # it has looked less than an hour ago
    Maintenance("default")._do()
    assert set(WorkflowEvent.objects.values_list("key", flat=True)) == {"started", "to a run", "new"}


def test_retention_of_events_is_a_setting(order, pass_time, settings):
    order.send_event("paid", key="nobody")
    pass_time("1000d")
    settings.DJANGO_STEPS = {"EVENT_RETENTION": None}
    Maintenance("default")._do()
    assert WorkflowEvent.objects.count() == 1
    settings.DJANGO_STEPS = {"EVENT_RETENTION": "1001d"}
    Maintenance("default")._do()
    assert WorkflowEvent.objects.count() == 1
    settings.DJANGO_STEPS = {"EVENT_RETENTION": "999d"}
    Maintenance("default")._do()
    assert not WorkflowEvent.objects.exists()


@pytest.fixture
def senders_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends an event dies after the commit."""
    monkeypatch.setattr(events, "tell", lambda *arguments: None)


def test_maintenance_wakes_the_runs_of_events_whose_senders_died(work, waiting, senders_die):
    runs = [waiting.start(key=f"order-{number}") for number in range(3)]
    work()
    runs[0].send_event("paid", 0)
    waiting.send_event("paid", 1, key="order-1")
    waiting.send_event("paid", 2, key="nobody")
    assert {status_of(run) for run in runs} == {"waiting"}
    Maintenance("default")._do()
    assert [status_of(run) for run in runs] == ["pending", "pending", "waiting"]
    assert not WorkflowEvent.objects.filter(told=False).exists()


def test_run_that_somebody_has_locked_keeps_no_other_from_being_woken(work, waiting, senders_die, monkeypatch):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite locks the whole file")
    runs = [waiting.start(key=f"order-{number}") for number in range(3)]
    work()
    for run in runs:
        run.send_event("paid")
    with locked(runs[0]):
        Maintenance("default")._do()
    assert [status_of(run) for run in runs] == ["waiting", "pending", "pending"]
    Maintenance("default")._do()
    assert status_of(runs[0]) == "pending"
