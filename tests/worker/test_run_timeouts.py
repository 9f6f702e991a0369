"""Timeouts of runs, and how long they may wait to begin: kept by the pass that holds a run, else by any worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from django_steps import AsyncStep, RetryPolicy, RunCanceled, RunFailed, TimedOut, signals, workflow
from django_steps.core import clock
from django_steps.ledger import claims, database, expiry, timers, transitions, unknown
from django_steps.models import WorkflowRun
from tests.looking import names_of
from tests.staging import claim, eventually, locked, make_terms, recover, status_of
from tests.states import check_state
from tests.wire import counted

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = 1_000_000


def sleeping(**options: Any) -> Any:
    """A workflow that sleeps for a day between two steps."""

    @workflow(name="sleeping", **options)
    def body(step):
        step.define("before", lambda: 1).run()
        step.sleep("pause", "1d")
        return step.define("after", lambda: 2).run()

    return body


@pytest.fixture
def elsewhere(work) -> Callable[[], None]:
    """A worker that serves another queue than the runs have."""
    return lambda: work(queues=["other"])


@pytest.fixture(params=["as it is", "paused"])
def pause(request) -> Callable[[WorkflowRun], None]:
    """Pause a run, or leave it as it is: a pause doesn't stop the clocks."""
    return (lambda run: run.pause()) if request.param == "paused" else lambda run: None


# -- The timeout of a run that nobody holds ------------------------------------------------------------


def test_a_run_that_sleeps_past_its_timeout_fails(work, elsewhere, pass_time, pause):
    run = sleeping().start(timeout="2h")
    work()
    pause(run)
    assert status_of(run) in ("sleeping", "paused") and run.timeout == timedelta(hours=2)
    pass_time("119m")
    elsewhere()
    assert status_of(run) in ("sleeping", "paused")
    pass_time("2m")
    elsewhere()
    assert status_of(run) == "failed" and run.expires_at is None
    assert run.error["type"].endswith("RunTimedOut") and "2h" in run.error["message"]
    with pytest.raises(RunFailed) as raised:
        run.result(timeout=0)
    assert raised.value.error["message"] == f"Run {run.pk} has not ended within its timeout of 2h."
    check_state(run)


def test_the_timeout_of_the_workflow_holds_where_the_start_gives_none(work, pass_time):
    short, own = sleeping(timeout="2h").start(), sleeping(timeout="2h", version="2").start(timeout="3h")
    work()
    pass_time("150m")
    work()
    assert [status_of(short), status_of(own)] == ["failed", "sleeping"]


def test_the_clock_begins_with_the_first_claim(work, pass_time):
    run = sleeping().start(timeout="2h", delay="5h")
    pass_time("6h")
    work()
    assert status_of(run) == "sleeping"
    pass_time("119m")
    work()
    assert status_of(run) == "sleeping"


def test_a_run_that_waits_for_an_event_fails_with_its_timeout(work, elsewhere, pass_time):
    @workflow
    def waiting(step):
        return step.wait_for_event("approval")

    run = waiting.start(timeout="2h")
    work()
    pass_time("121m")
    elsewhere()
    assert status_of(run) == "failed"


def test_a_run_that_was_begun_and_is_pending_fails_with_its_timeout(elsewhere, pass_time):
    run = sleeping().start(timeout="2h")
    claimed = claim(run)
    transitions.release(connection, run.pk, claimed.token)
    pass_time("121m")
    elsewhere()
    assert status_of(run) == "failed"
    check_state(run)


def test_a_run_that_no_worker_knows_any_more_fails_with_its_timeout(elsewhere, pass_time):
    run = sleeping().start(timeout="2h")
    transitions.release(connection, run.pk, claim(run).token)
    unknown.set_aside(connection, {("another", "")})
    assert WorkflowRun.objects.get(pk=run.pk).phase == WorkflowRun.Phase.UNKNOWN
    pass_time("121m")
    elsewhere()
    assert status_of(run) == "failed"


