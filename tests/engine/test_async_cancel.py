"""What an async body cancels: what is kept of it, and what a retry of the run makes of it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from django_steps import AsyncStep, signals, workflow
from django_steps.testing import run_workflow
from tests.app.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)


class Answer(asyncio.Protocol):
    """Reads an answer as some HTTP clients do: whoever waits for it waits for an event."""

    def __init__(self) -> None:
        self.came, self.data = asyncio.Event(), b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()


async def ask(seconds: float) -> str:
    """Ask a server on a thread, which takes its time."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as connection:
            time.sleep(seconds)
            connection.sendall(b"hello")

    thread = threading.Thread(target=serve)
    thread.start()
    transport, answer = await asyncio.get_running_loop().create_connection(Answer, *server.getsockname()[:2])
    await answer.came.wait()
    transport.close()
    await asyncio.sleep(0.01)
    thread.join()
    return answer.data.decode()


def leave_slowly(name: str) -> str:
    Effect.objects.create(run="", name=name, pid=0, at=0)
    time.sleep(0.4)
    return f"{name} is done"


@pytest.mark.parametrize("is_atomic", [True, False])
def test_plain_step_that_was_canceled_while_it_was_executed_takes_effect_once_also_after_a_retry(work, is_atomic):
    @workflow(name="canceled_late")
    async def canceled_late(step: AsyncStep) -> str:
        async with asyncio.timeout(0.1):
            return await step.define("slow", leave_slowly, atomic=is_atomic).run("effect")

    run = canceled_late.start()
    work()
    run.refresh_from_db()
    assert (run.status, run.error["type"]) == ("failed", "TimeoutError")
    assert run.steps.get().status == "canceled"
    run.retry()
    work()
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", "effect is done")
    assert Effect.objects.count() == 1
    assert run.steps.get().status == "succeeded"


def test_async_step_that_was_canceled_is_executed_again_after_a_retry(work):
    executed = []

    async def slow() -> str:
        executed.append(1)
        await asyncio.sleep(60 if len(executed) == 1 else 0)
        return "done"

    @workflow(name="canceled_in_time")
    async def canceled_in_time(step: AsyncStep) -> str:
        async with asyncio.timeout(0.1):
            return await step.define("slow", slow).run()

    run = canceled_in_time.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    run.retry()
    work()
    run.refresh_from_db()
    assert (run.status, run.output, len(executed)) == ("succeeded", "done", 2)


def test_siblings_of_a_failed_step_in_a_task_group_are_executed_again_after_a_retry(work):
    executed = []

    async def fail() -> None:
        executed.append("fail")
        if executed.count("fail") == 1:
            raise OSError

    async def wait() -> None:
        executed.append("wait")
        await asyncio.sleep(60 if executed.count("wait") == 1 else 0)

    @workflow(name="grouped_failure")
    async def grouped_failure(step: AsyncStep) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.define("wait", wait).run())
            group.create_task(step.define("fail", fail).run())

    run = grouped_failure.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert {step.name: step.status for step in run.steps.all()} == {"wait": "canceled", "fail": "failed"}
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert sorted(executed) == ["fail", "fail", "wait", "wait"]


@pytest.mark.parametrize("verb", ["sleep", "map", "gather", "step", "branch"])
def test_what_is_never_awaited_is_named(work, verb):
    forgotten = []

    @workflow(name="forgetful")
    async def forgetful(input: str, step: AsyncStep) -> None:
        if input == "sleep":
            forgotten.append(step.sleep("nap", "1h"))
        elif input == "map":
            forgotten.append(step.map("items", lambda item: item, [1]))
        elif input == "gather":
            forgotten.append(step.gather(step.define("a", lambda: 1).bind()))
        elif input == "step":
            forgotten.append(step.define("a", lambda: 1).run())
        else:
            forgotten.append(step.branch("a", branch).run())

    async def branch(step: AsyncStep) -> None:
        pass

    run = forgetful.start(verb)
    work()
    forgotten[0].close()  # else Python warns of it, too
    run.refresh_from_db()
    assert run.error["type"] == "django_steps.errors.StepNotRun"
    name = {"sleep": "nap", "map": "items", "branch": "a#"}.get(verb, "a")
    assert run.error["message"] == f"Called and never awaited: {name!r}. Write await before it."


def test_step_whose_task_was_canceled_before_it_began_is_no_mistake(work):
    @workflow(name="canceled_at_once")
    async def canceled_at_once(step: AsyncStep) -> str:
        task = asyncio.create_task(step.define("a", lambda: 1).run())
        task.cancel()
        await asyncio.wait([task])
        return "fine"

    run = canceled_at_once.start()
    work()
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", "fine"), run.error


def test_canceled_step_sends_no_signal(work):
    sent = []

    def note(step: str, signal: object, **details: object) -> None:
        sent.append((step, signal is signals.step_succeeded))

    @workflow(name="signaling")
    async def signaling(step: AsyncStep) -> None:
        try:
            async with asyncio.timeout(0.05):
                await step.define("slow", lambda: asyncio.sleep(60)).run()
        except TimeoutError:
            await step.define("plan_b", lambda: 1).run()

    for signal in (signals.step_succeeded, signals.step_failed):
        signal.connect(note)
    try:
        signaling.start()
        work()
    finally:
        for signal in (signals.step_succeeded, signals.step_failed):
            signal.disconnect(note)
    assert sent == [("plan_b", True)]


def test_body_that_waits_by_an_event_for_a_connection_is_not_suspended(work):
    @workflow(name="asking")
    async def asking(step: AsyncStep) -> None:
        async def one() -> None:
            await step.define("tell", lambda answer: answer).run(await ask(0.3))

        async with asyncio.TaskGroup() as group:
            group.create_task(one())
            group.create_task(step.sleep("day", "1d"))

    run = asking.start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    assert run.steps.get(name="tell").output == "hello"


@pytest.mark.django_db(transaction=False)
def test_kit_waits_for_a_connection_although_an_event_is_what_is_awaited():
    @workflow(name="asking_in_a_test")
    async def asking_in_a_test(step: AsyncStep) -> str:
        async with asyncio.timeout(20):
            return await step.define("ask", ask).run(0.1)

    assert run_workflow(asking_in_a_test).result() == "hello"
