"""What type checkers are to accept, and what they are to make of it (`assert_type`). Read by checkers, never executed."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from logging import LoggerAdapter
from typing import Any, assert_type
from uuid import UUID

from django_steps import (
    UNFINISHED,
    GroupFailed,
    PollTimedOut,
    RetryPolicy,
    Step,
    TimedOut,
    Workflow,
    current_step,
    get_workflow,
    workflow,
)
from django_steps.core.unfinished import Unfinished
from django_steps.definitions import StartOptions, StartOptionsWithKey, StepOptions
from django_steps.models import WorkflowRun
from django_steps.testing import FakeStep, drain, run_workflow
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
    return receipt


@workflow
def typed_options(input: Order, step: Step) -> None:
    """Every option, wherever a step is defined; also from a dict."""
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


@workflow(name="typed_nightly", version="2", queue="reports", priority=10, retry=3, step_retry=2, mask=("token",))
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


@workflow(priority=-5)
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
    process_order.start({"order_id": 7})
    assert_type(process_order.start_many([Order(1), Order(2)], priority=5), list[WorkflowRun[Receipt]])
    assert_type(nightly.start({}).result(), None)
    assert_type(typed_nothing.start().result(), int)
    assert_type(typed_optional.start().result(), str)
    typed_optional.start({"a": 1})
    assert_type(typed_run.start("anything").result(), list[str])
    run.status.upper()
    run.retry(from_step="charge")
    run.cancel()
    done, skipped = WorkflowRun.objects.failed().retry()
    assert_type(done, list[UUID])
    assert_type(skipped[0].reason, str)
    assert_type(WorkflowRun.objects.filter(workflow="x").active().count(), int)


def start_with_options() -> None:
    process_order.start(Order(7), queue="bulk", start_at=datetime(2027, 1, 1), priority=None)
    process_order.start(Order(7), key=None, delay=timedelta(minutes=5))
    later: StartOptions = {"delay": "1h", "queue": "bulk"}
    once: StartOptionsWithKey = {"key": "order-7", **later}
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
