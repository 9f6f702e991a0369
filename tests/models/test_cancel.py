"""`run.cancel()`: in every status, in the middle of a step, and against what happens at the same time."""

import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.utils import timezone

from django_steps import RetryPolicy, signals, workflow
from django_steps.errors import InvalidState, RunCanceled
from django_steps.ledger import leases, records, transitions
from django_steps.ledger.transitions import Finish
from django_steps.ledger.waits import Suspension
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import sleeper, slow_middle, three_steps
from tests.staging import SECOND, Background, at_once, claim, eventually, status_of, step_write

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def told():
    """The runs of which `run_canceled` told."""
    heard = []

    def hear(sender, run, **others):
        heard.append(run.pk)

    signals.run_canceled.connect(hear)
    yield heard
    signals.run_canceled.disconnect(hear)


def test_a_pending_run_is_never_executed(work, told):
    run = three_steps.start({})
    run.cancel()
    assert run.status == "canceled" and run.is_finished and run.finished_at is not None
    work()
    assert effects.names(run) == []
    with pytest.raises(RunCanceled):
        run.result(timeout=1)
    assert told == [run.pk]


def test_a_delayed_run_is_never_executed(work, pass_time):
    run = three_steps.start({}, delay="1h")
    run.cancel()
    pass_time("2h")
    work()
    assert status_of(run) == "canceled" and effects.names(run) == []


def test_a_sleeping_run_does_not_wake_up(work, pass_time, told):
    run = sleeper.start({"duration": "1h"})
    work()
    run.cancel()
    pass_time("2h")
    work()
    assert status_of(run) == "canceled" and effects.names(run) == ["before"]
    assert told == [run.pk]


def test_a_run_in_the_middle_of_a_step_ends_with_that_step(start_worker):
    run = slow_middle.start({"seconds": 0.7})
    worker = start_worker("--poll-interval", "0.1")
    eventually(lambda: effects.count("slow begins"))
    run.cancel()
    assert run.status == "canceling"
    eventually(lambda: status_of(run) == "canceled")
    assert effects.names(run) == ["before", "slow begins", "slow ends"]
    assert list(run.steps.values_list("name", "status")) == [("before", "succeeded"), ("slow", "succeeded")]
    assert worker.stop() == 0
    assert "Traceback" not in worker.output()


# On SQLite an atomic step is the one writer of the file: a cancel has to wait, and comes after the step.
@pytest.mark.parametrize("atomic", [False] if connection.vendor == "sqlite" else [False, True])
def test_the_step_in_flight_is_recorded(transactional_db, told, atomic):
    inside, go_on = threading.Event(), threading.Event()

    @workflow(name="in_flight")
    def in_flight(input, step):
        def wait():
            effects.leave("wait") if not atomic else None
            inside.set()
            go_on.wait(10)
            return "value"

        step.define("wait", wait, atomic=atomic).run()
        step.define("after", effects.leave).run("after")

    run = in_flight.start({})
    worker = Worker(concurrency=1, poll_interval=0.05)
    working = Background(worker.run)
    try:
        assert inside.wait(10)
        run.cancel(reason="too slow", by="eve")
        assert (run.status, run.is_finished, run.finished_at) == ("canceling", False, None)
        assert run in WorkflowRun.objects.active() and run not in WorkflowRun.objects.finished()
        with pytest.raises(TimeoutError, match="it is canceling"):
            run.result(timeout=0.01)
        assert told == []
        before = timezone.now()
        waiting = Background(lambda: run.result(timeout=10))
        go_on.set()
        with pytest.raises(RunCanceled):
            waiting.result()
        eventually(lambda: told)
    finally:
        go_on.set()
        worker.stop()
        working.result()
    assert run.steps.get(name="wait").output == "value"
    assert status_of(run) == "canceled" and run.finished_at >= before
    assert (run.cancel_reason, run.canceled_by) == ("too slow", "eve")
    assert effects.count("after") == 0 and told == [run.pk]


def test_canceling_twice_is_quiet(work, told):
    run = three_steps.start({})
    run.cancel()
    finished_at = run.finished_at
    run.cancel()
    assert run.finished_at == finished_at and told == [run.pk]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_canceling_a_finished_run_is_refused(work, status):
    @workflow(name="ends")
    def ends(input):
        if status == "failed":
            raise RuntimeError

    run = ends.start({})
    work()
    with pytest.raises(InvalidState, match=f"can't be canceled: it has {status}"):
        run.cancel()
    assert status_of(run) == status


def test_cancel_against_complete_one_wins(transactional_db):
    for _ in range(8):
        run = three_steps.start({})
        claimed = claim(run)
        end = Finish(run_id=run.pk, token=claimed.token, status="succeeded", output="1", finished_at=claimed.now())

        def cancel(run=run):
            WorkflowRun.objects.get(pk=run.pk).cancel()
            return "canceled"

        canceled, ended = at_once([cancel, lambda end=end: transitions.finish(connection, end)])
        if ended is records.Outcome.WRITTEN:
            assert isinstance(canceled, InvalidState) and status_of(run) == "succeeded"
        else:
            assert ended is records.Outcome.NOT_RUNNING and canceled == "canceled"
            assert status_of(run) == "canceling"
            assert transitions.release(connection, run.pk, claimed.token)
            assert status_of(run) == "canceled" and run.phase == WorkflowRun.Phase.ENDED


