"""`run.pause()` and `run.resume()`: in every status, in the middle of a step, and against what happens at the same time."""

import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from django_steps import AsyncStep, RetryPolicy, workflow
from django_steps.errors import EventTimedOut, InvalidState
from django_steps.ledger import claims, leases, records, transitions
from django_steps.ledger.records import Outcome
from django_steps.ledger.transitions import Finish
from django_steps.ledger.waits import Suspension
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import sleeper, three_steps
from tests.staging import SECOND, Background, at_once, claim, eventually, make_terms, recover, status_of, step_write
from tests.states import check_state

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pays():
    @workflow(name="pays")
    def pays(input, step):
        step.define("before", effects.leave).run("before")
        try:
            return step.wait_for_event("paid", timeout="1h")
        except EventTimedOut:
            return "too late"

    return pays


def elsewhere(run_id, control, **options):
    """Pause or resume a run as another process does; returns when that has returned."""
    Background(lambda: getattr(WorkflowRun.objects.get(pk=run_id), control)(**options)).result()


# -- A run that nobody holds -------------------------------------------------------------------------


def test_a_paused_run_is_not_executed_until_it_is_resumed(work):
    run = three_steps.start({})
    run.pause(reason="the bank is closed", by="eve")
    assert (run.status, run.pause_reason, run.paused_by) == ("paused", "the bank is closed", "eve")
    assert run.paused_at is not None and not run.is_finished and not run.is_pausing
    work()
    assert (status_of(run), effects.names(run)) == ("paused", [])
    run.resume(by="bob")
    assert (run.status, run.pause_reason, run.paused_by, run.paused_at) == ("pending", "", "", None)
    work()
    assert status_of(run) == "succeeded"


def test_time_does_not_wake_what_is_paused_and_a_sleep_that_is_over_ends_at_once(work, pass_time):
    delayed, run = three_steps.start({}, delay="1h"), sleeper.start({"duration": "1h"})
    work()
    for each in (delayed, run):
        each.pause()
        assert each.wakes_at is None
    pass_time("2h")
    work()
    assert (status_of(run), status_of(delayed)) == ("paused", "paused")
    assert effects.names(run) == ["before"]
    run.resume()
    delayed.resume()
    work()
    assert (status_of(run), status_of(delayed)) == ("succeeded", "succeeded")


def test_a_sleep_that_is_not_over_goes_on_after_a_pause(work, pass_time):
    run = sleeper.start({"duration": "2h"})
    work()
    until = run.steps.get(kind="sleep").wakes_at_us
    run.pause()
    pass_time("1h")
    run.resume()
    work()
    run.refresh_from_db()
    assert (run.status, run.available_at_us) == ("sleeping", until)


@pytest.mark.parametrize("sent", ["before the deadline", "after the deadline", "never"])
def test_an_event_is_kept_and_deadlines_go_on(work, pass_time, pays, sent):
    run = pays.start({})
    work()
    assert status_of(run) == "waiting"
    run.pause()
    assert run.waiting_for == []
    if sent == "before the deadline":
        run.send_event("paid", 7)
    pass_time("2h")
    if sent == "after the deadline":
        run.send_event("paid", 7)
    work()
    assert status_of(run) == "paused"
    run.resume()
    work()
    assert (status_of(run), run.output) == ("succeeded", "too late" if sent == "never" else 7)


def test_the_end_of_a_child_is_kept(work):
    @workflow(name="child")
    def child(input, step):
        return step.wait_for_event("go")

    @workflow(name="parent")
    def parent(input, step):
        return step.invoke("child", child).run({})

    run = parent.start({})
    work()
    run.pause()
    WorkflowRun.objects.get(parent=run).send_event("go", 5)
    work()
    assert status_of(run) == "paused" and WorkflowRun.objects.get(parent=run).status == "succeeded"
    run.resume()
    work()
    assert (status_of(run), run.output) == ("succeeded", 5)


def test_a_parent_waits_for_a_paused_child_and_its_cancel_cancels_that(work, pays):
    @workflow(name="parent")
    def parent(input, step):
        return step.invoke("child", pays).run({})

    run = parent.start({})
    work()
    child = WorkflowRun.objects.get(parent=run)
    child.pause()
    work()
    assert status_of(run) == "waiting"
    run.cancel()
    assert (status_of(child), child.paused_at) == ("canceled", None)
    assert status_of(run) == "canceled"


