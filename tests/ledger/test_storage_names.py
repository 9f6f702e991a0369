"""What is on disk names no module of this package but `errors`, and `models` for what is in the models.

Everything else may be moved at any time: rows are read by later versions.
"""

from __future__ import annotations

import dataclasses
import decimal
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from django_steps import RetryPolicy, current_step, errors, workflow
from django_steps.engine.frame import MISTAKES
from django_steps.ledger import tables
from django_steps.models import StepRecord, Worker, WorkflowRun
from testproject.shop.models import Customer, Order, Product
from testproject.shop.workflows import onboard_user, process_order, retry_with_delay
from tests.app.workflows import spawner, three_steps, tiny
from tests.failures.test_failures import EXACT, STEP_FAILED
from tests.staging import claim, make_terms, recover
from tests.values import test_values

# Of the models there are labels, as Django has them for all models, and what is in the models, by where users import it.
PRIVATE = re.compile(
    r"django_steps\."
    r"(?!errors[.:]"
    r"|(?:WorkflowRun|StepRecord|Worker)\b"
    r"|models[.:](?:WorkflowRun|StepRecord|Worker)\.(?:DoesNotExist|MultipleObjectsReturned|Status|Kind)\b)"
)


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the tables, with the name of its column."""
    for table in (tables.RUN, tables.STEP, tables.WORKER):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                yield from ((f"{table}.{name}", str(value)) for name, value in zip(names, row, strict=True))


def private_names() -> list[tuple[str, str]]:
    return [
        (column, text[max(0, match.start() - 60) : match.end() + 60])
        for column, text in texts()
        for match in PRIVATE.finditer(text)
    ]


def test_private_name_is_found(transactional_db: None) -> None:
    tiny.start({"class": "django_steps.failures.builder:PathTo"})
    assert f"{tables.RUN}.input" in {column for column, _ in private_names()}


@pytest.mark.parametrize(
    "text",
    [
        "django_steps.errors.WorkerDied",
        "django_steps.errors:StepFailed",
        '"of":"django_steps.WorkflowRun","pk"',
        "django_steps",
    ],
)
def test_public_names_are_not(text: str) -> None:
    assert not PRIVATE.search(text)


@pytest.mark.parametrize(
    "text", ["django_steps.models.run:WorkflowRun", "django_steps.core", "django_steps.models.columns"]
)
def test_modules_of_models_are(text: str) -> None:
    assert PRIVATE.search(text)


def test_values_of_every_kind_name_no_private_module(work: Callable[..., None]) -> None:
    user = User.objects.create(username="ann")
    found = [
        *test_values.TAGGED,
        test_values.Point(1),
        test_values.Order(1, [user]),
        test_values.Slotted(decimal.Decimal(1)),
        test_values.Open(name="a", home=test_values.Address(street="b"), extra=(1,)),
        test_values.Color.RED,
        test_values.Access.READ,
        [WorkflowRun.Status.FAILED, StepRecord.Status.FAILED, StepRecord.Kind.SLEEP],
    ]

    @workflow
    def keeps(input, step, run):
        for number, value in enumerate(found):
            step.define(f"value {number}", lambda value=value: value).run()
        step.define("a run", lambda: [run, WorkflowRun.objects.get(pk=run.pk), Worker.objects.first()]).run()
        step.sleep("nap", 0.01)
        return input

    run = keeps.start({"values": found[-3:]})
    work()
    assert run.steps.count() == len(found) + 2 and run.result()
    assert private_names() == []


def test_failures_of_every_kind_name_no_private_module(work: Callable[..., None]) -> None:
    other = tiny.start({})
    makes: dict[str, Callable[[], Any]] = {**EXACT, **{name: make for name, (make, *_) in STEP_FAILED.items()}}
    makes |= {
        "path": lambda: ValueError([pathlib.Path("/a"), {pathlib.PurePosixPath("b")}]),
        "class": lambda: ValueError(decimal.InvalidOperation, WorkflowRun.DoesNotExist),
        "no run": lambda: WorkflowRun.DoesNotExist("no run"),
        "many workers": lambda: Worker.MultipleObjectsReturned("two"),
        "policy": lambda: errors.NonRetryableError(RetryPolicy(max_attempts=1)),
        "run failed": lambda: errors.RunFailed(other),
    }
    makes |= {  # the exceptions of this package, all of them
        name: lambda cls=cls: cls.__new__(cls, "x")
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, errors.StepsError) and not issubclass(cls, MISTAKES)
    }
    makes["GroupFailed"] = lambda: errors.GroupFailed("x", {"a": ValueError(1)}, {"b": 2})
    ending = (*MISTAKES, errors.RetryAfter)  # they end the pass
    makes = {name: make for name, make in makes.items() if not isinstance(make(), ending)}
    broken: dict[str, Callable[[], Any]] = {
        "policy as a result": RetryPolicy,
        "context as a result": current_step,
        "no such run": lambda: WorkflowRun.objects.get(workflow="nothing"),
        "no duration": lambda: RetryPolicy(initial_interval="soon"),
        "started outside": lambda: tiny.start({}, priority="high"),
    }

    def fail(make: Callable[[], BaseException]) -> None:
        try:
            raise KeyError(pathlib.Path("/context"))
        except KeyError:
            raise make()  # noqa: B904

    @workflow
    def fails(input, step):
        found: list[Exception] = []
        for number, (name, make) in enumerate([*makes.items(), *broken.items()]):
            action = make if name in broken else lambda make=make: fail(make)
            policy = RetryPolicy(max_attempts=1 + (number % 5 == 0), initial_interval=0)
            try:
                step.define(name, action, retry=policy).run()
            except BaseException as error:
                if isinstance(error, errors.PassEnded):
                    raise
                if isinstance(error, Exception):
                    found.append(error)
        raise ExceptionGroup("all", found[:20])

    run = fails.start({})
    work()
    run.refresh_from_db()
    failed = run.steps.filter(status="failed").count()
    assert failed >= len(makes) - 2 and run.error["type"] == "ExceptionGroup"
    assert private_names() == []
    run.retry(from_step="several args")
    work()
    assert private_names() == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_no_private_module(work: Callable[..., None], mistake: type[Exception]) -> None:
    @workflow
    def mistaken(step):
        def fail() -> None:
            raise mistake.__new__(mistake, "x")

        step.define("mistake", fail).run()

    run = mistaken.start()
    work()
    run.refresh_from_db()
    assert run.error_type == f"django_steps.errors.{mistake.__name__}"
    assert private_names() == []


def test_attempts_that_are_postponed_name_no_private_module(work: Callable[..., None]) -> None:
    @workflow
    def postponed(step):
        def wait() -> None:
            raise errors.RetryAfter("1h") from ValueError(pathlib.Path("/a"))

        step.define("wait", wait).run()

    run = postponed.start()
    work()
    assert run.steps.get().attempt_log
    assert private_names() == []


def test_runs_of_dead_workers_and_waiting_runs_name_no_private_module(
    transactional_db: None, pass_time: Callable[[str], None], work: Callable[..., None]
) -> None:
    run = three_steps.start({})
    for _ in range(2):
        claim(run, make_terms(max_recoveries=1))
        pass_time("1m")  # its lease is over
        recover(make_terms(max_recoveries=1))
    run.refresh_from_db()
    assert run.error_type == "django_steps.errors.WorkerDied" and run.recovery_log

    @workflow(retry=RetryPolicy(max_attempts=3, initial_interval="1h"))
    def again(input, step):
        step.define("path", lambda: pathlib.Path("/nowhere/at all").stat()).run()

    @workflow
    def patient(input, step):
        step.define("path", lambda: pathlib.Path("/nowhere").stat(), retry=RetryPolicy(initial_interval="1h")).run()

    again.start({})
    patient.start({})
    spawner.start({"children": 2})
    work()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"failed", "sleeping", "succeeded"}
    assert private_names() == []


def test_workflows_of_the_shop_name_no_private_module(work: Callable[..., None], settings: Any) -> None:
    settings.SHOP_API_URL = "http://127.0.0.1:1"
    ada = Customer.objects.create(name="Ada", email="ada@example.com", device_token="x")
    Product.objects.create(sku="mug-1", name="Mug", price=decimal.Decimal("7.50"), stock=10)
    order = Order.objects.create(customer=ada, total=decimal.Decimal(15))
    process_order.start({"order_id": order.pk, "items": [{"sku": "mug-1", "quantity": 1}], "email": ada.email})
    retry_with_delay.start({"data": "x", "delay": "10ms"})
    onboard_user.start({"user_id": ada.pk})
    onboard_user.start({"user_id": ada.pk + 1})
    work()
    assert WorkflowRun.objects.filter(status="failed").count() >= 3
    assert private_names() == []


@dataclasses.dataclass
class Holder:
    policy: Any


def test_private_class_inside_another_value_is_refused(work: Callable[..., None]) -> None:
    @workflow
    def keeps(input, step):
        step.define("hold", lambda: [Holder(RetryPolicy())]).run()

    run = keeps.start({})
    work()
    run.refresh_from_db()
    assert run.error_type == "django_steps.errors.UnserializableResult"
    assert "result[0].policy: <class 'RetryPolicy'> can't be recorded" in run.error["message"]
    assert private_names() == []
