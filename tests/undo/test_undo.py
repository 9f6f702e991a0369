"""`undo=` of a step, and `step.undo()`: what was done is taken back, the newest first, and each undo is a record."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from django_steps import GroupFailed, NonRetryableError, RetryPolicy, current_step
from django_steps.errors import FailureWasHandled
from django_steps.models import StepRecord
from tests.app.models import Person
from tests.changing import deploy
from tests.undo.journal import Journal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal() -> Journal:
    return Journal()


def undos(run: Any) -> list[str]:
    return [record.name for record in StepRecord.objects.filter(run=run, kind="undo").order_by("position")]


def in_body(kind: str, body: Any) -> Any:
    """A body as a plain one, or as the async one that does the same."""
    if kind == "plain":
        return body

    async def wrapped(step: Any) -> Any:
        return await body(step)

    return wrapped


KINDS = pytest.mark.parametrize("kind", ["plain", "async"])


def trip(kind: str, journal: Journal, after: Any = None, **options: Any) -> Any:
    """Two steps that can be undone, one that can't, and then `step.undo()`."""
    if kind == "plain":

        def body(step: Any) -> Any:
            step.define("flight", journal.book, undo=journal.cancel, **options).run("monday")
            step.define("mail", journal.send).run()
            step.define("hotel", journal.book, undo=journal.cancel_day, **options).run("tuesday", nights=2)
            if after is not None:
                after(step)
            step.undo(reason="changed plans")
            return "undone"

        return body

    async def async_body(step: Any) -> Any:
        await step.define("flight", journal.abook, undo=journal.acancel, **options).run("monday")
        await step.define("mail", journal.send).run()
        await step.define("hotel", journal.abook, undo=journal.acancel_day, **options).run("tuesday", nights=2)
        if after is not None:
            await after(step)
        await step.undo(reason="changed plans")
        return "undone"

    return async_body


@KINDS
def test_undos_are_executed_newest_first_and_recorded(work, journal, kind):
    run = deploy(f"trip_{kind}", trip(kind, journal)).start()
    work()
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", "undone")
    assert journal == ["book monday", "send", "book tuesday", "cancel tuesday's nights=2", "cancel monday's"]
    assert undos(run) == ["hotel#undo", "flight#undo"]
    record = run.steps.get(name="hotel#undo")
    assert (record.status, record.branch) == ("succeeded", "")


@KINDS
def test_undos_of_replayed_steps_execute_too_and_once(work, pass_time, journal, kind):
    def after(step):
        return step.sleep("night", "1h")

    run = deploy(f"trip_overnight_{kind}", trip(kind, journal, after)).start()
    work()
    assert undos(run) == []
    pass_time("61m")
    work()
    assert undos(run) == ["hotel#undo", "flight#undo"]
    assert journal.count("cancel monday's") == 1


def test_undo_that_was_recorded_is_not_executed_again(work, pass_time, journal):
    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.undo()
        step.sleep("night", "1h")
        step.define("hotel", journal.book, undo=journal.cancel).run("tuesday")
        step.undo()

    run = deploy("trip_twice", body).start()
    work()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert journal == ["book monday", "cancel monday's", "book tuesday", "cancel tuesday's"]


def test_failed_step_is_not_undone(work, journal):
    def fail():
        raise OSError("no answer")

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        try:
            step.define("hotel", fail, undo=journal.cancel).run()
        except OSError:
            step.undo()
            raise

    run = deploy("trip_failing", body).start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert undos(run) == ["flight#undo"]
    with pytest.raises(FailureWasHandled) as refused:
        run.retry()
    assert refused.value.later == ["flight#undo"]


@KINDS
def test_all_undos_are_tried_and_failures_come_as_one_group(work, journal, kind):
    journal.fails_to_cancel = {"tuesday"}
    run = deploy(f"trip_stuck_{kind}", trip(kind, journal)).start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == "django_steps.errors.GroupFailed"
    assert "1 of 2 that were undone failed" in run.error["message"]
    assert run.failed_step == "hotel#undo"
    assert {record.name: record.status for record in run.steps.filter(kind="undo")} == {
        "hotel#undo": "failed",
        "flight#undo": "succeeded",
    }
    # A retry resets the undos that have failed, and nothing else.
    journal.fails_to_cancel = set()
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert journal.count("cancel monday's") == 1
    assert journal.count("cancel tuesday's nights=2") == 1
    assert journal.count("book monday") == 1


