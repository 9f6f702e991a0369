"""What type checkers are to report: each line that ends with `# error`, and no other. Never executed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from django_steps import AsyncStep, Event, Schedule, Step, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import AsyncFakeStep, FakeStep, assert_replays, run_workflow
from tests.app.models import Person


@dataclass
class Order:
    order_id: int


def charge(order_id: int, *, currency: str = "EUR") -> int:
    return order_id


async def ship(order_id: int) -> str:
    return f"parcel {order_id}"


def ship_back(parcel: str) -> None: ...


@workflow
def mistyped_order(input: Order, step: Step) -> int:
    step.define("text for a number", charge).run("7")  # error
    step.define("an argument too many", charge).run(7, 8)  # error
    step.define("an unknown keyword", charge).run(7, curency="USD")  # error
    step.define("no argument", charge).run()  # error
    step.define("the result of", charge).run(7).upper()  # error
    step.define("a coroutine's result", ship).run(7).send(None)  # error
    step.define("not a function", 5)  # error
    step.define(5, charge)  # error
    step.define("no policy", charge, retry="3")  # error
    step.define("no flag", charge, atomic="yes")  # error
    step.define("no flag either", charge, at_most_once=1)  # error
    step.define("an unknown option", charge, timout="30s")  # error
    step.define("options by place", charge, 3)  # error
    step.define("undo of nothing", charge, undo=lambda: None).run(7)  # error
    step.define("undo of another type", charge, undo=ship_back).run(7)  # error
    step.define("no function", charge, undo=True)  # error
    step.undo(7)  # error
    print(step.define("not run", charge).number)  # error
    step.define("another result", ship).run(7) + 1  # error
    step.define("class", Order).run("7")  # error
    print(step.define("class's result", Order).run(7).number)  # error
    step.get(Person, Person.greet).run([1], "Hi")  # error
    step.get(Person, Person.greet).run(1, 5)  # error
    step.get(Person.count_all).run(1)  # error
    step.get(Person, "greet", timout="30s")  # error
    step.get(Person, Person.greet, retry="3")  # error
    step.get(Person.count_all, atomic=1)  # error
    step.get(Person, Person.greet, name=5)  # error
    step.get(Person, 5)  # error
    step.get(Person, Person.greet).run(1) + 1  # error
    step.poll("no interval", charge).run(7)  # error
    step.poll("wrong argument", charge, every="1s").run("7")  # error
    step.poll("no function", None, every="1s").run()  # error
    step.poll("until of another", charge, every="1s", until=lambda receipt: receipt.nothing)  # error
    step.poll("no number", charge, every="1s", max_checks="3")  # error
    step.poll("no duration", charge, every="1s", check_timeout=["1s"])  # error
    step.define("no duration", charge, timeout=["30s"])  # error
    step.poll("no option of a poll", charge, every="1s", atomic=True)  # error
    step.sleep("wait", None)  # error
    step.patched(5)  # error
    step.sleep("wait")  # error
    step.sleep_until("midnight", "00:00")  # error
    step.wait("5s")  # error
    charged: int = step.define("not run either", charge)  # error
    print(charged)

    @step.define("decorated")
    def decorated(number: int) -> int:
        return number

    @step.define("wrongly decorated", retries=3)  # error
    def wrongly_decorated() -> None: ...

    @step.define("no policy of a decorated one", retry="often")  # error
    def without_policy() -> None: ...

    decorated.run("7")  # error
    decorated.run(7).upper()  # error
    return 1


@workflow
def mistyped_nothing() -> int:
    return 1


@workflow  # error
def mistyped_parameter(input: int, other: int) -> None: ...


@workflow(queu="reports")  # error
def mistyped_option(input: int) -> None: ...


@workflow(retry="3")  # error
def mistyped_retry(input: int) -> None: ...


@workflow  # error
def mistyped_step(step: int) -> None: ...


@workflow  # error
def mistyped_run(run: str) -> None: ...


@workflow(priority="high")  # error
def mistyped_priority(input: int) -> None: ...


@workflow(mask=5)  # error
def mistyped_mask(input: int) -> None: ...


@workflow(step_retry=2.5)  # error
def mistyped_step_retry(input: int) -> None: ...


@workflow("nightly")  # error
def mistyped_name(input: int) -> None: ...


def start() -> None:
    mistyped_order.start("order-7")  # error
    mistyped_order.start()  # error
    mistyped_order.start(Order(7), kye="order-7")  # error
    mistyped_order.start_many([1, 2])  # error
    mistyped_order.start(Order(7), "order-7")  # error
    mistyped_order.start(Order(7), key=7)  # error
    mistyped_order.start(Order(7), priority="high")  # error
    mistyped_order.start(Order(7), delay=["1h"])  # error
    mistyped_order.start(Order(7), timeout=["1h"])  # error
    mistyped_order.start(Order(7), start_within=["1h"])  # error
    mistyped_order.start(Order(7), start_at="2027-01-01")  # error
    mistyped_order.start(Order(7), tags={"order": 7})  # error
    mistyped_order.start(Order(7), about="order-7")  # error
    mistyped_order.start(Order(7)).set_tags(order=7)  # error
    WorkflowRun.objects.tagged(order=7)  # error
    mistyped_order.start_many([Order(7)], key="order-7")  # error
    mistyped_order.start_many(Order(7))  # error
    mistyped_nothing.start("something")  # error
    mistyped_nothing.start(quue="bulk")  # error
    run = mistyped_order.start(Order(7))
    print(run.result().number)  # error
    text: str = run.result()  # error
    print(text, run.restart().result().number)  # error
    run.cancel(reason=5)  # error
    print(mistyped_order.start_many([Order(1)])[0].result().number)  # error
    run.result(timeout="30")  # error
    print(run.outcome)  # error
    run.retry(step="x")  # error
    run_workflow(mistyped_order, "order-7")  # error
    print(run_workflow(mistyped_order, Order(7)).result().number)  # error
    run_workflow(mistyped_order, Order(7), stub={})  # error
    run_workflow(mistyped_order, Order(7), queue=5)  # error
    run_workflow(charge, 7)  # error
    assert_replays(charge, "order.json")  # error


async def start_async() -> None:
    mistyped_order.astart(Order(7)).result()  # error
    await mistyped_order.astart("order-7")  # error
    await mistyped_order.astart(Order(7), kye="order-7")  # error
    await mistyped_order.astart_many([Order(7)], key="order-7")  # error
    print((await (await mistyped_order.astart(Order(7))).aresult()).number)  # error


def check(pk: int) -> bool:
    return pk > 0


def import_file(path: str) -> int:
    return len(path)


def handle_order(order_id: int, step: Step) -> str:
    return str(order_id)


def step_first(step: Step, order_id: int) -> str:
    return str(order_id)


async def async_branch(order_id: int, step: AsyncStep) -> str:
    return str(order_id)


async def download(url: str) -> bytes:
    return url.encode()


@workflow
def several(input: Order, step: Step) -> None:
    step.gather(step.define("a", charge).run(7), step.define("b", charge).bind(7))  # error
    step.gather(step.define("c", charge))  # error
    step.gather(step.define("d", charge).bind("7"))  # error
    _a, _b, _c = step.gather(step.define("e", charge).bind(1), step.define("f", charge).bind(2))  # error
    x, _y = step.gather(step.define("g", charge).bind(1), step.define("h", check).bind(2))
    x.nothing()  # error
    step.map("wrong item", import_file, [1, 2])  # error
    step.map("no key", lambda order: order.order_id, [Order(1)])  # error
    step.map("dicts", lambda row: row["a"], [{"a": 1}])  # error
    step.map("floats", lambda number: number, [0.5])  # error
    step.map("wrong branch item", handle_order, ["a"])  # error
    step.map("step first", step_first, [1, 2])  # error
    step.map("async branch in a plain body", async_branch, [1])  # error
    step.branch("async branch", async_branch).run(1)  # error
    step.map("a workflow", mistyped_order, ["a"])  # error
    step.map("retry of a branch", handle_order, [1], retry=3)  # error
    step.map("tolerant", import_file, ["a"], max_failures=1)[0] + 1  # error
    step.map("index", import_file, ["a"])["a"]  # error
    step.branch("not a branch", charge).run(1)  # error
    step.branch("argument", handle_order).run("a")  # error


@workflow
async def several_async(input: Order, step: AsyncStep) -> None:
    step.define("forgotten", charge).run(1)  # error
    step.sleep("forgotten", "5s")  # error
    step.sleep_until("midnight", "00:00")  # error
    step.map("forgotten map", download, ["a"])  # error
    step.gather(step.define("forgotten too", charge).bind(1))  # error
    step.branch("forgotten branch", async_branch).run(1)  # error
    step.define("forgotten result", charge).run(1).upper()  # error
    step.undo()  # error
    await step.define("undo of nothing", charge, undo=lambda: None).run(7)  # error
    await step.define("text for a number", charge).run("7")  # error
    await step.define("not a coroutine", charge)  # error
    await step.map("plain branch", handle_order, [1])  # error
    await step.branch("plain branch too", handle_order).run(1)  # error
    await step.branch("argument", async_branch).run("a")  # error
    await step.map("wrong item", download, [1])  # error
    await step.map("no key", download, [Order(1)])  # error
    await step.map("retry of a branch", async_branch, [1], retry=3)  # error
    await step.map("a workflow", several_async, ["a"])  # error
    await step.gather(step.define("not bound", charge).run(1))  # error
    await step.poll("no interval", charge).run(7)  # error
    await step.sleep("wait")  # error
    await step.patched()  # error
    a, _b = await asyncio.gather(step.define("a", charge).run(1), step.define("b", check).run(2))
    a.nothing()  # error
    number: int = step.define("c", charge).run(1)  # error
    print(number)


@workflow  # error
async def mistyped_async_step(step: int) -> None: ...


async def called() -> None:
    several_async.start("order-7")  # error
    several_async(input=Order(7), step=AsyncFakeStep())  # error
    (await several_async(input=Order(7), step=AsyncFakeStep(stub={}))).upper()  # error
    mistyped_order(Order(7), FakeStep())  # error


@dataclass
class Decision:
    ok: bool


@workflow
def waiting(input: Order, step: Step) -> None:
    print(step.wait_for_event("approval", type=Decision).missing)  # error
    print(step.wait_for_event("approval", type=Decision, default=None).ok)  # error
    step.wait_for_event()  # error
    step.wait_for_event(5)  # error
    step.wait_for_event("approval", "7d")  # error
    step.wait_for_event("approval", timeout=["7d"])  # error
    step.wait_for_event("approval", until="tomorrow")  # error
    step.wait_for_event("approval", name=5)  # error
    step.wait_for_event("approval", type="Decision")  # error
    step.wait_for_event("approval", timout="7d")  # error
    step.wait_for_event("approval", retry=3)  # error
    print(step.wait_for_any_event("outcome").payload)  # error
    step.wait_for_any_event("outcome", 5)  # error
    step.wait_for_any_event("outcome", [5])  # error
    step.wait_for_any_event("outcome", ["paid"], type=Decision)  # error
    print(step.wait_for_any_event("outcome", ["paid"], default=None).name)  # error
    print(step.wait_for_any_event("outcome", ["paid"]).amount)  # error


@workflow
async def waiting_async(input: Order, step: AsyncStep) -> None:
    step.wait_for_event("forgotten")  # error
    step.wait_for_any_event("forgotten", ["paid"])  # error
    print(step.wait_for_event("forgotten", type=Decision).ok)  # error
    print((await step.wait_for_event("approval", type=Decision, default=None)).ok)  # error
    await step.wait_for_event("approval", timout="7d")  # error
    await step.wait_for_any_event("outcome")  # error


def send(run: WorkflowRun[int]) -> None:
    mistyped_order.send_event("paid", {"a": 1})  # error
    mistyped_order.send_event(5, key="order-7")  # error
    mistyped_order.send_event("paid", key=7)  # error
    mistyped_order.start(Order(1), event=("paid", {"a": 1}))  # error
    mistyped_order.start_many([Order(1)], event=Event("paid"))  # error
    run.send_event()  # error
    run.send_event("paid", id=7)  # error
    run.send_event("paid", 5, "evt_1")  # error
    run.send_event("paid", key="order-7")  # error
    print(run.send_event("paid").crated)  # error
    Event()  # error
    Event("paid", by=None)  # error
    run_workflow(mistyped_order, Order(7), events=[1])  # error
    run_workflow(mistyped_order, Order(7), event="paid")  # error
    FakeStep(event={})  # error
    AsyncFakeStep(events=5)  # error


async def send_async(run: WorkflowRun[int]) -> None:
    print(run.asend_event("paid").created)  # error
    await mistyped_order.asend_event("paid")  # error


@workflow
def inviting(input: Order, step: Step) -> None:
    step.invoke("wrong input", mistyped_order).run("a")  # error
    step.invoke("no input", mistyped_order).run()  # error
    step.invoke("no workflow", charge)  # error
    step.invoke("input for nothing", mistyped_nothing).run("a")  # error
    step.invoke("wrong input to bind", mistyped_order).bind("a")  # error
    step.invoke("no input to bind", mistyped_order).bind()  # error
    step.invoke("an argument too many", mistyped_order).run(input, 1)  # error
    step.invoke("by name", mistyped_order).run(input=input)  # error
    step.invoke("another result", mistyped_order).run(input).upper()  # error
    step.invoke("wrong timeout", mistyped_order, timeout=["1h"])  # error
    step.invoke("unknown option", mistyped_order, retry=3)  # error
    print(step.invoke("not run", mistyped_order).number)  # error
    step.start("wrong input", mistyped_order).run("a")  # error
    step.start("no input", mistyped_order).run()  # error
    step.start("no workflow", charge)  # error
    step.start("unknown option", mistyped_order, retry=3)  # error
    step.start("an id", mistyped_order).run(input) + 1  # error
    step.gather(step.invoke("not bound", mistyped_order).run(input))  # error
    step.map("wrong items", mistyped_order, ["a"], key=lambda item: item)  # error
    step.map("no key", mistyped_order, [input])  # error
    step.map("atomic children", mistyped_order, [input], key=lambda order: order.order_id, atomic=True)  # error
    step.map("retried children", mistyped_order, [input], key=lambda order: order.order_id, retry=3)  # error
    step.map("results", mistyped_order, [input], key=lambda order: order.order_id)[0].upper()  # error
    step.continue_as_new(1, 2)  # error


@workflow
async def inviting_async(input: Order, step: AsyncStep) -> None:
    step.invoke("forgotten", mistyped_order).run(input)  # error
    step.start("forgotten", mistyped_order).run(input)  # error
    await step.invoke("not run", mistyped_order)  # error
    await step.invoke("wrong input", mistyped_order).run("a")  # error
    await step.invoke("no input", mistyped_order).run()  # error
    await step.start("no workflow", charge).run(input)  # error
    (await step.invoke("another result", mistyped_order).run(input)).upper()  # error
    await step.map("wrong items", mistyped_order, ["a"], key=lambda item: item)  # error
    await step.map("no key", mistyped_order, [input])  # error


Schedule("0 * * * *", every="10s")  # error
Schedule()  # error
Schedule("0 * * * *", overlap="queue")  # error
Schedule(every="10s", timezone="UTC")  # error


@workflow(schedule="@daily")  # error
def mistyped_schedule(step: Step) -> None: ...
