"""What type checkers are to accept, and what they are to make of it (`assert_type`). Read by checkers, never executed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from logging import LoggerAdapter
from typing import Any, assert_type
from uuid import UUID

from django_steps import (
    UNFINISHED,
    AsyncStep,
    AsyncWorkflow,
    ChildTimedOut,
    Event,
    EventTimedOut,
    GroupFailed,
    InvalidEvent,
    PollTimedOut,
    RetryPolicy,
    RunCanceled,
    RunFailed,
    Schedule,
    Step,
    TimedOut,
    Workflow,
    current_step,
    get_workflow,
    workflow,
)
from django_steps.core.unfinished import Unfinished
from django_steps.definitions import StartOptions, StartOptionsWithKey, StepOptions
from django_steps.models import WorkflowRun, WorkflowSchedule
from django_steps.testing import AsyncFakeStep, FakeStep, assert_replays, drain, run_workflow
from tests.app.models import Person


@dataclass
class Order:
    order_id: int
    email: str = ""


@dataclass
class Receipt:
    number: int


def charge(order_id: int, *, currency: str = "EUR") -> Receipt:
    return Receipt(order_id)


async def ship(order_id: int) -> str:
    return f"parcel {order_id}"


def refund(receipt: Receipt) -> None: ...


def refund_order(receipt: Receipt, order_id: int, *, currency: str = "EUR") -> bool:
    return order_id > 0


async def call_back(parcel: str, order_id: int) -> None: ...


def find(order_id: int) -> str | None:
    if order_id > 7:
        current_step().checkpoint({"order": order_id})
    last: dict[str, int] | None = current_step().last_checkpoint
    return f"parcel {last}" if last else None


def ship_later(order_id: int) -> Awaitable[str]:
    return ship(order_id)


# -- Bodies: any choice of parameters, in any order, with and without options ---------------------


@workflow
def process_order(input: Order, step: Step) -> Receipt:
    receipt = step.define("charge", charge).run(input.order_id, currency="USD")
    assert_type(receipt, Receipt)
    parcel = step.define("ship", ship).run(input.order_id)
    assert_type(parcel, str)
    assert_type(step.define("ship later", ship_later).run(input.order_id), str)
    assert_type(step.define("lambda", lambda: 5).run(), int)

    @step.define("send", retry=RetryPolicy(max_attempts=3))
    def send(address: str) -> int:
        return len(address)

    @step.define("look", atomic=True)
    async def look() -> list[UUID]:
        return []

    assert_type(send.run(input.email), int)
    assert_type(look.run(), list[UUID])
    assert_type(step.poll("shipped", find, every="10m", timeout="3d").run(7), str | None)
    assert_type(step.poll("each in time", find, every="10m", check_timeout="30s").run(7), str | None)
    assert_type(step.define("in time", charge, timeout="30s").run(7), Receipt)
    assert_type(step.define("parcel in time", ship, timeout=timedelta(seconds=30)).run(7), str)
    assert_type(step.map("import", ship, [1, 2], retry=3, timeout=30), list[str])
    assert_type(current_step().deadline, datetime | None)
    assert_type(current_step().remaining(), float | None)
    assert_type(step.poll("async", ship, every=60, backoff=2.0, max_interval=timedelta(hours=1)).run(7), str)
    assert_type(step.poll("awaitable", ship_later, every=60, max_checks=3, retry=2).run(order_id=7), str)
    step.poll("until", charge, every="1m", until=lambda receipt: receipt.number > 7, retry=RetryPolicy()).run(7)
    step.poll("never true", charge, every="1m", until=None, timeout=None, max_checks=None).run(7, currency="USD")
    try:
        step.poll("in time", find, every="1s", timeout="1m").run(7)
    except PollTimedOut as error:
        assert_type(error.checks, int)
        late: TimedOut | TimeoutError = error
        print(late, error.value)

    step.sleep("wait", "5s")
    step.sleep("longer", timedelta(hours=2))
    step.sleep_until("midnight", datetime(2027, 1, 1))
    assert_type(step.patched("new_tax"), bool)
    return receipt


@workflow
def typed_options(input: Order, step: Step) -> None:
    """Every option, wherever a step is defined; also from a dict."""
    assert_type(step.define("refundable", charge, undo=refund).run(7), Receipt)
    assert_type(step.define("refundable too", charge, undo=refund_order, retry=3).run(7, currency="USD"), Receipt)
    step.define("by a lambda", charge, undo=lambda receipt, order_id, currency="EUR": None).run(7)
    assert_type(step.define("parcel", ship, undo=call_back).run(7), str)
    assert_type(step.get(charge, undo=refund).run(7), Receipt)
    assert_type(step.get(Person, Person.greet, undo=print).run(7), str)
    assert_type(step.map("charge all", charge, [1, 2], undo=refund), list[Receipt])
    step.undo()
    step.undo(reason="sold out")

    @step.define("decorated", undo=refund)
    def decorated(order_id: int) -> Receipt:
        return Receipt(order_id)

    assert_type(decorated.run(7), Receipt)
    assert_type(step.define("policy", charge, retry=RetryPolicy(max_attempts=3)).run(7), Receipt)
    assert_type(step.define("number", ship, retry=3, atomic=True).run(7), str)
    assert_type(step.define("once", ship, at_most_once=True).run(7), str)
    step.define("neither", charge, retry=None, atomic=False).run(order_id=7, currency="USD")
    careful: StepOptions = {"retry": 5, "atomic": True}
    assert_type(step.define("from a dict", charge, **careful).run(7), Receipt)
    assert_type(step.get(Person, Person.greet, retry=2, atomic=True).run(7), str)
    assert_type(step.get(Person.count_all, name="people", **careful).run(), int)
    step.get(Person, "greet", name="by name", retry=RetryPolicy()).run(7)


@workflow
def typed_functions(input: list[int], step: Step) -> int:
    """Whatever can be called is a function for a step."""
    assert_type(step.define("class", Receipt).run(3), Receipt)
    assert_type(step.define("partial", partial(charge, currency="USD")).run(3), Receipt)
    assert_type(step.define("method", input.count).run(7), int)
    assert_type(step.define("nothing", print).run("a", 7), None)
    call = step.define("kept", charge)
    first = call.run(input[0])
    return first.number


@workflow(
    name="typed_nightly",
    version="2",
    queue="reports",
    priority=10,
    retry=3,
    step_retry=2,
    mask=("token",),
    timeout="2h",
)
def nightly(logger: LoggerAdapter[Any], step: Step, input: dict[str, Any]) -> None:
    logger.info("begins")


@workflow
def typed_nothing() -> int:
    return 1


@workflow
def typed_optional(step: Step, input: dict[str, int] | None = None) -> str:
    return ""


@workflow
def typed_run(run: WorkflowRun[Any]) -> list[str]:
    assert_type(run.wakes_at, datetime | None)
    return [str(run.input)]


@workflow
def typed_everything(run: WorkflowRun, logger: LoggerAdapter[Any], step: Step, input: int) -> bool:
    return True


@workflow()
def typed_step(step: Step) -> list[Order]:
    return []


@workflow(retry=RetryPolicy(max_attempts=2, give_up_after="2h"), step_retry=None, name=None, mask=["card"])
def typed_step_run(step: Step, run: WorkflowRun[Any]) -> None: ...


@workflow(priority=-5, start_within="10m", timeout=None, tags={"kind": "agent"})
def typed_input_run(run: WorkflowRun[Any], input: tuple[int, str]) -> float:
    return 0.5


assert_type(process_order, Workflow[Order, Receipt])
assert_type(typed_step, Workflow[None, list[Order]])
assert_type(typed_step_run, Workflow[Any, None])
assert_type(typed_input_run, Workflow[tuple[int, str], float])
assert_type(nightly, Workflow[dict[str, Any], None])
assert_type(typed_nothing, Workflow[None, int])
assert_type(typed_everything, Workflow[int, bool])


# -- Starting, and what comes back ----------------------------------------------------------------


def start() -> None:
    run = process_order.start(Order(7), key="order-7", delay="10m")
    assert_type(run, WorkflowRun[Receipt])
    assert_type(run.result(timeout=30).number, int)
    assert_type(run.restart().result(), Receipt)
    process_order.start({"order_id": 7}, tags={"tenant": "acme"}, about=Person(name="Ann"))
    run.set_tags(stage="packed", draft=None)
    assert_type(run.tags, dict[str, str])
    assert_type(WorkflowRun.objects.tagged(tenant="acme").about(Person(name="Ann")).count(), int)
    assert_type(process_order.start_many([Order(1), Order(2)], priority=5), list[WorkflowRun[Receipt]])
    assert_type(nightly.start({}).result(), None)
    assert_type(typed_nothing.start().result(), int)
    assert_type(typed_optional.start().result(), str)
    typed_optional.start({"a": 1})
    assert_type(typed_run.start("anything").result(), list[str])
    run.status.upper()
    run.retry(from_step="charge")
    run.cancel()
    run.cancel(reason="sold out", undo=True)
    WorkflowRun.objects.all().cancel(undo=True)
    done, skipped = WorkflowRun.objects.failed().retry()
    assert_type(done, list[UUID])
    assert_type(skipped[0].reason, str)
    assert_type(WorkflowRun.objects.filter(workflow="x").active().count(), int)


def start_with_options() -> None:
    process_order.start(Order(7), queue="bulk", start_at=datetime(2027, 1, 1), priority=None)
    process_order.start(Order(7), key=None, delay=timedelta(minutes=5))
    later: StartOptions = {"delay": "1h", "queue": "bulk"}
    once: StartOptionsWithKey = {"key": "order-7", "active_key": None, "event": None, **later}
    assert_type(process_order.start(Order(7), **once), WorkflowRun[Receipt])
    assert_type(process_order.start_many((Order(number) for number in range(3)), **later), list[WorkflowRun[Receipt]])
    process_order.start_many([{"order_id": 1}, Order(2)])
    typed_step.start(key="x", delay=30)
    run = process_order.start(Order(7))
    assert_type(run.created, bool)
    run.retry()
    assert_type(run.restart(from_step="ship"), WorkflowRun[Receipt])
    assert_type(typed_step.start().result()[0].email, str)
    assert_type([run.result().number for run in process_order.start_many([Order(1)])], list[int])


async def start_async() -> None:
    run = await process_order.astart(Order(7))
    assert_type(await run.aresult(), Receipt)
    assert_type(await typed_nothing.astart(key="x"), WorkflowRun[int])
    many = await process_order.astart_many([Order(1)], queue="bulk", delay="1m")
    assert_type(many, list[WorkflowRun[Receipt]])
    await run.aretry()
    await run.acancel()
    await run.acancel(undo=True)


def unknown(name: str, run: WorkflowRun) -> Workflow:
    """Without parameters nothing is known, and strict checkers don't mind."""
    get_workflow(name).start({"anything": 1})
    run.result()
    return get_workflow(name)