def test_pausing_twice_and_resuming_what_nothing_holds_change_nothing(work):
    run = three_steps.start({})
    run.resume()
    before = WorkflowRun.objects.filter(pk=run.pk).values().get()
    run.resume()
    assert WorkflowRun.objects.filter(pk=run.pk).values().get() == before
    run.pause(reason="first", by="eve")
    before = WorkflowRun.objects.filter(pk=run.pk).values().get()
    run.pause(reason="second", by="bob")
    assert WorkflowRun.objects.filter(pk=run.pk).values().get() == before


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "canceling"])
def test_what_has_ended_or_is_canceling_is_not_paused(status):
    run = three_steps.start({})
    claimed = claim(run)
    if status.startswith("cancel"):
        run.cancel()
    if status == "canceled":
        transitions.release(connection, run.pk, claimed.token)
    if status in ("succeeded", "failed"):
        end = Finish(run_id=run.pk, token=claimed.token, status=status, output="1", finished_at=claimed.now())
        transitions.finish(connection, end)
    said = "has" if status in ("succeeded", "failed") else "is"
    with pytest.raises(InvalidState, match=f"can't be paused: it {said} {status}"):
        run.pause()
    if status == "canceling":
        run.resume()
    else:
        with pytest.raises(InvalidState, match=f"can't be resumed: it {said} {status}"):
            run.resume()
    assert status_of(run) == status


def test_a_paused_run_is_resumed_and_not_retried(work):
    run = three_steps.start({})
    run.pause()
    for retry in (run.retry, lambda: run.retry(from_step="first")):
        with pytest.raises(InvalidState, match=r"it is paused\. Resume it\."):
            retry()
    assert status_of(run) == "paused"


def test_a_paused_run_is_active(work):
    run = three_steps.start({}, key="one")
    run.pause()
    assert run in WorkflowRun.objects.active() and run not in WorkflowRun.objects.finished()
    again = three_steps.start({}, key="one")
    assert (again.pk, again.created, again.status) == (run.pk, False, "paused")
    with pytest.raises(TimeoutError, match="it is paused"):
        run.result(timeout=0.01)


def test_a_paused_run_is_canceled(work):
    run = three_steps.start({})
    run.pause(reason="for now", by="eve")
    run.cancel(reason="for good", by="bob")
    assert (run.status, run.cancel_reason, run.canceled_by) == ("canceled", "for good", "bob")
    assert (run.pause_reason, run.paused_by, run.paused_at) == ("", "", None)
    run.retry()
    work()
    assert status_of(run) == "succeeded"


def test_many_runs_are_paused_and_resumed_and_the_others_are_named(work):
    done = three_steps.start({})
    work()
    runs = [three_steps.start({}) for _ in range(2)]
    result = WorkflowRun.objects.all().pause(reason="r" * 5000, by="e" * 300)
    assert sorted(result.done) == sorted(run.pk for run in runs)
    assert [entry.run_id for entry in result.skipped] == [done.pk]
    runs[0].refresh_from_db()
    assert (runs[0].status, runs[0].pause_reason, runs[0].paused_by) == ("paused", "r" * 5000, "e" * 255)
    result = WorkflowRun.objects.all().resume(by="eve")
    assert (len(result.done), [entry.run_id for entry in result.skipped]) == (2, [done.pk])
    work()
    assert [status_of(run) for run in runs] == ["succeeded"] * 2


def test_runs_are_paused_and_resumed_from_async_code():
    run = three_steps.start({})
    async_to_sync(run.apause)("by hand", by="eve")
    assert (run.status, run.pause_reason, run.paused_by) == ("paused", "by hand", "eve")
    async_to_sync(run.aresume)(by="eve")
    assert run.status == "pending"


def test_who_retries_and_who_resumes_is_logged(caplog):
    caplog.set_level("INFO", "django_steps")
    run = three_steps.start({})
    run.pause()
    run.resume(by="eve")
    run.resume(by="nobody, for nothing happens")
    run.cancel()
    run.retry(by="bob")
    run.cancel()
    async_to_sync(run.aretry)(by="joe")
    run.cancel()
    WorkflowRun.objects.filter(pk=run.pk).retry(by="ann")
    said = [
        f"was {what} by {who}." for what, who in [("resumed", "eve"), *[("retried", n) for n in ("bob", "joe", "ann")]]
    ]
    assert [record.getMessage().removeprefix(f"Run {run.pk} ") for record in caplog.records] == said


