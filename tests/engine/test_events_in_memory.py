"""A pass that waits for an event while it is kept in memory by something else gets the event all the same, and at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_steps import AsyncStep, workflow
from django_steps.engine.desk import Desk
from django_steps.ledger import waits
from django_steps.models import StepRecord, WorkflowEvent, WorkflowRun
from django_steps.worker.news import News
from tests.staging import Background, eventually, status_of

pytestmark = pytest.mark.django_db(transaction=True)


class Flag:
    """Something that happens in one step and that another one waits for, on a thread or on the event loop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> bool:
        self._event.set()
        return True

    def wait(self) -> bool:
        assert self._event.wait(10)
        return True

    async def awaited(self) -> bool:
        deadline = time.monotonic() + 10
        while not self._event.is_set():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)
        return True


@pytest.fixture
def taken() -> Flag:
    return Flag()


def sending(run: WorkflowRun, *events: tuple[str, Any]) -> Background:
    """Send events, each once the run waits for it."""

    def send() -> None:
        for name, payload in events:
            eventually(lambda name=name: is_waiting(run, name))
            run.send_event(name, payload)

    return Background(send)


def is_waiting(run: WorkflowRun, name: str) -> bool:
    return StepRecord.objects.filter(run=run, kind="event", status="waiting", name__endswith=name).exists()


def is_asleep(run: WorkflowRun) -> bool:
    return StepRecord.objects.filter(run=run, kind="sleep", status="waiting").exists()


def finished(run: WorkflowRun, work: Callable[..., None], sender: Background, **options: Any) -> Any:
    """Execute the run beside the sender; its result. The pass is the first one: it was never suspended."""
    work(**options)
    sender.result()
    return run.result(timeout=0)


# -- Plain bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [2, 4])
@pytest.mark.parametrize("first", ["wait", "long"])
def test_branch_gets_its_event_while_its_sibling_is_executed(work, taken, concurrency, first):
    def wait(step):
        payload = step.wait_for_event("paid")
        step.define("note", taken.set).run()
        return payload

    @workflow
    def both(step):
        members = [step.branch("wait", wait).bind(), step.define("long", taken.wait).bind()]
        return sorted(map(str, step.gather(*(members if first == "wait" else members[::-1]))))

    run = both.start()
    assert finished(run, work, sending(run, ("paid", 5)), concurrency=concurrency) == ["5", "True"]


def test_items_of_a_map_get_their_events_one_by_one_while_one_is_executed(work, taken):
    def sign(signer, step):
        if signer == "slow":
            return step.define("long", taken.wait).run()
        signature = step.wait_for_event(f"by-{signer}")
        if signer == "c":
            step.define("note", taken.set).run()
        return signature

    @workflow
    def signing(step):
        return step.map("sign", sign, ["a", "slow", "b", "c"])

    run = signing.start()
    sender = sending(run, ("by-a", 1), ("by-b", 2), ("by-c", 3))
    assert finished(run, work, sender, concurrency=2) == [1, True, 2, 3]


def test_branch_that_only_sleeps_is_not_called_again_for_events_of_others(work, taken):
    calls: list[str] = []

    def nap(step):
        calls.append("nap")
        step.define("late", lambda: eventually(lambda: is_waiting(run, "paid"))).run()
        step.sleep("nap", "1h")

    def wait(step):
        step.wait_for_event("paid")
        step.define("note", taken.set).run()

    @workflow
    def three(step):
        members = [step.branch("nap", nap).bind(), step.branch("wait", wait).bind()]
        step.gather(*members, step.define("long", taken.wait).bind())

    run = three.start()
    sender = Background(lambda: (eventually(lambda: is_asleep(run)), run.send_event("paid")))
    work(concurrency=3, max_runs=1)
    sender.result()
    assert (status_of(run), calls) == ("sleeping", ["nap"])