# -- Methods of models ----------------------------------------------------------------------------


@workflow
def typed_methods(step: Step, input: int) -> str:
    greeting = step.get(Person, Person.greet).run(input, "Hi")
    assert_type(greeting, str)
    step.get(Person, Person.greet, name="by instance").run(Person(), greeting="Hi")
    assert_type(step.get(Person, Person.count_all).run(), int)
    assert_type(step.get(Person, Person.shout).run("hey"), str)
    assert_type(step.get(Person.count_all, name="bound").run(), int)
    person = step.get(Person.objects.get).run(pk=input)
    assert_type(person, Person)
    step.get(Person, "greet", name="by name").run(input, "Hi")
    step.get(Person.objects, "get", name="of a manager").run(pk=input)
    step.get(Person.objects.all(), "count").run()
    return greeting


# -- The testing kit ------------------------------------------------------------------------------


def test() -> None:
    assert_replays(process_order, "tests/histories/order.json")
    assert_replays(process_order, WorkflowRun.objects.get())
    run = run_workflow(process_order, Order(7), stubs={"charge": Receipt(1), "ship": OSError("no truck")})
    assert_type(run.result(), Receipt)
    assert_type(run_workflow(typed_nothing).result(), int)
    run_workflow(process_order, {"order_id": 7}, straight_through=True, max_steps=20, key="order-7", delay="1h")
    assert_type(drain(advance="6d"), list[WorkflowRun[Any]])
    step = FakeStep(stubs={"charge": Receipt(1)})
    process_order(input=Order(7), step=step)
    assert_type(step.names, list[str])


