"""`step.patched()`: runs in flight go the old way where they have come past the line, all others the new one."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from django_steps.errors import DuplicateStepName, InvalidName
from django_steps.models import StepRecord
from django_steps.testing import AsyncFakeStep, FakeStep, run_workflow
from tests.changing import deploy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def make(done: list[str]) -> Any:
    """Execute a step that only notes its name: `make(step, "pack")`."""

    def note(step: Any, name: str) -> Any:
        return step.define(name, lambda: done.append(name)).run()

    return note


@pytest.fixture
def overnight(work: Any, pass_time: Any) -> Any:
    """Start a run, deploy another body while it sleeps, and let it go on: `overnight(old, new)`."""

    def deployed(old: Any, new: Any) -> Any:
        run = deploy("shipping", old).start()
        work()
        deploy("shipping", new)
        pass_time("2h")
        work()
        return run

    return deployed


def patches(run: Any) -> dict[str, bool]:
    return {record.name: record.output for record in StepRecord.objects.filter(run=run, kind="patch")}


def test_new_run_goes_the_new_way_and_says_so_once(work, make, done):
    def body(step):
        for _ in range(3):
            if step.patched("tax"):
                step.sleep("pause", "1ms")
        make(step, "pack")
        step.sleep("night", "1h")
        return step.patched("tax")

    run = deploy("shipping", body).start()
    work()
    assert patches(run) == {"tax": True}
    assert done == ["pack"]


@pytest.mark.parametrize("how", ["sleeps", "has a later step"])
def test_run_that_came_past_goes_the_old_way(overnight, make, done, how):
    def old(step):
        make(step, "pack")
        if how == "has a later step":
            make(step, "label")
        step.sleep("night", "1h")

    def new(step):
        make(step, "pack")
        if step.patched("weigh first"):
            make(step, "weigh")
        if how == "has a later step":
            make(step, "label")
        step.sleep("night", "1h")
        make(step, "send")

    run = overnight(old, new)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert "weigh" not in done
    assert done[-1] == "send"
    assert patches(run) == {"weigh first": False}


def test_run_that_has_not_come_so_far_goes_the_new_way(overnight, make, done):
    def old(step):
        make(step, "pack")
        step.sleep("night", "1h")
        make(step, "send")

    def new(step):
        make(step, "pack")
        step.sleep("night", "1h")
        if step.patched("weigh first"):
            make(step, "weigh")
        make(step, "send")

    run = overnight(old, new)
    assert done == ["pack", "weigh", "send"]
    assert patches(run) == {"weigh first": True}


def test_new_step_before_the_line_does_not_hide_what_was_recorded(overnight, make, done):
    def old(step):
        make(step, "pack")
        make(step, "label")
        step.sleep("night", "1h")

    def new(step):
        make(step, "greet")
        make(step, "pack")
        if step.patched("weigh first"):
            make(step, "weigh")
        make(step, "label")
        step.sleep("night", "1h")

    run = overnight(old, new)
    assert patches(run) == {"weigh first": False}
    assert done == ["pack", "label", "greet"]


def test_answer_stays_whatever_is_recorded_later(work, pass_time, make):
    def body(step):
        answers = [step.patched("tax")]
        for number in range(3):
            step.sleep(f"night {number}", "1h")
            answers.append(step.patched("tax"))
        return answers

    run = deploy("shipping", body).start()
    for _ in range(4):
        work()
        pass_time("2h")
    assert run.result(timeout=0) == [True] * 4


def test_branch_looks_at_its_own_records(overnight, make):
    def old(step):
        step.map("parcel", parcel, ["a", "b"])
        step.sleep("night", "1h")

    def parcel(item, step):
        make(step, "pack")
        if item == "a":
            make(step, "label")
        step.sleep("drying", "1h")

    def new(step):
        step.map("parcel", new_parcel, ["a", "b", "c"])
        if step.patched("after"):
            make(step, "bill")

    def new_parcel(item, step):
        make(step, "pack")
        if item == "b":
            step.sleep("drying", "1h")
        step.patched("weigh first")
        if item == "a":
            make(step, "label")
            step.sleep("drying", "1h")

    run = overnight(old, new)
    assert patches(run) == {
        "parcel#a/weigh first": False,
        "parcel#b/weigh first": True,
        "parcel#c/weigh first": True,
        "after": True,
    }


def test_branch_in_flight_counts_as_recorded_in_the_body(overnight, make):
    """It has no record of its own yet, but its steps have."""

    def invoice(step):
        make(step, "number")
        step.sleep("drying", "1h")

    def old(step):
        step.branch("invoice", invoice).run()

    def new(step):
        step.patched("before")
        step.branch("invoice", invoice).run()

    run = overnight(old, new)
    assert patches(run) == {"before": False}


def test_line_may_be_taken_out_again(work, pass_time, make, caplog):
    def patched(step):
        step.patched("tax")
        make(step, "pack")
        step.sleep("night", "1h")

    def without(step):
        make(step, "pack")
        step.sleep("night", "1h")

    run = deploy("shipping", patched).start()
    work()
    deploy("shipping", without)
    pass_time("2h")
    with caplog.at_level(logging.WARNING, logger="django_steps"):
        work()
    assert run.result(timeout=0) is None
    assert not caplog.records


def test_asked_again_from_there_it_is_the_new_way(work, pass_time, make):
    def old(step):
        make(step, "pack")
        make(step, "label")
        raise LookupError

    def new(step):
        make(step, "pack")
        step.patched("weigh first")
        make(step, "label")
        raise LookupError

    run = deploy("shipping", old).start()
    work()
    deploy("shipping", new)
    run.retry(from_step="label")
    work()
    assert patches(run) == {"weigh first": True}


@pytest.mark.parametrize("asked", ["before", "after"])
def test_name_of_a_step_is_taken(work, make, asked):
    def body(step):
        if asked == "before":
            step.patched("pack")
        make(step, "pack")
        step.patched("pack")

    run = deploy("shipping", body).start()
    work()
    run.refresh_from_db()
    assert run.error["type"] == f"{DuplicateStepName.__module__}.DuplicateStepName"


def test_name_is_checked_where_it_is_typed(work):
    def body(step):
        with pytest.raises(InvalidName, match="name of a patch"):
            step.patched("a#b")

    run = deploy("shipping", body).start()
    work()
    assert run.result(timeout=0) is None


def test_async_body_asks_by_await(work, pass_time):
    async def note(): ...

    async def old(step):
        await step.define("pack", note).run()
        await step.define("label", note).run()
        await step.sleep("night", "1h")

    async def new(step):
        await step.define("pack", note).run()
        answers = list(await asyncio.gather(*(step.patched("weigh") for _ in range(3))))
        await step.define("label", note).run()
        await step.sleep("night", "1h")
        with pytest.raises(TypeError, match="write await before it"):
            bool(answer := step.patched("later"))
        return [*answers, await answer]

    run = deploy("shipping", old).start()
    work()
    other = deploy("shipping", new).start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == [False, False, False, True]
    assert other.result(timeout=0) == [True, True, True, True]


def test_several_tasks_may_ask_at_once(work):
    async def one(step, number):
        return await step.patched("weigh")

    async def body(step):
        return await asyncio.gather(*(one(step, number) for number in range(20)))

    run = deploy("shipping", body).start()
    work()
    assert run.result(timeout=0) == [True] * 20
    assert patches(run) == {"weigh": True}


def test_asking_twice_is_one_record(work):
    def body(step):
        return step.patched("weigh"), step.patched("weigh")

    run = deploy("shipping", body).start()
    work()
    assert run.steps.count() == 1


@pytest.mark.django_db
def test_kit_goes_the_new_way_unless_a_stub_says_otherwise(make):
    def body(step):
        return "new" if step.patched("weigh") else "old"

    shipping = deploy("shipping", body)
    assert run_workflow(shipping).output == "new"
    assert run_workflow(shipping, stubs={"weigh": False}).output == "old"
    assert shipping(step=FakeStep()) == "new"
    assert shipping(step=FakeStep(stubs={"weigh": False})) == "old"


def test_async_fake_step_answers_too():
    async def body(step):
        return await step.patched("weigh")

    assert asyncio.run(deploy("shipping", body)(step=AsyncFakeStep())) is True