def test_nested_branch_gets_its_event_while_another_branch_is_executed(work, taken):
    def inner(item, step):
        return step.wait_for_event(f"paid-{item}")

    def outer(step):
        found = step.map("inner", inner, ["a", "b"])
        step.define("note", taken.set).run()
        return found

    def long(step):
        return step.define("long", taken.wait).run()

    @workflow
    def nested(step):
        return list(step.gather(step.branch("outer", outer).bind(), step.branch("long", long).bind()))

    run = nested.start()
    sender = sending(run, ("paid-a", 1), ("paid-b", 2))
    assert finished(run, work, sender, concurrency=3) == [[1, 2], True]


def test_event_that_comes_while_the_branch_is_on_its_way_to_wait_is_taken(work, taken, monkeypatch):
    """It is looked for once more before the branch is left alone: here it comes right after the look that found nothing."""
    from django_steps.ledger import taking

    look, calls = taking.look, []

    def looking(connection: Any, run_id: Any, names: Any) -> Any:
        found = look(connection, run_id, names)
        calls.append(names)
        if len(calls) == 1:
            Background(lambda: WorkflowRun.objects.get(pk=run_id).send_event("paid", 5)).result()
        return found

    monkeypatch.setattr(taking, "look", looking)

    def wait(step):
        payload = step.wait_for_event("paid")
        step.define("note", taken.set).run()
        return payload

    @workflow
    def both(step):
        return list(step.gather(step.branch("wait", wait).bind(), step.define("long", taken.wait).bind()))

    run = both.start()
    work(concurrency=2)
    assert run.result(timeout=0) == [5, True]


def test_pass_that_waits_for_nothing_is_not_asked_after(work, monkeypatch):
    asked = []
    news = waits.news
    monkeypatch.setattr(waits, "news", lambda *given: asked.append(1) or news(*given))

    @workflow
    def long(step):
        step.define("long", lambda: time.sleep(1.2)).run()  # longer than the heartbeat's second
        step.wait_for_event("paid", timeout=0, default=None)

    @workflow
    async def long_async(step: AsyncStep):
        await step.define("long", lambda: asyncio.sleep(1.2)).run()

    runs = [long.start(), long_async.start()]
    work()
    assert {status_of(run) for run in runs} == {"succeeded"}
    assert asked == []