# -- Several at once ---------------------------------------------------------------------------------


@dataclass
class Image:
    id: int


def resize(image: Image) -> int:
    return image.id


def resize_to(image: Image, width: int) -> int:
    return width


def import_file(path: str) -> int:
    return len(path)


async def download(url: str) -> bytes:
    return url.encode()


def handle_order(order_id: int, step: Step) -> Receipt:
    step.sleep("pause", "1d")
    return step.define("charge", charge).run(order_id)


def handle_image(image: Image, step: Step) -> str:
    return str(image.id)


def no_item(step: Step) -> int:
    return 1


def two_items(order: Order, day: str, step: Step) -> float:
    return 1.5


@workflow
def several(input: Order, step: Step) -> None:
    receipt, parcel = step.gather(step.define("charge", charge).bind(7), step.define("ship", ship).bind(7))
    assert_type(receipt, Receipt)
    assert_type(parcel, str)
    amount, alone = step.gather(
        step.branch("two", two_items).bind(input, "monday"), step.branch("alone", no_item).bind()
    )
    assert_type(amount, float)
    assert_type(alone, int)
    many = step.gather(*[step.define(f"u{i}", charge).bind(i) for i in range(20)])
    assert_type(many, tuple[Receipt, ...])
    a, b = step.gather(step.define("a", charge).bind(1), step.define("b", ship).bind(1), return_exceptions=True)
    assert_type(a, Receipt | Exception)
    assert_type(b, str | Exception)

    images = [Image(1), Image(2)]
    assert_type(step.map("resize", resize, images, key=lambda image: image.id, concurrency=4), list[int])
    assert_type(step.map("partial", partial(resize_to, width=5), images, key=lambda image: image.id), list[int])
    assert_type(step.map("import", import_file, ["a", "b"], retry=3, atomic=True), list[int])
    assert_type(step.map("download", download, ["a", "b"]), list[bytes])
    assert_type(step.map("tolerant", import_file, ["a", "b"], max_failures=1), list[int | Exception])
    assert_type(step.map("order", handle_order, [1, 2]), list[Receipt])
    assert_type(step.map("image", handle_image, images, key=lambda image: image.id), list[str])
    quorum = step.map("signer", handle_order, [1, 2, 3], min_successes=2)
    assert_type(quorum, list[Receipt | Exception | Unfinished])
    for signature in quorum:
        if signature is UNFINISHED or isinstance(signature, Exception):
            continue
        assert_type(signature, Receipt)
    assert_type(step.branch("alone again", no_item).run(), int)
    assert_type(step.branch("order", handle_order).run(7), Receipt)
    try:
        step.map("failing", import_file, ["a"])
    except GroupFailed as group:
        print(group.failures["a"], group.results)


