"""`AsyncFakeStep`: an `async def` body called as the function that it is, without a database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from django.test import SimpleTestCase

from django_steps import (
    UNFINISHED,
    AsyncStep,
    DuplicateStepName,
    EventTimedOut,
    GroupFailed,
    NestedStep,
    PollTimedOut,
    Step,
    StepNotRun,
    current_step,
    workflow,
)
from django_steps.testing import AsyncFakeStep, FakeStep, UnansweredWait, UnusedStub


async def ship(number):
    await asyncio.sleep(0)
    return f"parcel {number}"


async def handle(item, step, run, logger):
    logger.info("handling, in a run that is %s", run)
    await step.sleep("nap", "1d")
    inner = await step.map("inner", abs, [-item])
    return await step.gather(step.define("a", abs).bind(item), step.define("b", ship).bind(inner[0]))


@workflow
async def kit_faked_async(input, step: AsyncStep):
    charge = await step.define("charge", lambda amount, *, currency: f"{amount} {currency}").run(5, currency="EUR")
    for _ in range(2):
        await step.sleep("pause", "30d")
    await step.sleep_until("midnight", datetime(2030, 1, 1, tzinfo=UTC))

    @step.define("send")
    async def send():
        await asyncio.sleep(0)
        return current_step().name

    pair = await asyncio.gather(send.run(), step.define("ship", ship).run(1))
    return [charge, *pair]


class AsyncFakeStepTests(SimpleTestCase):
    async def test_waits_are_answered_by_the_names_of_their_events(self):
        step = AsyncFakeStep(events={"first": 1, "second": [2]})
        pair = await asyncio.gather(step.wait_for_event("second", timeout="1d"), step.wait_for_event("first"))
        self.assertEqual(pair, [2, 1])
        self.assertEqual((await step.wait_for_any_event("any", ["third"], timeout="1d", default=None)), None)
        with self.assertRaises(EventTimedOut):
            await step.wait_for_event("third", timeout=0)
        with self.assertRaisesMessage(UnansweredWait, "Wait 'third#2' is for event 'third'"):
            await step.wait_for_event("third")
        self.assertEqual(step.names, ["second", "first", "any", "third", "third#2"])
        step.assert_all_run()

    async def test_functions_are_called_and_everything_is_noted(self):
        step = AsyncFakeStep()
        self.assertEqual(await kit_faked_async(input={}, step=step), ["5 EUR", "send", "parcel 1"])
        self.assertEqual(step.names, ["charge", "pause", "pause#2", "midnight", "send", "ship"])
        self.assertEqual(step.calls[0], ("charge", (5,), {"currency": "EUR"}))
        self.assertEqual(step.calls[1:], [("send", (), {}), ("ship", (1,), {})])
        self.assertEqual(step.sleeps[0], ("pause", timedelta(days=30), None))
        self.assertEqual(step.sleeps[2], ("midnight", None, datetime(2030, 1, 1, tzinfo=UTC)))
        step.assert_all_run()

    async def test_stubs_take_the_place_of_functions(self):
        async def later(number):
            return 7

        step = AsyncFakeStep(stubs={"charge": "stubbed", "send": lambda: 6, "ship": later})
        self.assertEqual(await kit_faked_async(input={}, step=step), ["stubbed", 6, 7])
        step.assert_all_run()
        with self.assertRaises(OSError):
            await kit_faked_async(input={}, step=AsyncFakeStep(stubs={"charge": OSError("no network")}))
        step = AsyncFakeStep(stubs={"chrage": 1})
        await kit_faked_async(input={}, step=step)
        with self.assertRaisesMessage(UnusedStub, "Did you mean 'charge'?"):
            step.assert_all_run()

    async def test_groups_are_awaited_one_by_one_and_noted(self):
        step = AsyncFakeStep()
        self.assertEqual(await step.map("m", handle, [1, 2]), [(1, "parcel 1"), (2, "parcel 2")])
        self.assertEqual(await step.gather(), ())
        self.assertEqual(await step.branch("c", handle).run(3), (3, "parcel 3"))
        inside = ["", "/nap", "/inner", "/inner#{}", "/a", "/b"]
        self.assertEqual(
            step.names,
            [
                "m",
                *(f"m#{item}{name.format(-item)}" for item in (1, 2) for name in inside),
                *(f"c#{name.format(-3)}" for name in inside),
            ],
        )
        step.assert_all_run()

    async def test_what_may_fail_stands_in_the_list(self):
        step = AsyncFakeStep(stubs={"send#2": OSError("no truck")})
        with self.assertRaises(GroupFailed) as caught:
            await step.map("send", ship, [1, 2, 3])
        self.assertEqual((list(caught.exception.failures), caught.exception.results), (["2"], {"1": "parcel 1"}))
        found = await step.map("again", ship, [1, 2], min_successes=1)
        self.assertEqual(found, ["parcel 1", UNFINISHED])

    async def test_polls_check_until_they_find_something(self):
        answers = iter([None, None, "found"])

        async def look():
            return next(answers)

        step = AsyncFakeStep(stubs={"never": None})
        self.assertEqual(await step.poll("look", look, every="1h").run(), "found")
        with self.assertRaises(PollTimedOut) as caught:
            await step.poll("never", look, every="10m", timeout="25m").run()
        self.assertEqual(caught.exception.checks, 4)

    async def test_branches_side_by_side_have_each_their_own_step(self):
        turn = asyncio.Event()

        async def first(step):
            await turn.wait()
            return await step.define("x", ship).run(1)

        async def second(step):
            found = await step.define("x", ship).run(2)
            turn.set()
            return found

        step = AsyncFakeStep()
        found = await asyncio.gather(
            step.branch("first", first).run(), step.branch("second", second).run(), step.define("y", ship).run(3)
        )
        self.assertEqual(found, ["parcel 1", "parcel 2", "parcel 3"])
        self.assertEqual(step.names, ["first#", "second#", "second#/x", "y", "first#/x"])

    async def test_the_step_of_the_body_is_refused_in_a_branch_and_in_a_step(self):
        step = AsyncFakeStep()
        outer = step

        async def nesting(step):
            await outer.define("x", ship).run(1)

        with self.assertRaisesMessage(NestedStep, "Give the branch's function a parameter named step"):
            await step.branch("b", nesting).run()
        with self.assertRaises(NestedStep):
            await step.define("outer", lambda: step.define("inner", ship)).run()
        self.assertEqual(await step.define("after", ship).run(1), "parcel 1")

    async def test_a_step_of_a_branch_that_has_ended_is_refused(self):
        async def leak(step):
            return step

        inner = await AsyncFakeStep().branch("b", leak).run()
        with self.assertRaises(NestedStep):
            inner.define("x", ship)

    async def test_mistakes_are_told(self):
        step = AsyncFakeStep()
        call = step.define("once", ship)
        await call.run(1)
        with self.assertRaises(DuplicateStepName):
            await call.run(1)
        step.define("forgotten", ship)
        with self.assertRaisesMessage(StepNotRun, "'forgotten'"):
            step.assert_all_run()


class FakeStepTests(SimpleTestCase):
    def test_it_shows_no_trace_of_async_code_in_a_plain_body(self):
        def fail():
            raise OSError("no network")

        step = FakeStep()
        with self.assertRaises(OSError) as caught:
            step.define("a", fail).run()
        self.assertIsNone(caught.exception.__context__)
        self.assertIsInstance(step, Step)
        self.assertNotIsInstance(step, AsyncStep)