@pytest.mark.parametrize("control", ["pause", "resume"])
def test_pausing_in_a_body_outside_a_step_is_refused(work, control):
    @workflow(name="controls")
    def controls(run):
        getattr(run, control)()

    run = controls.start()
    work()
    assert status_of(run) == "failed"
    assert run.error["type"] == "django_steps.errors.StartOutsideStep"


# -- A run that a worker executes ---------------------------------------------------------------------


def test_what_executes_ends_and_is_recorded_and_no_further_step_begins(work):
    @workflow(name="in_flight")
    def in_flight(input, step, run):
        def pause():
            elsewhere(run.pk, "pause", reason="enough", by="eve")
            seen.append(WorkflowRun.objects.get(pk=run.pk))
            return "value"

        step.define("first", effects.leave).run("first")
        step.define("pause", pause).run()
        step.define("after", effects.leave).run("after")

    seen: list[WorkflowRun] = []
    run = in_flight.start({})
    work()
    assert [(one.status, one.is_pausing, one.pause_reason, one.paused_by) for one in seen] == [
        ("running", True, "enough", "eve")
    ]
    run.refresh_from_db()
    assert (run.status, run.pause_reason, run.paused_by) == ("paused", "enough", "eve")
    assert run.steps.get(name="pause").output == "value" and run.steps.count() == 2
    assert effects.names(run) == ["first"]
    check_state(run)
    run.resume()
    work()
    assert (status_of(run), effects.names(run)) == ("succeeded", ["first", "after"])


@pytest.mark.parametrize("meanwhile", ["computes", "waits in place", "waits for the next attempt"])
def test_no_step_begins_after_a_pause_while_the_body(work, meanwhile):
    executed: list[str] = []

    def fail_once() -> None:
        executed.append("first")
        if meanwhile == "waits for the next attempt" and len(executed) == 1:
            threading.Timer(0.05, elsewhere, [run.pk, "pause"]).start()
            raise OSError

    @workflow(name="busy")
    def busy(step):
        step.define("first", fail_once, retry=RetryPolicy(initial_interval="300ms", jitter=False)).run()
        if meanwhile == "computes" and not paused:
            paused.append(True)
            time.sleep(0.02)
            elsewhere(run.pk, "pause")
        if meanwhile == "waits in place":
            if not paused:
                paused.append(True)
                threading.Timer(0.05, elsewhere, [run.pk, "pause"]).start()
            step.sleep("rest", "300ms")
        step.define("second", lambda: executed.append("second")).run()

    paused: list[bool] = []
    run = busy.start()
    work(concurrency=1)
    assert (status_of(run), executed) == ("paused", ["first"])
    run.resume()
    work(concurrency=1)
    assert status_of(run) == "succeeded" and executed[-1] == "second"


def test_an_async_body_that_waits_in_memory_is_paused(transactional_db):
    begun, go_on = threading.Event(), threading.Event()

    @workflow(name="in_memory")
    async def in_memory(input, step: AsyncStep):
        import asyncio

        def wait():
            begun.set()
            go_on.wait(10)

        await asyncio.gather(step.sleep("long", "1h"), step.define("wait", wait).run())
        await step.define("after", effects.leave).run("after")

    _pause_in_the_middle(in_memory, begun, go_on)


def test_branches_that_wait_in_memory_are_paused(transactional_db):
    begun, go_on = threading.Event(), threading.Event()

    @workflow(name="in_branches")
    def in_branches(input, step):
        def branch(item, step):
            if item == 1:
                step.wait_for_event("never")
                return

            def wait():
                begun.set()
                go_on.wait(10)

            step.define("wait", wait).run()
            step.define("after", effects.leave).run("after")

        step.map("both", branch, [1, 2])

    _pause_in_the_middle(in_branches, begun, go_on)


def _pause_in_the_middle(body, begun, go_on):
    run = body.start({})
    worker = Worker(concurrency=2, poll_interval=0.05)
    working = Background(worker.run)
    try:
        assert begun.wait(10)
        run.pause()
        assert run.is_pausing
        go_on.set()
        eventually(lambda: status_of(run) == "paused")
    finally:
        go_on.set()
        worker.stop()
        working.result()
    assert effects.count("after") == 0
    assert run.steps.get(name__endswith="wait").status == "succeeded"