def test_the_policy_of_the_run_does_not_try_a_timeout_again(work, pass_time):
    def fail():
        raise ValueError

    @workflow(timeout="2h", retry=RetryPolicy(max_attempts=5, initial_interval="1d", jitter=False))
    def failing(step):
        step.define("fail", fail).run()

    run = failing.start()
    work()
    assert status_of(run) == "sleeping" and run.attempts == 2
    pass_time("121m")
    work()
    assert status_of(run) == "failed" and run.error["type"].endswith("RunTimedOut")


def test_a_retry_by_hand_starts_the_clock_anew(work, pass_time):
    run = sleeping().start(timeout="20h")
    work()
    pass_time("21h")
    work()
    assert status_of(run) == "failed"
    run.retry()
    assert run.expires_at is None
    pass_time("1h")
    work()
    assert status_of(run) == "sleeping"
    left = run.expires_at - clock.to_datetime(database.read_clock(connection))
    assert timedelta(hours=19) < left <= timedelta(hours=20)
    pass_time("3h")
    work()
    assert status_of(run) == "succeeded" and names_of(run) == ["before", "pause", "after"]


def test_a_canceled_run_has_no_timeout_any_more(work, elsewhere, pass_time):
    run = sleeping().start(timeout="2h")
    work()
    run.cancel()
    pass_time("3h")
    elsewhere()
    assert status_of(run) == "canceled" and run.expires_at is None


def test_ended_runs_are_not_looked_at(work, pass_time):
    @workflow
    def quick():
        return 1

    run = quick.start(timeout="2h", start_within="1h")
    work()
    assert status_of(run) == "succeeded" and run.expires_at is None
    pass_time("3h")
    assert expiry.end_expired(connection) == [] and timers.next_due(connection).expires is None


def test_the_children_of_a_run_that_timed_out_are_canceled(work, pass_time):
    child = sleeping()

    @workflow
    def parent(step):
        return step.invoke("child", child).run()

    run = parent.start(timeout="2h")
    work()
    pass_time("121m")
    work()
    assert status_of(run) == "failed"
    assert WorkflowRun.objects.get(parent=run).status == "canceled"


def test_a_parent_is_woken_by_the_timeout_of_its_child(work, pass_time):
    child = sleeping(timeout="2h")

    @workflow
    def parent(step):
        try:
            return step.invoke("child", child).run()
        except RunFailed as error:
            cause = error.__cause__
            return [type(cause).__name__, isinstance(cause, TimedOut), cause.timeout == timedelta(hours=2)]

    run = parent.start()
    work()
    pass_time("121m")
    work()
    assert status_of(run) == "succeeded" and run.output == ["RunTimedOut", True, True]


def test_a_run_that_somebody_has_locked_is_ended_another_time(work, pass_time):
    run = sleeping().start(timeout="2h")
    work()
    pass_time("121m")
    if connection.vendor == "sqlite":
        pytest.skip("SQLite locks the whole file")
    with locked(run):
        assert expiry.end_expired(connection) == []
    assert expiry.end_expired(connection) == [run.pk]
    assert expiry.end_expired(connection) == []


def test_the_end_of_a_run_by_its_timeout_is_signaled(work, pass_time, caplog):
    heard = []

    def hear(run, **others):
        heard.append((run.pk, run.status))

    signals.run_failed.connect(hear)
    try:
        run = sleeping().start(timeout="2h")
        work()
        pass_time("121m")
        work()
    finally:
        signals.run_failed.disconnect(hear)
    assert heard == [(run.pk, "failed")]
    assert "RunTimedOut" in caplog.text


def test_an_idle_worker_ends_a_run_punctually_without_polling(running):
    run = sleeping().start(timeout="600ms")
    looks = []
    worker = running(poll_interval=60.0)
    eventually(lambda: status_of(run) == "sleeping")
    claim_ = worker._claim
    worker._claim = lambda: looks.append(1) or claim_()
    eventually(lambda: status_of(run) == "failed")
    late = run.finished_at - run.started_at - timedelta(milliseconds=600)
    assert timedelta(0) <= late < timedelta(milliseconds=400)
    assert len(looks) < 10