# -- Events ------------------------------------------------------------------------------------------


@dataclass
class Decision:
    ok: bool
    why: str = ""


@workflow
def typed_events(input: Order, run: WorkflowRun[Any], step: Step) -> Decision | None:
    assert_type(step.wait_for_event("approval", type=Decision, timeout="7d"), Decision)
    assert_type(step.wait_for_event("simple", type=bool, until=datetime(2027, 1, 1), name="another name"), bool)
    anything = step.wait_for_event("untyped", timeout="7d")
    print(anything["ok"], step.wait_for_event("for good"))
    print(step.wait_for_event("with a default", default=None)["ok"])
    event = step.wait_for_any_event("outcome", ["paid", "expired"], timeout="1h")
    assert_type(event, Event[Any])
    assert_type(event.name, str)
    assert_type(event.id, str | None)
    assert_type(event.by, str)
    print(event.payload["amount"], event.sent_at)
    late = step.wait_for_any_event("tuple", ("paid",), until=datetime(2027, 1, 1), default=None)
    assert_type(late, Event[Any] | None)
    try:
        step.wait_for_event("in time", timeout=timedelta(minutes=5), type=Decision)
    except EventTimedOut as error:
        assert_type(error.step, str)
        too_late: TimedOut | TimeoutError = error
        print(too_late, error.events)
    except InvalidEvent as error:
        assert_type(error.errors, list[str])
    signatures = step.map("signer", typed_signature, ["a", "b"])
    assert_type(signatures, list[Decision])
    assert_type(run.waiting_for, list[str])
    return step.wait_for_event("approval again", type=Decision, timeout="7d", default=None)


