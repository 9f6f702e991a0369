"""`start()`: what it validates, that a key starts one run, and that a run exists exactly if its transaction commits."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, TypedDict
from uuid import UUID

import pydantic
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.test import override_settings
from pydantic import BaseModel, field_validator

from django_steps import InvalidInput, workflow
from django_steps.definitions import registry
from django_steps.errors import InvalidName, ResultUnavailable, RunCanceled, StartOutsideStep, ValueTooLarge
from django_steps.ledger import inserts
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.models import Person
from tests.app.workflows import three_steps, tiny
from tests.conftest import ROOT, process_environment
from tests.staging import Background


class Numbered(BaseModel):
    number: int


@pytest.fixture
def echo():
    @workflow(name="echo")
    def body(input):
        return input

    return body


# -- What start() returns ----------------------------------------------------------------------------


@pytest.mark.django_db
def test_started_run_is_saved_and_pending(echo):
    run = echo.start({"order_id": 7})
    assert run.created is True
    assert (run.status, run.is_finished, run.output, run.error) == ("pending", False, None, None)
    assert run.input == {"order_id": 7}
    stored = WorkflowRun.objects.get(pk=run.pk)
    for name in ("workflow", "version", "queue", "priority", "status", "phase", "input_text", "available_at_us", "key"):
        assert getattr(stored, name) == getattr(run, name), name
    assert stored.created_at == run.created_at


@pytest.mark.django_db
def test_run_ids_are_ordered_by_time(echo):
    ids = [echo.start().pk for _ in range(5)]
    assert ids == sorted(ids)
    assert all(isinstance(pk, uuid.UUID) and pk.version == 7 for pk in ids)


@pytest.mark.django_db
def test_input_can_be_searched_without_what_is_masked():
    @workflow(mask=("card",))
    def paying(input):
        pass

    run = paying.start({"order_id": 7, "card": "4242"})
    assert WorkflowRun.objects.get(input_search__order_id=7) == run
    assert "4242" not in str(WorkflowRun.objects.values_list("input_search", flat=True).get())
    assert run.input["card"] == "4242"


@pytest.mark.django_db
def test_existing_run_is_not_saved(echo):
    run = echo.start()
    run.status = "succeeded"
    with pytest.raises(TypeError, match=r"retry\(\), cancel\(\), restart\(\)"):
        run.save()
    with pytest.raises(TypeError):
        run.save(update_fields=["status"])
    with pytest.raises(TypeError):
        WorkflowRun.objects.get(pk=run.pk).save()
    run.refresh_from_db()
    assert run.status == "pending"


def test_starting_and_verbs_have_async_twins(work, echo):
    async def use() -> None:
        first = await echo.astart(1, key="k")
        again = await echo.astart(1, key="k")
        assert (first.created, again.created, first.pk) == (True, False, again.pk)
        many = await echo.astart_many([2, 3], queue="bulk")
        await many[0].acancel()
        await many[0].aretry()
        await many[1].acancel()
        assert (await many[1].arestart()).restart_of_id == many[1].pk
        await sync_to_async(lambda: (work(), connections.close_all()), thread_sensitive=False)()
        assert await first.aresult(timeout=1) == 1
        assert await many[0].aresult(timeout=1) == 2
        # The thread in which Django's async methods run has a connection of its own.
        await sync_to_async(connections.close_all)()

    asyncio.run(use())


# -- Input -------------------------------------------------------------------------------------------


@dataclass
class Address:
    city: str


@dataclass
class Order:
    number: int
    total: float = 0.0
    tags: list[str] = field(default_factory=list)
    address: Address | None = None


class Payment(BaseModel):
    card: str
    amount: Decimal = Decimal(1)

    @field_validator("card")
    @classmethod
    def has_digits(cls, card: str) -> str:
        if not card.isdigit():
            raise ValueError("a card has digits")
        return card


@pytest.mark.parametrize("given", [Order(7, tags=["a"]), {"number": 7, "tags": ["a"]}])
def test_dataclass_input_reaches_the_body_as_an_instance(work, given):
    seen: list[Any] = []

    @workflow
    def ordering(input: Order, step):
        seen.append(input)

    run = ordering.start(given)
    work()
    run.result(timeout=0)
    assert seen == [Order(7, tags=["a"])]


@pytest.mark.parametrize("given", [Payment(card="4242"), {"card": "4242"}, {"card": "4242", "amount": 1}])
def test_pydantic_input_reaches_the_body_as_an_instance(work, given):
    seen: list[Any] = []

    @workflow
    def paying(input: Payment):
        seen.append(input)

    run = paying.start(given)
    work()
    run.result(timeout=0)
    assert seen == [Payment(card="4242")]


class Extra(TypedDict):
    note: str


@pydantic.dataclasses.dataclass
class Parcel:
    weight: int


@dataclass
class Shipment:
    order: Order
    parcel: Parcel
    extra: Extra
    fallback: Address | None = None


@pytest.mark.parametrize("annotation", [Order, Shipment])
def test_nested_dataclasses_are_built_from_dicts(work, annotation):
    seen: list[Any] = []

    def body(input):
        seen.append(input)

    body.__annotations__["input"] = annotation
    order = {"number": 7, "address": {"city": "Ulm"}}
    shipment = {"order": order, "parcel": {"weight": 3}, "extra": {"note": "a"}, "fallback": {"city": "Bonn"}}
    run = workflow(name="nested")(body).start(order if annotation is Order else shipment)
    work()
    run.result(timeout=0)
    built = Order(7, address=Address("Ulm"))
    if annotation is Shipment:
        assert seen == [Shipment(built, Parcel(weight=3), {"note": "a"}, Address("Bonn"))]
    else:
        assert seen == [built]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "annotation, given, errors",
    [
        (Order, {"number": 7, "address": {"town": "Ulm"}}, ["address.town: unknown", "address.city: missing"]),
        (Parcel, {"weight": "heavy"}, ["weight: expected int, got 'heavy'"]),
        (Order, {}, ["number: missing"]),
        (Order, {"number": "7"}, ["number: expected int, got '7'"]),
        (Order, {"number": True}, ["number: expected int, got True"]),
        (Order, {"number": 7, "colour": 1, "total": "1"}, ["colour: unknown", "total: expected float"]),
        (Order, None, ["must be a Order or a dict"]),
        (Order, [7], ["must be a Order or a dict"]),
        (Payment, {}, ["card: Field required"]),
        (Payment, {"card": "x", "amount": "y"}, ["card: Value error, a card has digits", "amount: Input should be"]),
        (Payment, None, ["input: Input should be"]),
    ],
)
def test_input_that_does_not_fit_its_annotation_makes_no_row_and_lists_what_is_wrong(annotation, given, errors):
    def body(input):
        pass

    body.__annotations__["input"] = annotation
    ordering = workflow(name="ordering")(body)
    with pytest.raises(InvalidInput) as raised:
        ordering.start(given)
    assert len(raised.value.errors) == len(errors)
    for found, expected in zip(raised.value.errors, errors, strict=True):
        assert expected in found
        assert expected in str(raised.value)
    assert not WorkflowRun.objects.exists()


def test_annotation_that_cannot_be_resolved_is_for_type_checkers_only(work):
    def body(input: OnlyForTypeCheckers):  # noqa: F821
        return input

    run = workflow(name="unresolved")(body).start({"a": 1})
    work()
    assert run.result(timeout=0) == {"a": 1}


def test_input_recorded_before_the_annotation_changed_fails_the_run_clearly(work):
    @workflow(name="ordering")
    def before(input):
        pass

    run = before.start({"n": 1})

    del registry._registry["ordering", ""]

    @workflow(name="ordering")
    def after(input: Order):
        pass

    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == "django_steps.errors.InvalidInput"
    assert "number: missing" in run.error["message"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "given, path",
    [
        (threading.Lock(), "input: <class"),
        ({"user": [{"avatar": object()}]}, 'input["user"][0]["avatar"]: <class'),
        (lambda: 1, "input: <class"),
    ],
)
def test_input_that_cannot_be_recorded_makes_no_row_and_names_the_path(echo, given, path):
    with pytest.raises(InvalidInput) as raised:
        echo.start(given)
    assert path in str(raised.value)
    assert not WorkflowRun.objects.exists()


@pytest.mark.django_db
@override_settings(DJANGO_STEPS={"MAX_VALUE_BYTES": 2000})
def test_input_over_the_limit_makes_no_row(echo):
    with pytest.raises(ValueTooLarge, match="reference"):
        echo.start("x" * 3000)
    assert not WorkflowRun.objects.exists()


@pytest.mark.django_db
def test_input_is_encoded_at_once(echo):
    items = [1]
    run = echo.start(items)
    items.append(2)
    assert run.input == [1]


def test_model_instance_as_input_is_a_reference(work, echo):
    person = Person.objects.create(name="Ann")

    @workflow
    def naming(input):
        return input.name

    run = naming.start(person)
    Person.objects.update(name="Anna")
    work()
    assert run.result(timeout=0) == "Anna"


# -- Options -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_workflows_defaults_hold_unless_given():
    @workflow(queue="reports", priority=7)
    def nightly():
        pass

    run = nightly.start()
    assert (run.queue, run.priority) == ("reports", 7)
    run = nightly.start(queue="bulk", priority=-100)
    assert (run.queue, run.priority) == ("bulk", -100)
    assert nightly.start(priority=0).priority == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    "options, error",
    [
        ({"delay": "-5s"}, ValueError),
        ({"delay": -1}, ValueError),
        ({"delay": timedelta(seconds=-1)}, ValueError),
        ({"delay": "soon"}, ValueError),
        ({"delay": "10m", "start_at": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError),
        ({"start_at": datetime(2030, 1, 1)}, ValueError),
        ({"start_at": "2030-01-01"}, TypeError),
        ({"start_at": 7}, TypeError),
        ({"priority": 101}, ValueError),
        ({"priority": True}, TypeError),
        ({"priority": "high"}, TypeError),
        ({"queue": ""}, InvalidName),
        ({"queue": "bulk "}, InvalidName),
        ({"queue": 7}, InvalidName),
        ({"key": ""}, InvalidName),
        ({"key": " k"}, InvalidName),
        ({"key": "k\n"}, InvalidName),
        ({"key": "x" * 256}, InvalidName),
        ({"key": 7}, InvalidName),
        ({"unknown": 1}, TypeError),
    ],
    ids=repr,
)
def test_wrong_option_makes_no_row(echo, options, error):
    with pytest.raises(error):
        echo.start({}, **options)
    if "key" not in options:
        with pytest.raises(error):
            echo.start_many([{}], **options)
    assert not WorkflowRun.objects.exists()


@pytest.mark.django_db
def test_naive_datetime_is_what_start_at_takes_where_use_tz_is_off(echo):
    with override_settings(USE_TZ=False), pytest.raises(ValueError, match="naive"):
        echo.start(start_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert not WorkflowRun.objects.exists()


@pytest.mark.parametrize("how", ["delay", "start_at"])
def test_delayed_run_is_not_executed_before_its_time(work, pass_time, echo, how):
    options = {"delay": "1h"} if how == "delay" else {"start_at": datetime.now(UTC) + timedelta(hours=1)}
    run = echo.start("late", **options)
    assert run.wakes_at is not None
    work()
    pass_time("59m")
    work()
    run.refresh_from_db()
    assert run.status == "pending"
    assert run.started_at is None
    pass_time("2m")
    work()
    assert run.result(timeout=0) == "late"


def test_start_at_in_the_past_means_now(work, echo):
    run = echo.start("now", start_at=datetime(2020, 1, 1, tzinfo=UTC))
    work()
    assert run.result(timeout=0) == "now"


def test_larger_priority_goes_first_and_equal_ones_in_the_order_of_their_starts(work):
    order: list[str] = []

    @workflow
    def noting(input):
        order.append(input)

    for name, priority in [("c", 0), ("d", 0), ("a", 100), ("e", -100), ("b", 1)]:
        noting.start(name, priority=priority)
    work(concurrency=1)
    assert order == ["a", "b", "c", "d", "e"]


def test_queues_that_differ_in_case_and_accents_are_different(work, echo):
    runs = {queue: echo.start(queue, queue=queue) for queue in ("bulk", "Bulk", "bülk")}
    work(queues=["Bulk"])
    for run in runs.values():
        run.refresh_from_db()
    assert {queue: run.status for queue, run in runs.items()} == {
        "bulk": "pending",
        "Bulk": "succeeded",
        "bülk": "pending",
    }


# -- Keys --------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_same_key_again_returns_the_first_run_and_starts_nothing(echo, caplog):
    first = echo.start({"a": 1, "b": 2}, key="order-7")
    second = echo.start({"b": 2, "a": 1}, key="order-7")
    assert (first.created, second.created) == (True, False)
    assert first.pk == second.pk
    assert WorkflowRun.objects.count() == 1
    assert caplog.text == ""


@pytest.mark.django_db
def test_different_input_under_the_same_key_is_a_logged_warning(echo, caplog):
    first = echo.start({"a": 1}, key="order-7")
    second = echo.start({"a": 2}, key="order-7")
    assert second.input == {"a": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for part in ("'echo'", "'order-7'", str(first.pk)):
        assert part in caplog.text


def test_key_stays_taken_after_its_run_has_ended(work, echo):
    first = echo.start(1, key="k")
    work()
    again = echo.start(1, key="k")
    assert (again.pk, again.created, again.status) == (first.pk, False, "succeeded")
    assert again.result(timeout=0) == 1
    canceled = echo.start(2, key="canceled")
    canceled.cancel()
    assert echo.start(2, key="canceled").status == "canceled"


@pytest.mark.django_db
def test_without_a_key_there_is_always_a_new_run(echo):
    assert len({echo.start({"same": 1}).pk for _ in range(3)}) == 3


@pytest.mark.django_db
def test_key_belongs_to_its_workflow(echo):
    other = workflow(name="other")(lambda: 1)
    assert echo.start(key="k").created
    assert other.start(key="k").created


@pytest.mark.django_db
def test_keys_that_differ_in_case_accents_or_form_are_different(echo):
    keys = ["key", "Key", "kéy", "ke\u0301y", "key\u00a0x", "key x", "\uff4bey", "ßß", "ssss"]
    assert len({echo.start(key=key).pk for key in keys}) == len(keys)
    assert {echo.start(key=key).created for key in keys} == {False}


@pytest.mark.django_db
def test_restart_does_not_copy_the_key(echo):
    first = echo.start(1, key="k")
    second = first.restart()
    assert second.key is None
    assert second.restart_of == first


@pytest.mark.django_db
def test_key_works_inside_a_transaction_that_goes_on(echo):
    first = echo.start(1, key="k")
    with transaction.atomic():
        assert echo.start(1, key="k").pk == first.pk
        Person.objects.create(name="after")
    assert Person.objects.count() == 1


def test_key_taken_after_the_snapshot_of_a_transaction_gives_that_run(transactional_db, echo):
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":  # the others have no snapshot here
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    try:
        with contextlib.nullcontext() if connection.vendor == "sqlite" else transaction.atomic():
            assert not WorkflowRun.objects.exists()
            first = Background(lambda: echo.start({"n": 1}, key="k", delay="1h")).result()
            again = echo.start({"n": 1}, key="k")
            assert (again.pk, again.created, again._state.db) == (first.pk, False, "default")
            assert (again.input, again.available_at_us > 0, again.phase) == ({"n": 1}, True, first.phase)
            assert again.created_at == first.created_at
            assert not again.get_deferred_fields()
    finally:
        connection.close()  # and its isolation level with it


@pytest.mark.django_db
def test_key_whose_run_is_pruned_between_two_looks_starts_a_new_one(echo, monkeypatch):
    """Another process deletes the run after the INSERT was refused: the race is brought about, not waited for."""
    first = echo.start(1, key="k")
    find = inserts.find_by_key

    def prune_then_find(*arguments: Any) -> Any:
        WorkflowRun.objects.filter(pk=first.pk).delete()
        return find(*arguments)

    monkeypatch.setattr(inserts, "find_by_key", prune_then_find)
    second = echo.start(1, key="k")
    assert second.created
    assert second.pk != first.pk


# They are forked when all is imported, so that they are at the same point when the barrier opens.
RACE = """
import multiprocessing
import django
django.setup()
from tests.app.workflows import three_steps
from django.db import connection

