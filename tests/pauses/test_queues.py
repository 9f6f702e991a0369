"""Pauses of queues and workflows: what workers leave, what they let through, and what it costs."""

from __future__ import annotations

import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError

from django_steps import workflow
from django_steps.errors import InvalidName
from django_steps.ledger import claims, lines, moves, pauses, transitions, unknown
from django_steps.models import WorkflowPause, WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import sleeper, three_steps
from tests.plans import analyze, recorded_statements, rows_looked_at
from tests.staging import Background, at_once, claim, eventually, make_terms, status_of
from tests.states import check_state

pytestmark = pytest.mark.django_db(transaction=True)

Phase = WorkflowRun.Phase


def phase_of(run):
    run.refresh_from_db()
    return Phase(run.phase).name


def pause_queue(name="default", **said):
    return WorkflowPause.objects.pause_queue(name, **said)


def resume_queue(name="default"):
    return WorkflowPause.objects.resume_queue(name)


def claimable(**options):
    """How many runs a claim of a worker takes that knows the pauses."""
    terms = make_terms(**options)
    from dataclasses import replace

    return len(claims.claim(connection, replace(terms, paused=pauses.read(connection)), 100).runs)


@pytest.mark.parametrize("what", ["queue", "workflow"])
def test_ready_runs_are_set_aside_and_come_back(work, what):
    run, other = three_steps.start({}, queue="mail"), sleeper.start({"duration": "0s"})
    if what == "queue":
        pause = pause_queue("mail", reason="the provider is down", by="eve")
    else:
        pause = three_steps.pause(reason="the provider is down", by="eve")
    assert (pause.kind, pause.reason, pause.by, pause.created) == (what, "the provider is down", "eve", True)
    assert (phase_of(run), run.status, run.paused_at) == ("PARKED", "pending", None)
    check_state(run)
    work()
    assert (status_of(other), status_of(run), effects.names(run)) == ("succeeded", "pending", [])
    assert resume_queue("mail") if what == "queue" else three_steps.resume()
    assert phase_of(run) == "READY"
    work()
    assert status_of(run) == "succeeded"


def test_what_comes_in_later_is_set_aside_too(work, pass_time):
    asleep = sleeper.start({"duration": "1h"})
    work()
    pause_queue()
    run, delayed = three_steps.start({}), three_steps.start({}, delay="1h")
    pass_time("2h")
    work()
    assert [phase_of(one) for one in (asleep, run, delayed)] == ["PARKED"] * 3
    assert [one.status for one in (asleep, run, delayed)] == ["pending"] * 3
    resume_queue()
    work()
    assert {status_of(one) for one in (asleep, run, delayed)} == {"succeeded"}


def test_a_worker_stops_claiming_within_a_second(transactional_db):
    """Also what starts before anybody has parked it, and while the worker has more than enough to do."""

    @workflow(name="quick")
    def quick(input):
        return None

    worker = Worker(concurrency=2, poll_interval=0.05)
    working = Background(worker.run)
    try:
        quick.start(None).result(timeout=10)
        quick.pause()
        time.sleep(1.0)
        late = [quick.start(None) for _ in range(20)]
        time.sleep(0.3)
        assert {status_of(run) for run in late} == {"pending"}
        quick.resume()
        eventually(lambda: {status_of(run) for run in late} == {"succeeded"})
    finally:
        worker.stop()
        working.result()


def test_what_is_executed_goes_on_until_it_is_suspended(transactional_db):
    inside, go_on = threading.Event(), threading.Event()

    @workflow(name="goes_on")
    def goes_on(input, step):
        step.define("first", lambda: inside.set() or go_on.wait(60)).run()
        step.define("second", effects.leave).run("second")
        step.sleep("nap", "1h")

    run = goes_on.start({})
    worker = Worker(concurrency=1, poll_interval=0.05)
    working = Background(worker.run)
    try:
        assert inside.wait(60)
        goes_on.pause()
        go_on.set()
        eventually(lambda: effects.count("second"))
        assert status_of(run) in ("running", "sleeping")
    finally:
        go_on.set()
        worker.stop()
        working.result()


