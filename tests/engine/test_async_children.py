"""Child runs of async bodies: waited for in memory or suspended, broken off, replayed."""

from __future__ import annotations

import asyncio

import pytest

from django_steps import AsyncStep, ChildTimedOut, GroupFailed, RetryPolicy, RunFailed, signals, workflow
from django_steps.models import WorkflowRun


class Broken(Exception):
    pass


def status_of(run: WorkflowRun) -> str:
    run.refresh_from_db()
    return str(run.status)


def send_all(name: str = "go") -> None:
    for run in WorkflowRun.objects.filter(status="waiting", workflow="item"):
        run.send_event(name)


@pytest.fixture
def item():
    """A child that doubles its input: at once, after an event if it is even, never if it is in `broken`."""

    @workflow(name="item")
    def item(input, step):
        step.define("first", lambda: item.done.append(input)).run()
        if input in item.broken:
            raise Broken(input)
        if input % 2 == 0:
            step.wait_for_event("go")
        return input * 2

    item.done, item.broken = [], set()
    return item


def test_children_are_invoked_side_by_side(work, item):
    @workflow
    async def parent(step: AsyncStep):
        a, b = await asyncio.gather(step.invoke("a", item).run(1), step.invoke("b", item).run(2))
        async with asyncio.TaskGroup() as group:
            c = group.create_task(step.invoke("c", item).run(3))
            d = group.create_task(step.map("d", item, [4, 5]))
        run_id = await step.start("e", item).run(7)
        return [a, b, c.result(), d.result(), str(run_id)]

    run = parent.start()
    work()
    assert status_of(run) == "waiting"
    send_all()
    work()
    assert status_of(run) == "waiting"
    send_all()
    work()
    started = WorkflowRun.objects.get(workflow="item", parent=None)
    assert run.result(timeout=0) == [2, 4, 6, [8, 10], str(started.pk)]
    assert sorted(item.done) == [1, 2, 3, 4, 5, 7]


def test_timeout_of_the_body_cancels_the_child(work, pass_time, item):
    @workflow
    async def parent(step: AsyncStep):
        try:
            async with asyncio.timeout(0.5):
                return await step.invoke("a", item).run(2)
        except TimeoutError:
            return await step.invoke("b", item).run(3)

    run = parent.start()
    work()
    assert run.result(timeout=0) == 6
    assert dict(run.children.values_list("parent_step", "status")) == {"a": "canceled", "b": "succeeded"}
    assert dict(run.steps.values_list("name", "status")) == {"a": "canceled", "b": "succeeded"}