# -- The timeout of a run in a worker ------------------------------------------------------------------


def test_what_executes_ends_and_is_recorded_first(work, pass_time):
    @workflow
    def slow(step):
        step.define("long", lambda: pass_time("3h")).run()
        step.define("never", lambda: 1).run()

    run = slow.start(timeout="2h")
    work()
    assert status_of(run) == "failed" and run.error["type"].endswith("RunTimedOut")
    assert [(step.name, step.status) for step in run.steps.all()] == [("long", "succeeded")]
    check_state(run)


def test_the_last_step_that_ends_too_late_makes_no_success(work, pass_time):
    @workflow
    def slow(step):
        step.define("long", lambda: pass_time("3h")).run()

    run = slow.start(timeout="2h")
    work()
    assert status_of(run) == "failed"


def test_no_body_can_catch_the_timeout_of_its_run(work, pass_time):
    @workflow
    def stubborn(step):
        step.define("long", lambda: pass_time("3h")).run()
        try:
            step.define("never", lambda: 1).run()
        except BaseException:
            return "caught"

    run = stubborn.start(timeout="2h")
    work()
    assert status_of(run) == "failed" and run.output is None


def test_cancel_wins_over_the_timeout(work, pass_time):
    @workflow
    def slow(step):
        step.define("long", lambda: (pass_time("3h"), WorkflowRun.objects.get(pk=run.pk).cancel())).run()
        step.define("never", lambda: 1).run()

    run = slow.start(timeout="2h")
    work()
    assert status_of(run) == "canceled" and run.error is None


def test_waits_in_place_end_with_the_timeout(work):
    @workflow
    def waiting(step):
        step.sleep("pause", "900ms")

    run = waiting.start(timeout="100ms")
    work()
    assert status_of(run) == "failed" and run.finished_at - run.started_at < timedelta(milliseconds=800)


def test_branches_that_sleep_end_with_the_run(work, pass_time):
    def branch(step):
        step.sleep("pause", "1d")

    @workflow
    def branching(step):
        step.gather(step.branch("one", branch).bind(), step.branch("two", branch).bind())

    run = branching.start(timeout="2h")
    work()
    assert status_of(run) == "sleeping"
    pass_time("121m")
    work()
    assert status_of(run) == "failed"


def test_no_unit_of_a_group_begins_after_the_timeout(work, pass_time):
    done = []

    @workflow
    def mapping(step):
        step.map("item", lambda item: done.append(item) or pass_time("3h"), [1, 2, 3], concurrency=1)

    run = mapping.start(timeout="2h")
    work()
    assert status_of(run) == "failed" and done == [1]


def test_an_async_body_in_memory_ends_with_its_timeout(work):
    ended = []

    @workflow
    async def waiting(step: AsyncStep):
        await step.define("before", lambda: 1).run()
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("finally")

    run = waiting.start(timeout="200ms")
    began = time.monotonic()
    work()
    assert status_of(run) == "failed" and run.error["type"].endswith("RunTimedOut")
    assert time.monotonic() - began < 5 and ended == ["finally"]


def test_an_async_step_that_executes_is_recorded_before_the_run_fails(work):
    async def long():
        await asyncio.sleep(0.4)
        return 1

    @workflow
    async def slow(step: AsyncStep):
        await step.define("long", long).run()

    run = slow.start(timeout="100ms")
    work()
    assert status_of(run) == "failed"
    assert [(step.name, step.status) for step in run.steps.all()] == [("long", "succeeded")]


def test_an_async_body_that_waits_for_an_event_in_memory_ends_with_its_timeout(work):
    @workflow
    async def waiting(step: AsyncStep):
        async with asyncio.timeout(30):
            await step.wait_for_event("approval")

    run = waiting.start(timeout="200ms")
    work()
    assert status_of(run) == "failed"