def start(barrier, answers):
    connection.ensure_connection()
    barrier.wait(60)
    run = three_steps.start({"order": 7}, key="race")
    answers.put((run.pk, run.created))

forking = multiprocessing.get_context("fork")
barrier, answers = forking.Barrier(10), forking.Queue()
processes = [forking.Process(target=start, args=(barrier, answers)) for _ in range(10)]
for process in processes:
    process.start()
for process in processes:
    print(*answers.get(timeout=60))
for process in processes:
    process.join()
"""


def test_same_key_from_ten_processes_at_once_is_one_run(transactional_db):
    command = [sys.executable, "-c", RACE]
    done = subprocess.run(
        command, cwd=ROOT, env=process_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    found = [line.split() for line in done.stdout.splitlines()]
    assert len({pk for pk, _ in found}) == 1
    assert sorted(created for _, created in found) == ["False"] * 9 + ["True"]
    assert WorkflowRun.objects.count() == 1


def test_same_keys_from_threads_are_one_run_each(transactional_db, echo):
    barrier = threading.Barrier(8)

    def start_all(_: int) -> list[uuid.UUID]:
        try:
            found = []
            for number in range(10):
                barrier.wait(10)
                found.append(echo.start(number, key=f"k{number}").pk)
            return found
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start_all, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert WorkflowRun.objects.count() == 10


def test_second_starter_waits_for_the_first_ones_transaction(transactional_db, echo):
    """If the first one rolls back, the second run is the one that exists."""
    started, other_is_waiting = threading.Event(), threading.Event()
    found: list[WorkflowRun] = []

    def second() -> None:
        started.wait(10)
        other_is_waiting.set()
        found.append(echo.start(1, key="k"))
        connections.close_all()

    thread = threading.Thread(target=second)
    thread.start()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        first = echo.start(1, key="k")
        started.set()
        other_is_waiting.wait(10)
        raise ZeroDivisionError
    thread.join(10)
    assert found[0].created
    assert found[0].pk != first.pk
    assert WorkflowRun.objects.get() == found[0]


# -- Transactions ------------------------------------------------------------------------------------


def test_run_started_in_a_transaction_that_rolls_back_does_not_exist(work, echo):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        echo.start(1)
        echo.start_many([2, 3])
        echo.start(4, key="k")
        raise ZeroDivisionError
    assert not WorkflowRun.objects.exists()
    assert echo.start(4, key="k").created


def test_run_is_not_seen_by_workers_until_the_commit(work):
    def look() -> bool:
        try:
            if connection.vendor != "sqlite":  # where nobody can claim anything while another one writes
                Worker(until_idle=True, poll_interval=0.05).run()
            return WorkflowRun.objects.exists()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            run = three_steps.start({})
            assert pool.submit(look).result(20) is False
        assert effects.names() == []
        assert pool.submit(WorkflowRun.objects.exists).result(20) is True
        pool.submit(connections.close_all).result(20)
    work()
    assert run.result(timeout=0) == "done"


def test_start_many_starts_all(work, echo):
    runs = echo.start_many(({"n": n} for n in range(1200)), priority=3, queue="bulk")
    assert [run.input["n"] for run in runs] == list(range(1200))
    assert WorkflowRun.objects.filter(priority=3, queue="bulk").count() == 1200
    assert echo.start_many([]) == []
    WorkflowRun.objects.exclude(pk__in=[run.pk for run in runs[:3]]).delete()
    work()
    assert [run.result(timeout=0)["n"] for run in runs[:3]] == [0, 1, 2]


def test_start_many_with_keys_starts_what_no_run_has_the_key_of(work, echo):
    first = echo.start(1, key="n1")
    runs = echo.start_many([1, 2, 3, 2], key=lambda n: f"n{n}", queue="bulk")
    assert [run.created for run in runs] == [False, True, True, False]
    assert (runs[0].pk, runs[1].pk) == (first.pk, runs[3].pk)
    assert [run.key for run in runs] == ["n1", "n2", "n3", "n2"]
    assert WorkflowRun.objects.count() == 3
    work()
    assert [run.result(timeout=0) for run in runs] == [1, 2, 3, 2]
    again = echo.start_many(range(1200), key=str)
    assert len(again) == 1200 and all(run.created for run in again)
    assert not any(run.created for run in echo.start_many(range(1200), key=str))


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["a", lambda n: n, lambda n: ""], ids=["text", "no text", "empty"])
def test_start_many_refuses_what_makes_no_keys(echo, key):
    with pytest.raises((TypeError, InvalidName)):
        echo.start_many([1, 2], key=key)
    assert not WorkflowRun.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("one", [{"a": 1}, {}, "text", b"bytes"], ids=repr)
def test_start_many_refuses_one_input(echo, one):
    with pytest.raises(TypeError, match="takes an iterable of inputs, got one "):
        echo.start_many(one)
    assert not WorkflowRun.objects.exists()


@pytest.mark.django_db
def test_start_many_refuses_one_model(echo):
    @workflow
    def numbering(input: Numbered):
        return input.number

    with pytest.raises(TypeError, match="got one Numbered"):
        numbering.start_many(Numbered(number=1))
    assert len(numbering.start_many([Numbered(number=1)])) == 1


@pytest.mark.django_db
def test_start_many_with_one_bad_input_starts_none_and_says_which(echo):
    with pytest.raises(InvalidInput) as raised:
        echo.start_many([1, 2, {"bad": object()}])
    assert str(raised.value).startswith('Input 2: input["bad"]')
    assert not WorkflowRun.objects.exists()


@pytest.mark.django_db
def test_start_many_that_the_database_refuses_starts_none(echo, monkeypatch):
    first = echo.start(0)
    ids = iter([uuid.uuid4(), first.pk])
    monkeypatch.setattr(inserts.NewRun, "__init__", _with_ids(inserts.NewRun.__init__, ids))
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"), transaction.atomic():
        echo.start_many([1, 2])
    assert WorkflowRun.objects.count() == 1


def _with_ids(init: Any, ids: Any) -> Any:
    return lambda self, **known: init(self, **known, id=next(ids))


def test_start_many_can_be_delayed(work, pass_time, echo):
    runs = echo.start_many([1, 2], delay="1h")
    work()
    assert {run.status for run in WorkflowRun.objects.all()} == {"pending"}
    pass_time("61m")
    work()
    assert [run.result(timeout=0) for run in runs] == [1, 2]


# -- result() ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_result_in_a_transaction_raises_at_once(echo):
    with transaction.atomic():
        run = echo.start(1)
        with pytest.raises(ResultUnavailable, match="commit"):
            run.result(timeout=30)


def test_result_in_a_body_raises_at_once(work, echo):
    other = echo.start(1, queue="nobody")

    @workflow
    def waiting():
        other.result(timeout=30)

    @workflow
    def waiting_in_a_step(step):
        step.define("wait", lambda: other.result(timeout=30)).run()

    runs = [waiting.start(), waiting_in_a_step.start()]
    work(queues=["default"])
    for run in runs:
        run.refresh_from_db()
        assert run.error["type"] == "django_steps.errors.ResultUnavailable"
        assert "in a body or a step" in run.error["message"]


def test_result_times_out_with_the_status_in_the_message(transactional_db, echo):
    run = echo.start(1)
    with pytest.raises(TimeoutError, match="pending"):
        run.result(timeout=0.01)


def test_result_of_a_canceled_run_raises(transactional_db, echo):
    run = echo.start(1)
    run.cancel()
    with pytest.raises(RunCanceled, match=str(run.pk)):
        run.result(timeout=0)


def test_waiting_for_a_result_leaves_the_database_to_other_async_code(transactional_db, echo):
    async def both() -> None:
        run = await echo.astart(1)
        waiting = asyncio.create_task(run.aresult(timeout=10))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        other = await WorkflowRun.objects.aget(pk=run.pk)
        await other.acancel()
        assert time.monotonic() - began < 5
        with pytest.raises(RunCanceled):
            await waiting

    async_to_sync(both)()


def test_async_result_times_out_and_refuses_where_result_does(transactional_db, echo):
    run = echo.start(1)
    with pytest.raises(TimeoutError, match="pending"):
        async_to_sync(run.aresult)(timeout=0.01)
    with transaction.atomic(), pytest.raises(ResultUnavailable, match="commit"):
        async_to_sync(run.aresult)(timeout=30)


def test_result_waits_for_the_end(work, echo):
    run = echo.start("waited for")
    with ThreadPoolExecutor(1) as pool:

        def wait() -> Any:
            try:
                return run.result(timeout=20)
            finally:
                connections.close_all()

        future = pool.submit(wait)
        work()
        assert future.result(20) == "waited for"


# -- Starting from a body ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["start", "start_many", "restart"])
def test_start_in_a_body_outside_a_step_raises_and_starts_nothing(work, echo, verb):
    first = echo.start(1, queue="nobody")

    @workflow
    def starting():
        {"start": lambda: echo.start(1), "start_many": lambda: echo.start_many([1]), "restart": first.restart}[verb]()

    run = starting.start()
    work(queues=["default"])
    run.refresh_from_db()
    assert run.error["type"] == "django_steps.errors.StartOutsideStep"
    assert "Wrap it in a step" in run.error["message"]
    assert WorkflowRun.objects.count() == 2


def test_start_in_a_step_starts_one_run(work, pass_time, echo):
    @workflow
    def parent(step):
        pk = step.define("start_child", lambda: str(echo.start("child").pk)).run()
        step.sleep("pause", "1h")
        return pk

    run = parent.start()
    work()
    pass_time("2h")
    work()
    child = WorkflowRun.objects.get(pk=run.result(timeout=0))
    assert child.result(timeout=0) == "child"
    assert WorkflowRun.objects.count() == 2


def test_run_started_in_an_atomic_step_exists_only_if_the_step_is_recorded(work, echo):
    @workflow
    def parent(step):
        def start_child():
            echo.start("child")
            raise OSError

        step.define("start_child", start_child, atomic=True).run()

    parent.start()
    work()
    assert not WorkflowRun.objects.filter(workflow="echo").exists()


def test_workflow_called_as_a_function_in_a_body_is_no_start(work, echo):
    @workflow
    def calling():
        with pytest.raises(StartOutsideStep):
            echo.start(1)
        return echo(2)

    run = calling.start()
    work()
    assert run.result(timeout=0) == 2


# -- Without time zones ------------------------------------------------------------------------------

WITHOUT_TIME_ZONES = """
import django
django.setup()
from datetime import UTC, datetime, timedelta
from django.utils import timezone
from django_steps import workflow
from django_steps.worker import Worker

