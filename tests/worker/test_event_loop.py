"""Async runs in a worker: how many at a time, what they cost, how they are canceled, and what must not hold others up."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from io import StringIO

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created

from django_steps import AsyncStep, signals, workflow
from django_steps.errors import UnserializableResult, ValueTooLarge
from django_steps.ledger import claims
from django_steps.models import WorkflowRun
from django_steps.worker import Worker, loop, thread_connections
from tests.app import effects
from tests.app.effects import leave
from tests.app.models import Effect
from tests.app.workflows import tiny
from tests.looking import error_of
from tests.staging import Background, eventually, status_of
from tests.worker.test_outage import disturb

pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """Holds steps until it is opened: async and plain ones. `inside`: how many are held now."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.inside = self.most = self.ended = 0

    def _enter(self, change: int) -> None:
        self.inside += change
        self.most = max(self.most, self.inside)
        self.ended += change < 0

    async def wait(self, value=None):
        self._enter(1)
        while not self.is_open.is_set():
            await asyncio.sleep(0.005)
        self._enter(-1)
        return value

    def wait_plain(self, value=None):
        self._enter(1)
        assert self.is_open.wait(20)
        self._enter(-1)
        return value


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.is_open.set()


def steps_of(run):
    return list(run.steps.values_list("name", "status"))


def ends_as(run, status, timeout=15.0):
    eventually(lambda: status_of(run) == status, timeout)


# -- How many, and what they cost ----------------------------------------------------------------


def test_async_concurrency_bounds_how_many_are_in_memory_and_others_follow(running, gate):
    @workflow
    async def held(step: AsyncStep):
        await step.define("wait", gate.wait).run()

    held.start_many([{}] * 30)
    running(async_concurrency=5)
    eventually(lambda: gate.inside == 5)
    time.sleep(0.3)
    assert gate.inside == 5
    assert WorkflowRun.objects.filter(status="running").count() == 5
    gate.is_open.set()
    eventually(lambda: WorkflowRun.objects.filter(status="succeeded").count() == 30)
    assert gate.most == 5


def test_few_places_are_used_as_well(running, gate):
    @workflow
    async def held(step: AsyncStep):
        await step.define("wait", gate.wait).run()

    held.start_many([{}] * 7)
    running(async_concurrency=8, poll_interval=30)
    eventually(lambda: gate.inside == 7)
    held.start()
    eventually(lambda: gate.inside == 8, timeout=3)


def test_suspended_runs_take_no_place(running, gate):
    @workflow
    async def naps(step: AsyncStep):
        await step.sleep("nap", "1h")

    naps.start_many([{}] * 6)
    running(async_concurrency=2)
    eventually(lambda: WorkflowRun.objects.filter(status="sleeping").count() == 6)


def test_hundreds_of_runs_that_wait_share_few_connections_and_threads(work):
    opened, threads = [], set()

    def created(connection, **others):
        opened.append(threading.current_thread().name)

    async def wait():
        threads.update(thread.name for thread in threading.enumerate() if thread.name.startswith("django-steps"))
        await asyncio.sleep(0.2)

    @workflow
    async def waits(step: AsyncStep):
        await step.define("wait", wait).run()

    waits.start_many([{}] * 500)
    connection_created.connect(created)
    began = time.monotonic()
    try:
        work(concurrency=2)
    finally:
        connection_created.disconnect(created)
    assert time.monotonic() - began < 10
    assert WorkflowRun.objects.filter(status="succeeded").count() == 500
    assert len(opened) < 12, opened
    assert len(threads) < 14, threads