def test_database_that_is_away_is_asked_again(work, taken, monkeypatch, caplog):
    from django.db import OperationalError

    news, calls = waits.news, []

    def failing(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("away")
        return news(*given)

    monkeypatch.setattr(waits, "news", failing)

    def wait(step):
        payload = step.wait_for_event("paid")
        step.define("note", taken.set).run()
        return payload

    @workflow
    def both(step):
        return list(step.gather(step.branch("wait", wait).bind(), step.define("long", taken.wait).bind()))

    run = both.start()
    assert finished(run, work, sending(run, ("paid", 5)), concurrency=2) == [5, True]
    assert "Nobody could look for events" in caplog.text


# -- Async bodies ------------------------------------------------------------------------------------


def test_async_wait_gets_its_event_beside_what_the_body_awaits_by_itself(work, taken):
    @workflow
    async def both(step: AsyncStep):
        async def wait():
            payload = await step.wait_for_event("paid")
            taken.set()
            return payload

        return await asyncio.gather(wait(), taken.awaited())

    run = both.start()
    assert finished(run, work, sending(run, ("paid", 5))) == [5, True]


@pytest.mark.parametrize("is_async", [True, False])
def test_async_wait_gets_its_event_beside_a_long_step(work, taken, is_async):
    @workflow
    async def both(step: AsyncStep):
        async def wait():
            payload = await step.wait_for_event("paid")
            await step.define("note", taken.set).run()
            return payload

        return await asyncio.gather(step.define("long", taken.awaited if is_async else taken.wait).run(), wait())

    run = both.start()
    assert finished(run, work, sending(run, ("paid", 5))) == [True, 5]


def test_async_branches_of_branches_get_their_events(work, taken):
    async def inner(item, step):
        return await step.wait_for_event(f"paid-{item}")

    async def outer(step):
        found = await step.map("inner", inner, ["a", "b"])
        taken.set()
        return found

    @workflow
    async def nested(step: AsyncStep):
        return await asyncio.gather(step.branch("outer", outer).run(), step.define("long", taken.awaited).run())

    run = nested.start()
    assert finished(run, work, sending(run, ("paid-b", 2), ("paid-a", 1))) == [[1, 2], True]


def test_timeout_of_the_body_around_a_wait_cancels_it_and_takes_no_event(work, pass_time):
    @workflow
    async def bounded(step: AsyncStep):
        try:
            async with asyncio.timeout(0.05):
                return await step.wait_for_event("paid")
        except TimeoutError:
            await step.define("plan_b", lambda: "b").run()
        await step.sleep("nap", "1h")
        return await step.wait_for_event("paid", name="second")

    run = bounded.start()
    work()
    assert list(run.steps.values_list("name", "status")) == [
        ("paid", "canceled"),
        ("plan_b", "succeeded"),
        ("nap", "waiting"),
    ]
    run.send_event("paid", 5)
    pass_time("2h")
    work()
    assert run.result(timeout=0) == 5
    assert WorkflowEvent.objects.get().consumed_by == "second"


def test_wait_that_is_canceled_while_it_takes_its_event_leaves_it_to_another(work, monkeypatch):
    from django_steps.ledger import taking

    take, is_taken = taking.take, Flag()

    def take_slowly(*given: Any) -> Any:
        outcome = take(*given)
        if given[1].name == "first":
            is_taken.set()
            time.sleep(0.1)  # the answer is on its way when the body cancels
        return outcome

    monkeypatch.setattr(taking, "take", take_slowly)

    @workflow
    async def changing_its_mind(step: AsyncStep):
        first = asyncio.create_task(step.wait_for_event("paid", name="first"))
        await asyncio.to_thread(is_taken.wait)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        return await step.wait_for_event("paid", name="second")

    run = changing_its_mind.start(key="order-7")
    changing_its_mind.send_event("paid", 5, key="order-7")
    work()
    assert run.result(timeout=0) == 5
    assert dict(run.steps.values_list("name", "status")) == {"first": "canceled", "second": "succeeded"}
    assert WorkflowEvent.objects.get().consumed_by == "second"


def test_wait_that_is_canceled_while_another_takes_its_event_is_recorded_as_canceled(work, monkeypatch):
    from django_steps.ledger import taking

    take, is_taken = taking.take, Flag()

    def take_slowly(*given: Any) -> Any:
        if given[1].name == "late":  # it has seen the event before the other one took it
            time.sleep(0.1)  # the body cancels meanwhile
        outcome = take(*given)
        is_taken.set()
        return outcome

    monkeypatch.setattr(taking, "take", take_slowly)

    @workflow
    async def two(step: AsyncStep):
        first = asyncio.create_task(step.wait_for_event("paid", name="first"))
        late = asyncio.create_task(step.wait_for_event("paid", name="late"))
        await asyncio.to_thread(is_taken.wait)
        late.cancel()
        await asyncio.wait([late])
        return await first

    run = two.start()
    run.send_event("paid", 5)
    work()
    assert run.result(timeout=0) == 5
    assert dict(run.steps.values_list("name", "status")) == {"late": "canceled", "first": "succeeded"}
    assert WorkflowEvent.objects.get().consumed_by == "first"


def test_timeout_of_the_body_is_in_time_for_an_event(work):
    @workflow
    async def bounded(step: AsyncStep):
        async with asyncio.timeout(10):
            return await step.wait_for_event("paid")

    run = bounded.start()
    assert finished(run, work, sending(run, ("paid", 5))) == 5
    assert run.steps.get().status == "succeeded"


@pytest.mark.parametrize("winner", ["wait", "step"])
def test_first_of_a_wait_and_a_step_wins_on_every_pass(work, taken, pass_time, winner):
    @workflow
    async def racing(step: AsyncStep):
        wait = asyncio.create_task(step.wait_for_event("paid"), name="wait")
        long = asyncio.create_task(step.define("step", taken.awaited).run(), name="step")
        done, _ = await asyncio.wait([wait, long], return_when=asyncio.FIRST_COMPLETED)
        names = sorted(task.get_name() for task in done)
        taken.set()
        if names == ["step"]:
            wait.cancel()
            await asyncio.wait([wait])
        else:
            await long
        await step.sleep("nap", "1h")
        return names

    run = racing.start()
    if winner == "step":
        taken.set()
        work()
        run.send_event("paid", 5)
    else:
        sender = sending(run, ("paid", 5))
        work()
        sender.result()
    assert status_of(run) == "sleeping"
    pass_time("2h")
    work()
    assert run.result(timeout=0) == [winner]
    assert WorkflowEvent.objects.get().consumed_by == ("paid" if winner == "wait" else None)


def test_waits_alone_do_not_keep_an_async_pass_in_memory(work):
    @workflow
    async def both(step: AsyncStep):
        return await asyncio.gather(step.wait_for_event("a"), step.wait_for_event("b"))

    run = both.start()
    work()
    assert status_of(run) == "waiting" and run.waiting_for == ["a", "b"]
    run.send_event("b", 2)
    work()
    assert status_of(run) == "waiting" and run.waiting_for == ["a"]
    run.send_event("a", 1)
    work()
    assert run.result(timeout=0) == [1, 2]


def test_event_that_comes_while_an_async_call_is_on_its_way_to_wait_is_taken(work, taken, monkeypatch):
    """Nobody asks a second time here."""
    monkeypatch.setattr(News, "look", lambda self: False)
    wait_for_others, calls = Desk.wait_for_others, []

    async def sending_first(desk: Desk, *given: Any) -> None:
        calls.append(given)
        if len(calls) == 1:
            await asyncio.to_thread(lambda: Background(lambda: run.send_event("paid", 5)).result())
            desk._state.has_news()
            await asyncio.to_thread(time.sleep, 0.02)  # and the loop has taken note of it
        await wait_for_others(desk, *given)

    monkeypatch.setattr(Desk, "wait_for_others", sending_first)

    @workflow
    async def both(step: AsyncStep):
        async def wait():
            payload = await step.wait_for_event("paid")
            taken.set()
            return payload

        return await asyncio.gather(wait(), taken.awaited())

    run = both.start()
    work()
    assert run.result(timeout=0) == [5, True]


@pytest.mark.skipif(connection.vendor == "mysql", reason="MySQL notifies nobody")
@pytest.mark.parametrize("is_async", [False, True])
def test_notified_worker_looks_at_once(work, taken, is_async):
    """And not only at the next heartbeat."""
    names = [f"event-{number}" for number in range(5)]
    moments = []

    def wait(step):
        for name in names:
            step.wait_for_event(name)
            moments.append(time.monotonic())
        step.define("note", taken.set).run()

    @workflow
    def plain(step):
        step.gather(step.branch("wait", wait).bind(), step.define("long", taken.wait).bind())

    @workflow
    async def asynchronous(step: AsyncStep):
        async def wait():
            for name in names:
                await step.wait_for_event(name)
                moments.append(time.monotonic())
            taken.set()

        await asyncio.gather(wait(), taken.awaited())

    run = (asynchronous if is_async else plain).start()
    sent = []

    def send() -> None:
        for name in names:
            eventually(lambda name=name: is_waiting(run, name))
            sent.append(time.monotonic())
            run.send_event(name)

    finished(run, work, Background(send), concurrency=2)
    # A branch is called over its records each time, so that it comes by the first events again.
    firsts = [min(moment for moment in moments if moment > since) for since in sent]
    took = sorted(moment - since for moment, since in zip(firsts, sent, strict=True))
    assert took[2] < 0.3
