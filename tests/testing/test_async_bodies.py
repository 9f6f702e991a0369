"""The kit executes async bodies on the test's own thread and connection, in an order that can be repeated."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from datetime import timedelta
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction
from django.test import TestCase
from django.utils import timezone

from django_steps import AsyncStep, GroupFailed, StepsError, workflow
from django_steps.testing import DoesNotEnd, NotRepeatable, StateLost, drain, run_workflow
from django_steps.testing import order as seeded

BOTH = pytest.mark.parametrize("straight_through", [False, True], ids=["suspended always", "straight through"])


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def increment(number: int) -> int:
    return number + 1


class InTestCase(TestCase):
    def test_steps_of_all_kinds_and_in_any_nesting_are_executed(self):
        async def branch(item: int, step: AsyncStep) -> int:
            before = await step.define("before", double).run(item)
            await step.sleep("nap", "2h")
            return before + await step.define("after", increment).run(item)

        @workflow
        async def mixed(input: int, step: AsyncStep):
            first = await step.define("first", double).run(input)
            second, third = await asyncio.gather(
                step.define("second", increment).run(first), step.define("third", lambda: double(first)).run()
            )
            await step.sleep("night", "10d")
            mapped = await step.map("mapped", double, [1, 2, 3], concurrency=2)
            branches = await step.map("branches", branch, [1, 2])
            pair = await step.gather(step.define("a", double).bind(1), step.define("b", increment).bind(1))
            return [first, second, third, mapped, branches, list(pair)]

        for straight_through in (False, True):
            with self.subTest(straight_through=straight_through):
                run = run_workflow(mixed, 3, straight_through=straight_through)
                self.assertIsNone(run.error, run.error)
                self.assertEqual(run.result(), [6, 7, 12, [2, 4, 6], [4, 7], [2, 2]])

    def test_the_orm_works_in_bodies_and_steps_on_the_connection_of_the_test(self):
        def create(name: str) -> int:
            return User.objects.create(username=name).pk

        async def acreate(name: str) -> int:
            return (await User.objects.acreate(username=name)).pk

        @workflow
        async def creates(step: AsyncStep):
            await step.define("plain", create).run("plain")
            await step.define("atomic", create, atomic=True).run("atomic")
            await step.define("async", acreate).run("async")
            await step.define("bridged", sync_to_async(create)).run("bridged")
            return [user.username async for user in User.objects.order_by("pk")]

        User.objects.create(username="test")
        run = run_workflow(creates)
        self.assertEqual(run.result(), ["test", "plain", "atomic", "async", "bridged"])
        self.assertEqual(User.objects.count(), 5)

    def test_instances_are_steps_results(self):
        @workflow
        async def loads(step: AsyncStep):
            user = await step.define("create", User.objects.create).run(username="anna")
            found = await step.get(User, "get_username").run(user.pk)
            return [user.username, found]

        self.assertEqual(run_workflow(loads).result(), ["anna", "anna"])

    def test_callbacks_of_commits_are_called(self):
        called = []

        def register() -> None:
            transaction.on_commit(lambda: called.append("plain"))

        async def aregister() -> None:
            await sync_to_async(transaction.on_commit)(lambda: called.append("async"))

        @workflow
        async def registers(step: AsyncStep) -> None:
            await step.define("plain", register).run()
            await step.define("async", aregister).run()

        run_workflow(registers)
        self.assertEqual(called, ["plain", "async"])

    async def test_async_tests_call_it_on_a_thread(self):
        @workflow
        async def doubles(input: int, step: AsyncStep) -> int:
            await step.define("create", User.objects.create).run(username="anna")
            return await step.define("double", double).run(input)

        run = await sync_to_async(run_workflow)(doubles, 4)
        self.assertEqual(await run.aresult(), 8)
        self.assertEqual(await User.objects.acount(), 1)

    async def test_async_tests_that_call_it_directly_are_told_how_to(self):
        @workflow
        async def doubles(input: int, step: AsyncStep) -> int:
            return input

        with (
            mock.patch.dict(os.environ, {"DJANGO_ALLOW_ASYNC_UNSAFE": ""}),
            self.assertRaisesMessage(StepsError, "await sync_to_async(run_workflow)("),
        ):
            run_workflow(doubles, 4)

    def test_runs_are_drained(self):
        @workflow
        async def sleeps(step: AsyncStep) -> str:
            await step.sleep("long", "3d")
            return await step.define("say", lambda: "awake").run()

        run = sleeps.start()
        drain()
        run.refresh_from_db()
        self.assertEqual(run.status, "sleeping")
        drain(advance="4d")
        self.assertEqual(run.result(), "awake")


pytestmark = pytest.mark.django_db


def test_everything_is_executed_on_the_thread_of_the_test():
    threads = []

    async def note() -> None:
        threads.append(threading.get_ident())

    @workflow
    async def notes(step: AsyncStep) -> None:
        await note()
        await asyncio.gather(
            step.define("async", note).run(),
            step.define("plain", lambda: threads.append(threading.get_ident())).run(),
            sync_to_async(lambda: threads.append(threading.get_ident()))(),
        )

    run_workflow(notes, straight_through=True)
    assert threads == [threading.get_ident()] * 4


@BOTH
def test_timers_pass_on_the_virtual_clock(straight_through):
    async def slow() -> None:
        await asyncio.sleep(3600)

    @workflow
    async def times_out(step: AsyncStep) -> str:
        try:
            async with asyncio.timeout(600):
                await step.define("slow", slow).run()
        except TimeoutError:
            return await step.define("plan_b", lambda: "b").run()
        return "a"

    began, before = time.monotonic(), timezone.now()
    run = run_workflow(times_out, straight_through=straight_through)
    assert run.result() == "b"
    assert [(step.name, step.status) for step in run.steps.all()] == [("slow", "canceled"), ("plan_b", "succeeded")]
    assert time.monotonic() - began < 30
    assert run.finished_at - before >= timedelta(seconds=600)


@BOTH
def test_sleep_that_the_body_cancels_is_canceled_on_every_pass(straight_through):
    @workflow
    async def gives_up(step: AsyncStep) -> str:
        try:
            async with asyncio.timeout(1):
                await step.sleep("long", "1h")
        except TimeoutError:
            pass
        await step.sleep("other", "2d")
        return await step.define("end", lambda: "end").run()

    run = run_workflow(gives_up, straight_through=straight_through)
    assert run.result() == "end"
    assert run.steps.get(name="long").status == "canceled"


def test_real_io_is_waited_for():
    async def exchange() -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.02)
            writer.write(b"hello\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            line = await reader.readline()
            writer.close()
        return line.decode().strip()

    @workflow
    async def asks(step: AsyncStep) -> str:
        return await step.define("ask", exchange).run()

    assert run_workflow(asks).result() == "hello"


def test_thread_of_the_body_is_waited_for():
    @workflow
    async def calls(step: AsyncStep) -> str:
        return await step.define("call", lambda: asyncio.to_thread(lambda: "from a thread")).run()

    assert run_workflow(calls).result() == "from a thread"


def test_body_that_waits_for_nothing_is_told():
    @workflow
    async def hangs(step: AsyncStep) -> None:
        await step.define("first", lambda: 1).run()
        await asyncio.Event().wait()

    with pytest.raises(StepsError, match="waits for something that nobody does any more"):
        run_workflow(hangs)


def test_stubs_take_the_place_of_async_steps():
    async def fetch(url: str) -> str:
        raise AssertionError

    async def page(url: str, step: AsyncStep) -> str:
        return await step.define("fetch", fetch).run(url)

    @workflow
    async def fetches(step: AsyncStep) -> list[str]:
        one = await step.define("fetch", fetch).run("one")
        return [one, *await step.map("page", page, ["a", "b"])]

    async def stub(url: str) -> str:
        return f"stub of {url}"

    run = run_workflow(fetches, stubs={"fetch": "one", "page/fetch": stub})
    assert run.result() == ["one", "stub of a", "stub of b"]


def test_failures_arrive_in_the_body():
    async def fail(number: int) -> int:
        if number % 2:
            raise LookupError(number)
        return number

    @workflow
    async def catches(step: AsyncStep) -> list[str]:
        found = []
        try:
            await step.map("item", fail, [1, 2], concurrency=None)
        except* LookupError as group:
            found += sorted(str(error) for error in group.exceptions)
        try:
            await step.gather(step.define("a", fail).bind(5), step.define("b", fail).bind(6))
        except GroupFailed as group:
            found += [f"{name}: {error}" for name, error in group.failures.items()]
        return found

    assert run_workflow(catches).result() == ["1", "a: 5"]


def test_step_that_is_not_come_to_again_is_not_repeatable():
    calls = []

    @workflow
    async def changes(step: AsyncStep) -> None:
        calls.append(1)
        if len(calls) == 1:
            await step.define("once", lambda: 1).run()
        await step.define("always", lambda: 1).run()

    with pytest.raises(NotRepeatable, match="'once'"):
        run_workflow(changes)


def test_order_of_steps_side_by_side_is_free():
    calls = []

    @workflow
    async def shuffles(step: AsyncStep) -> list[int]:
        calls.append(1)
        names = ["a", "b", "c"] if len(calls) % 2 else ["c", "a", "b"]
        return await asyncio.gather(*(step.define(name, double).run(1) for name in names))

    assert run_workflow(shuffles).result() == [2, 2, 2]
    assert len(calls) > 1


@pytest.mark.parametrize("is_async", [False, True])
def test_step_that_changes_a_variable_of_the_body_loses_state(is_async):
    @workflow
    async def loses(step: AsyncStep) -> int:
        count = 0

        def plain() -> None:
            nonlocal count
            count += 1

        async def asynchronous() -> None:
            nonlocal count
            count += 1

        await step.define("count", asynchronous if is_async else plain).run()
        return count

    with pytest.raises(StateLost, match="variable of the body"):
        run_workflow(loses)


def test_what_the_body_itself_collects_meanwhile_is_no_lost_state():
    @workflow
    async def collects(step: AsyncStep) -> int:
        done: list[int] = []

        async def one(number: int) -> None:
            async def item() -> int:
                await asyncio.sleep(number)
                return number if len(done) < 10 else 0

            done.append(await step.define(f"item_{number}", item).run())

        await asyncio.gather(*(one(number) for number in range(3)))
        return len(done)

    assert run_workflow(collects).result() == 3


def test_body_that_never_ends_is_told():
    @workflow
    async def endless(step: AsyncStep) -> None:
        number = 0
        while True:
            number += 1
            await step.define(f"step_{number}", lambda: 1).run()

    with pytest.raises(DoesNotEnd):
        run_workflow(endless, max_steps=20)


def test_order_follows_from_the_seed_however_fast_the_machine_is(monkeypatch):
    def executed(seed: str, seconds: float = 0) -> list[str]:
        monkeypatch.setenv(seeded.VARIABLE, seed)
        log: list[str] = []

        @workflow(name=f"ordered_{len(seeds)}")
        async def ordered(step: AsyncStep) -> None:
            time.sleep(seconds)
            await asyncio.gather(*(step.define(name, log.append).run(name) for name in "abcdef"))

        seeds.append(seed)
        run_workflow(ordered, straight_through=True)
        return log

    seeds: list[str] = []
    assert executed("1") == executed("1", seconds=0.02)
    assert len({tuple(executed(str(seed))) for seed in range(8)}) > 1


def test_failing_run_says_in_which_order_its_steps_were_executed(caplog):
    def fail() -> None:
        raise OSError

    @workflow
    async def fails(step: AsyncStep) -> None:
        await asyncio.gather(step.define("one", fail).run(), step.define("two", lambda: 1).run())

    with caplog.at_level(logging.ERROR, "django_steps.testing"):
        run = run_workflow(fails, straight_through=True)
    assert run.status == "failed"
    assert seeded.VARIABLE in caplog.text


def test_keyboard_interrupt_ends_the_test_run():
    def interrupt() -> None:
        raise KeyboardInterrupt

    @workflow
    async def interrupted(step: AsyncStep) -> None:
        await step.define("interrupt", interrupt).run()

    with pytest.raises(KeyboardInterrupt):
        run_workflow(interrupted)
