"""Workflows of every kind that a fault may meet. Each step returns a token of its own, or fails with it, so that it can be
told which execution was recorded.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from functools import partial
from typing import Any
from uuid import uuid4

from django.db import connection

from django_steps import AsyncStep, RetryPolicy, StepTimedOut, current_step, workflow
from django_steps.definitions.step import Step
from tests.app.models import Effect

from . import dying, families, limited  # noqa: F401
from .evidence import note, real_time

LONGEST_STEP = 60.0  # seconds; only a pass that can't go on executes it to its end
QUICKLY = RetryPolicy(max_attempts=3, initial_interval="50ms", backoff_coefficient=8, jitter=False)


class Broken(Exception):
    """A failure that is part of the plan."""


def do(input: dict[str, Any], step: Step, name: str, *, failures: int = 0, branch: str = "", **options: Any) -> None:
    """A step that takes about `input["pause"]` seconds and fails in its first attempts; what the body sees is noted."""
    label, path = input["label"], branch + name
    function = partial(execute, input, failures=failures, is_atomic=options.get("atomic", False))
    try:
        seen = step.define(name, function, **options).run()
    except Broken as error:
        note(label, "saw", path, str(error))
        raise
    note(label, "saw", path, seen)


def execute(input: dict[str, Any], *item: int, failures: int = 0, is_atomic: bool = False) -> str:
    """What a step does, or the item of a map."""
    label, token, this = input["label"], uuid4().hex, current_step()
    note(label, "execute", this.name, token, this.attempt)
    time.sleep(random.uniform(0, 2) * input["pause"])
    if is_atomic:
        Effect.objects.create(run=label, name=this.name, pid=os.getpid(), at=time.time())
    time.sleep(random.uniform(0, 1) * input["pause"])
    if this.attempt <= failures:
        raise Broken(token)
    return token


def nap(input: dict[str, Any], step: Step, name: str, duration: str, branch: str = "") -> None:
    """A sleep; when it was over is noted, and what this process takes for the time."""
    step.sleep(name, duration)
    note(input["label"], "saw", branch + name, str(real_time()))
    note(input["label"], "clock", branch + name, str(int(time.time())))


@workflow(name="faults_plain")
def plain(input, step):
    for number in range(4):
        do(input, step, f"plain_{number}")
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_atomic")
def atomic(input, step):
    for number in range(4):
        do(input, step, f"atomic_{number}", atomic=True)
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_sleeping")
def sleeping(input, step):
    do(input, step, "before")
    nap(input, step, "short", "100ms")
    do(input, step, "between", atomic=True)
    nap(input, step, "long", "700ms")
    do(input, step, "after")
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_retrying")
def retrying(input, step):
    do(input, step, "before")
    do(input, step, "stubborn", failures=2, retry=QUICKLY)
    do(input, step, "stubborn_atomic", failures=1, retry=QUICKLY, atomic=True)
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_caught")
def caught(input, step):
    do(input, step, "charge", atomic=True)
    try:
        do(input, step, "ship", failures=9)
    except Broken:
        do(input, step, "refund", atomic=True)
    nap(input, step, "long", "400ms")
    do(input, step, "tell")
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_mapped")
def mapped(input, step):
    """Branches that sleep, items, and atomic items, side by side."""

    def parcel(number, step):
        branch = f"parcel#{number}/"
        do(input, step, "book", branch=branch, atomic=True)
        nap(input, step, "short", "100ms", branch)
        do(input, step, "label", branch=branch)

    step.map("parcel", parcel, range(3))
    for name, is_atomic in (("item", False), ("atomic", True)):
        tokens = step.map(name, partial(execute, input, is_atomic=is_atomic), range(4), atomic=is_atomic)
        for number, token in enumerate(tokens):
            note(input["label"], "saw", f"{name}#{number}", token)
    note(input["label"], "end", "body")
    return "done"


async def ado(input: dict[str, Any], step: AsyncStep, name: str, branch: str = "") -> None:
    """An async step; what the body sees is noted."""
    seen = await step.define(name, partial(aexecute, input)).run()
    note(input["label"], "saw", branch + name, seen)


async def aexecute(input: dict[str, Any], *item: int, seconds: float | None = None) -> str:
    """What an async step does, or the item of a map."""
    token, this = uuid4().hex, current_step()
    note(input["label"], "execute", this.name, token, this.attempt)
    await asyncio.sleep(random.uniform(0, 3) * input["pause"] if seconds is None else seconds)
    return token


@workflow(name="faults_async")
async def asynchronous(input, step: AsyncStep):
    """Async, plain and atomic steps side by side, branches that sleep, and a race whose loser is canceled."""
    label = input["label"]

    async def plain(name: str, *, is_atomic: bool) -> None:
        function = partial(execute, input, is_atomic=is_atomic)
        note(label, "saw", name, await step.define(name, function, atomic=is_atomic).run())

    async def parcel(number: int, step: AsyncStep) -> None:
        branch = f"parcel#{number}/"
        await ado(input, step, "book", branch)
        await step.sleep("short", "100ms")
        note(label, "saw", f"{branch}short", str(real_time()))
        await ado(input, step, "label", branch)

    await asyncio.gather(ado(input, step, "one"), plain("two", is_atomic=False), plain("three", is_atomic=True))
    async with asyncio.TaskGroup() as group:
        group.create_task(step.map("parcel", parcel, range(3)))
        group.create_task(ado(input, step, "four"))

    async def lose() -> None:
        try:
            await step.define("loser", partial(aexecute, input, seconds=LONGEST_STEP)).run()
        except asyncio.CancelledError:
            note(label, "saw", "loser", "canceled")
            raise

    racing = [asyncio.create_task(lose()), asyncio.create_task(ado(input, step, "winner"))]
    _, left = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.wait(racing)
    for number, token in enumerate(await step.map("item", partial(aexecute, input), range(4))):
        note(label, "saw", f"item#{number}", token)
    await plain("last", is_atomic=True)
    note(label, "end", "body")
    return "done"


@workflow(name="faults_failing")
def failing(input, step):
    do(input, step, "before", atomic=True)
    do(input, step, "fatal", failures=9, retry=RetryPolicy(max_attempts=2, initial_interval="10ms"))


@workflow(name="faults_writing")
def writing(input, step):
    """Atomic steps only, without a pause: as many commits as there can be."""
    for number in range(input["steps"]):
        do(input, step, f"write_{number}", atomic=number % 2 == 0)
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_timed")
def timed(step):
    """PostgreSQL: atomic steps with a limit of time, one within it, and one with a statement that is broken off."""

    def write(name: str, seconds: float) -> None:
        Effect.objects.create(name=name, pid=os.getpid(), at=time.time())
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])

    step.define("in time", write, timeout="20s", atomic=True).run("in time", 0)
    try:
        step.define("late", write, timeout="200ms", atomic=True).run("late", LONGEST_STEP)
    except StepTimedOut as error:
        return error.step


def see(input: dict[str, Any], name: str, payload: Any) -> Any:
    """What a wait has given to the body is noted."""
    note(input["label"], "saw", name, str(payload))
    return payload


@workflow(name="faults_waiting")
def waiting(input, step):
    """Two events of one name, one after the other."""
    return [see(input, name, step.wait_for_event("go", name=name)) for name in ("one", "two")]


@workflow(name="faults_waiting_branches")
def waiting_branches(input, step):
    """Two events, each in a branch."""

    def wait(name, step):
        return see(input, f"wait#{name}/{name}", step.wait_for_event(name))

    return step.map("wait", wait, ["a", "b"])


@workflow(name="faults_waiting_async")
async def waiting_async(input, step: AsyncStep):
    """Two events, side by side."""

    async def wait(name: str) -> Any:
        return see(input, name, await step.wait_for_event(name))

    return await asyncio.gather(wait("a"), wait("b"))


WAITING = (waiting, waiting_branches, waiting_async)

dying.install()
