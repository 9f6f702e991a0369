"""What async bodies do at once, over passes: each way of asyncio to decide is decided once, wherever the passes are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_steps import StepCanceled, workflow
from django_steps.core import clock
from django_steps.engine.ending import Ended
from django_steps.models import WorkflowRun
from tests.async_passes import WAYS, Passes, Peril, noted, passes

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def made(transactional_db: None) -> Iterator[Passes]:
    with passes() as made:
        yield made


async def quick(name: str) -> str:
    Passes.present.executes(name)
    return name


async def slow(name: str) -> str:
    Passes.present.executes(name)
    await asyncio.sleep(0.03)
    return name


def run(step: Any, name: str, function: Callable[..., Any] = quick) -> Any:
    """A call of a step that is traced."""
    return noted(name, step.define(name, function).run(name))


def nap(step: Any, name: str, duration: str = "1h") -> Any:
    return noted(name, step.sleep(name, duration))


# -- Bodies: each decides something, and sleeps once so that there is more than one pass ----------------


async def gathered(step):
    a, b = await asyncio.gather(run(step, "slow", slow), run(step, "quick"))
    await nap(step, "rest")
    return [a, b, await run(step, "end")]


async def grouped(step):
    async def resting():
        await nap(step, "rest")
        return await run(step, "rested")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(resting()), group.create_task(run(step, "slow", slow))]
        tasks.append(group.create_task(run(step, "quick")))
    return [task.result() for task in tasks]


async def first_completed(step):
    tasks = [asyncio.create_task(run(step, name, function)) for name, function in (("a", slow), ("b", quick))]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    winner = next(iter(done)).result()
    await nap(step, "rest")
    return [winner, await run(step, f"after {winner}")]


async def first_exception(step):
    async def broken():
        raise LookupError

    async def raising():
        with pytest.raises(LookupError):
            await step.define("broken", broken).run()
        raise LookupError

    tasks = [asyncio.create_task(run(step, "a", slow)), asyncio.create_task(raising())]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    assert [task for task in done if task.exception()] == [tasks[1]]
    how = f"{len(done)} done"
    await nap(step, "rest")
    await run(step, how)
    await asyncio.gather(*left)
    return how


async def as_completed(step):
    order = []
    for coming in asyncio.as_completed([run(step, "a", slow), run(step, "b"), nap(step, "c", "1h")]):
        order.append(await coming)
        await run(step, f"got {len(order)} {order[-1]}")
    return order


async def timed_out(step):
    try:
        async with asyncio.timeout(0.01):
            await run(step, "a", slow)
    except TimeoutError:
        await run(step, "plan b")
    await nap(step, "rest")
    try:
        await asyncio.wait_for(nap(step, "long"), 0.01)
    except TimeoutError:
        return await run(step, "plan c")


async def waited_without_cancel(step):
    task = asyncio.create_task(run(step, "a", slow))
    done, _ = await asyncio.wait([task], timeout=0.01)
    await run(step, "in time" if done else "too late")
    await nap(step, "rest")
    return [len(done), await task]


async def shielded(step):
    task = asyncio.create_task(run(step, "a", slow))
    try:
        await asyncio.wait_for(asyncio.shield(task), 0.01)
        said = "in time"
    except TimeoutError:
        said = "too late"
    await run(step, said)
    await nap(step, "rest")
    return [said, await task]


async def queued(step):
    queue: asyncio.Queue[str] = asyncio.Queue(1)

    async def produce(name, function):
        await queue.put(await run(step, name, function))

    async with asyncio.TaskGroup() as group:
        group.create_task(produce("a", slow))
        group.create_task(produce("b", quick))
        group.create_task(produce("c", quick))
        order = []
        for _ in range(3):
            order.append(await queue.get())
            await run(step, f"got {order}")
            if len(order) == 1:
                await nap(step, "rest")
    return order


async def coordinated(step):
    lock, condition, event, semaphore = asyncio.Lock(), asyncio.Condition(), asyncio.Event(), asyncio.Semaphore(1)
    order = []

    async def one():
        await run(step, "one", slow)
        async with lock:
            order.append("one")
            await nap(step, "rest")
        event.set()

    async def two():
        await run(step, "two")
        async with lock, semaphore:
            order.append("two")
            await run(step, "two locked")
        await event.wait()
        async with condition:
            condition.notify_all()
        order.append("two again")

    async def three():
        async with condition:
            await condition.wait()
        order.append(await run(step, "three"))

    await asyncio.gather(one(), two(), three())
    return order


async def nested(step):
    async def inner(name):
        task = asyncio.create_task(run(step, f"{name} inner", slow))
        await run(step, f"{name} quick")
        return await task

    async def sleeper():
        await nap(step, "rest")
        return await inner("late")

    return await asyncio.gather(inner("a"), inner("b"), sleeper())


async def generated(step):
    async def pages():
        try:
            for number in range(3):
                yield await run(step, f"page {number}")
                await nap(step, f"rest {number}")
        finally:
            await run(step, "closed")

    found = []
    async for page in pages():
        found.append(page)
    return found


async def cleaned_up(step):
    """A `finally` with a step of its own, in what is canceled."""

    async def undoing():
        try:
            await nap(step, "long", "100h")
        finally:
            await run(step, "undo")

    task = asyncio.create_task(undoing())
    await run(step, "a", slow)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await nap(step, "rest")
    return await run(step, "end")


async def swallowing(step):
    """A body that catches everything."""
    for number in range(3):
        try:
            await nap(step, f"rest {number}")
        except BaseException:
            await run(step, f"caught {number}")
    return await run(step, "end")


async def napping(step):
    """Timers of the body decide who calls first."""

    async def after(seconds, name):
        await asyncio.sleep(seconds)
        return await run(step, name)

    order = []
    for coming in asyncio.as_completed([after(0.02, "a"), after(0.001, "b"), nap(step, "rest")]):
        order.append(await coming)
        await run(step, f"got {len(order)} {order[-1]}")
    return order


BODIES = [
    gathered, grouped, first_completed, first_exception, as_completed, timed_out, waited_without_cancel, shielded, queued,
    coordinated, nested, generated, cleaned_up, swallowing, napping,
]  # fmt: skip
EXPECTED = {
    gathered: ["slow", "quick", "end"],
    grouped: ["rested", "slow", "quick"],
    first_completed: ["b", "b"],
    first_exception: "1 done",
    as_completed: ["b", "a", None],
    timed_out: "plan c",
    waited_without_cancel: [0, "a"],
    shielded: ["too late", "a"],
    coordinated: None,
    nested: ["a inner", "b inner", "late inner"],
    generated: ["page 0", "page 1", "page 2"],
    cleaned_up: "end",
    swallowing: "end",
}


def start(body: Callable[..., Any]) -> WorkflowRun:
    return workflow(name=f"order_{body.__name__}")(body).start()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_body_decides_once_however_its_passes_are_cut_off(made: Passes, body: Callable[..., Any]) -> None:
    flow = workflow(name=f"order_{body.__name__}")(body)
    made.begin(flow.start())
    reference = made.to_the_end()
    assert reference.status == "succeeded", reference.error
    if EXPECTED.get(body) and body is not first_completed:
        assert reference.output == EXPECTED[body]
    for how in WAYS[:2]:
        for point in range(0, 60, 3 if how == "stop" else 2):
            clock.offset_us = 0
            made.begin(flow.start())
            peril = Peril(how, point)
            for _ in range(3):  # the same peril goes on in the next pass
                made.once(peril)
                if peril.is_over or made.run.status != "sleeping":
                    break
            run = made.to_the_end()
            assert run.status == "succeeded", (how, point, run.error)
            names = [name for name, _ in made.executed]
            most = 1 if how == "stop" else 2  # what is executed when the process dies is executed again
            assert all(names.count(name) <= most for name in names), (how, point, made.executed)
            if not peril.is_over:
                break


def test_a_canceled_loser_is_never_executed_again(made: Passes) -> None:
    flow = workflow(name="order_first_completed")(first_completed)
    made.begin(flow.start())
    run = made.to_the_end()
    assert run.output == ["b", "after b"]
    assert [name for name, _ in made.executed] == ["a", "b", "after b"]
    assert made.count == 2
    assert run.steps.get(name="a").status == "canceled"


def test_plan_b_after_a_timeout_is_taken_on_every_pass(made: Passes) -> None:
    made.begin(workflow(name="order_timed_out")(timed_out).start())
    run = made.to_the_end()
    assert run.output == "plan c"
    assert made.count == 2
    assert [name for name, _ in made.executed] == ["a", "plan b", "plan c"]
    assert dict(run.steps.values_list("name", "status")) == {
        "a": "canceled",
        "plan b": "succeeded",
        "rest": "waiting",
        "long": "canceled",
        "plan c": "succeeded",
    }


def test_step_canceled_is_raised_when_nothing_cancels_any_more(made: Passes) -> None:
    """The code was changed while the run was suspended: the timeout is gone."""
    cancels = [True]

    @workflow
    async def changing(step):
        task = asyncio.create_task(run(step, "a", slow))
        if cancels[0]:
            await asyncio.sleep(0.01)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            said = "canceled"
        except StepCanceled as error:
            said = str(error)
        await nap(step, "rest")
        return said

    made.begin(changing.start())
    made.once()
    cancels[0] = False
    made.seen.clear()
    ended = made.to_the_end()
    assert ended.status == "succeeded", ended.error
    assert "'a'" in ended.output
    assert [name for name, _ in made.executed] == ["a"]


def test_a_step_is_never_cut_off_by_a_sleep_in_another_task(made: Passes) -> None:
    @workflow
    async def side_by_side(step):
        async def working():
            for number in range(3):
                await run(step, f"slow {number}", slow)

        await asyncio.gather(nap(step, "rest"), working())

    made.begin(side_by_side.start())
    made.once()
    assert made.trace == ["slow 0", "slow 1", "slow 2"]
    ended = made.to_the_end()
    assert ended.status == "succeeded"
    assert len(made.executed) == 3
    assert made.count == 2


def test_what_a_body_awaits_outside_of_steps_keeps_the_pass_in_memory(made: Passes) -> None:
    @workflow
    async def asking(step):
        async def answer(reader, writer):
            await asyncio.sleep(0.05)
            writer.write(b"yes")
            writer.close()

        async def ask():
            server = await asyncio.start_server(answer, "127.0.0.1")
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            said = await reader.read()
            writer.close()
            server.close()
            return await run(step, said.decode())

        return await asyncio.gather(nap(step, "rest"), ask())

    made.begin(asking.start())
    made.once()
    assert made.trace == ["yes"]
    ended = made.to_the_end()
    assert ended.output == [None, "yes"]


def test_a_body_that_calls_on_and_on_is_left_alone(made: Passes) -> None:
    @workflow
    async def stubborn(step):
        while True:
            try:
                await nap(step, "rest")
                return "rested"
            except asyncio.CancelledError:
                await run(step, "no")

    made.begin(stubborn.start())
    ending = made.once()
    assert ending is not None and ending.how is Ended.SUSPENDED
    assert not made.executed