def test_nothing_is_left_of_async_code_after_idling(running, monkeypatch):
    """No connection of a thread for the ORM, and none of the thread of the loop."""
    monkeypatch.setattr(thread_connections, "LONG_IDLE", 0.2)
    opened = []

    def created(connection, **others):
        opened.append((threading.current_thread().name, connection))

    @workflow
    async def counts(step: AsyncStep):
        await step.define("count", Effect.objects.acount).run()
        return await Effect.objects.acount()

    connection_created.connect(created)
    try:
        worker = running()
        for run in counts.start_many([{}] * 10):
            run.result(timeout=10)
        writers = [
            writer._connection for writer in worker._place.commits._writers
        ]  # each opened by whoever used it first
        mine = [one for name, one in opened if name.startswith(("django-steps-orm", "django-steps-loop"))]
        mine = [one for one in mine if one not in writers]
        assert mine
        eventually(lambda: all(one.connection is None for one in mine))
    finally:
        connection_created.disconnect(created)


def test_transaction_left_open_on_a_thread_for_the_orm_is_ended(running, caplog):
    def begin():
        connections["default"].set_autocommit(False)
        leave("never committed")

    async def left_open():
        await sync_to_async(begin)()

    @workflow
    async def careless(step: AsyncStep):
        await step.define("left open", left_open).run()
        await step.define("after", leave).run("after")

    running()
    careless.start().result(timeout=10)
    assert effects.names() == ["after"]
    assert "Async code left autocommit switched off on database 'default'; the connection is closed." in caplog.messages


# -- Side by side with plain runs ----------------------------------------------------------------


def test_async_runs_go_on_while_all_threads_are_busy_with_plain_ones(running, gate):
    @workflow
    def plain(step):
        step.define("wait", gate.wait_plain).run()

    async def quick():
        await asyncio.sleep(0)

    @workflow
    async def awaits(step: AsyncStep):
        await step.define("quick", quick).run()

    plain_ones = plain.start_many([{}] * 4)
    running(concurrency=2)
    eventually(lambda: gate.inside == 2)
    awaits.start().result(timeout=5)
    gate.is_open.set()
    for run in plain_ones:
        run.result(timeout=10)


def test_plain_steps_of_async_runs_get_their_turn_among_plain_runs(running):
    @workflow
    def plain(step):
        for number in range(5):
            step.define(f"step {number}", time.sleep).run(0.02)

    @workflow
    async def awaits(step: AsyncStep):
        for number in range(3):
            await step.define(f"step {number}", leave).run("async")

    runs = plain.start_many([{}] * 60)
    running(concurrency=2)
    eventually(lambda: WorkflowRun.objects.filter(status="succeeded").exists())
    awaits.start().result(timeout=5)
    assert WorkflowRun.objects.exclude(status="succeeded").count() > 5
    eventually(lambda: WorkflowRun.objects.filter(status="succeeded").count() == len(runs) + 1)


def test_plain_runs_get_their_turn_among_plain_steps_of_async_runs(running):
    @workflow
    async def many(step: AsyncStep):
        for number in range(4):
            await step.define(f"step {number}", time.sleep).run(0.02)

    many.start_many([{}] * 60)
    running(concurrency=2)
    eventually(lambda: WorkflowRun.objects.filter(steps__isnull=False).exists())
    tiny.start({}).result(timeout=5)
    assert WorkflowRun.objects.filter(workflow="many").exclude(status="succeeded").count() > 5
    eventually(lambda: not WorkflowRun.objects.exclude(status="succeeded").exists())


# -- Cancel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wait", "wait_plain"])
def test_step_that_is_executed_when_its_run_is_canceled_ends_and_is_recorded(running, gate, kind):
    @workflow
    async def canceled(step: AsyncStep):
        await step.define("executed", getattr(gate, kind)).run("outcome")
        await step.define("after", leave).run("after")

    run = canceled.start()
    running()
    eventually(lambda: gate.inside)
    run.cancel()
    time.sleep(1.3)  # the worker knows by now
    assert status_of(run) == "canceling"
    gate.is_open.set()
    ends_as(run, "canceled", 1)
    assert steps_of(run) == [("executed", "succeeded")]
    assert run.steps.get().output == "outcome"
    assert effects.names() == []