def test_body_gets_failures_by_the_names_of_steps(work, journal):
    journal.fails_to_cancel = {"tuesday"}
    caught = []

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.define("hotel", journal.book, undo=journal.cancel).run("tuesday")
        try:
            step.undo()
        except GroupFailed as group:
            caught.append(group)
        step.sleep("moment", "1ms")

    deploy("trip_caught", body).start()
    work()
    assert list(caught[0].failures) == ["hotel"]
    assert dict(caught[0].results) == {"flight": None}


def test_undo_has_the_policy_of_its_step_and_back_offs_suspend(work, pass_time, journal):
    journal.fails_to_cancel = {"monday"}
    policy = RetryPolicy(max_attempts=3, initial_interval="1h", max_interval="1h", jitter=False)

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel, retry=policy).run("monday")
        step.undo()

    run = deploy("trip_backing_off", body).start()
    work()
    run.refresh_from_db()
    record = run.steps.get(name="flight#undo")
    assert (run.status, record.status, record.attempts) == ("sleeping", "retrying", 1)
    journal.fails_to_cancel = set()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert run.steps.get(name="flight#undo").attempts == 2


@KINDS
def test_undo_of_an_atomic_step_commits_with_its_record(work, kind):
    def book():
        Person.objects.create(name="booked")
        return "b-1"

    def cancel(booking):
        Person.objects.create(name=f"canceled {booking}")
        if Person.objects.filter(name="deny").exists():
            raise NonRetryableError("no")

    def body(step):
        step.define("flight", book, undo=cancel, atomic=True).run()
        step.undo()

    async def async_body(step):
        await step.define("flight", book, undo=cancel, atomic=True).run()
        await step.undo()

    denied = Person.objects.create(name="deny")
    run = deploy(f"trip_atomic_{kind}", body if kind == "plain" else async_body).start()
    work()
    assert not Person.objects.filter(name="canceled b-1").exists()
    denied.delete()
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"
    assert Person.objects.filter(name="canceled b-1").count() == 1


def test_undo_has_the_timeout_of_its_step_and_a_name_of_its_own(work):
    seen = []

    def cancel(booking):
        context = current_step()
        seen.append((context.name, context.remaining() is not None))

    def body(step):
        step.define("flight", lambda: 1, undo=cancel, timeout="1m").run()
        step.undo()

    deploy("trip_timed", body).start()
    work()
    assert seen == [("flight#undo", True)]


# -- Branches and groups ------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("night", ["sleeps after", "straight on"])
def test_undo_reaches_into_branches_gathers_and_maps(work, pass_time, journal, kind, night):
    def leg(day, step):
        step.define("train", journal.book, undo=journal.cancel).run(day)

    def body(step):
        step.branch("there", leg).run("1")
        step.gather(
            step.define("seat", journal.book, undo=journal.cancel).bind("2"), step.branch("back", leg).bind("3")
        )
        step.map("rooms", journal.book, ["4", "5"], undo=journal.cancel)
        step.map("legs", leg, ["6"])
        if night == "sleeps after":
            step.sleep("night", "1h")
        step.undo()

    async def async_leg(day, step):
        await step.define("train", journal.abook, undo=journal.acancel).run(day)

    async def async_body(step):
        await step.branch("there", async_leg).run("1")
        await step.gather(
            step.define("seat", journal.abook, undo=journal.acancel).bind("2"),
            step.branch("back", async_leg).bind("3"),
        )
        await step.map("rooms", journal.abook, ["4", "5"], undo=journal.acancel)
        await step.map("legs", async_leg, ["6"])
        if night == "sleeps after":
            await step.sleep("night", "1h")
        await step.undo()

    name = f"trip_of_legs_{kind}_{night[:5]}"
    run = deploy(name, body if kind == "plain" else async_body).start()
    work()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert sorted(undos(run)) == sorted(
        f"{name}#undo" for name in ["there#/train", "seat", "back#/train", "rooms#4", "rooms#5", "legs#6/train"]
    )
    booked = [line.split()[1] for line in journal if line.startswith("book")]
    assert len(booked) == 6
    canceled = [line.split()[1].removesuffix("'s") for line in journal if line.startswith("cancel")]
    assert canceled[0] == "6"
    assert canceled[-1] == "1"
    assert sorted(canceled) == sorted(booked)


def test_undo_in_a_branch_is_of_its_own(work, journal):
    def leg(step):
        step.define("train", journal.book, undo=journal.cancel).run("tuesday")
        step.undo()

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.branch("leg", leg).run()
        step.undo()

    run = deploy("trip_with_a_leg", body).start()
    work()
    assert undos(run) == ["leg#/train#undo", "flight#undo"]
    assert journal == ["book monday", "book tuesday", "cancel tuesday's", "cancel monday's"]
    assert run.steps.get(name="leg#/train#undo").branch == "leg#"