def typed_signature(signer: str, step: Step) -> Decision:
    return step.wait_for_event(f"signature-{signer}", type=Decision)


def send_events(run: WorkflowRun[Receipt], user: str) -> None:
    sent = run.send_event("approval", {"ok": True}, id="evt_1", by=user)
    assert_type(sent, Event[Any])
    assert_type(sent.created, bool)
    run.send_event("stop")
    run.send_event("decided", Decision(True), id=None)
    assert_type(process_order.send_event("paid", {"amount": 5}, key="order-7", id="evt_1").created, bool)
    process_order.start(Order(7), key="order-7", event=Event("paid", {"amount": 5}, id="evt_1"))
    typed_nothing.start(event=Event("go"))
    done, skipped = WorkflowRun.objects.active().send_event("stop", id="evt_2")
    assert_type(done, list[UUID])
    assert_type(skipped[0].reason, str)
    known: Event[Decision] = Event("approval", Decision(True))
    assert_type(known.payload.ok, bool)


async def send_events_async(run: WorkflowRun[Receipt]) -> None:
    assert_type(await run.asend_event("approval", {"ok": True}, by="carla"), Event[Any])
    assert_type((await process_order.asend_event("paid", 5, key="order-7")).created, bool)
    await typed_nothing.astart(event=Event("go"))


def test_events() -> None:
    run_workflow(process_order, Order(7), events={"approval": {"ok": True}, "message": [1, Event("message", by="me")]})
    drain(events={"approval": Decision(True)}, advance="8d")
    step = FakeStep(events={"approval": Decision(True)}, stubs=None)
    typed_events(input=Order(7), step=step, run=None)
    assert_type(step.waits[0].events, tuple[str, ...])
    assert_type(step.waits[0].timeout, timedelta | None)
    assert_type(AsyncFakeStep(events={"approval": None}).names, list[str])


@workflow
async def typed_async_events(input: Order, step: AsyncStep) -> Decision | None:
    assert_type(await step.wait_for_event("approval", type=Decision, timeout="7d"), Decision)
    print((await step.wait_for_event("untyped"))["ok"], await step.wait_for_event("default", default=5))
    event = await step.wait_for_any_event("outcome", ["paid", "expired"], timeout="1h")
    assert_type(event.name, str)
    assert_type(await step.wait_for_any_event("late", ["paid"], timeout=0, default=None), Event[Any] | None)
    first, second = await asyncio.gather(
        step.wait_for_event("first", type=Decision), step.wait_for_event("second", type=int)
    )
    assert_type(first, Decision)
    assert_type(second, int)
    return await step.wait_for_event("again", type=Decision, timeout="7d", default=None)


