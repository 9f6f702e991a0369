"""What type checkers are to report: each line that ends with `# error`, and no other. Never executed."""

from __future__ import annotations

from dataclasses import dataclass

from django_steps import Step, workflow
from django_steps.testing import run_workflow
from tests.app.models import Person


@dataclass
class Order:
    order_id: int


def charge(order_id: int, *, currency: str = "EUR") -> int:
    return order_id


async def ship(order_id: int) -> str:
    return f"parcel {order_id}"


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
    step.get(Person, Person.greet).run([1], "Hi")  # error
    step.get(Person, Person.greet).run(1, 5)  # error
    step.get(Person.count_all).run(1)  # error
    step.sleep("wait", None)  # error

    @step.define("decorated")
    def decorated(number: int) -> int:
        return number

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


def start() -> None:
    mistyped_order.start("order-7")  # error
    mistyped_order.start()  # error
    mistyped_order.start(Order(7), kye="order-7")  # error
    mistyped_order.start_many([1, 2])  # error
    mistyped_nothing.start("something")  # error
    run = mistyped_order.start(Order(7))
    print(run.result().number)  # error
    run.result(timeout="30")  # error
    print(run.outcome)  # error
    run.retry(step="x")  # error
    run_workflow(mistyped_order, "order-7")  # error
    print(run_workflow(mistyped_order, Order(7)).result().number)  # error
