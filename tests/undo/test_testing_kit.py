"""Undos in the testing kit: executed by `run_workflow()`, stubbed by name, called by the fake steps."""

from __future__ import annotations

import asyncio

import pytest

from django_steps import GroupFailed
from django_steps.testing import AsyncFakeStep, FakeStep, UnusedStub, run_workflow
from tests.changing import deploy
from tests.undo.journal import Journal


@pytest.fixture
def journal() -> Journal:
    return Journal()


def tour(journal):
    def ride(day, step):
        step.define("train", journal.book, undo=journal.cancel).run(day)

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel_day).run("monday")
        step.branch("ride", ride).run("tuesday")
        step.map("rooms", journal.book, ["wednesday"], undo=journal.cancel)
        step.undo()

    return body


DONE = [
    "book monday", "book tuesday", "book wednesday", "cancel wednesday's", "cancel tuesday's", "cancel monday's",
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("straight_through", [True, False])
def test_run_workflow_executes_undos(journal, straight_through):
    run = run_workflow(deploy("kit_tour", tour(journal)), straight_through=straight_through)
    assert run.status == "succeeded"
    assert journal == DONE


@pytest.mark.django_db
def test_stub_of_an_undo_is_given_by_its_name(journal):
    undone = []
    stubs = {"flight": "stubbed", "flight#undo": lambda booking, day: undone.append((booking, day)), "rooms#undo": None}
    run_workflow(deploy("kit_tour_stubbed", tour(journal)), stubs=stubs)
    assert undone == [("stubbed", "monday")]
    assert journal == ["book tuesday", "book wednesday", "cancel tuesday's"]


@pytest.mark.django_db
def test_stub_that_is_an_exception_is_the_failure_of_the_undo(journal):
    run = run_workflow(deploy("kit_tour_stuck", tour(journal)), stubs={"ride/train#undo": OSError("no answer")})
    assert (run.status, run.failed_step) == ("failed", "ride/train#undo")
    assert journal == [line for line in DONE if line != "cancel tuesday's"]


def test_fake_step_calls_undos_newest_first(journal):
    step = FakeStep()
    tour(journal)(step)
    assert journal == DONE
    assert step.names[-3:] == ["rooms#wednesday#undo", "ride#/train#undo", "flight#undo"]
    assert step.calls[-1] == ("flight#undo", ("monday's", "monday"), {})


def test_fake_step_tries_all_undos_and_raises_one_group(journal):
    journal.fails_to_cancel = {"tuesday"}
    with pytest.raises(GroupFailed, match="1 of 3 that were undone failed") as caught:
        tour(journal)(FakeStep())
    assert list(caught.value.failures) == ["ride#/train"]
    assert journal[-1] == "cancel monday's"


def test_fake_step_takes_stubs_of_undos(journal):
    step = FakeStep(stubs={"flight#undo": None, "ride/train#undo": None, "rooms#undo": None})
    tour(journal)(step)
    assert journal == ["book monday", "book tuesday", "book wednesday"]
    with pytest.raises(UnusedStub):
        unused = FakeStep(stubs={"hotel#undo": None})
        tour(journal)(unused)
        unused._performer.check()


def test_undo_in_a_branch_of_a_fake_step_is_of_its_own(journal):
    def ride(step):
        step.define("train", journal.book, undo=journal.cancel).run("tuesday")
        step.undo()

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.branch("ride", ride).run()

    body(FakeStep())
    assert journal == ["book monday", "book tuesday", "cancel tuesday's"]


def test_async_fake_step_awaits_undos(journal):
    async def body(step):
        await step.define("flight", journal.abook, undo=journal.acancel).run("monday")
        await step.define("hotel", journal.abook, undo=journal.cancel).run("tuesday")
        await step.undo()

    asyncio.run(body(AsyncFakeStep()))
    assert journal == ["book monday", "book tuesday", "cancel tuesday's", "cancel monday's"]