assert_type(typed_events, Workflow[Order, Decision | None])
assert_type(typed_async_events, AsyncWorkflow[Order, Decision | None])


# -- Child runs --------------------------------------------------------------------------------------


@workflow
def scrape_page(input: str, step: Step) -> dict[str, int]:
    return {input: 1}


@workflow
async def scrape_page_async(input: str, step: AsyncStep) -> bytes:
    return input.encode()


@workflow
def typed_children(input: Order, run: WorkflowRun[Any], step: Step) -> Receipt:
    assert_type(step.invoke("receipt", process_order, timeout="1h").run(input), Receipt)
    assert_type(step.invoke("from a dict", process_order).run({"order_id": 7}), Receipt)
    assert_type(step.invoke("nothing", typed_nothing).run(), int)
    assert_type(step.invoke("nothing given", typed_nothing, timeout=None).run(None), int)
    assert_type(step.invoke("async", scrape_page_async).run("https://a"), bytes)
    assert_type(step.start("letter", process_order, key="x", delay="1h").run(input), UUID)
    assert_type(step.start("alone", typed_nothing).run(), UUID)
    assert_type(step.start("event", process_order, event=Event("paid")).run({"order_id": 7}), UUID)
    receipt, parcel, number = step.gather(
        step.invoke("gathered", process_order).bind(input),
        step.define("ship", ship).bind(7),
        step.invoke("gathered nothing", typed_nothing).bind(),
    )
    assert_type(receipt, Receipt)
    assert_type(parcel, str)
    assert_type(number, int)
    assert_type(step.map("page", scrape_page, ["https://a/b"]), list[dict[str, int]])
    assert_type(step.map("page async", scrape_page_async, ["https://a/b"], concurrency=3, timeout="1h"), list[bytes])
    orders = [Order(1), Order(2)]
    assert_type(step.map("receipts", process_order, orders, key=lambda order: order.order_id), list[Receipt])
    assert_type(step.map("tolerant", scrape_page, ["a"], max_failures=5), list[dict[str, int] | Exception])
    tolerated = step.map("tolerant orders", process_order, orders, key=lambda order: order.order_id, max_failures=1)
    assert_type(tolerated, list[Receipt | Exception])
    assert_type(
        step.map("all", process_order, orders, key=lambda order: order.order_id, return_exceptions=True),
        list[Receipt | Exception],
    )
    quorum = step.map("quorum", scrape_page, ["a", "b"], min_successes=1)
    assert_type(quorum, list[dict[str, int] | Exception | Unfinished])
    try:
        step.invoke("child", process_order).run({"order_id": 1})
    except ChildTimedOut as late:
        in_time: TimedOut | TimeoutError = late
        print(in_time, late.step, late.run_id)
    except RunFailed as failed:
        print(failed.run_id, failed.__cause__, failed.error["message"])
    except RunCanceled as canceled:
        print(canceled.run_id)
    if input.order_id > 5:
        going_on: Receipt = step.continue_as_new({"order_id": input.order_id - 1})
        return going_on
    return receipt


@workflow
def typed_entity(step: Step) -> int:
    return step.continue_as_new()


