"""What follows from ends that a worker comes across, of very many children too: in small portions, and nobody is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from django_steps import workflow
from django_steps.core import clock
from django_steps.engine import afterwards
from django_steps.engine.afterwards import Aftercare
from django_steps.ledger import cascades, children, claims, events
from django_steps.ledger.claims import Claimed
from django_steps.models import WorkflowEvent, WorkflowRun
from django_steps.worker import Worker, loop
from django_steps.worker.maintenance import Maintenance
from tests.staging import SECOND, claim, locked, make_terms, recover

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def leaf() -> Any:
    @workflow(queue="nobody")
    def leaf(input, step):
        return input

    return leaf


@pytest.fixture
def parent(leaf: Any) -> Any:
    @workflow
    def parent(input, step):
        return step.map("each", leaf, range(input))

    return parent


def dead(parent: Any, number: int, work: Any) -> WorkflowRun:
    """A run that has started children, and whose worker died for the last time; whoever found that has died as well."""
    run = parent.start(number)
    work(queues=["default"])
    WorkflowRun.objects.filter(pk=run.pk).update(status="pending", phase=WorkflowRun.Phase.READY)
    terms = make_terms(max_recoveries=0, queues=("default",))
    claim(run, terms)
    clock.offset_us += 60 * SECOND
    assert list(recover(terms).ended) == [run.pk]
    return run


def left(run: WorkflowRun) -> int:
    return run.children.active().count()


def test_very_many_children_are_canceled_a_little_at_a_time(parent, work, monkeypatch):
    monkeypatch.setattr(cascades, "_CHUNK", 2)
    run = dead(parent, 5, work)
    aftercare = Aftercare()
    aftercare.add(Claimed([], [run.pk], [], set()))
    seen = []
    while aftercare.go_on(connection, 0):
        seen.append(left(run))
    assert seen == sorted(seen, reverse=True) and len(set(seen)) > 2
    assert not left(run)


def test_worker_claims_runs_while_very_many_children_are_canceled(parent, work, monkeypatch):
    monkeypatch.setattr(cascades, "_CHUNK", 2)
    monkeypatch.setattr(loop, "_LONGEST_AFTERCARE", 0)
    run = dead(parent, 100, work)
    seen = []

    @workflow
    def looking(step):
        seen.append(left(run))

    looking.start()
    worker = Worker(until_idle=True, poll_interval=0.05, concurrency=1, queues=["default"])
    worker._aftercare.add(Claimed([], [run.pk], [], set()))
    worker.run()
    assert not left(run)
    assert seen[0] > 0


def test_what_breaks_off_is_left_to_the_nets(parent, work, monkeypatch):
    run = dead(parent, 3, work)
    aftercare = Aftercare()
    aftercare.add(Claimed([], [run.pk], [], set()))
    with monkeypatch.context() as patch:
        patch.setattr(cascades, "_canceling", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            aftercare.go_on(connection)
    assert not aftercare.go_on(connection)
    assert left(run) == 3
    Maintenance("default")._do()
    assert not left(run)


def test_orphans_behind_many_others_are_found(parent, leaf, work, monkeypatch):
    monkeypatch.setattr(cascades, "_AT_MOST", 2)
    runs = [dead(parent, 2, work) for _ in range(5)]
    claims.claim(connection, make_terms(queues=("nobody",)), 6)
    for run in runs[:3]:  # theirs are being executed, and end when that is over
        cascades.cancel_children(connection, run.pk, "")
    assert len(cascades.orphaned(connection)) == 2 and set(cascades.orphaned(connection)) == {
        run.pk for run in runs[3:]
    }
    afterwards.cancel_orphans(connection)
    assert [left(run) for run in runs] == [2, 2, 2, 0, 0]
    assert cascades.orphaned(connection) == []


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="whoever locks anything locks everything")
def test_events_that_cannot_be_told_keep_no_others_from_being_told(monkeypatch):
    monkeypatch.setattr(events, "_AT_MOST", 2)
    monkeypatch.setattr(events, "_LONGEST_LOCK_WAIT", 0.1 if connection.vendor == "postgresql" else 1.0)

    @workflow
    def waiting(step):
        return step.wait_for_event("paid")

    held, free = waiting.start(), waiting.start()
    Worker(until_idle=True, poll_interval=0.05).run()
    with monkeypatch.context() as patch:
        patch.setattr(events, "tell", lambda *given: None)
        for number in range(3):
            held.send_event("paid", number)
        free.send_event("paid", 7)
    with locked(held):
        Maintenance("default")._tell_untold(connection)
        assert list(WorkflowEvent.objects.filter(told=True)) == list(WorkflowEvent.objects.filter(run=free))
    Maintenance("default")._tell_untold(connection)
    assert not WorkflowEvent.objects.filter(told=False).exists()


def test_children_are_retried_a_few_at_a_time(work, monkeypatch):
    is_broken, sizes = True, []

    @workflow
    def fragile(input, step):
        if is_broken:
            raise ValueError(input)
        return input

    @workflow
    def parent(step):
        return len(step.map("each", fragile, range(120), max_failures=119, min_successes=1))

    run = parent.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    retry = children.retry

    def noting(*given, **named):
        sizes.append(len(named["children"]))
        return retry(*given, **named)

    monkeypatch.setattr(children, "retry", noting)
    is_broken = False
    run.retry()
    work()
    assert run.result(timeout=0) == 120
    assert sizes == [50, 50, 20]