def test_a_run_whose_worker_died_fails_once_it_is_recovered(pass_time):
    run = sleeping().start(timeout="10s")
    claim(run)
    assert expiry.end_expired(connection) == []
    pass_time("31s")
    assert expiry.end_expired(connection) == []
    recover()
    assert claims.claim(connection, make_terms(), 1).runs == []
    assert expiry.end_expired(connection) == [run.pk]


# -- How long a run may wait to begin ------------------------------------------------------------------


def test_a_run_that_does_not_begin_in_time_is_canceled(elsewhere, pass_time):
    run = sleeping().start(start_within="10m")
    pass_time("9m")
    elsewhere()
    assert status_of(run) == "pending"
    pass_time("2m")
    elsewhere()
    assert status_of(run) == "canceled" and run.cancel_reason == "expired" and run.canceled_by == ""
    check_state(run)
    with pytest.raises(RunCanceled):
        run.result(timeout=0)


def test_a_run_that_begins_in_time_goes_on(work, pass_time):
    run = sleeping(start_within="10m").start()
    assert run.start_within == timedelta(minutes=10)
    pass_time("9m")
    work()
    pass_time("30h")
    work()
    assert status_of(run) == "succeeded"


@pytest.mark.parametrize("late", ["delay", "start_at"])
def test_the_time_to_begin_counts_from_when_the_run_may_begin(elsewhere, pass_time, late):
    when = {"delay": "1h"} if late == "delay" else {"start_at": timezone.now() + timedelta(hours=1)}
    run = sleeping().start(start_within="10m", **when)
    pass_time("69m")
    elsewhere()
    assert status_of(run) == "pending"
    pass_time("2m")
    elsewhere()
    assert status_of(run) == "canceled"


def test_a_start_in_the_past_counts_from_now(elsewhere, pass_time):
    run = sleeping().start(start_within="10m", start_at=timezone.now() - timedelta(hours=1))
    elsewhere()
    assert status_of(run) == "pending"
    assert WorkflowRun.objects.get(pk=run.pk).expires_at > timezone.now() + timedelta(minutes=9)


def test_what_has_expired_is_never_begun(work, pass_time):
    run = sleeping().start(start_within="10m")
    pass_time("11m")
    assert claims.claim(connection, make_terms(), 1).runs == []
    work()
    assert status_of(run) == "canceled" and run.started_at is None


def test_many_runs_started_at_once_expire_each(work, elsewhere, pass_time):
    runs = sleeping().start_many([None] * 3, start_within="10m", timeout="2h")
    pass_time("11m")
    elsewhere()
    assert {status_of(run) for run in runs} == {"canceled"}
    assert {run.timeout for run in runs} == {timedelta(hours=2)}


def test_a_run_that_was_claimed_and_given_back_untouched_may_still_expire(elsewhere, pass_time):
    run = sleeping().start(start_within="10m", timeout="2h")
    expires_at = WorkflowRun.objects.get(pk=run.pk).expires_at_us
    claimed = claim(run)
    assert claimed.begin_by == expires_at
    assert claimed.expires_at is not None and claimed.expires_at > claimed.claimed_at
    transitions.release(connection, run.pk, claimed.token, is_untouched=True, begin_by=claimed.begin_by)
    assert WorkflowRun.objects.get(pk=run.pk).expires_at_us == expires_at
    pass_time("11m")
    elsewhere()
    assert status_of(run) == "canceled"


def test_a_retry_of_an_expired_run_counts_anew(elsewhere, work, pass_time):
    run = sleeping().start(start_within="10m")
    pass_time("11m")
    elsewhere()
    run.retry()
    pass_time("9m")
    elsewhere()
    assert status_of(run) == "pending"
    work()
    assert status_of(run) == "sleeping"