@workflow
async def typed_async_children(input: Order, step: AsyncStep) -> Receipt:
    assert_type(await step.invoke("receipt", process_order, timeout="1h").run(input), Receipt)
    assert_type(await step.invoke("nothing", typed_nothing).run(), int)
    assert_type(await step.start("letter", process_order, key="x").run({"order_id": 7}), UUID)
    first, second = await asyncio.gather(
        step.invoke("first", process_order).run(input), step.invoke("second", scrape_page_async).run("a")
    )
    assert_type(first, Receipt)
    assert_type(second, bytes)
    assert_type(await step.define("undoable", charge, undo=refund_order).run(7), Receipt)
    assert_type(await step.define("undoable parcel", ship, undo=call_back).run(7), str)
    assert_type(await step.map("undoable charges", charge, [1], undo=refund), list[Receipt])
    await step.undo(reason="sold out")
    third, fourth = await step.gather(
        step.invoke("third", process_order).bind(input), step.define("fourth", ship).bind(7)
    )
    assert_type(third, Receipt)
    assert_type(fourth, str)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step.invoke("fifth", scrape_page).run("a"))
    assert_type(task.result(), dict[str, int])
    assert_type(await step.map("page", scrape_page, ["https://a/b"]), list[dict[str, int]])
    assert_type(await step.map("receipts", process_order, [input], key=lambda order: order.order_id), list[Receipt])
    assert_type(await step.map("tolerant", scrape_page, ["a"], max_failures=5), list[dict[str, int] | Exception])
    return step.continue_as_new({"order_id": 8})


assert_type(typed_children, Workflow[Order, Receipt])
assert_type(typed_async_children, AsyncWorkflow[Order, Receipt])


def test_children() -> None:
    run_workflow(typed_children, Order(7), stubs={"receipt": Receipt(1), "page#a": ChildTimedOut, "child": RunCanceled})
    typed_children(input=Order(7), run=None, step=FakeStep(stubs={"receipt": Receipt(1)}))


# -- async def bodies --------------------------------------------------------------------------------


async def handle_order_async(order_id: int, step: AsyncStep) -> Receipt:
    await step.sleep("pause", "1d")
    return await step.define("charge", charge).run(order_id)


async def no_item_async(step: AsyncStep) -> int:
    return 1


async def two_items_async(order: Order, day: str, step: AsyncStep) -> float:
    return 1.5


@workflow(step_retry=2)
async def typed_async(input: Order, step: AsyncStep) -> Receipt:
    assert_type(await step.define("charge", charge).run(input.order_id, currency="USD"), Receipt)
    assert_type(await step.define("ship", ship).run(input.order_id), str)
    assert_type(await step.define("ship later", ship_later).run(input.order_id), str)
    assert_type(await step.define("options", charge, retry=RetryPolicy(), atomic=True).run(7), Receipt)

    @step.define("send", retry=3)
    async def send(address: str) -> int:
        return len(address)

    @step.define("look", atomic=True)
    def look() -> list[UUID]:
        return []

    assert_type(await send.run(input.email), int)
    assert_type(await look.run(), list[UUID])
    assert_type(await step.get(Person, Person.greet).run(7, "Hi"), str)
    assert_type(await step.get(Person.count_all, name="people").run(), int)
    assert_type(await step.get(Person.objects.get).run(pk=7), Person)
    await step.get(Person, "greet", name="by name", retry=2).run(7)
    assert_type(await step.poll("shipped", find, every="10m", timeout="3d").run(7), str | None)
    assert_type(await step.poll("async", ship, every=60, until=lambda parcel: parcel.upper()).run(7), str)
    await step.sleep("cool_down", "10m")
    await step.sleep_until("midnight", datetime(2027, 1, 1))
    if await step.patched("new_prompt"):
        assert_type(await step.patched("new_prompt"), bool)
    return await step.branch("one", handle_order_async).run(7)


@workflow
async def typed_asyncio(input: Order, step: AsyncStep) -> None:
    """What the verbs return goes into whatever asyncio has."""
    a, b = await asyncio.gather(step.define("a", charge).run(1), step.define("b", ship).run(2))
    assert_type(a, Receipt)
    assert_type(b, str)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step.define("c", ship).run(1))
    assert_type(task.result(), str)
    assert_type(await asyncio.wait_for(step.branch("d", handle_order_async).run(1), 5), Receipt)
    assert_type(await asyncio.create_task(step.map("e", import_file, ["a"])), list[int])
    done, _pending = await asyncio.wait([asyncio.ensure_future(step.sleep("f", "1s"))])
    assert_type(done, set[asyncio.Task[None]])