@workflow
def echo(input, step):
    step.define("value", lambda: timezone.now()).run()
    step.sleep_until("soon", datetime.now() + timedelta(seconds=0.3))
    return input

@workflow
def overnight(step):
    step.sleep_until("late", datetime.now() + timedelta(hours=1))

run = echo.start("now")
soon = echo.start("soon", start_at=datetime.now() + timedelta(seconds=0.3))
late = echo.start("late", start_at=datetime.now() + timedelta(hours=1))
delayed = echo.start("delayed", delay="1h")
asleep = overnight.start()
Worker(until_idle=True, poll_interval=0.05).run()
assert run.result(timeout=0) == "now"
assert soon.result(timeout=0) == "soon"
for other in (run, soon, late, delayed, asleep):
    other.refresh_from_db()
assert (late.status, delayed.status, asleep.status) == ("pending", "pending", "sleeping")
now = datetime.now()
for moment in (run.created_at, run.started_at, run.finished_at, run.steps.first().started_at):
    assert moment.tzinfo is None
    assert abs(moment - now) < timedelta(minutes=1), (moment, now)
for moment in (late.wakes_at, delayed.wakes_at, asleep.wakes_at):
    assert abs(moment - now - timedelta(hours=1)) < timedelta(minutes=1), (moment, now)