def test_pausing_twice_keeps_the_first_pause_and_resuming_what_is_not_paused_says_so():
    pause_queue("mail", reason="first", by="eve")
    again = pause_queue("mail", reason="second", by="bob")
    assert (again.created, again.reason, again.by) == (False, "first", "eve")
    assert resume_queue("mail") is True
    assert resume_queue("mail") is False
    assert three_steps.resume() is False
    with pytest.raises(InvalidName):
        pause_queue("")


def test_workflows_are_paused_from_async_code():
    pause = async_to_sync(three_steps.apause)("by hand", by="eve")
    assert (pause.name, pause.reason) == ("three_steps", "by hand")
    assert async_to_sync(three_steps.aresume)("eve") is True


def test_who_resumes_is_logged(caplog):
    caplog.set_level("INFO", "django_steps")
    pause_queue("mail")
    assert WorkflowPause.objects.resume_queue("mail", by="eve")
    assert not WorkflowPause.objects.resume_queue("mail", by="bob")
    assert [record.getMessage() for record in caplog.records] == ["The queue mail was resumed by eve."]


def test_without_autocommit_and_outside_of_a_transaction_nothing_is_paused():
    connection.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError):
            pause_queue("mail")
    finally:
        connection.rollback()
        connection.set_autocommit(True)
    assert not WorkflowPause.objects.exists()


def test_a_pause_and_its_end_count_once_they_are_committed():
    run = three_steps.start({})
    with transaction.atomic():
        pause_queue()
        transaction.set_rollback(True)
    assert phase_of(run) == "READY" and not pauses.read(connection)
    with transaction.atomic():
        pause_queue()
        assert phase_of(run) == "READY"
    assert phase_of(run) == "PARKED"
    with transaction.atomic():
        resume_queue()
        transaction.set_rollback(True)
    assert phase_of(run) == "PARKED"


def test_two_pauses_hold_until_both_are_over(work):
    run = three_steps.start({})
    pause_queue()
    three_steps.pause()
    resume_queue()
    assert phase_of(run) == "PARKED"
    three_steps.resume()
    assert phase_of(run) == "READY"


def test_a_run_that_is_resumed_is_let_through_until_it_ends(work, pass_time):
    run, other = (sleeper.start({"duration": "1h"}) for _ in range(2))
    pause_queue()
    run.resume()
    assert phase_of(run) == "READY"
    work()
    assert (status_of(run), status_of(other)) == ("sleeping", "pending")
    pass_time("2h")
    work()
    assert (status_of(run), status_of(other)) == ("succeeded", "pending")


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_is_let_through_in_whichever_status_it_is(work, pass_time, begun):
    run = sleeper.start({"duration": "1h"})
    if begun:
        work()
    pause_queue()
    run.pause()
    run.resume()
    assert (run.status, phase_of(run)) == ("pending", "READY")
    pass_time("2h")
    work()
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"


def test_a_sleeping_run_is_let_through_before_it_is_due(work, pass_time):
    run = sleeper.start({"duration": "1h"})
    work()
    pause_queue()
    run.resume()
    assert (run.status, run.pause_exempt) == ("sleeping", True)
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"


def test_a_retry_gets_no_further_than_the_pause(work):
    run = three_steps.start({})
    pause_queue()
    run.resume()
    run.cancel()
    run.retry()
    work()
    assert (status_of(run), phase_of(run)) == ("pending", "PARKED")


def test_a_paused_run_stays_paused_when_its_queue_is_resumed():
    run = three_steps.start({})
    run.pause()
    pause_queue()
    resume_queue()
    assert (status_of(run), phase_of(run)) == ("paused", "PARKED")
    pauses.unpark_all(connection)
    assert status_of(run) == "paused"