def test_a_canceled_run_is_put_down_no_more(transactional_db):
    run = three_steps.start({})
    claimed = claim(run)
    run.cancel()
    wakes_at_us = claimed.now() + SECOND
    sleep = step_write(claimed, "nap", kind="sleep", wakes_at_us=wakes_at_us)
    assert (
        transitions.suspend(connection, run.pk, claimed.token, Suspension(wakes_at_us), sleep)
        is records.Outcome.NOT_RUNNING
    )
    assert (
        transitions.suspend_again(connection, run.pk, claimed.token, Suspension(wakes_at_us))
        is records.Outcome.NOT_RUNNING
    )
    again = transitions.attempt_again(connection, run.pk, claimed.token, wakes_at_us, "{}", [])
    assert again is records.Outcome.NOT_RUNNING
    assert status_of(run) == "canceling"


def test_a_cancel_before_a_wait_is_put_down_lets_go_at_once(transactional_db, told):
    """The sleep is recorded already, the run is canceled, and the pass gets as far as putting it down."""
    run = three_steps.start({})
    claimed = claim(run)
    run.cancel()
    for _ in range(2):  # the answer may be lost
        assert transitions.release(connection, run.pk, claimed.token)
    run.refresh_from_db()
    assert (run.status, run.phase, run.worker_id) == ("canceled", WorkflowRun.Phase.ENDED, claimed.worker_id)


def test_a_canceled_run_may_be_retried(work):
    run = three_steps.start({})
    run.cancel()
    run.retry()
    work()
    assert status_of(run) == "succeeded"


def test_a_canceling_run_is_not_retried_and_is_canceled_once(transactional_db, told):
    run = three_steps.start({})
    claimed = claim(run)
    leases.enter_step(connection, run.pk, claimed.token, "first")
    run.cancel(reason="first reason")
    for retry in (run.retry, lambda: run.retry(from_step="first")):
        with pytest.raises(InvalidState, match=r"it is canceling, and worker a-host:4711 still executes step 'first'"):
            retry()
    run.cancel(reason="second reason")
    assert (run.status, run.cancel_reason, run.phase) == ("canceling", "first reason", WorkflowRun.Phase.TIMED)
    assert transitions.release(connection, run.pk, claimed.token)
    assert status_of(run) == "canceled" and run.phase == WorkflowRun.Phase.ENDED
    run.retry()
    assert (run.status, run.cancel_reason, run.canceled_by, run.finished_at) == ("pending", "", "", None)
    assert claim(run).token != claimed.token


def test_no_step_begins_after_the_one_in_which_the_run_was_canceled(work, told):
    @workflow(name="cancels_itself")
    def cancels_itself(input, step, run):
        step.define("first", effects.leave).run("first")
        step.define("cancel", lambda: WorkflowRun.objects.get(pk=run.pk).cancel(reason="enough")).run()
        step.define("second", effects.leave).run("second")

    run = cancels_itself.start({})
    work()
    assert status_of(run) == "canceled" and run.cancel_reason == "enough"
    assert effects.names(run) == ["first"] and run.steps.count() == 2 and told == [run.pk]


def test_reason_and_author_are_kept_also_for_many_and_from_async_code(transactional_db):
    one, two = (three_steps.start({}) for _ in range(2))
    async_to_sync(one.acancel)("by hand", by="a" * 300)
    assert (one.cancel_reason, one.canceled_by) == ("by hand", "a" * 255)
    WorkflowRun.objects.filter(pk=two.pk).cancel(reason="r" * 5000, by="eve")
    two.refresh_from_db()
    assert (two.status, two.cancel_reason, two.canceled_by) == ("canceled", "r" * 5000, "eve")


def test_many_runs_are_canceled_and_the_others_are_named(work, told):
    done = three_steps.start({})
    work()
    waiting = [three_steps.start({}) for _ in range(2)]
    result = WorkflowRun.objects.all().cancel()
    assert sorted(result.done) == sorted(run.pk for run in waiting)
    assert [entry.run_id for entry in result.skipped] == [done.pk]
    assert sorted(told) == sorted(result.done)


# -- No step begins after a cancel has returned ------------------------------------------------------


def canceling_elsewhere(run_id):
    """Cancel a run as another process does, on a connection of another thread; returns when that has returned."""
    Background(lambda: WorkflowRun.objects.get(pk=run_id).cancel()).result()


@pytest.mark.parametrize("meanwhile", ["computes", "waits in place", "waits for the next attempt"])
def test_no_step_begins_after_a_cancel_while_the_body(work, meanwhile):
    executed: list[str] = []

    def fail_once() -> None:
        executed.append("first")
        if meanwhile == "waits for the next attempt":
            threading.Timer(0.05, canceling_elsewhere, [run.pk]).start()
            raise OSError

    @workflow
    def busy(step):
        step.define("first", fail_once, retry=RetryPolicy(initial_interval="300ms", jitter=False)).run()
        if meanwhile == "computes":
            time.sleep(0.02)
            canceling_elsewhere(run.pk)
        if meanwhile == "waits in place":
            threading.Timer(0.05, canceling_elsewhere, [run.pk]).start()
            step.sleep("rest", "300ms")
        step.define("second", lambda: executed.append("second")).run()

    run = busy.start()
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "canceled"
    assert executed == ["first"]


@pytest.mark.parametrize("control", ["cancel", "retry"])
def test_controls_in_a_body_outside_a_step_are_refused(work, control):
    @workflow
    def controls(run):
        getattr(run, control)()

    run = controls.start()
    work()
    run.refresh_from_db()
    assert run.error["type"] == "django_steps.errors.StartOutsideStep"
    assert f'step.define("{control}_run", run.{control}).run()' in run.error["message"]


def test_run_that_cancels_itself_in_a_step_ends_after_it(work):
    executed: list[int] = []

    @workflow
    def gives_up(step, run):
        step.define("give up", run.cancel).run()
        step.define("never", lambda: executed.append(1)).run()

    run = gives_up.start()
    work()
    run.refresh_from_db()
    assert (run.status, executed) == ("canceled", [])
    assert [step.name for step in run.steps.all()] == ["give up"]
