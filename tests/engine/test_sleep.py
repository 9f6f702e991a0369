"""Sleeps: recorded once, slept in full, holding nothing while they last."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.test import override_settings

from django_steps import RetryPolicy, workflow
from django_steps.core import clock
from django_steps.models import StepRecord, WorkflowRun


def slept(run, name: str) -> timedelta:
    record = run.steps.get(name=name)
    assert record.wakes_at is not None
    return record.wakes_at - record.started_at


@pytest.mark.parametrize(
    "duration, expected",
    [
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("1w", timedelta(weeks=1)),
        (timedelta(hours=2), timedelta(hours=2)),
        (90, timedelta(seconds=90)),
        (1.5, timedelta(seconds=1.5)),
    ],
    ids=str,
)
def test_run_sleeps_for_the_duration(work, pass_time, duration, expected):
    @workflow
    def resting(step):
        step.sleep("rest", duration)
        return "rested"

    run = resting.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert abs(slept(run, "rest") - expected) < timedelta(milliseconds=1)
    assert run.wakes_at == run.steps.get().wakes_at
    clock.offset_us += expected // timedelta(microseconds=1)
    work()
    assert run.result(timeout=0) == "rested"


def test_sleeping_run_is_not_woken_early(work, pass_time):
    passes: list[int] = []

    @workflow
    def resting(step):
        passes.append(1)
        step.sleep("rest", "1h")

    run = resting.start()
    work()
    pass_time("59m")
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert passes == [1]
    pass_time("1m")
    work()
    assert run.result(timeout=0) is None
    assert passes == [1, 1]


def test_short_sleep_is_waited_out_in_place_and_recorded_all_the_same(work):
    passes: list[int] = []
    took: list[float] = []

    @workflow
    def brief(step):
        passes.append(1)
        began = time.monotonic()
        step.sleep("brief", "100ms")
        took.append(time.monotonic() - began)

    run = brief.start()
    work()
    run.result(timeout=0)
    assert passes == [1]
    assert 0.09 < took[0] < 1
    assert slept(run, "brief") == timedelta(milliseconds=100)


def test_inline_wait_is_a_setting(work, pass_time):
    passes: list[int] = []

    @workflow
    def brief(step):
        passes.append(1)
        step.sleep("brief", "100ms")

    with override_settings(DJANGO_STEPS={"INLINE_WAIT": 0}):
        run = brief.start()
        work()
        run.refresh_from_db()
        assert run.status == "sleeping"
        pass_time("1s")
        work()
    run.result(timeout=0)
    assert passes == [1, 1]


def test_sleep_of_no_length_is_recorded_and_over(work):
    @workflow
    def instant(step):
        step.sleep("zero", 0)
        step.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC))
        return "done"

    run = instant.start()
    work()
    assert run.result(timeout=0) == "done"
    assert [record.kind for record in run.steps.all()] == ["sleep", "sleep"]


def test_sleep_until_a_datetime(work, pass_time):
    midnight = datetime.now(UTC) + timedelta(hours=5)

    @workflow
    def until_midnight(step):
        step.sleep_until("midnight", midnight)
        return "new day"

    run = until_midnight.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert run.steps.get().wakes_at == midnight
    pass_time("4h")
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    pass_time("1h")
    work()
    assert run.result(timeout=0) == "new day"


@pytest.mark.counts_passes
def test_wake_up_time_is_fixed_when_the_sleep_is_first_reached(work, pass_time):
    """Neither a failure before the wake-up nor a retry long after it begins the sleep anew."""
    broken = [True]
    passes: list[int] = []

    def flaky():
        if broken[0]:
            raise OSError

    @workflow
    def resting(step):
        passes.append(1)
        step.sleep("rest", "1h")
        step.define("flaky", flaky).run()

    run = resting.start()
    work()
    wakes_at = run.steps.get(name="rest").wakes_at
    pass_time("2h")
    work()
    broken[0] = False
    run.retry()
    work()
    assert run.result(timeout=0) is None
    assert run.steps.get(name="rest").wakes_at == wakes_at
    assert len(passes) == 3


def test_retry_before_the_wake_up_time_sleeps_on_until_then(work, pass_time):
    @workflow
    def resting(step):
        step.sleep("rest", "1h")
        return "rested"

    run = resting.start()
    work()
    wakes_at = run.steps.get().wakes_at
    run.refresh_from_db()
    run.cancel()
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert run.wakes_at == wakes_at
    pass_time("1h")
    work()
    assert run.result(timeout=0) == "rested"


def test_sleep_repeated_by_name_really_sleeps_each_time_and_is_skipped_on_retry(work, pass_time):
    broken = [True]
    sent: list[int] = []

    def send(user):
        sent.append(user)
        if user == 3 and broken[0]:
            raise OSError

    @workflow
    def notifying(step):
        for user in (1, 2, 3):
            step.define(f"notify_user_{user}", send).run(user)
            if user != 3:
                step.sleep("rate_limit_delay", "1h")

    run = notifying.start()
    for expected in ([1], [1, 2], [1, 2, 3]):
        work()
        assert sent == expected
        pass_time("61m")
    run.refresh_from_db()
    assert run.status == "failed"
    broken[0] = False
    run.retry()
    work()
    assert run.result(timeout=0) is None
    assert sent == [1, 2, 3, 3]
    assert [record.name for record in run.steps.filter(kind="sleep")] == ["rate_limit_delay", "rate_limit_delay#2"]


def test_sleeping_runs_hold_no_thread(work, pass_time):
    @workflow
    def resting(step):
        step.sleep("rest", "1h")

    @workflow
    def last():
        return "had a thread"

    resting.start_many([None] * 50)
    run = last.start()
    work(concurrency=1)
    assert run.result(timeout=0) == "had a thread"
    assert WorkflowRun.objects.filter(status="sleeping", worker=None).count() == 50
    pass_time("2h")
    work(concurrency=1)
    assert WorkflowRun.objects.filter(status="succeeded").count() == 51
    assert StepRecord.objects.count() == 50


def test_body_unwinds_at_every_put_down(work, pass_time):
    seen: list[str] = []

    @workflow
    def with_finally(step):
        try:
            step.sleep("rest", "1h")
        finally:
            seen.append("finally")
        return "end"

    run = with_finally.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == "end"
    assert seen == ["finally", "finally"]


@pytest.mark.parametrize(
    "sleep, error",
    [
        (lambda step: step.sleep("rest", "5 minutes"), "ValueError"),
        (lambda step: step.sleep("rest", "-5s"), "ValueError"),
        (lambda step: step.sleep("rest", -5), "ValueError"),
        (lambda step: step.sleep("rest", timedelta(seconds=-1)), "ValueError"),
        (lambda step: step.sleep("rest", "999999w"), "ValueError"),
        (lambda step: step.sleep("rest", None), "TypeError"),
        (lambda step: step.sleep("rest", True), "TypeError"),
        (lambda step: step.sleep("", "5s"), "django_steps.errors.InvalidName"),
        (lambda step: step.sleep("rest#2", "5s"), "django_steps.errors.InvalidName"),
        (lambda step: step.sleep_until("rest", "2026-01-01"), "TypeError"),
        (lambda step: step.sleep_until("rest", datetime(2026, 1, 1)), "ValueError"),
        (lambda step: step.sleep_until("rest", datetime(2026, 1, 1).date()), "TypeError"),
    ],
)
def test_impossible_sleep_is_an_error_that_leaves_nothing(work, sleep, error):
    @workflow
    def resting(step):
        sleep(step)

    run = resting.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == error
    assert not run.steps.exists()


@override_settings(USE_TZ=False)
def test_aware_datetime_is_an_error_where_use_tz_is_off(work):
    @workflow
    def resting(step):
        step.sleep_until("rest", datetime(2026, 1, 1, tzinfo=UTC))

    run = resting.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert "naive" in run.error["message"]


# -- Waiting between the attempts of a step ----------------------------------------------------------


def test_step_waits_between_its_attempts_without_holding_a_thread(work, pass_time):
    executed: list[int] = []

    @workflow
    def retrying(step):
        step.define("before", lambda: executed.append(0)).run()

        @step.define("flaky", retry=RetryPolicy(max_attempts=3, initial_interval="1h", max_interval="1d", jitter=False))
        def flaky():
            executed.append(1)
            if len(executed) < 4:
                raise OSError(f"attempt {len(executed) - 1}")
            return "data"

        return flaky.run()

    run = retrying.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    record = run.steps.get(name="flaky")
    assert (record.status, record.attempts) == ("retrying", 1)
    pass_time("61m")
    work()
    assert executed == [0, 1, 1]
    pass_time("61m")  # the second wait is twice as long
    work()
    assert executed == [0, 1, 1]
    pass_time("61m")
    work()
    assert run.result(timeout=0) == "data"
    assert executed == [0, 1, 1, 1]
    record = run.steps.get(name="flaky")
    assert (record.status, record.attempts) == ("succeeded", 3)
    assert [entry["error"]["message"] for entry in record.earlier_attempts] == ["attempt 1", "attempt 2"]
    assert [entry["attempt"] for entry in record.earlier_attempts] == [1, 2]