@KINDS
def test_undo_reaches_into_a_branch_that_its_group_has_left(work, pass_time, journal, kind):
    def leg(day, step):
        step.define("train", journal.book, undo=journal.cancel).run(day)
        if day == "late":
            step.sleep("strike", "300d")

    def body(step):
        step.map("legs", leg, ["late", "early"], min_successes=1)
        step.sleep("night", "1h")
        step.undo()

    async def async_leg(day, step):
        await step.define("train", journal.abook, undo=journal.acancel).run(day)
        if day == "late":
            await step.sleep("strike", "300d")

    async def async_body(step):
        await step.map("legs", async_leg, ["late", "early"], min_successes=1)
        await step.sleep("night", "1h")
        await step.undo()

    run = deploy(f"trip_left_{kind}", body if kind == "plain" else async_body).start()
    work()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert sorted(undos(run)) == ["legs#early/train#undo", "legs#late/train#undo"]


def test_branch_that_is_called_once_more_says_nothing_again(work, pass_time, journal, caplog):
    def leg(step, run, logger):
        step.define("train", journal.book, undo=journal.cancel).run("monday")
        run.update_details(stage="leg")
        step.branch("inner", inner).run()
        logger.warning("the leg is booked")

    def inner(step):
        step.define("seat", journal.book, undo=journal.cancel).run("tuesday")

    def body(step, run):
        step.branch("leg", leg).run()
        run.update_details(stage="done")
        step.sleep("night", "1h")
        step.undo()

    run = deploy("trip_quiet", body).start()
    work()
    caplog.clear()
    pass_time("61m")
    work()
    assert "the leg is booked" not in caplog.text
    run.refresh_from_db()
    assert run.details == {"stage": "done"}
    assert undos(run) == ["leg#/inner#/seat#undo", "leg#/train#undo"]


def test_two_tasks_that_undo_at_the_same_time_undo_each_step_once(work, pass_time, journal):
    async def leg(step):
        await step.define("train", journal.abook, undo=journal.acancel).run("tuesday")

    async def give_up(step, name):
        await step.sleep("night", "1h")
        await step.undo()
        await step.define(f"say {name}", journal.send).run()

    async def body(step):
        await step.define("flight", journal.abook, undo=journal.acancel).run("monday")
        await step.branch("leg", leg).run()  # it is over, and called once more to be undone
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(give_up(step, "one"))
            tasks.create_task(give_up(step, "two"))

    run = deploy("trip_undone_by_two", body).start()
    work()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert sorted(undos(run)) == ["flight#undo", "leg#/train#undo"]
    assert sorted(line for line in journal if line.startswith("cancel")) == ["cancel monday's", "cancel tuesday's"]
    assert journal.count("send") == 2


# -- What is checked early -----------------------------------------------------------------------------


def check(options: Any, *args: Any, **kwargs: Any) -> Any:
    from django_steps.testing import FakeStep

    return FakeStep().define("flight", *args, **options)


@pytest.mark.parametrize(
    "undo",
    [lambda: None, 7, lambda booking, day, more: None, functools.partial(lambda: None)],
    ids=["takes nothing", "is no function", "needs more than there is", "partial that takes nothing"],
)
def test_undo_that_fits_neither_way_is_refused_where_it_is_defined(undo):
    with pytest.raises(TypeError, match="undo of step 'flight'"):
        check({"undo": undo}, lambda day: day)


def test_undo_of_the_decorator_form_is_checked_with_the_function():
    definition = check({"undo": lambda booking, day, more: None})
    with pytest.raises(TypeError, match="undo of step 'flight'"):
        definition(lambda day: day)


def test_undo_that_cant_take_the_arguments_is_refused_before_the_step_executes(journal):
    definition = check({"undo": lambda booking, day: None}, lambda *args: journal.append("executed"))
    with pytest.raises(TypeError, match="undo of step 'flight'"):
        definition.run(1, 2)
    assert journal == []


def test_async_undo_of_an_atomic_step_is_refused_in_an_async_body():
    from django_steps.testing import AsyncFakeStep

    async def cancel(booking):
        pass

    with pytest.raises(TypeError, match="undo of step 'flight'"):
        AsyncFakeStep().define("flight", lambda: 1, undo=cancel, atomic=True)


def test_reason_is_logged_once(work, pass_time, journal, caplog):
    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.undo(reason="the hotel is full")
        step.sleep("night", "1h")

    deploy("trip_logged", body).start()
    with caplog.at_level("INFO", "django_steps"):
        work()
        pass_time("61m")
        work()
    assert [record.getMessage() for record in caplog.records if "the hotel is full" in record.getMessage()] != []
    assert caplog.text.count("the hotel is full") == 1
