"""Timeouts of attempts: an async function is canceled, a plain one is asked to look at the time, and given up in the end."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from django_steps import AsyncStep, RetryPolicy, StepTimedOut, TimedOut, current_step, signals, workflow
from django_steps.models import StepRecord, WorkflowRun
from django_steps.testing import FakeStep
from django_steps.worker import Worker
from tests.app.models import Person
from tests.looking import error_of, names_of
from tests.staging import Background, eventually, status_of

pytestmark = pytest.mark.django_db(transaction=True)

TWICE = RetryPolicy(max_attempts=2, initial_interval="1ms")


class Hanging:
    """A plain function that hangs when it is called for the first time, until it is let go on."""

    def __init__(self) -> None:
        self.calls, self.began, self.goes_on, self.has_ended = (
            0,
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )

    def __call__(self, *args: Any) -> str:
        self.calls += 1
        if self.calls > 1:
            return "second"
        self.began.set()
        self.goes_on.wait(60)
        self.has_ended.set()
        return "late"


@pytest.fixture
def hanging():
    function = Hanging()
    yield function
    function.goes_on.set()


@pytest.fixture
def short(settings):
    """`STEP_GRACE` is short."""
    settings.DJANGO_STEPS = {**getattr(settings, "DJANGO_STEPS", {}), "STEP_GRACE": "200ms"}


def until_stuck(**options: Any) -> Worker:
    """A worker that works until a step of it is given up."""
    worker = Worker(poll_interval=0.05, **options)
    assert Background(worker.run).result() is True and worker.is_stuck
    return worker


# -- Async functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain body", "async body"])
def test_an_async_function_is_canceled_when_its_time_is_over(work, kind):
    canceled = []

    async def slow():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            canceled.append(current_step().remaining())
            raise

    if kind == "plain body":

        @workflow
        def body(step):
            step.define("slow", slow, timeout="100ms").run()

    else:

        @workflow
        async def body(step: AsyncStep):
            await step.define("slow", slow, timeout="100ms").run()

    run = body.start()
    began = time.monotonic()
    work()
    assert time.monotonic() - began < 10 and canceled == [0.0]
    assert status_of(run) == "failed"
    assert run.error["message"] == "Step 'slow' has not ended within its timeout of 100ms."
    assert run.error["type"].endswith("StepTimedOut") and run.error["step"] == "slow"


def test_a_timeout_is_retried_by_the_policy_and_counts_for_each_attempt(work):
    calls = []

    async def slow_at_first():
        calls.append(current_step().remaining())
        if len(calls) == 1:
            await asyncio.sleep(30)
        return "done"

    @workflow
    async def body(step: AsyncStep):
        return await step.define("slow", slow_at_first, timeout="300ms", retry=TWICE).run()

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == "done"
    assert len(calls) == 2 and all(0.1 < remaining <= 0.3 for remaining in calls)
    (step,) = run.steps.all()
    assert step.attempts == 2 and "StepTimedOut" in step.earlier_attempts[0]["error"]["type"]


def test_the_body_may_catch_the_timeout(work):
    async def slow():
        await asyncio.sleep(30)

    @workflow
    def body(step):
        try:
            step.define("slow", slow, timeout="100ms").run()
        except StepTimedOut as error:
            return [
                error.step,
                error.timeout == timedelta(milliseconds=100),
                isinstance(error, TimedOut | TimeoutError),
            ]

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == ["slow", True, True]


def test_a_cancellation_by_the_body_stays_one(work):
    async def slow():
        await asyncio.sleep(30)

    @workflow
    async def body(step: AsyncStep):
        try:
            async with asyncio.timeout(0.1):
                await step.define("slow", slow, timeout="20s").run()
        except TimeoutError as error:
            return type(error).__name__

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == "TimeoutError"
    assert [step.status for step in run.steps.all()] == ["canceled"]


def test_an_async_function_that_ends_although_it_was_canceled_keeps_its_result(work):
    async def stubborn():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "kept"

    @workflow
    async def body(step: AsyncStep):
        result = await step.define("stubborn", stubborn, timeout="100ms").run()
        await step.define("next", lambda: 1).run()
        return result

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == "kept"


def test_a_map_gives_each_item_its_timeout(work):
    async def one(item):
        await asyncio.sleep(30 if item == 2 else 0)
        return item

    @workflow
    async def body(step: AsyncStep):
        results = await step.map("one", one, [1, 2, 3], timeout="200ms", return_exceptions=True)
        return [type(result).__name__ for result in results]

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == ["int", "StepTimedOut", "int"]


def test_check_timeout_bounds_each_check_of_a_poll(work, pass_time):
    checks = []

    async def check():
        checks.append(current_step().remaining())
        if len(checks) == 1:
            await asyncio.sleep(30)
        return "found"

    @workflow
    def body(step):
        return step.poll("parcel", check, every="10m", check_timeout="200ms", retry=TWICE).run()

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == "found" and len(checks) == 2


# -- What a plain function may ask ---------------------------------------------------------------------


def test_a_step_knows_how_long_it_has(work):
    asked = []

    def ask():
        step = current_step()
        asked.append((step.deadline - timezone.now(), step.remaining()))

    @workflow
    def body(step):
        step.define("limited", ask, timeout="1h").run()
        step.define("unlimited", lambda: asked.append((current_step().deadline, current_step().remaining()))).run()

    work_ = body.start()
    work()
    assert status_of(work_) == "succeeded"
    (left, seconds), unlimited = asked
    assert timedelta(minutes=59) < left < timedelta(minutes=61) and 3590 < seconds <= 3600
    assert unlimited == (None, None)


def test_a_fake_step_has_its_time_too():
    asked = []
    step = FakeStep()
    step.define("limited", lambda: asked.append(current_step().remaining()), timeout="1h").run()
    step.define("unlimited", lambda: asked.append(current_step().remaining())).run()
    assert 3590 < asked[0] <= 3600 and asked[1] is None


@pytest.mark.parametrize("value, error", [("soon", ValueError), (0, ValueError), ([], TypeError)])
def test_wrong_timeouts_are_refused(value, error):
    with pytest.raises(error, match="timeout of step 'one'"):
        FakeStep().define("one", print, timeout=value)
    with pytest.raises(error, match="timeout of step 'two'"):
        FakeStep().poll("two", print, every="1s", check_timeout=value)


def test_a_map_over_branches_takes_no_timeout():
    with pytest.raises(TypeError, match="which takes no timeout"):
        FakeStep().map("one", lambda item, step: 1, [1], timeout="1s")


# -- Plain functions that take too long ----------------------------------------------------------------


def test_a_plain_function_that_ends_within_the_grace_keeps_its_result(work, caplog):
    @workflow
    def body(step):
        return step.define("late", lambda: time.sleep(0.15) or "kept", timeout="50ms").run()

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == "kept"
    assert "has ended" in caplog.text and "after its timeout" in caplog.text


def test_an_overdue_step_is_told_with_its_stack(running, hanging, caplog):
    heard = []

    def hear(run, step, attempt, stack, **others):
        heard.append((run.pk, step, attempt, "goes_on.wait" in stack))

    @workflow
    def body(step):
        return step.define("late", hanging, timeout="50ms").run()

    signals.step_overdue.connect(hear)
    try:
        run = body.start()
        running()
        eventually(lambda: heard)
        eventually(lambda: WorkflowRun.objects.get(pk=run.pk).overdue is not None)
        overdue = WorkflowRun.objects.get(pk=run.pk).overdue
        assert (overdue["step"], overdue["attempt"]) == ("late", 1) and "goes_on.wait" in overdue["stack"]
        assert timezone.now() - overdue["since"] < timedelta(seconds=15)
        hanging.goes_on.set()
        eventually(lambda: status_of(run) == "succeeded")
    finally:
        signals.step_overdue.disconnect(hear)
    assert heard == [(run.pk, "late", 1, True)]
    assert run.overdue is None and run.output == "late"
    assert "is overdue" in caplog.text and "goes_on.wait" in caplog.text


def test_the_note_goes_when_the_step_has_ended_and_the_run_goes_on(running, hanging):
    ends = threading.Event()

    @workflow
    def body(step):
        step.define("late", hanging, timeout="50ms").run()
        step.define("next", lambda: ends.wait(30)).run()

    run = body.start()
    running()
    try:
        eventually(lambda: WorkflowRun.objects.get(pk=run.pk).overdue is not None)
        hanging.goes_on.set()
        eventually(lambda: WorkflowRun.objects.get(pk=run.pk).overdue_text == "")
        assert status_of(run) == "running"
    finally:
        ends.set()


def test_a_step_that_never_ends_is_given_up_and_the_run_goes_on_elsewhere(work, hanging, short, caplog):
    @workflow
    def body(step):
        step.define("before", lambda: 1).run()
        return step.define("stuck", hanging, timeout="100ms", retry=TWICE).run()

    run = body.start()
    until_stuck()
    assert status_of(run) in ("pending", "sleeping") and hanging.calls == 1
    step = run.steps.get(name="stuck")
    assert step.status == "retrying" and step.attempts == 1
    (earlier,) = step.earlier_attempts
    assert earlier["error"]["type"].endswith("StepTimedOut") and "goes_on.wait" in earlier["error"]["traceback"]
    assert "is given up" in caplog.text and run.overdue is None
    work()
    assert status_of(run) == "succeeded" and run.output == "second"
    hanging.goes_on.set()
    assert hanging.has_ended.wait(10)
    time.sleep(0.1)  # for what the thread does then
    assert status_of(run) == "succeeded" and run.output == "second" and hanging.calls == 2
    assert names_of(run) == ["before", "stuck"]


def test_a_late_result_is_refused_also_if_the_run_was_not_taken_yet(hanging, short):
    @workflow
    def body(step):
        return step.define("stuck", hanging, timeout="100ms", retry=TWICE).run()

    run = body.start()
    until_stuck()
    hanging.goes_on.set()
    assert hanging.has_ended.wait(10)
    time.sleep(0.1)
    assert run.steps.get().status == "retrying" and status_of(run) in ("pending", "sleeping")


def test_what_is_not_tried_again_has_failed(work, hanging, short):
    @workflow
    def body(step):
        return step.define("stuck", hanging, timeout="100ms").run()

    run = body.start()
    until_stuck()
    assert run.steps.get().status == "failed"
    work()
    assert status_of(run) == "failed" and run.error["type"].endswith("StepTimedOut") and hanging.calls == 1


def test_an_at_most_once_step_that_is_given_up_has_failed(work, hanging, short):
    @workflow
    def body(step):
        return step.define("stuck", hanging, timeout="100ms", at_most_once=True).run()

    run = body.start()
    until_stuck()
    work()
    assert status_of(run) == "failed" and run.error["type"].endswith("StepTimedOut") and hanging.calls == 1


def test_a_late_atomic_step_writes_nothing(work, hanging, short):
    if connection.vendor == "sqlite":
        pytest.skip("its transaction holds the whole file")

    def write():
        person = Person.objects.create(name="late" if hanging.calls == 0 else "second")
        hanging()
        return person.name

    @workflow
    def body(step):
        return step.define("stuck", write, timeout="100ms", atomic=True, retry=TWICE).run()

    run = body.start()
    until_stuck()
    work()
    hanging.goes_on.set()
    assert hanging.has_ended.wait(10)
    time.sleep(0.1)
    assert status_of(run) == "succeeded" and run.output == "second"
    assert [person.name for person in Person.objects.all()] == ["second"]


def test_the_other_steps_of_a_worker_end_first(work, hanging, short):
    done = []

    @workflow
    def stuck(step):
        return step.define("stuck", hanging, timeout="100ms", retry=TWICE).run()

    @workflow
    def other(input, step):
        step.define("long", lambda: (hanging.began.wait(10), time.sleep(1), done.append(input))).run()
        step.define("next", lambda: done.append(input + 10)).run()

    runs = [stuck.start(), *(other.start(number) for number in range(3))]
    until_stuck(concurrency=4)
    assert sorted(done) == [0, 1, 2]
    work()
    assert [status_of(run) for run in runs] == ["succeeded"] * 4
    assert sorted(done) == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("stuck_at", [0, 1, 2, 3])
def test_siblings_of_a_step_that_is_given_up_are_recorded_once(work, hanging, short, stuck_at):
    done = []

    def one(item):
        if item == stuck_at:
            return hanging()
        hanging.began.wait(10)
        time.sleep(0.8)
        done.append(item)
        return item

    @workflow
    def body(step):
        limits = [{"timeout": "100ms"} if item == stuck_at else {} for item in range(4)]
        steps = [step.define(f"one {item}", one, retry=TWICE, **limits[item]).bind(item) for item in range(4)]
        return list(step.gather(*steps))

    run = body.start()
    until_stuck(concurrency=4)
    assert len(done) == len(set(done)) <= 3
    work()
    assert status_of(run) == "succeeded"
    assert run.output == [item if item != stuck_at else "second" for item in range(4)]
    assert sorted(done) == sorted(set(range(4)) - {stuck_at}) and hanging.calls == 2


@pytest.mark.parametrize("stuck_at", [0, 1])
def test_a_step_in_a_branch_is_given_up(work, hanging, short, stuck_at):
    done = []

    def branch(item, step):
        def one(number):
            if (item, number) == (stuck_at, 1):
                return hanging()
            time.sleep(0.05)
            done.append((item, number))
            return number

        return step.map("one", one, [0, 1, 2], timeout="100ms", retry=TWICE)

    @workflow
    def body(step):
        return step.map("branch", branch, [0, 1])

    run = body.start()
    until_stuck(concurrency=4)
    work()
    assert status_of(run) == "succeeded"
    expected = [[0, 1, 2], [0, 1, 2]]
    expected[stuck_at][1] = "second"
    assert run.output == expected
    assert len(done) == len(set(done)) == 5 and hanging.calls == 2


def test_a_plain_step_of_an_async_body_is_given_up(work, hanging, short):
    done = []

    async def other():
        await asyncio.sleep(0.5)
        done.append(1)

    @workflow
    async def body(step: AsyncStep):
        _, result = await asyncio.gather(
            step.define("other", other).run(),
            step.define("stuck", hanging, timeout="100ms", retry=TWICE).run(),
        )
        return result

    run = body.start()
    until_stuck()
    assert status_of(run) in ("pending", "sleeping") and hanging.calls == 1
    work()
    assert status_of(run) == "succeeded" and run.output == "second" and done == [1]
    hanging.goes_on.set()
    assert hanging.has_ended.wait(10)
    time.sleep(0.1)
    assert run.steps.get(name="stuck").output == "second"


def test_cancel_wins_over_a_step_that_is_given_up(hanging, short):
    @workflow
    def body(step):
        return step.define("stuck", hanging, timeout="300ms", retry=TWICE).run()

    run = body.start()
    worker = Background(lambda: until_stuck())
    assert hanging.began.wait(10)
    run.cancel()
    worker.result()
    assert status_of(run) == "canceled"


# -- Statements of atomic steps ------------------------------------------------------------------------


postgresql_only = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only PostgreSQL can do so")


def ask(statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


@postgresql_only
def test_a_statement_of_an_atomic_step_is_broken_off_when_the_time_is_over(work):
    @workflow
    def body(step):
        step.define("slow", lambda: ask("SELECT pg_sleep(30)"), timeout="200ms", atomic=True).run()

    run = body.start()
    began = time.monotonic()
    work()
    assert time.monotonic() - began < 10
    assert status_of(run) == "failed" and run.error["type"].endswith("StepTimedOut")
    assert StepRecord.objects.get().attempts == 1


@postgresql_only
def test_each_statement_has_what_remains_and_nothing_stays_behind(work):
    limits = []

    def look():
        limits.append(ask("SHOW statement_timeout"))
        time.sleep(0.05)
        limits.append(ask("SHOW statement_timeout"))

    @workflow
    def body(step):
        step.define("limited", look, timeout="20s", atomic=True).run()
        step.define("after", lambda: limits.append(ask("SHOW statement_timeout"))).run()
        step.define("plain", look, timeout="20s").run()

    run = body.start()
    work()
    assert status_of(run) == "succeeded", error_of(run)
    first, second, *rest = limits
    assert 10_000 < int(second.removesuffix("ms")) < int(first.removesuffix("ms")) <= 20_000
    assert rest == ["0", "0", "0"]


@postgresql_only
def test_an_error_that_the_step_handles_does_no_harm(work):
    def handle():
        from django.db import transaction

        try:
            with transaction.atomic():
                ask("SELECT pg_sleep(30)")
        except OperationalError:
            return "handled"

    @workflow
    def body(step):
        return step.define("slow", handle, timeout="100ms", atomic=True).run()

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and run.output == "handled"


# -- Only what has a timeout ---------------------------------------------------------------------------


def test_without_timeouts_nobody_watches(work):
    @workflow
    def body(step):
        step.define("one", lambda: [thread.name for thread in threading.enumerate()]).run()
        return step.define("two", lambda: [thread.name for thread in threading.enumerate()]).run()

    run = body.start()
    work()
    assert status_of(run) == "succeeded" and "django-steps-overdue" not in run.output


def test_quick_steps_with_timeouts_are_forgotten(work):
    @workflow
    def body(step):
        step.map("one", lambda item: item, range(50), timeout="1h")

    run = body.start()
    worker = Worker(until_idle=True, poll_interval=0.05)
    worker.run()
    assert status_of(run) == "succeeded" and not worker._place._overdue._calls