def test_a_parked_run_is_paused_canceled_and_resumed_as_a_pending_one():
    runs = [three_steps.start({}) for _ in range(2)]
    pause_queue()
    runs[0].cancel()
    runs[1].pause()
    assert [status_of(run) for run in runs] == ["canceled", "paused"]


def test_unknown_runs_of_a_paused_queue_are_parked_once_they_are_known(work):
    run = three_steps.start({}, queue="mail")
    unknown.set_aside(connection, [("another", "")])
    pause_queue("mail")
    assert phase_of(run) == "UNKNOWN"
    unknown.bring_back(connection, [("three_steps", "")])
    work()
    assert phase_of(run) == "PARKED"


def test_a_pause_whose_process_died_before_it_parked_is_carried_out_by_workers(work):
    run = three_steps.start({})
    WorkflowPause.objects.create(kind="queue", name="default", since=run.created_at)
    assert phase_of(run) == "READY" and claimable() == 0
    work()
    assert phase_of(run) == "PARKED"


def test_maintenance_brings_back_what_a_process_that_died_has_left_parked(transactional_db):
    from django_steps.worker.maintenance import Maintenance

    run = three_steps.start({})
    pause_queue()
    WorkflowPause.objects.all().delete()
    assert phase_of(run) == "PARKED"
    Maintenance("default")._do()
    assert phase_of(run) == "READY"


def test_a_worker_that_has_not_heard_of_the_end_of_a_pause_parks_nothing_for_good(monkeypatch):
    """It parks after somebody has brought the runs back, by what it has read before."""
    run = three_steps.start({})
    pause = WorkflowPause.objects.create(kind="queue", name="default", since=run.created_at)
    move = lines.move

    def late(connection, ids, condition, sets, *parameters):
        moved = move(connection, ids, condition, sets, *parameters)
        if sets == moves.parked():
            pause.resume()
        return moved

    monkeypatch.setattr(lines, "move", late)
    pauses.park_front(connection)
    assert phase_of(run) == "READY"


def test_pauses_and_resumes_at_once_leave_what_the_last_one_wants(transactional_db):
    for _ in range(4):
        run = three_steps.start({})
        at_once([pause_queue, resume_queue, lambda: pauses.park_front(connection), lambda: claimable()])
        check_state(run)
        resume_queue()
        pauses.unpark_all(connection)
        assert phase_of(run) in ("READY", "TIMED")
        WorkflowRun.objects.all().delete()


def test_a_resumed_run_is_not_parked_by_somebody_who_saw_it_before(transactional_db):
    for _ in range(8):
        run = three_steps.start({})
        pause_queue()
        at_once([run.resume, lambda: pauses.park_all(connection)])
        assert phase_of(run) == "READY"
        resume_queue()
        WorkflowRun.objects.all().delete()


def test_a_run_that_worker_releases_is_parked(transactional_db, work):
    run = three_steps.start({})
    claimed = claim(run)
    pause_queue()
    assert check_state(run).status == "running"
    transitions.release(connection, run.pk, claimed.token)
    work()
    assert phase_of(run) == "PARKED"


def test_paused_ready_runs_cost_a_claim_nothing(transactional_db):
    held = workflow(name="held")(lambda: None)
    free = workflow(name="free")(lambda: None)
    held.start_many([None] * 3000, queue="mail", priority=10)
    free.start_many([None] * 10)
    pause_queue("mail")
    assert WorkflowRun.objects.filter(phase=Phase.PARKED).count() == 3000
    analyze("django_steps_workflowrun")
    from dataclasses import replace

    terms = replace(make_terms(), paused=pauses.read(connection))
    with rows_looked_at() as looked_at, recorded_statements():
        assert len(claims.claim(connection, terms, 8).runs) == 8
    assert looked_at[0] <= (5000 if connection.vendor == "sqlite" else 80)


def test_a_claim_without_pauses_is_the_same_statement():
    three_steps.start({})
    with recorded_statements() as statements:
        claims.claim(connection, make_terms(), 1)
    assert not any("pause_exempt" in statement or "workflowpause" in statement for statement, _ in statements)
