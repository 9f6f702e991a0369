"""Runs that a body invokes, starts or continues as, with `FakeStep` and `AsyncFakeStep`: nothing is started."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from django.test import SimpleTestCase

from django_steps import (
    AsyncStep,
    ChildTimedOut,
    DuplicateStepName,
    GroupFailed,
    InvalidInput,
    InvalidState,
    RunCanceled,
    RunFailed,
    StepNotRun,
    workflow,
)
from django_steps.testing import AsyncFakeStep, FakeStep, UnansweredWait, UnusedStub


class Broken(Exception):
    """Something of the user's own."""


@dataclass
class Order:
    number: int


@workflow
def fake_receipt(input: Order, step) -> str:
    step.sleep("dry", "1h")
    return step.define("print", lambda: f"receipt {input.number}").run()


@workflow
def fake_nothing(step) -> int:
    return 5


@workflow
async def fake_async_page(input, step: AsyncStep):
    await step.sleep("rest", "1h")
    return (await step.define("fetch", lambda: input).run()).upper()


class FakeChildrenTests(SimpleTestCase):
    def test_body_of_what_is_invoked_is_called_with_a_step_of_its_own(self):
        step = FakeStep()
        self.assertEqual(step.invoke("receipt", fake_receipt, timeout="1h").run({"number": 7}), "receipt 7")
        self.assertEqual(step.invoke("nothing", fake_nothing).run(), 5)
        self.assertEqual(step.invoke("page", fake_async_page).run("a"), "A")
        self.assertEqual(step.names, ["receipt", "nothing", "page"])
        self.assertEqual(step.calls, [("receipt", (Order(7),), {}), ("nothing", (), {}), ("page", ("a",), {})])
        self.assertEqual(step.sleeps, [])
        step.assert_all_run()

    def test_stub_takes_the_place_of_the_body(self):
        stubs = {"receipt": lambda order: order.number, "nothing": 6, "print": "stubbed"}
        step = FakeStep(stubs=stubs)
        self.assertEqual(step.invoke("receipt", fake_receipt).run(Order(7)), 7)
        self.assertEqual(step.invoke("nothing", fake_nothing).run(), 6)
        self.assertEqual(step.invoke("other", fake_receipt).run(Order(7)), "stubbed")
        step.assert_all_run()
        step = FakeStep(stubs={"reciept": 1})
        step.invoke("receipt", fake_receipt).run(Order(7))
        with self.assertRaisesMessage(UnusedStub, "Did you mean 'receipt'?"):
            step.assert_all_run()

    def test_failure_is_that_of_a_run(self):
        for stubs in ({"print": Broken("no paper")}, {"receipt": Broken("no paper")}):
            with self.assertRaises(RunFailed) as raised:
                FakeStep(stubs=stubs).invoke("receipt", fake_receipt).run(Order(7))
            self.assertIsInstance(raised.exception.__cause__, Broken)
            self.assertIsInstance(raised.exception.run_id, UUID)
            self.assertEqual(raised.exception.error["message"], "no paper")
        for error in (RunCanceled("by hand"), ChildTimedOut("receipt", None)):
            with self.assertRaises(type(error)):
                FakeStep(stubs={"receipt": error}).invoke("receipt", fake_receipt).run(Order(7))

    def test_errors_without_arguments_are_made_of_the_step(self):
        for error in (RunCanceled, ChildTimedOut):
            with self.assertRaisesMessage(error, "receipt"):
                FakeStep(stubs={"receipt": error}).invoke("receipt", fake_receipt).run(Order(7))

    def test_mistakes_and_what_the_kit_says_go_through(self):
        @workflow(name="fake_mistaken")
        def child(step):
            step.define("same", lambda: 1).run()
            step.define("same", lambda: 1).run()

        @workflow(name="fake_forgetful")
        def forgetful(step):
            step.define("forgotten", lambda: 1)

        @workflow(name="fake_asking")
        def asking(step):
            return step.wait_for_event("approval")

        for workflow_, error in ((child, DuplicateStepName), (forgetful, StepNotRun), (asking, UnansweredWait)):
            with self.assertRaises(error):
                FakeStep().invoke("child", workflow_).run()
        with self.assertRaises(UnansweredWait):
            FakeStep().map("children", asking_with_input, ["a"])
        step = FakeStep(events={"approval": 1})
        self.assertEqual(step.invoke("child", asking).run(), 1)
        self.assertEqual(step.wait_for_event("approval"), 1)  # each run gets what is given
        step.assert_all_run()

    def test_input_is_checked_as_ever(self):
        for call in (
            lambda step: step.invoke("receipt", fake_receipt).run({"numbre": 7}),
            lambda step: step.start("receipt", fake_receipt).run({"numbre": 7}),
        ):
            with self.assertRaises(InvalidInput):
                call(FakeStep())
        with self.assertRaises(TypeError):
            FakeStep().invoke("receipt", len)

    def test_children_are_gathered_and_mapped(self):
        step = FakeStep(stubs={"page#c": Broken("no answer")})
        pair = step.gather(step.invoke("receipt", fake_receipt).bind(Order(7)), step.define("other", lambda: 1).bind())
        self.assertEqual(pair, ("receipt 7", 1))
        self.assertEqual(step.map("pages", fake_async_page, ["a", "b"], concurrency=1, timeout="1h"), ["A", "B"])
        first, second = step.map("page", fake_async_page, ["a", "c"], max_failures=1)
        self.assertEqual((first, type(second)), ("A", RunFailed))
        self.assertEqual(step.names[2:], ["pages", "pages#a", "pages#b", "page", "page#a", "page#c"])
        with self.assertRaises(GroupFailed) as raised:
            FakeStep(stubs={"page": Broken("no answer")}).map("page", fake_async_page, ["a"])
        self.assertIsInstance(raised.exception.failures["a"].__cause__, Broken)

    def test_child_may_be_invoked_in_a_branch(self):
        def sell(number, step):
            return step.invoke("receipt", fake_receipt).run(Order(number))

        step = FakeStep()
        self.assertEqual(step.map("sell", sell, [1, 2]), ["receipt 1", "receipt 2"])
        self.assertEqual(step.names[:3], ["sell", "sell#1", "sell#1/receipt"])

    def test_started_run_has_an_id(self):
        step = FakeStep(stubs={"second": "an id"})
        self.assertIsInstance(step.start("first", fake_receipt, key="k", delay="1h").run(Order(7)), UUID)
        self.assertEqual(step.start("second", fake_nothing).run(), "an id")
        self.assertEqual(step.names, ["first", "second"])
        step.assert_all_run()

    def test_continuation_has_the_input(self):
        @workflow(name="fake_entity")
        def entity(input, step):
            return step.continue_as_new({"cursor": input["cursor"] + 1})

        self.assertEqual(entity(input={"cursor": 1}, step=FakeStep()).input, {"cursor": 2})

        def branch(step):
            return step.continue_as_new(1)

        with self.assertRaises(InvalidState):
            FakeStep().branch("branch", branch).run()

    async def test_async_bodies_have_the_same(self):
        step = AsyncFakeStep(stubs={"third": lambda input: input * 2, "late": ChildTimedOut})
        first, second = await asyncio.gather(
            step.invoke("first", fake_receipt).run(Order(7)), step.invoke("second", fake_async_page).run("a")
        )
        self.assertEqual((first, second), ("receipt 7", "A"))
        self.assertEqual(await step.invoke("third", fake_async_page).run("b"), "bb")
        self.assertEqual(await step.map("pages", fake_async_page, ["a", "b"]), ["A", "B"])
        self.assertIsInstance(await step.start("started", fake_nothing).run(), UUID)
        with self.assertRaises(ChildTimedOut):
            await step.invoke("late", fake_nothing).run()
        self.assertEqual(step.continue_as_new(3).input, 3)
        self.assertEqual(await step.invoke("mixed", fake_mixed).run("a"), ["A", "b"])
        self.assertEqual(step.names[:3], ["first", "second", "third"])
        step.assert_all_run()


@workflow
def fake_mixed(input, step):
    async def ask():
        return "b"

    return [step.invoke("page", fake_async_page).run(input), step.define("ask", ask).run()]


@workflow
def asking_with_input(input, step):
    return step.wait_for_event("approval")
