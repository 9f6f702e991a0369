"""The measured workflows: steps that do nothing, so that what is left is the engine's own cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.drivers import protocol
from django_steps import AsyncStep, RetryPolicy, Step, workflow


@workflow
def steps(input: dict[str, int], step: Step) -> dict[str, int]:
    for number in range(input["size"]):
        step.define(f"step-{number}", do_nothing).run(number)
    return {"done": input["size"]}


@workflow
async def async_steps(input: dict[str, int], step: AsyncStep) -> dict[str, int]:
    for number in range(input["size"]):
        await step.define(f"step-{number}", do_nothing_async).run(number)
    return {"done": input["size"]}


@workflow
async def async_naps(input: dict[str, int], step: AsyncStep) -> dict[str, int]:
    """The same with steps that wait for something else."""
    for number in range(input["size"]):
        await step.define(f"step-{number}", nap_async).run(number)
    return {"done": input["size"]}


@workflow
def mapped(input: dict[str, int], step: Step) -> dict[str, int]:
    """The same as `steps`, side by side."""
    step.map("item", do_nothing, range(input["size"]))
    return {"done": input["size"]}


@workflow
def napping(input: dict[str, int], step: Step) -> dict[str, int]:
    """Items that wait for something else, as most do."""
    step.map("nap", nap, range(input["size"]), concurrency=10)
    return {"done": input["size"]}


@workflow
def one_step(input: int, step: Step) -> dict[str, Any]:
    return step.define("step", do_nothing).run(input)


@workflow
def parent(input: dict[str, int], step: Step) -> dict[str, int]:
    """A child run for each item, of one step."""
    protocol.note("entered")
    step.map("child", one_step, range(input["size"]))
    return {"done": input["size"]}


@workflow
def waiter(input: dict[str, int], step: Step) -> dict[str, int]:
    """Waits for an event, and notes when the wait returns."""
    step.wait_for_event("go")
    protocol.note("returned")
    return {"done": 1}


@workflow
def sleeper(input: dict[str, int], step: Step) -> dict[str, int]:
    step.sleep("nap", input["size"])
    step.define("after", do_nothing).run(0)
    return {"done": 1}


@workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1ms", jitter=False))
def resume(input: dict[str, int], step: Step) -> dict[str, int]:
    """Its last step fails once, and the run is tried again by itself."""
    return fail_at_the_end(input, step)


@workflow
def resume_elsewhere(input: dict[str, int], step: Step) -> dict[str, int]:
    """The same, but somebody has to retry it; another worker goes on with it."""
    return fail_at_the_end(input, step)


def fail_at_the_end(input: dict[str, int], step: Step) -> dict[str, int]:
    protocol.note("entered")
    for number in range(input["size"]):
        step.define(f"step-{number}", do_nothing).run(number)
    step.define("last", fail_once).run()
    return {"done": input["size"]}


def do_nothing(number: int) -> dict[str, Any]:
    return {"number": number, "ok": True}


async def do_nothing_async(number: int) -> dict[str, Any]:
    return do_nothing(number)


async def nap_async(number: int) -> dict[str, Any]:
    await asyncio.sleep(protocol.NAP)
    return do_nothing(number)


def nap(number: int) -> None:
    time.sleep(0.01)


def fail_once() -> dict[str, Any]:
    protocol.note("last step")
    if protocol.is_first_time():
        raise RuntimeError("once")
    return {"ok": True}