def test_a_pass_that_only_waits_in_memory_hears_of_a_pause_by_its_heartbeat(transactional_db):
    """Nothing of it is recorded that could tell."""
    begun = threading.Event()

    @workflow(name="awaits")
    async def awaits(input, step: AsyncStep):
        import asyncio

        begun.set()
        await asyncio.sleep(0.02)
        async with asyncio.timeout(30):
            await step.wait_for_event("never", timeout="1h")

    run = awaits.start({})
    worker = Worker(concurrency=1, poll_interval=0.05)
    working = Background(worker.run)
    try:
        assert begun.wait(10)
        run.pause()
        eventually(lambda: status_of(run) == "paused")
    finally:
        worker.stop()
        working.result()


def test_a_pause_is_withdrawn_before_it_has_come(work):
    @workflow(name="withdrawn")
    def withdrawn(input, step, run):
        def pause():
            elsewhere(run.pk, "pause")
            elsewhere(run.pk, "resume")

        step.define("pause", pause).run()
        step.define("after", effects.leave).run("after")

    run = withdrawn.start({})
    work()
    assert (status_of(run), effects.names(run), run.paused_at) == ("succeeded", ["after"], None)


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_an_end_that_comes_before_the_pause_stands(work, status):
    @workflow(name="ends")
    def ends(input, run):
        elsewhere(run.pk, "pause", reason="too late", by="eve")
        if status == "failed":
            raise RuntimeError

    run = ends.start({})
    work()
    assert (status_of(run), run.paused_at, run.pause_reason, run.paused_by) == (status, None, "", "")


def test_a_run_that_is_to_be_attempted_again_is_paused_and_then_attempted_at_once(work, pass_time):
    @workflow(name="again", retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False))
    def again(input, step, run):
        def fail_once():
            effects.leave("tried")
            if effects.count("tried") == 1:
                elsewhere(run.pk, "pause")
                raise RuntimeError("no")

        step.define("try", fail_once).run()

    run = again.start({})
    work()
    assert status_of(run) == "paused"
    run.resume()
    work()
    pass_time("2h")
    work()
    assert (status_of(run), run.attempts, effects.count("tried")) == ("succeeded", 2, 2)


def test_the_last_step_before_a_run_retry_may_be_paused_by_the_statement_of_the_retry():
    run = three_steps.start({})
    claimed = claim(run)
    run.pause()
    again = transitions.attempt_again(connection, run.pk, claimed.token, claimed.now() + SECOND, "{}", [])
    assert again is Outcome.WRITTEN
    run.refresh_from_db()
    assert (run.status, run.attempts, run.worker_id) == ("paused", 2, None)
    check_state(run)


def test_a_run_whose_worker_dies_while_it_is_pausing_is_paused(pass_time):
    run = three_steps.start({})
    claim(run)
    run.pause(reason="enough", by="eve")
    pass_time("31s")
    recover()
    run.refresh_from_db()
    assert (run.status, run.pause_reason, run.recoveries) == ("paused", "enough", 1)
    check_state(run)


def test_a_run_whose_workers_died_too_often_fails_while_it_is_pausing(pass_time):
    run = three_steps.start({})
    claim(run)
    run.pause(reason="enough", by="eve")
    pass_time("31s")
    recover(make_terms(max_recoveries=0))
    assert (status_of(run), run.paused_at) == ("failed", None)


def test_a_pausing_run_is_canceled(work):
    run = three_steps.start({})
    claimed = claim(run)
    run.pause(reason="for now")
    run.cancel(reason="for good")
    assert (run.status, run.paused_at, run.pause_reason) == ("canceling", None, "")
    assert transitions.release(connection, run.pk, claimed.token)
    assert status_of(run) == "canceled"


def test_a_pausing_run_is_put_down_no_more_and_keeps_what_is_recorded():
    run = three_steps.start({})
    claimed = claim(run)
    run.pause()
    wakes_at_us = claimed.now() + SECOND
    sleep = step_write(claimed, "nap", kind="sleep", status="waiting", wakes_at_us=wakes_at_us)
    refused = [
        transitions.suspend(connection, run.pk, claimed.token, Suspension(wakes_at_us), sleep),
        transitions.suspend_again(connection, run.pk, claimed.token, Suspension(wakes_at_us)),
        records.record(connection, step_write(claimed, "step", 1)),
        records.record(connection, step_write(claimed, "step", 1, replaces=True)),
    ]
    assert refused == [Outcome.NOT_RUNNING] * 4
    assert not leases.enter_step(connection, run.pk, claimed.token, "next")
    assert not transitions.release(connection, run.pk, claimed.token)
    assert status_of(run) == "paused" and run.steps.count() == 2
    check_state(run)


