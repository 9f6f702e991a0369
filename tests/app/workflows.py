"""Workflows that worker processes of the tests execute; those that only one test needs are defined there."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

from asgiref.sync import sync_to_async

from django_steps import AsyncStep, Limit, RetryPolicy, current_step, workflow

from .effects import count, leave
from .models import Person


@workflow
def three_steps(input, step):
    for name in ("first", "second", "third"):
        step.define(name, leave).run(name)
    return "done"


@workflow
def slow_middle(input, step):
    """The second step takes `input["seconds"]`."""
    step.define("before", leave).run("before")

    @step.define("slow")
    def slow() -> None:
        leave("slow begins")
        time.sleep(input["seconds"])
        leave("slow ends")

    slow.run()
    step.define("after", leave).run("after")


@workflow
def kills_its_worker(input, step):
    """Dies in its second step as long as the file `input["alive"]` does not exist."""
    step.define("before", leave).run("before")

    @step.define("deadly")
    def deadly() -> None:
        leave("deadly")
        if not Path(input["alive"]).exists():
            os.kill(os.getpid(), 9)

    deadly.run()


@workflow
def booked_and_undone(input, step):
    """The undo of its second step dies as long as the file `input["alive"]` does not exist."""

    def undo(booking, name):
        leave(f"undo {name}")

    def undo_and_die(booking, name):
        leave(f"undo {name}")
        if not Path(input["alive"]).exists():
            os.kill(os.getpid(), 9)

    step.define("flight", leave, undo=undo).run("flight")
    step.define("hotel", leave, undo=undo_and_die).run("hotel")
    step.define("car", leave, undo=undo, atomic=True).run("car")
    step.sleep("night", "1h")


@workflow
def forks(input, step):
    """Computes in a pool of forked processes, and ends other ones by signals."""
    fork = multiprocessing.get_context("fork")

    def pool() -> list[int]:
        with fork.Pool(2) as pool:
            return pool.map(_square, [1, 2, 3])

    def ended_by(signum: int) -> int | None:
        process = fork.Process(target=time.sleep, args=(60,))
        process.start()
        assert process.pid is not None
        os.kill(process.pid, signum)
        process.join(10)
        ended = process.exitcode
        process.kill()
        return ended

    return [
        step.define("pool", pool).run(),
        step.define("terminate", ended_by).run(signal.SIGTERM.value),
        step.define("hang up", ended_by).run(signal.SIGHUP.value),
    ]


def _square(number: int) -> int:
    return number * number


@workflow
def sleeper(input, step):
    step.define("before", leave).run("before")
    step.sleep("nap", input["duration"])
    step.define("after", leave).run("after")


@workflow
def atomic_steps(input, step):
    """`input["steps"]` steps in turn, atomic and plain; each takes `input["seconds"]`."""

    def do(name: str) -> None:
        leave(name)
        time.sleep(input.get("seconds", 0))

    for number in range(input["steps"]):
        name = f"{'plain' if number % 2 else 'atomic'} {number}"
        step.define(name, do, atomic=number % 2 == 0).run(name)


@workflow
def holds_the_interpreter(input, step):
    """One step in C code that no other thread of the process gets past; a character more takes twice as long."""

    def search() -> None:
        leave("search begins")
        re.match(r"(a+)+$", "a" * input["length"] + "b")

    step.define("search", search).run()


@workflow
def spawner(input, step):
    """Starts `input["children"]` runs, each of which starts as many less one."""
    step.define("trace", leave).run("spawner")
    for number in range(input["children"]):
        step.define(f"child {number}", lambda: str(spawner.start({"children": input["children"] - 1}).pk)).run()


@workflow
def returns_input(input):
    return input


@workflow
def tiny(input, step):
    step.define("once", leave).run("once")


@workflow(step_retry=RetryPolicy(max_attempts=2, initial_interval="10ms"))
def without_database(input, step):
    """Steps, sleeps and retries without a query: `input["steps"]` of each, and one sleep that suspends the run."""

    def fail_at_first() -> None:
        if current_step().attempt == 1:
            raise ValueError

    for number in range(input["steps"]):
        step.define(f"plain {number}", time.sleep).run(0.005)
        step.define(f"failing {number}", fail_at_first).run()
        step.sleep(f"nap {number}", "5ms")
    step.sleep("sleep", "1.2s")
    step.define("last", time.sleep).run(0)


@workflow
def wires_once(input, step):
    """Has an effect, and then takes its time."""

    def wire() -> None:
        leave("wire")
        time.sleep(input["seconds"])

    step.define("wire", wire, at_most_once=True).run()


@workflow
def imports_pages(input, step):
    """Goes through pages, and says by checkpoints how far it is."""

    def read() -> None:
        page = current_step().last_checkpoint or 0
        leave(f"from {page}")
        while page < input["pages"]:
            time.sleep(0.02)
            page += 1
            current_step().checkpoint(page)

    step.define("import", read).run()


@workflow
def parcels(input, step):
    """A map over branches; those of `input["items"]` of which there is a person fail, and the last one takes its time."""
    step.map("parcel", send_parcel, input["items"], return_exceptions=input.get("tolerant", False))
    step.define("report", leave).run("report")


def send_parcel(item, step):
    step.define("pack", leave).run(f"pack {item}")

    @step.define("send")
    def send() -> None:
        leave(f"send {item}")
        if Person.objects.filter(name=item).exists():
            raise ConnectionError(f"no answer for {item}")

    send.run()
    if item == "slow":
        step.sleep("rest", "4s")


@workflow
async def several_at_once(input, step: AsyncStep):
    """Two atomic steps, and between them several at once, which wait for `input["seconds"]`: async ones and a plain one."""
    await step.define("before", leave, atomic=True).run("before")
    async with asyncio.TaskGroup() as tasks:
        for name in ("a", "b"):
            tasks.create_task(step.define(name, _leave_and_wait).run(name, input["seconds"]))
        tasks.create_task(step.define("plain", _leave_and_block).run("plain", input["seconds"]))
        tasks.create_task(step.sleep("nap", "10ms"))
    await step.define("after", leave, atomic=True).run("after")


async def _leave_and_wait(name, seconds):
    await sync_to_async(leave)(name)
    await asyncio.sleep(seconds)


def _leave_and_block(name, seconds):
    leave(name)
    time.sleep(seconds)


@workflow
def says_where(input, step, run):
    """Says where it is; the second step takes `input["seconds"]` the first time."""
    run.update_details(at="first")
    step.define("first", leave).run("first")
    run.update_details(at="second", first="done")

    @step.define("second")
    def second():
        leave("second")
        if count("second", current_step().run_id) == 1:
            time.sleep(input["seconds"])

    second.run()
    step.sleep("rest", "1h")


@workflow
def hangs_once(input, step):
    """The first attempt of its second step hangs for good, in a call that nothing interrupts."""
    step.define("before", leave).run("before")

    @step.define("stuck", timeout=input["timeout"], retry=RetryPolicy(max_attempts=2, initial_interval="100ms"))
    def stuck() -> None:
        leave("stuck")
        if current_step().attempt == 1:
            time.sleep(3600)

    stuck.run()


def occupy(kind: str) -> None:
    """Be there for a moment, and leave traces of it."""
    leave(f"{kind} in")
    time.sleep(0.03)
    leave(f"{kind} out")


@workflow(limit=Limit(at_once=2, hold="executing"))
def pair(input, step):
    step.define("first", occupy).run("pair")
    step.sleep("nap", "50ms" if input is None else input)
    step.define("second", occupy).run("pair")


@workflow(limit=Limit(at_once=1, hold="unfinished", key=lambda input: input["customer"]))
def customer(input, step):
    step.define("first", occupy).run(f"customer {input['customer']}")
    step.sleep("nap", input.get("nap", "1ms"))
    step.define("second", occupy).run(f"customer {input['customer']}")


@workflow(limit=Limit(rate="20/s"))
def paced(step):
    step.define("once", occupy).run("paced")


@workflow(limit=Limit(at_once=1, hold="unfinished"))
def itself(input, step):
    step.define("first", leave).run("itself")
    return input and 1 + step.invoke("again", itself).run(input - 1)