def test_run_that_waits_in_memory_is_canceled_within_moments(running):
    begun = threading.Event()

    @workflow
    async def waits(step: AsyncStep):
        await step.define("before", leave).run("before")
        begun.set()
        await asyncio.sleep(3600)

    run = waits.start()
    running()
    assert begun.wait(10)
    run.cancel()
    ends_as(run, "canceled", 2.5)
    assert steps_of(run) == [("before", "succeeded")]


def test_suspended_run_is_canceled_at_once(running):
    @workflow
    async def naps(step: AsyncStep):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(step.sleep("nap", "1h"))
            tasks.create_task(step.define("before", leave).run("before"))

    run = naps.start()
    running()
    ends_as(run, "sleeping")
    run.cancel()
    assert status_of(run) == "canceled"
    assert sorted(steps_of(run)) == [("before", "succeeded"), ("nap", "waiting")]


def test_body_that_swallows_its_cancellation_and_goes_on_executes_nothing_more(running):
    begun, after = threading.Event(), []

    @workflow
    async def stubborn(step: AsyncStep):
        begun.set()
        for number in range(100):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            with suppress(asyncio.CancelledError):
                await step.define(f"after {number}", leave).run("after")
            after.append(number)

    run, other = stubborn.start(), tiny.start({})
    running()
    assert begun.wait(10)
    run.cancel()
    ends_as(run, "canceled", 9)
    assert steps_of(run) == []
    assert effects.count("after") == 0
    other.result(timeout=5)


# -- Stopping ------------------------------------------------------------------------------------


def test_worker_that_stops_lets_steps_end_and_releases_the_runs_at_once(running, gate):
    @workflow
    async def several(step: AsyncStep):
        async with asyncio.TaskGroup() as tasks:
            for name in ("a", "b"):
                tasks.create_task(step.define(name, gate.wait).run(name))
            tasks.create_task(step.define("plain", gate.wait_plain).run("plain"))
        await step.define("after", leave).run("after")

    runs = several.start_many([{}] * 5)
    first = Worker(concurrency=5, lease=60)
    working = Background(first.run)
    eventually(lambda: gate.inside == 15)
    first.stop()
    time.sleep(0.2)
    assert not working.value and WorkflowRun.objects.filter(status="running").count() == 5
    gate.is_open.set()
    assert working.result() is True
    assert set(WorkflowRun.objects.values_list("status", "phase", "worker")) == {
        ("pending", WorkflowRun.Phase.READY, None)
    }
    for run in runs:
        assert sorted(steps_of(run)) == [("a", "succeeded"), ("b", "succeeded"), ("plain", "succeeded")]
    running()
    for run in runs:
        run.result(timeout=10)
    assert gate.ended == 15
    assert effects.count("after") == 5
    assert set(WorkflowRun.objects.values_list("recoveries", flat=True)) == {0}


def test_run_that_waits_in_memory_is_released_when_its_worker_stops():
    begun = threading.Event()

    @workflow
    async def waits(step: AsyncStep):
        begun.set()
        await asyncio.sleep(3600)

    run = waits.start()
    worker = Worker(concurrency=1, lease=60)
    working = Background(worker.run)
    assert begun.wait(10)
    began = time.monotonic()
    worker.stop()
    assert working.result() is True
    assert time.monotonic() - began < 2
    assert status_of(run) == "pending"


@pytest.mark.parametrize("around", ["step", "map", "branch"])
@pytest.mark.parametrize("by", ["stop", "cancel"])
def test_step_that_only_a_timeout_of_the_body_ends_keeps_neither_its_worker_nor_its_run(around, by):
    begun = threading.Event()

    async def never(item):
        begun.set()
        await asyncio.sleep(3600)

    async def in_branch(step: AsyncStep):
        await step.define("never", never).run(1)

    @workflow
    async def times_out(step: AsyncStep):
        try:
            async with asyncio.timeout(0.5):
                if around == "step":
                    await step.define("never", never).run(1)
                elif around == "map":
                    await step.map("never", never, [1, 2])
                else:
                    await step.branch("branch", in_branch).run()
        except TimeoutError:
            await step.define("plan b", leave).run("plan b")

    run = times_out.start()
    worker = Worker(concurrency=1, poll_interval=0.1)
    working = Background(worker.run)
    try:
        assert begun.wait(10)
        if by == "cancel":
            run.cancel()
            ends_as(run, "canceled", 6)
    finally:
        worker.stop()
        assert working.result(8) is True
    assert status_of(run) == ("canceled" if by == "cancel" else "pending")
    assert "plan b" not in effects.names()


