"""`async def` bodies in a worker: what their calls return, what their steps see, and which mistakes are named."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.utils import timezone, translation

from django_steps import (
    UNFINISHED,
    AsyncStep,
    GroupFailed,
    NonRetryableError,
    PollTimedOut,
    RetryPolicy,
    current_step,
    workflow,
)
from django_steps.models import WorkflowRun
from tests.app.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ended(work):
    """Start a workflow and execute it: `ended(flow, 3)`; the run."""

    def execute(flow, *arguments) -> WorkflowRun:
        run = flow.start(*arguments)
        work()
        run.refresh_from_db()
        return run

    return execute


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


def plain_double(number):
    return 2 * number


class Doubling:
    async def __call__(self, number):
        return 2 * number

    def method(self, number):
        return 2 * number


@pytest.mark.parametrize(
    "function",
    [
        double,
        plain_double,
        lambda number: double(number),
        lambda number: 2 * number,
        functools.partial(double),
        functools.partial(plain_double),
        Doubling(),
        Doubling().method,
        sync_to_async(plain_double),
        functools.wraps(plain_double)(lambda number: double(number)),
    ],
    ids=[
        "async",
        "plain",
        "lambda of coroutine",
        "lambda",
        "partial",
        "plain partial",
        "callable",
        "method",
        "sync_to_async",
        "wrapped",
    ],
)
def test_function_of_a_step_may_be_of_any_kind(ended, function):
    @workflow
    async def doubling(input: int, step: AsyncStep):
        return [await step.define("a", function).run(input), await step.map("m", function, [1, 2])]

    run = ended(doubling, 3)
    assert run.error is None, run.error
    assert run.output == [6, [2, 4]]


def test_failure_of_a_step_reaches_the_body_and_fails_the_run(ended):
    @workflow
    async def failing(step: AsyncStep):
        async def broken():
            raise LookupError("gone")

        try:
            await step.define("caught", broken).run()
        except LookupError as error:
            assert error.args == ("gone",)
        await step.define("uncaught", broken).run()

    run = ended(failing)
    assert (run.status, run.error["type"], run.error["message"]) == ("failed", "LookupError", "gone")
    assert run.error["step"] == "uncaught"
    assert [record.status for record in run.steps.all()] == ["failed", "failed"]


@pytest.mark.parametrize("is_async", [True, False])
def test_step_is_retried_by_its_policy(ended, is_async):
    attempts = []

    def plain():
        attempts.append(current_step().attempt)
        if len(attempts) < 3:
            raise OSError

        return "done"

    async def flaky():
        return plain()

    @workflow
    async def retrying(step: AsyncStep):
        policy = RetryPolicy(max_attempts=3, initial_interval="10ms")
        return await step.define("flaky", flaky if is_async else plain, retry=policy).run()

    run = ended(retrying)
    assert run.output == "done"
    assert attempts == [1, 2, 3]
    assert run.steps.get().attempts == 3


def test_long_back_off_suspends_the_run(work, pass_time):
    attempts = []

    async def flaky():
        attempts.append(1)
        if len(attempts) < 2:
            raise OSError
        return "done"

    @workflow
    async def retrying(step: AsyncStep):
        return await step.define("flaky", flaky, retry=RetryPolicy(initial_interval="1h", jitter=False)).run()

    run = retrying.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    pass_time("61m")
    work()
    assert run.result(timeout=0) == "done"


def test_no_further_attempt_where_none_makes_sense(ended):
    async def broken():
        raise NonRetryableError("never")

    @workflow
    async def failing(step: AsyncStep):
        await step.define("broken", broken, retry=5).run()

    assert ended(failing).steps.get().attempts == 1


def test_atomic_step_takes_effect_with_its_record(ended):
    def leave(fails):
        Effect.objects.create(run="-", name="atomic", pid=0, at=0)
        if fails:
            raise LookupError

    @workflow
    async def leaving(step: AsyncStep):
        await step.define("good", leave, atomic=True).run(False)
        with pytest.raises(LookupError):
            await step.define("bad", leave, atomic=True).run(True)

    run = ended(leaving)
    assert run.status == "succeeded", run.error
    assert Effect.objects.count() == 1


def test_atomic_step_is_a_plain_function(ended):
    @workflow
    async def mistaken(step: AsyncStep):
        await step.define("a", double, atomic=True).run(1)

    assert ended(mistaken).error["type"] == "TypeError"


def test_at_most_once_and_poll(ended):
    checks = []

    async def check():
        checks.append(1)
        return len(checks) == 3

    @workflow
    async def polling(step: AsyncStep):
        once = await step.define("once", double, at_most_once=True).run(1)
        found = await step.poll("found", check, every="5ms").run()
        try:
            await step.poll("never", lambda: None, every="1ms", max_checks=2).run()
        except PollTimedOut as error:
            return [once, found, error.checks]

    run = ended(polling)
    assert run.error is None, run.error
    assert run.output == [2, True, 2]


def test_groups(ended):
    async def half(number):
        if number % 2:
            raise ValueError(number)
        return number // 2

    async def item(number, step):
        return await step.define("half", half).run(number)

    @workflow
    async def grouping(step: AsyncStep):
        found = [list(await step.gather(step.define("a", half).bind(2), step.branch("b", item).bind(4)))]
        found.append(await step.map("ok", item, [2, 4], concurrency=1))
        found.append(await step.branch("c", item).run(8))
        mixed = await step.map("mixed", half, [1, 2], return_exceptions=True)
        found.append([type(each).__name__ for each in mixed])
        some = await step.map("some", half, [2, 3], max_failures=1)
        found.append([type(each).__name__ for each in some])
        one = await step.map("one", half, [2, 4, 6], min_successes=1, concurrency=1)
        found.append([UNFINISHED if each is UNFINISHED else each for each in one].count(UNFINISHED))
        try:
            await step.gather(step.define("x", half).bind(1), step.define("y", half).bind(2))
        except GroupFailed as error:
            found.append([sorted(error.failures), error.results])
        return found

    run = ended(grouping)
    assert run.error is None, run.error
    assert run.output == [
        [1, 2], [1, 2], 4, ["ValueError", "int"], ["int", "ValueError"], 2, [["x"], {"y": 1}]
    ]  # fmt: skip


def test_language_time_zone_and_context_of_one_step_are_not_seen_in_another(ended):
    seen = {}
    marked = contextvars.ContextVar("marked", default="")

    async def change(name):
        seen[name] = [translation.get_language(), timezone.get_current_timezone_name(), marked.get()]
        translation.activate("de")
        timezone.activate("Asia/Tokyo")
        marked.set(name)
        await asyncio.sleep(0.01)
        assert (translation.get_language(), marked.get()) == ("de", name)

    def plain(name):
        seen[name] = [translation.get_language(), timezone.get_current_timezone_name(), marked.get()]
        translation.activate("fr")
        marked.set(name)

    @workflow
    async def changing(step: AsyncStep):
        translation.activate("nl")
        marked.set("body")
        await asyncio.gather(step.define("a", change).run("a"), step.define("b", change).run("b"))
        await step.define("c", plain).run("c")
        await step.define("d", plain).run("d")
        return [translation.get_language(), marked.get()]

    run = ended(changing)
    assert run.error is None, run.error
    assert run.output == ["nl", "body"]
    assert {tuple(each) for each in seen.values()} == {("nl", timezone.get_default_timezone_name(), "body")}


def test_orm_in_bodies_and_steps(ended):
    def count():
        return User.objects.count()

    async def create(name):
        return await User.objects.acreate(username=name)

    @workflow
    async def using(step: AsyncStep, run):
        before = await User.objects.acount()
        user = await step.define("create", create).run("ann")
        name = [each.username async for each in User.objects.all()]
        again = await step.get(User.objects.aget).run(pk=user.pk)
        method = await step.get(User, "get_username").run(user.pk)
        assert str(run.pk) == current_run_id(run)
        return [before, user.username, name, await sync_to_async(count)(), again.username, method]

    def current_run_id(run):
        return str(run.pk)

    run = ended(using)
    assert run.error is None, run.error
    assert run.output == [0, "ann", ["ann"], 1, "ann", "ann"]


def test_logger_is_silent_during_a_replay(work, pass_time, caplog):
    @workflow
    async def talking(step: AsyncStep, logger):
        logger.info("begins")
        await step.sleep("rest", "1h")
        await step.define("a", double).run(1)
        logger.info("goes on")

    run = talking.start()
    with caplog.at_level(logging.INFO):
        work()
        pass_time("61m")
        work()
    assert run.result(timeout=0) is None
    said = [record.message for record in caplog.records if record.name.startswith("django_steps.workflow")]
    assert [text for text in said if "goes on" in text]


def test_large_values_survive_a_suspension(work, pass_time):
    async def large():
        return "x" * 300_000

    @workflow
    async def carrying(step: AsyncStep):
        value = await step.define("large", large).run()
        await step.sleep("rest", "1h")
        return len(value)

    run = carrying.start()
    work()
    pass_time("61m")
    work()
    assert run.result(timeout=0) == 300_000


def test_value_that_cannot_be_recorded_fails_its_step(ended):
    async def impossible():
        return object()

    @workflow
    async def failing(step: AsyncStep):
        await step.define("impossible", impossible).run()

    run = ended(failing)
    assert run.status == "failed"
    assert run.error["type"].endswith(("UnserializableValue", "UnserializableResult"))
    assert run.steps.get().status == "failed"


def test_instances_are_loaded_anew_on_each_pass(work, pass_time):
    async def create():
        return await User.objects.acreate(username="ann")

    @workflow
    async def holding(step: AsyncStep):
        user = await step.define("create", create).run()
        await step.sleep("rest", "1h")
        return user.username

    run = holding.start()
    work()
    User.objects.update(username="eve")
    pass_time("61m")
    work()
    assert run.result(timeout=0) == "eve"


# -- Mistakes ----------------------------------------------------------------------------------------


async def nested(step):
    async def outer():
        await step.define("inner", double).run(1)

    await step.define("outer", outer).run()


async def nested_in_plain(step):
    await step.define("outer", lambda: step.define("inner", double)).run()


async def twice(step):
    await step.define("a", double).run(1)
    await step.define("a", double).run(1)


async def never_run(step):
    step.define("a", double)


async def never_awaited(step):
    FORGOTTEN.append(step.define("a", double).run(1))


async def left_running(step):
    task = asyncio.create_task(step.define("a", lambda: asyncio.sleep(0.2)).run())
    await asyncio.sleep(0)
    LEFT.append(task)


async def in_a_thread(step):
    await asyncio.to_thread(lambda: asyncio.run(wrapped(step)))


async def wrapped(step):
    await step.define("a", double).run(1)


LEFT: list = []
FORGOTTEN: list = []


@pytest.mark.parametrize(
    "body, error",
    [
        (nested, "NestedStep"),
        (nested_in_plain, "NestedStep"),
        (twice, "DuplicateStepName"),
        (never_run, "StepNotRun"),
        (never_awaited, "StepNotRun"),
        (left_running, "StepNotRun"),
        (in_a_thread, "WrongThread"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("swallows", [False, True])
def test_mistake_of_the_code_fails_the_run_even_if_it_is_swallowed(ended, body, error, swallows):
    @workflow(name="mistaken")
    async def mistaken(step: AsyncStep):
        if not swallows:
            await body(step)
            return
        with contextlib.suppress(Exception):
            await body(step)

    run = ended(mistaken)
    while FORGOTTEN:
        FORGOTTEN.pop().close()  # else Python warns of it, too
    assert run.status == "failed"
    assert run.error["type"].endswith(error), run.error


def test_system_exit_and_keyboard_interrupt_of_a_step_are_its_failure(ended):
    @workflow
    async def leaving(step: AsyncStep):
        async def leave():
            raise SystemExit(3)

        try:
            await step.define("leave", leave).run()
        except SystemExit:
            return "left"

    run = ended(leaving)
    assert (run.status, run.output) == ("succeeded", "left"), run.error


def test_sleep_takes_what_sleeps_of_plain_bodies_take(work, pass_time):
    @workflow
    async def resting(step: AsyncStep):
        await step.sleep("a", timedelta(minutes=1))
        await step.sleep_until("b", timezone.now())
        await step.sleep("a", 0)

    run = resting.start()
    work()
    pass_time("61s")
    work()
    assert run.result(timeout=0) is None
    assert [record.name for record in run.steps.all()] == ["a", "b", "a#2"]


@pytest.mark.parametrize("ends", ["raises", "returns"])
@pytest.mark.parametrize("waits", ["sleep", "poll", "wait_for_event"])
def test_body_that_ends_beside_a_task_that_waits_is_not_suspended_for_that(ended, ends, waits):
    @workflow
    async def leaving(step: AsyncStep):
        calls = {
            "sleep": lambda: step.sleep("nap", "1h"),
            "poll": lambda: step.poll("nap", lambda: None, every="1h").run(),
            "wait_for_event": lambda: step.wait_for_event("nap"),
        }
        task = asyncio.create_task(calls[waits]())
        await asyncio.sleep(0.05)
        if ends == "raises":
            raise ValueError("enough")
        return task

    run = ended(leaving)
    assert run.status == "failed"
    assert run.error["message"].startswith("enough" if ends == "raises" else "The body has ended, and 1 of its tasks")