def test_a_retry_of_a_run_that_had_begun_may_wait(elsewhere, work, pass_time):
    run = sleeping().start(start_within="10m")
    work()
    run.cancel()
    run.retry()
    pass_time("11m")
    elsewhere()
    assert status_of(run) == "pending"


def test_a_parent_is_woken_when_its_child_expires(work, elsewhere, pass_time):
    child = sleeping(queue="nobody", start_within="10m")

    @workflow
    def parent(step):
        try:
            step.invoke("child", child).run()
        except RunCanceled as error:
            return str(error.run_id)

    run = parent.start()
    work(queues=["default"])
    pass_time("11m")
    work(queues=["default"])
    assert status_of(run) == "succeeded" and run.output == str(WorkflowRun.objects.get(parent=run).pk)


def test_the_end_of_an_expired_run_is_signaled(elsewhere, pass_time):
    heard = []

    def hear(run, **others):
        heard.append((run.pk, run.status, run.cancel_reason))

    signals.run_canceled.connect(hear)
    try:
        run = sleeping().start(start_within="10m")
        pass_time("11m")
        elsewhere()
    finally:
        signals.run_canceled.disconnect(hear)
    assert heard == [(run.pk, "canceled", "expired")]


# -- What other runs get of it -------------------------------------------------------------------------


def test_a_restart_keeps_both(work, pass_time):
    first = sleeping().start(timeout="2h", start_within="10m")
    work()
    pass_time("1h")
    again = first.restart()
    assert (again.timeout, again.start_within) == (timedelta(hours=2), timedelta(minutes=10))
    left = again.expires_at - clock.to_datetime(database.read_clock(connection))
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)


def test_what_a_run_continues_as_has_the_same_time_again(work, pass_time):
    @workflow(start_within="10m")
    def going_on(input, step):
        step.sleep("pause", "90m")
        return step.continue_as_new(input + 1) if input < 2 else input

    run = going_on.start(0, timeout="2h")
    for _ in range(3):
        work()
        pass_time("91m")
    work()
    assert status_of(run) == "succeeded"
    last = WorkflowRun.objects.get(continued_as=None)
    assert (last.status, last.timeout, last.start_within) == ("succeeded", timedelta(hours=2), None)


def test_step_start_takes_both(work):
    other = sleeping()

    @workflow
    def starting(step):
        return step.start("other", other, timeout="2h", start_within="10m").run()

    starting.start()
    work()
    started = WorkflowRun.objects.get(workflow="sleeping")
    assert (started.timeout, started.start_within) == (timedelta(hours=2), timedelta(minutes=10))


@pytest.mark.parametrize("option", ["timeout", "start_within"])
@pytest.mark.parametrize("value, error", [("soon", ValueError), (0, ValueError), ([], TypeError)])
def test_wrong_durations_are_refused(option, value, error):
    with pytest.raises(error, match=option):
        sleeping().start(**{option: value})
    with pytest.raises(error, match=option):
        workflow(name="wrong", **{option: value})(lambda: None)


# -- What it costs -------------------------------------------------------------------------------------


def test_a_look_for_what_happens_by_time_is_one_statement():
    sleeping().start(timeout="2h", start_within="10m", delay="1h")
    with counted(connection) as wire:
        found = timers.next_due(connection)
    assert wire.statements == 1
    assert 59 * 60 * SECOND < found.due < found.expires < 71 * 60 * SECOND and found.first == found.due


def test_a_claim_of_a_run_with_a_timeout_costs_the_same():
    plain, limited = sleeping(), sleeping(version="2", timeout="2h", start_within="10m")
    costs, terms = [], make_terms()
    for body in (plain, limited):
        for _ in range(3):  # what is prepared once is prepared by then
            run = body.start()
            with counted(connection) as wire:
                claimed = claim(run, terms)
            transitions.release(connection, run.pk, claimed.token)
            run.cancel()
        costs.append(wire)
    assert costs[0] == costs[1]