def test_plain_step_that_a_timeout_cannot_end_is_recorded_when_the_worker_stops(gate):
    @workflow
    async def times_out(step: AsyncStep):
        async with asyncio.timeout(0.2):
            await step.define("slow", gate.wait_plain).run("outcome")

    run = times_out.start()
    worker = Worker(concurrency=1)
    working = Background(worker.run)
    eventually(lambda: gate.inside)
    worker.stop()
    time.sleep(2.3)
    gate.is_open.set()
    assert working.result(8) is True
    assert (status_of(run), run.steps.get().output) == ("pending", "outcome")


def test_worker_does_not_wait_for_async_steps_longer_than_it_may(gate):
    @workflow
    async def long(step: AsyncStep):
        await step.define("wait", gate.wait).run()

    run = long.start()
    worker = Worker(concurrency=1, shutdown_timeout=0.3)
    working = Background(worker.run)
    eventually(lambda: gate.inside)
    began = time.monotonic()
    worker.stop()
    assert working.result() is False
    assert time.monotonic() - began < 2
    assert status_of(run) == "running"  # until its lease runs out
    gate.is_open.set()
    eventually(lambda: steps_of(run))  # on the loop, which a process would have taken along
    time.sleep(0.2)


# -- What goes wrong -----------------------------------------------------------------------------


async def exits_async(error):
    raise error


def exits_plain(error):
    raise error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("where", ["async step", "plain step", "task", "body", "task of a step"])
def test_exit_in_one_run_stops_neither_the_loop_nor_other_runs(running, gate, where, error):
    async def in_task():
        await asyncio.create_task(exits_async(error(3)))

    @workflow
    async def exits(step: AsyncStep):
        if where == "async step":
            await step.define("exits", exits_async).run(error(3))
        elif where == "plain step":
            await step.define("exits", exits_plain).run(error(3))
        elif where == "task of a step":
            await step.define("exits", in_task).run()
        elif where == "task":
            await asyncio.create_task(exits_async(error(3)))
        else:
            raise error(3)

    @workflow
    async def good(step: AsyncStep):
        await step.define("wait", gate.wait).run()
        await step.define("after", leave).run("after")

    others = good.start_many([{}] * 3)
    running()
    eventually(lambda: gate.inside == 3)
    run = exits.start()
    ends_as(run, "failed", 5)
    assert error.__name__ in error_of(run)["type"]
    gate.is_open.set()
    for other in others:
        other.result(timeout=5)
    good.start().result(timeout=5)


def test_results_that_cannot_be_recorded_fail_their_steps(work, settings):
    settings.DJANGO_STEPS = {"MAX_VALUE_BYTES": 2000}

    async def returns(what):
        return object() if what == "object" else "x" * 3000

    @workflow
    async def flow(step: AsyncStep):
        found = []
        for what, error in (("object", UnserializableResult), ("long", ValueTooLarge)):
            with suppress(error):
                await step.define(what, returns).run(what)
                found.append(what)
        return found

    @workflow
    async def returns_too_much(step: AsyncStep):
        return "x" * 3000

    run, other = flow.start(), returns_too_much.start()
    work()
    assert run.result(timeout=0) == []
    assert steps_of(run) == [("object", "failed"), ("long", "failed")]
    assert "ValueTooLarge" in error_of(other)["type"]