def test_a_run_that_continues_as_another_is_paused_first(work):

    @workflow(name="forever")
    def forever(input, step, run):
        if not input:
            elsewhere(run.pk, "pause") if not paused else None
            paused.append(1)
            return step.continue_as_new(1)
        return "over"

    paused: list[int] = []
    run = forever.start(0, key="entity")
    work()
    assert (status_of(run), run.continued_as_id, run.key) == ("paused", None, "entity")
    run.resume()
    work()
    run.refresh_from_db()
    assert run.continued_as_id is not None and run.result(timeout=5) == "over"


def test_the_worker_that_stops_leaves_a_pausing_run_paused(transactional_db):
    inside, go_on = threading.Event(), threading.Event()

    @workflow(name="stopped")
    def stopped(input, step):
        def wait():
            inside.set()
            go_on.wait(10)

        step.define("wait", wait).run()
        step.define("after", effects.leave).run("after")

    run = stopped.start({})
    worker = Worker(concurrency=1, poll_interval=0.05)
    working = Background(worker.run)
    try:
        assert inside.wait(10)
        run.pause()
        worker.stop()
    finally:
        go_on.set()
        worker.stop()
        working.result()
    assert status_of(run) == "paused" and run.started_at is not None


def test_a_run_that_was_claimed_ahead_and_not_begun_is_paused_as_if_it_had_not_been(pass_time):
    run = three_steps.start({})
    claimed = claim(run)
    run.pause()
    transitions.release(connection, run.pk, claimed.token, is_untouched=True)
    assert (status_of(run), run.started_at) == ("paused", None)


# -- Two things at once ------------------------------------------------------------------------------


def rival(run, control):
    def call():
        getattr(WorkflowRun.objects.get(pk=run.pk), control)()
        return control

    return call


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_pause_against_the_end_one_wins(transactional_db, status):
    for _ in range(8):
        run = three_steps.start({})
        claimed = claim(run)
        end = Finish(run_id=run.pk, token=claimed.token, status=status, output="1", finished_at=claimed.now())
        paused, ended = at_once([rival(run, "pause"), lambda end=end: transitions.finish(connection, end)])
        assert ended is Outcome.WRITTEN  # an end always stands
        assert paused == "pause" or isinstance(paused, InvalidState)
        assert (status_of(run), run.paused_at) == (status, None)
        check_state(run)


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("other", ["cancel", "resume", "pause"])
def test_pause_against_another_control_leaves_a_state_of_the_table(transactional_db, other, is_held):
    expected = {
        "cancel": {"canceled"},
        "resume": {"paused", "pending"},
        "pause": {"paused"},
    }[other]
    for _ in range(8):
        run = three_steps.start({})
        claimed = claim(run) if is_held else None
        answers = at_once([rival(run, "pause"), rival(run, other)])
        assert answers[1] == other
        assert answers[0] == "pause" or (other == "cancel" and isinstance(answers[0], InvalidState))
        check_state(run)
        if claimed is not None:
            transitions.release(connection, run.pk, claimed.token)
        assert check_state(run).status in expected


def test_pause_against_retry_leaves_a_state_of_the_table(transactional_db):
    for _ in range(8):
        run = three_steps.start({})
        run.cancel()
        paused, retried = at_once([rival(run, "pause"), rival(run, "retry")])
        assert retried == "retry"
        assert check_state(run).status == ("pending" if isinstance(paused, InvalidState) else "paused")


def test_pause_against_a_claim_leaves_no_run_that_is_paused_and_held(transactional_db):
    for _ in range(8):
        run = three_steps.start({})
        terms = make_terms()
        paused, found = at_once([rival(run, "pause"), lambda terms=terms: claims.claim(connection, terms, 1).runs])
        assert paused == "pause"
        state = check_state(run)
        assert state.status == ("running" if found else "paused")
        if found:
            assert not transitions.release(connection, run.pk, found[0].token)
            assert status_of(run) == "paused"


def test_pause_against_an_event_loses_neither(transactional_db, work, pays):
    for _ in range(4):
        run = pays.start({})
        work()
        at_once([rival(run, "pause"), lambda run=run: WorkflowRun.objects.get(pk=run.pk).send_event("paid", 3)])
        assert check_state(run).status == "paused"
        run.resume()
        work()
        assert (status_of(run), run.output) == ("succeeded", 3)