@workflow
async def typed_async_groups(input: Order, step: AsyncStep) -> None:
    receipt, parcel = await step.gather(step.define("charge", charge).bind(7), step.define("ship", ship).bind(7))
    assert_type(receipt, Receipt)
    assert_type(parcel, str)
    amount, alone = await step.gather(
        step.branch("two", two_items_async).bind(input, "monday"), step.branch("alone", no_item_async).bind()
    )
    assert_type(amount, float)
    assert_type(alone, int)
    many = await step.gather(*[step.define(f"u{i}", charge).bind(i) for i in range(20)])
    assert_type(many, tuple[Receipt, ...])
    a, _b = await step.gather(step.define("a", charge).bind(1), step.define("b", ship).bind(1), return_exceptions=True)
    assert_type(a, Receipt | Exception)

    async def tool(call: Image, step: AsyncStep) -> str:
        return await step.define("call", ship).run(call.id)

    images = [Image(1), Image(2)]
    assert_type(await step.map("download", download, ["a"], concurrency=20), list[bytes])
    assert_type(await step.map("resize", resize, images, key=lambda image: image.id, atomic=True), list[int])
    assert_type(await step.map("tolerant", import_file, ["a", "b"], max_failures=1), list[int | Exception])
    assert_type(await step.map("order", handle_order_async, [1, 2]), list[Receipt])
    assert_type(await step.map("tools", tool, images, key=lambda call: call.id), list[str])
    quorum = await step.map("signer", handle_order_async, [1, 2, 3], min_successes=2)
    assert_type(quorum, list[Receipt | Exception | Unfinished])
    assert_type(await step.branch("one", tool).run(Image(1)), str)


@workflow
async def typed_async_everything(
    run: WorkflowRun[Any], logger: LoggerAdapter[Any], step: AsyncStep, input: int
) -> bool:
    return True


@workflow
async def typed_async_step(step: AsyncStep) -> list[Order]:
    return []


@workflow
async def typed_async_input(input: str) -> int:
    return 1


@workflow
async def typed_async_nothing() -> int:
    return 1


assert_type(typed_async, AsyncWorkflow[Order, Receipt])
assert_type(typed_async_everything, AsyncWorkflow[int, bool])
assert_type(typed_async_step, AsyncWorkflow[None, list[Order]])
assert_type(typed_async_input, AsyncWorkflow[str, int])
assert_type(typed_async_nothing, AsyncWorkflow[None, int])


async def start_async_bodies() -> None:
    assert_type(typed_async.start(Order(7), key="order-7").result(), Receipt)
    assert_type(await (await typed_async_step.astart()).aresult(), list[Order])
    assert_type(run_workflow(typed_async, Order(7)).result(), Receipt)
    any_workflow: Workflow[Order, Receipt] = typed_async
    print(any_workflow.is_async)
    step = AsyncFakeStep(stubs={"charge": Receipt(1)})
    receipt: Coroutine[Any, Any, Receipt] = typed_async(input=Order(7), step=step)
    assert_type(await receipt, Receipt)
    assert_type(step.names, list[str])
    step.assert_all_run()


# -- Schedules ---------------------------------------------------------------------------------------


@workflow(schedule=Schedule("30 2 * * *", timezone="Europe/Berlin", input={"a": 1}, overlap="wait", missed="skip"))
def typed_nightly(input: dict[str, int], step: Step) -> int:
    return 1


@workflow(schedule=[Schedule(every="10s", name="often", spread=5), Schedule("@daily", queue="q", priority=2)])
async def typed_often(step: AsyncStep) -> None: ...


assert_type(typed_nightly, Workflow[dict[str, int], int])
assert_type(typed_often, AsyncWorkflow[None, None])


def use_schedules(row: WorkflowSchedule) -> None:
    row.pause("holidays", by="eve")
    assert_type(row.run_now(by="eve"), WorkflowRun[Any])
    assert_type(row.next_times(3), list[datetime])
    assert_type(row.next_at, datetime | None)