def test_cancellations_are_heard_in_the_order_in_which_they_are_recorded(work, item):
    heard = []

    @workflow
    async def parent(step: AsyncStep):
        heard.append([])

        async def wait(name, call):
            try:
                await call
            except asyncio.CancelledError:
                heard[-1].append(name)
                raise

        tasks = [
            asyncio.create_task(wait("child", step.invoke("child", item).run(2))),
            asyncio.create_task(wait("nap", step.sleep("nap", "1h"))),
        ]
        await asyncio.wait(tasks, timeout=0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await step.wait_for_event("again")

    run = parent.start()
    work()
    run.send_event("again")
    work()
    assert status_of(run) == "succeeded"
    recorded = run.steps.filter(status="canceled").order_by("position").values_list("name", flat=True)
    assert heard == [list(recorded)] * len(heard) and len(heard) > 1


def test_child_that_was_broken_off_goes_on_when_the_run_is_retried(work, item):
    @workflow
    async def parent(step: AsyncStep):
        async with asyncio.TaskGroup() as group:
            a = group.create_task(step.invoke("a", item).run(2))
            b = group.create_task(step.invoke("b", item).run(3))
        return [a.result(), b.result()]

    item.broken = {3}
    run = parent.start()
    work()
    assert status_of(run) == "failed"
    assert dict(run.children.values_list("parent_step", "status")) == {"a": "canceled", "b": "failed"}
    item.broken = set()
    run.retry()
    work()
    assert status_of(run) == "waiting"
    children = {child.parent_step: child for child in run.children.all()}
    assert len(children) == 2 and children["a"].status == "waiting"
    send_all()
    work()
    assert run.result(timeout=0) == [4, 6]
    assert sorted(item.done) == [2, 3]
    assert {step.name: step.context["child"] for step in run.steps.all()} == {
        name: child.pk.hex for name, child in children.items()
    }


def test_map_that_was_broken_off_goes_on_when_the_run_is_retried(work, item):
    broken = [True]

    @workflow
    async def parent(step: AsyncStep):
        async def fail():
            await asyncio.sleep(0.3)
            await step.define("fails", lambda: 1 / 0 if broken else None).run()

        async with asyncio.TaskGroup() as group:
            a = group.create_task(step.map("a", item, [2, 4]))
            group.create_task(fail())
        return a.result()

    run = parent.start()
    work()
    assert status_of(run) == "failed"
    assert set(run.children.values_list("status", flat=True)) == {"canceled"}
    broken.clear()
    run.retry()
    work()
    send_all()
    work()
    assert run.result(timeout=0) == [4, 8]
    assert sorted(item.done) == [2, 4]


def test_failures_of_children_are_told_apart_by_except_star(work, item):
    @workflow
    async def parent(step: AsyncStep):
        found = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(step.invoke("a", item).run(1))
                group.create_task(step.invoke("b", item).run(3))
        except* RunFailed as failed:
            found += [type(error.__cause__).__name__ for error in failed.exceptions]
        await step.sleep("rest", "1h")
        return found

    item.broken = {3}
    run = parent.start()
    work()
    assert status_of(run) == "sleeping"


def test_group_of_children_stops_at_a_failure(work, item):
    @workflow
    async def parent(step: AsyncStep):
        try:
            await step.gather(step.invoke("a", item).bind(2), step.invoke("b", item).bind(3))
        except GroupFailed as failed:
            return sorted(failed.failures)

    item.broken = {3}
    run = parent.start()
    work()
    assert run.result(timeout=0) == ["b"]
    assert dict(run.children.values_list("parent_step", "status")) == {"a": "canceled", "b": "failed"}


def test_child_of_an_async_body_that_takes_too_long(work, pass_time, item):
    @workflow
    async def parent(step: AsyncStep):
        try:
            await step.invoke("a", item, timeout="1h").run(2)
        except ChildTimedOut as error:
            return error.step

    run = parent.start()
    work()
    assert status_of(run) == "waiting"
    pass_time("2h")
    work()
    assert run.result(timeout=0) == "a"
    assert run.children.get().status == "canceled"


def test_policy_of_an_async_parent_goes_down(work, pass_time, item):
    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1m", jitter=False))
    async def parent(step: AsyncStep):
        async with asyncio.TaskGroup() as group:
            a = group.create_task(step.invoke("a", item).run(2))
            b = group.create_task(step.invoke("b", item).run(3))
        return [a.result(), b.result()]

    item.broken = {3}
    run = parent.start()
    work()
    assert status_of(run) == "sleeping"
    item.broken = set()
    pass_time("2m")
    work()
    send_all()
    work()
    assert run.result(timeout=0) == [4, 6]
    assert (sorted(item.done), run.children.count()) == ([2, 3], 2)


def test_async_body_continues_as_another_run(work):
    @workflow
    async def counting(input, step: AsyncStep):
        return step.continue_as_new(input + 1) if input < 3 else input

    @workflow
    async def parent(step: AsyncStep):
        return await asyncio.gather(step.invoke("a", counting).run(1), step.map("b", counting, [1, 2]))

    run = parent.start()
    work()
    assert run.result(timeout=0) == [3, [3, 3]]


def test_canceling_an_async_parent_cancels_its_children(work, item):
    seen = []

    def receive(run, **kwargs):
        seen.append(run.pk)

    @workflow
    async def parent(step: AsyncStep):
        await asyncio.gather(step.invoke("a", item).run(2), step.map("b", item, [4, 6]))

    signals.run_canceled.connect(receive)
    try:
        run = parent.start()
        work()
        run.cancel()
        work()
    finally:
        signals.run_canceled.disconnect(receive)
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"canceled"}
    assert len(seen) == len(set(seen)) == 4