for moment in (datetime(2030, 1, 1, tzinfo=UTC),):
    try:
        echo.start(start_at=moment)
    except ValueError as error:
        print(error)
"""


def test_naive_local_times_hold_where_use_tz_is_off(transactional_db):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TIME_ZONES],
        cwd=ROOT,
        env={**process_environment(), "USE_TZ": "0", "TIME_ZONE": "America/New_York"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "naive datetime where USE_TZ is off" in done.stdout


def test_a_priority_may_be_an_enums_member(transactional_db):
    class Priority(IntEnum):
        HIGH = 7

    runs = [tiny.start({}, priority=Priority.HIGH), *tiny.start_many([{}], priority=Priority.HIGH)]
    assert [type(run.priority) for run in runs] == [int, int]
    assert list(WorkflowRun.objects.values_list("priority", flat=True)) == [7, 7]


class Colour(Enum):
    RED = "red"


@dataclass
class Priced:
    amount: Decimal
    day: date | None = None
    colour: Colour = Colour.RED
    id: UUID | None = None
    label: str | Decimal = ""


@pytest.mark.parametrize(
    "given, made",
    [
        ({"amount": "80.00"}, Priced(Decimal("80.00"))),
        ({"amount": 80, "day": "2026-11-22"}, Priced(Decimal(80), date(2026, 11, 22))),
        ({"amount": "1", "colour": "red", "id": str(UUID(int=7))}, Priced(Decimal(1), None, Colour.RED, UUID(int=7))),
        ({"amount": "1", "label": "5"}, Priced(Decimal(1), label="5")),
    ],
    ids=str,
)
def test_field_that_json_has_no_form_for_is_made_of_its_text(given, made):
    @workflow
    def paying(input: Priced):
        pass

    assert paying.to_input(given) == made


@pytest.mark.parametrize("given", [{"amount": "much"}, {"amount": True}, {"amount": 1.5}])
def test_text_that_stands_for_no_value_of_the_field_is_refused(given):
    @workflow
    def paying(input: Priced):
        pass

    with pytest.raises(InvalidInput, match="expected Decimal"):
        paying.to_input(given)