def test_runs_go_on_after_an_outage_and_repeat_nothing(running):
    async def leave_async(name):
        await asyncio.sleep(0.01)
        await sync_to_async(leave)(name)

    @workflow
    async def flow(step: AsyncStep):
        for number in range(6):
            name = f"step {number}"
            if number % 2:
                await step.define(name, leave_async, retry=20).run(name)
            else:
                await step.define(name, leave, atomic=True, retry=20).run(name)

    runs = flow.start_many([{}] * 12)
    running(concurrency=3)
    eventually(lambda: effects.Effect.objects.exists())
    for _ in range(4):
        disturb()
        time.sleep(0.15)
    for run in runs:
        run.result(timeout=20)
    for run in runs:
        names = effects.names(run)
        assert names == sorted(names) and set(names) == {f"step {number}" for number in range(6)}
        assert all(names.count(f"step {number}") == 1 for number in (0, 2, 4)), "an atomic step took effect twice"


SENT = ("run_first_claimed", "pass_started", "step_started", "step_succeeded", "pass_ended", "run_succeeded")


def test_receivers_of_signals_use_the_orm(work):
    heard, receivers = [], []
    for name in SENT:

        def receive(sender, run, name=name, step="", **known):
            heard.append((name, step, WorkflowRun.objects.get(pk=run.pk).status))

        receivers.append(receive)
        getattr(signals, name).connect(receive, sender=WorkflowRun)
    try:

        @workflow
        async def told(step: AsyncStep):
            await step.define("one", asyncio.sleep).run(0)
            await step.define("two", leave).run("two")

        told.start()
        work()
    finally:
        for name, receive in zip(SENT, receivers, strict=True):
            getattr(signals, name).disconnect(receive, sender=WorkflowRun)
    assert heard == [
        ("run_first_claimed", "", "running"),
        ("pass_started", "", "running"),
        ("step_started", "one", "running"),
        ("step_succeeded", "one", "running"),
        ("step_started", "two", "running"),
        ("step_succeeded", "two", "running"),
        ("pass_ended", "", "succeeded"),
        ("run_succeeded", "", "succeeded"),
    ]


# -- What people see -----------------------------------------------------------------------------


def test_commands_and_admin_show_a_run_that_executes_several_steps_at_once(running, gate, admin_client):
    @workflow
    async def several(step: AsyncStep):
        await step.define("before", leave).run("before")
        async with asyncio.TaskGroup() as tasks:
            for name in ("a", "b"):
                tasks.create_task(step.define(name, gate.wait).run())
            tasks.create_task(step.define("plain", gate.wait_plain).run())

    run = several.start()
    running(lease=1)
    eventually(lambda: gate.inside == 3)
    eventually(lambda: WorkflowRun.objects.get(pk=run.pk).current_step)
    printed = StringIO()
    call_command("showworkflows", str(run.pk), "--no-color", stdout=printed, skip_checks=True)
    assert "now: a" in printed.getvalue()
    page = admin_client.get(f"/admin/django_steps/workflowrun/{run.pk}/change/").content.decode()
    assert "before" in page and "now: a" in page
    gate.is_open.set()
    run.result(timeout=10)
    assert sorted(name for name, _ in steps_of(run)) == ["a", "b", "before", "plain"]


def test_backlog_of_plain_runs_is_not_walked_over_again_and_again_for_async_ones(monkeypatch):
    asked: list[bool] = []
    claim = claims.claim

    def note(connection, terms, limit, **options):
        asked.append(all(map(loop.is_async, terms.kinds)))
        return claim(connection, terms, limit, **options)

    monkeypatch.setattr(claims, "claim", note)
    monkeypatch.setattr(loop, "_REST", 10_000)

    @workflow
    def plain() -> None:
        pass

    @workflow
    async def asynchronous() -> None:
        pass

    plain.start_many([None] * 300)
    Worker(until_idle=True, poll_interval=0.05, concurrency=2).run()
    assert WorkflowRun.objects.filter(status="succeeded").count() == 300
    assert len(asked) > 10
    assert sum(asked) <= 2
