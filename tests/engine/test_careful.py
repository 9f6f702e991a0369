"""After a crash one step at a time is executed, so that the one that kills workers can be named; for one lease at most."""

from __future__ import annotations

import asyncio
import time

import pytest

from django_steps import AsyncStep, workflow
from django_steps.worker import Worker
from tests.staging import claim, make_terms, recover

pytestmark = pytest.mark.django_db(transaction=True)


def after_a_crash(run):
    claim(run, make_terms())
    recover()
    began = time.monotonic()
    Worker(until_idle=True, poll_interval=0.05, lease=1).run()
    run.refresh_from_db()
    assert (run.status, run.recoveries) == ("succeeded", 1), run.error
    return run, time.monotonic() - began


def test_async_step_that_others_would_cancel_does_not_keep_them_from_beginning():
    @workflow
    async def races(step: AsyncStep) -> str:
        tasks = [
            asyncio.create_task(step.define("slow", lambda: asyncio.sleep(60)).run()),
            asyncio.create_task(step.define("quick", lambda: "quick").run()),
        ]
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.wait(tasks)
        return done.pop().result()

    run, seconds = after_a_crash(races.start())
    assert run.result() == "quick"
    assert seconds < 20


def test_step_of_a_group_that_waits_for_others_does_not_keep_them_from_beginning():
    begun = []

    def meet(number: int) -> int:
        begun.append(number)
        deadline = time.monotonic() + 20
        while len(begun) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(begun)

    @workflow
    def meets(step):
        return step.map("meet", meet, [1, 2])

    run, seconds = after_a_crash(meets.start())
    assert run.result() == [2, 2]
    assert seconds < 20


def test_async_steps_begin_one_by_one_until_one_is_recorded():
    at_once = []

    async def executes(number: int) -> None:
        at_once.append(number)
        await asyncio.sleep(0.05)
        highest.append(len(at_once))
        at_once.remove(number)

    highest: list[int] = []

    @workflow
    async def several(step: AsyncStep) -> None:
        await asyncio.gather(*(step.define(f"step_{number}", executes).run(number) for number in range(4)))

    after_a_crash(several.start())
    assert highest[0] == 1
    assert max(highest) == 3
