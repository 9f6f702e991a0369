"""Canceling with undo where the body has changed: what it still comes to is undone, and nothing else is done."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.changing import deploy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def book(done: list[str]) -> Any:
    """Define a step that can be undone, and run it: `book(step, "flight")`."""

    def define(step: Any, name: str, *args: Any) -> Any:
        return step.define(name, lambda *args: 1, undo=lambda result: done.append(f"no {name}")).run(*args)

    return define


def one(value: int = 1) -> int:
    return value


def cancel(run: Any, work: Any) -> str:
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    return str(run.status)


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("how", ["cancel", "body"])
def test_finished_branch_that_goes_otherwise_now_is_undone_as_far_as_it_fits(work, pass_time, book, done, kind, how):
    def make(is_changed: bool) -> Any:
        def part(step):
            book(step, "x")
            step.sleep("y", "1h") if is_changed else step.define("y", one).run()

        def body(step):
            book(step, "a")
            step.branch("b", part).run()
            book(step, "z")
            step.sleep("night", "1h")
            if how == "body":
                step.undo()

        async def async_part(step):
            await book(step, "x")
            await (step.sleep("y", "1h") if is_changed else step.define("y", one).run())

        async def async_body(step):
            await book(step, "a")
            await step.branch("b", async_part).run()
            await book(step, "z")
            await step.sleep("night", "1h")
            if how == "body":
                await step.undo()

        return body if kind == "plain" else async_body

    run = deploy("journey", make(False)).start()
    work()
    deploy("journey", make(True))
    if how == "cancel":
        assert cancel(run, work) == "canceled"
    else:
        pass_time("2h")
        work()
        run.refresh_from_db()
        assert run.status == "succeeded", run.error
    assert done == ["no z", "no x", "no a"]


@pytest.mark.parametrize("reaction", ["ignore", "warn", "fail"])
def test_call_with_other_arguments_is_undone_whatever_the_setting(work, settings, book, done, reaction):
    settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "ON_CHANGED_ARGUMENTS": reaction}
    calls: list[int] = []

    def body(step):
        calls.append(1)
        book(step, "a", len(calls))
        book(step, "b")
        step.sleep("night", "1h")

    run = deploy("journey", body).start()
    work()
    assert cancel(run, work) == "canceled"
    assert done == ["no b", "no a"]


@pytest.mark.parametrize("is_recorded", [False, True], ids=["nothing behind it", "something behind it"])
def test_timers_of_an_async_body_are_not_waited_for(work, book, done, is_recorded):
    async def old(step):
        await book(step, "a")
        if is_recorded:
            await step.sleep("night", "1h")
        else:
            await step.wait_for_event("never")

    async def new(step):
        await book(step, "a")
        try:
            async with asyncio.timeout(600):
                await step.define("slow", one).run()
        except TimeoutError:
            await step.define("plan b", lambda: done.append("plan b")).run()

    run = deploy("journey", old).start()
    work()
    deploy("journey", new)
    began = time.monotonic()
    assert cancel(run, work) == "canceled"
    assert time.monotonic() - began < 300
    assert done == ["no a"]
    assert set(run.steps.values_list("name", flat=True)) == {"a", "a#undo", "night" if is_recorded else "never"}


def test_patch_that_is_asked_first_by_the_undo_holds_nothing_up(work, book, done):
    async def old(step):
        await book(step, "a")
        await step.sleep("night", "1h")

    async def new(step):
        await step.patched("new way")
        await asyncio.sleep(0.001)
        await book(step, "a")
        await step.sleep("night", "1h")

    run = deploy("journey", old).start()
    work()
    deploy("journey", new)
    assert cancel(run, work) == "canceled"
    assert done == ["no a"]


def test_undo_in_one_task_lets_others_go_on(work, pass_time, book, done):
    """A finished branch is entered once more, and comes to where its record would be written."""

    async def part(step):
        await book(step, "x")

    async def undo(step):
        await step.undo()
        done.append("undone")

    async def other(step):
        await step.define("after", one).run()
        done.append("after")

    async def body(step):
        await step.branch("b", part).run()
        await step.sleep("night", "1h")
        await asyncio.gather(undo(step), other(step))

    run = deploy("journey", body).start()
    work()
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert sorted(done) == ["after", "no x", "undone"]
