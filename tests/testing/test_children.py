"""Runs that invoke others, in the testing kit: executed by the same call, or stubbed."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from unittest import mock
from uuid import UUID, uuid4

from django.test import TestCase, TransactionTestCase
from django.utils import timezone

from django_steps import AsyncStep, ChildTimedOut, GroupFailed, ResultUnavailable, RunCanceled, RunFailed, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import (
    DoesNotEnd,
    NotRepeatable,
    StateLost,
    UnansweredWait,
    UnusedStub,
    drain,
    run_workflow,
)
from tests.app import effects

BOTH_WAYS = ({}, {"straight_through": True})


class Broken(Exception):
    """Something of the user's own."""


@dataclass
class Order:
    number: int


@workflow
def kit_receipt(input, step):
    step.define("print", lambda: effects.leave("printed")).run()
    step.sleep("dry", "1h")
    return step.define("file", lambda: {"number": input["order"]}).run()


@workflow
def kit_selling(input, step):
    receipt = step.invoke("receipt", kit_receipt).run({"order": input["order"]})
    return step.define("close", lambda: receipt["number"]).run()


@workflow
def kit_page(input, step):
    step.define("fetch", lambda: effects.leave(f"fetched {input}")).run()
    return step.define("parse", lambda: input.upper()).run()


@workflow
def kit_site(input, step):
    return step.map("page", kit_page, input["urls"])


@workflow
def kit_careful(input, step):
    try:
        return step.invoke("receipt", kit_receipt, timeout="2h").run({"order": 1})
    except RunFailed as error:
        return ["failed", type(error.__cause__).__name__, error.error["message"]]
    except RunCanceled as error:
        return ["canceled", str(error.run_id)]
    except ChildTimedOut as error:
        return ["too late", error.step]


@workflow
async def kit_async_receipt(input, step: AsyncStep):
    await step.sleep("dry", "1h")
    return await step.define("file", lambda: input).run()


class InvokedRunsTests(TestCase):
    def test_child_is_executed_and_the_parent_goes_on(self):
        for options in BOTH_WAYS:
            run = run_workflow(kit_selling, {"order": 7}, **options)
            self.assertEqual(run.result(), 7)
            child = run.children.get()
            self.assertEqual((child.status, child.parent_step), ("succeeded", "receipt"))
            self.assertGreaterEqual(run.finished_at - run.started_at, timedelta(hours=1))
            self.assertEqual(list(child.steps.values_list("name", flat=True)), ["print", "dry", "file"])

    def test_only_what_is_invoked_is_executed_before_time_passes(self):
        other = kit_page.start("other")

        @workflow(name="kit_invokes_quick")
        def body(input, step):
            return step.invoke("quick", kit_page).run("a")

        self.assertEqual(run_workflow(body).result(), "A")
        other.refresh_from_db()
        self.assertEqual(other.status, "pending")
        run_workflow(kit_selling, {"order": 7})
        other.refresh_from_db()
        self.assertEqual(other.status, "succeeded")

    def test_map_over_a_workflow_executes_each_child(self):
        urls = ["a", "b", "c", "d"]
        for options in BOTH_WAYS:
            run = run_workflow(kit_site, {"urls": urls}, **options)
            self.assertEqual(run.result(), ["A", "B", "C", "D"])
            self.assertEqual(sorted(run.children.values_list("parent_item", flat=True)), urls)

    def test_children_are_executed_in_an_order_that_the_seed_decides(self):
        urls = [str(number) for number in range(12)]
        orders = set()
        for seed in ("1", "2", "1"):
            with _seed(seed):
                before = len(effects.names())
                run_workflow(kit_site, {"urls": urls})
                orders.add(tuple(effects.names()[before:]))
        self.assertEqual(len(orders), 2)
        self.assertTrue(all(sorted(order) == sorted(f"fetched {url}" for url in urls) for order in orders))

    def test_map_with_a_window_goes_through_all_items(self):
        @workflow(name="kit_window")
        def body(input, step):
            return step.map("page", kit_page, ["a", "b", "c", "d", "e"], concurrency=2)

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(body, **options).result(), ["A", "B", "C", "D", "E"])

    def test_children_of_children_are_executed(self):
        @workflow(name="kit_two_levels")
        def body(input, step):
            sites = step.map(
                "site", kit_site, [{"urls": ["a", "b"]}, {"urls": ["c"]}], key=lambda site: site["urls"][0]
            )
            return [sites, step.invoke("selling", kit_selling).run({"order": 3})]

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(body, **options).result(), [[["A", "B"], ["C"]], 3])

    def test_gathered_children_and_branches_go_on_side_by_side(self):
        def sell(order, step):
            step.sleep("think", f"{order}h")
            return step.invoke("selling", kit_selling).run({"order": order})

        @workflow(name="kit_gathers_children")
        def body(input, step):
            first, second = step.gather(
                step.invoke("receipt", kit_receipt).bind({"order": 1}), step.define("other", lambda: "other").bind()
            )
            return [first["number"], second, step.map("sell", sell, [2, 3])]

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(body, **options).result(), [1, "other", [2, 3]])

    def test_failure_of_a_child_reaches_the_parent_with_its_cause(self):
        run = run_workflow(kit_careful, stubs={"print": _fail})
        self.assertEqual(run.result(), ["failed", "Broken", "no printer"])

        @workflow(name="kit_broken_child")
        def child(input, step):
            step.define("break", _fail).run()

        @workflow(name="kit_parent_of_broken")
        def body(input, step):
            step.invoke("child", child).run()

        with self.assertLogs("django_steps.testing", "ERROR") as logs:
            run = run_workflow(body)
        self.assertEqual((run.status, run.error["step"]), ("failed", "child"))
        self.assertIn("of 'kit_broken_child' failed in step 'break'", logs.output[0])
        self.assertIn("no printer", logs.output[0])

    def test_child_times_out_on_the_virtual_clock(self):
        @workflow(name="kit_slow_child")
        def slow(input, step):
            step.sleep("long", "3h")

        @workflow(name="kit_impatient")
        def body(input, step):
            try:
                step.invoke("slow", slow, timeout="2h").run()
            except ChildTimedOut:
                return step.define("look", lambda: timezone.now().isoformat()).run()

        for options in BOTH_WAYS:
            run = run_workflow(body, **options)
            passed = timezone.datetime.fromisoformat(run.result()) - run.started_at
            self.assertLess(abs(passed - timedelta(hours=2)), timedelta(minutes=1))
            self.assertEqual(run.children.get().status, "canceled")

    def test_children_of_a_canceled_parent_are_canceled(self):
        run = kit_selling.start({"order": 7})
        drain()
        run.cancel()
        drain(advance="1d")
        run.refresh_from_db()
        self.assertEqual((run.status, run.children.get().status), ("canceled", "canceled"))
        self.assertEqual(effects.names(), ["printed"])

    def test_step_of_a_child_may_cancel_its_parent(self):
        @workflow(name="kit_cancels_its_parent")
        def child(input, step):
            step.define("cancel", lambda: WorkflowRun.objects.get(workflow="kit_canceled_by_child").cancel()).run()

        @workflow(name="kit_canceled_by_child")
        def body(input, step):
            step.invoke("child", child).run()

        for options in BOTH_WAYS:
            run = run_workflow(body, **options)
            self.assertEqual((run.status, run.children.get().status), ("canceled", "canceled"))
            WorkflowRun.objects.filter(workflow="kit_canceled_by_child").update(workflow="kit_canceled_before")

    def test_retry_of_the_parent_goes_down(self):
        run = run_workflow(kit_selling, {"order": 7}, stubs={"file": Broken()})
        self.assertEqual((run.status, run.error["step"]), ("failed", "receipt"))
        run.retry()
        drain()
        self.assertEqual(run.result(), 7)
        self.assertEqual(effects.names(), ["printed"])

    def test_started_run_is_left_for_drain(self):
        @workflow(name="kit_starts_another")
        def body(input, step):
            return step.start("receipt", kit_receipt, key="r").run({"order": 5})

        run = run_workflow(body)
        started = WorkflowRun.objects.get(key="r")
        self.assertEqual((run.result(), started.status), (started.pk, "pending"))
        drain(advance="2h")
        self.assertEqual(started.result(), {"number": 5})

    def test_run_that_continues_is_executed_to_the_end_of_the_last(self):
        @workflow(name="kit_counts_down")
        def body(input, step):
            left = step.define("less", lambda: input["left"] - 1).run()
            return step.continue_as_new({"left": left}) if left else "done"

        for options in BOTH_WAYS:
            run = run_workflow(body, {"left": 3}, key="k", **options)
            self.assertEqual((run.status, run.output, run.result()), ("succeeded", None, "done"))
            self.assertEqual(WorkflowRun.objects.filter(workflow="kit_counts_down").count(), 3)
            WorkflowRun.objects.filter(workflow="kit_counts_down").update(workflow="kit_counted_down", key=None)

    def test_child_may_continue_as_another_run(self):
        @workflow(name="kit_child_that_counts_down")
        def child(input, step):
            step.sleep("rest", "1d")
            return step.continue_as_new(input - 1) if input else "done"

        @workflow(name="kit_parent_of_continued")
        def body(input, step):
            return [step.invoke("child", child).run(2), step.map("children", child, [0, 1])]

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(body, **options).result(), ["done", ["done", "done"]])

    def test_run_that_continues_without_end_is_broken_off(self):
        @workflow(name="kit_continues_for_ever")
        def body(input, step):
            return step.continue_as_new()

        with self.assertRaisesMessage(DoesNotEnd, "Runs have started 20 runs"):
            run_workflow(body, max_steps=20)

    def test_events_are_for_the_runs_that_go_on_together(self):
        @workflow(name="kit_entity")
        def entity(input, step):
            total = input["total"] + step.wait_for_event("add")
            return total if total > 5 else step.continue_as_new({"total": total})

        self.assertEqual(run_workflow(entity, {"total": 0}, events={"add": [1, 2, 3]}).result(), 6)

    def test_event_of_a_child_is_answered_and_its_wait_is_named(self):
        @workflow(name="kit_asking_child")
        def child(input, step):
            return step.wait_for_event("approval")

        @workflow(name="kit_asking_parent")
        def body(input, step):
            return step.map("ask", child, ["a", "b"])

        self.assertEqual(run_workflow(body, events={"approval": 1}).result(), [1, 1])
        with self.assertRaises(UnansweredWait) as raised:
            run_workflow(body)
        self.assertIn(
            "of 'kit_asking_child' waits for event 'approval', and nobody sends it. Run", str(raised.exception)
        )
        self.assertIn("of 'kit_asking_parent' waits for it. Answer it by", str(raised.exception))
        run = body.start(key="k")
        drain()
        waiting = (
            f"it waits for child run {run.children.first().pk} of 'kit_asking_child', which waits for event 'approval'."
        )
        with self.assertRaisesMessage(
            ResultUnavailable, f"{waiting} In a test, answer it by events={{'approval': payload}}"
        ):
            run.result()
        self.assertEqual(run_workflow(body, key="k", events={"approval": 2}).result(), [2, 2])

    def test_result_of_a_run_that_waits_for_a_child_names_it(self):
        run = kit_selling.start({"order": 7})
        drain()
        with self.assertRaisesMessage(
            ResultUnavailable,
            f"it waits for child run {run.children.get().pk} of 'kit_receipt', which is sleeping. In a test, drain() executes"
            " what is due, and drain(advance=…) lets time pass.",
        ):
            run.result()

    def test_drain_executes_children(self):
        run, site = kit_selling.start({"order": 7}), kit_site.start({"urls": ["a", "b"]})
        self.assertEqual({found.status for found in drain()}, {"waiting", "sleeping", "succeeded"})
        self.assertEqual(site.result(), ["A", "B"])
        drain(advance="1h")
        self.assertEqual(run.result(), 7)

    def test_items_of_a_map_have_to_be_the_same_on_every_pass(self):
        passes = []

        @workflow(name="kit_other_items")
        def body(input, step):
            passes.append("pass")
            return step.map("page", kit_page, ["a", str(len(passes))])

        with self.assertRaisesMessage(NotRepeatable, "Map 'page' of 'kit_other_items' is not repeatable"):
            run_workflow(body)

    def test_variable_that_a_step_changes_is_lost_over_an_invocation(self):
        @workflow(name="kit_loses_state_over_a_child")
        def body(input, step):
            seen = []
            step.invoke("page", kit_page).run("a")
            step.define("note", lambda: seen.append(1)).run()
            return step.invoke("page2", kit_page).run("a")

        with self.assertRaisesMessage(StateLost, "changed 'seen'"):
            run_workflow(body)

    def test_invocation_counts_once(self):
        @workflow(name="kit_invokes_ten_times")
        def body(input, step):
            return [step.invoke(f"page {number}", kit_page).run("a") for number in range(10)]

        self.assertEqual(len(run_workflow(body, max_steps=11).result()), 10)

    def test_async_parents_and_children(self):
        @workflow(name="kit_async_parent")
        async def body(input, step: AsyncStep):
            async with asyncio.timeout(7200):
                first, second = await asyncio.gather(
                    step.invoke("plain", kit_receipt).run({"order": 1}), step.invoke("async", kit_async_receipt).run(2)
                )
            async with asyncio.TaskGroup() as group:
                pages = group.create_task(step.map("page", kit_page, ["a", "b"]))
                group.create_task(step.sleep("rest", "1d"))
            return [first["number"], second, pages.result()]

        @workflow(name="kit_plain_parent")
        def plain(input, step):
            return [step.invoke("one", body).run(), step.invoke("two", kit_async_receipt).run(4)]

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(plain, **options).result(), [[1, 2, ["A", "B"]], 4])

    def test_timer_of_a_body_passes_while_its_child_takes_too_long(self):
        @workflow(name="kit_async_impatient")
        async def body(input, step: AsyncStep):
            try:
                async with asyncio.timeout(60):
                    await step.invoke("slow", kit_receipt).run({"order": 1})
            except TimeoutError:
                return "too slow"

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(body, **options).result(), "too slow")

    def test_time_that_a_child_takes_passes_for_a_parent_in_memory_too(self):
        @workflow(name="kit_child_of_many_naps")
        def child(input, step):
            for _ in range(200):
                step.sleep("nap", "500ms")
            return "slow"

        @workflow(name="kit_async_waits_for_naps")
        async def body(input, step: AsyncStep):
            try:
                async with asyncio.timeout(input):
                    return await step.invoke("child", child).run()
            except TimeoutError:
                return "too slow"

        run = run_workflow(body, 60, straight_through=True)
        self.assertEqual(run.result(), "too slow")
        run = run_workflow(body, 3600, straight_through=True)
        self.assertEqual(run.result(), "slow")
        self.assertGreaterEqual(run.finished_at - run.started_at, timedelta(seconds=100))

    def test_code_under_test_may_start_parents(self):
        @workflow(name="kit_starts_parents")
        def body(input, step):
            return str(step.define("start", lambda: kit_selling.start({"order": 1}).pk).run())

        run = body.start()
        drain(advance="2h")
        self.assertEqual(WorkflowRun.objects.get(pk=UUID(run.result())).result(), 1)


class StubbedRunsTests(TestCase):
    def test_stub_takes_the_place_of_the_child(self):
        for options in BOTH_WAYS:
            run = run_workflow(kit_selling, {"order": 7}, stubs={"receipt": {"number": 9}}, **options)
            self.assertEqual(run.result(), 9)
            self.assertEqual(effects.names(), [])
            self.assertFalse(run.children.get().steps.exists())

    def test_callable_takes_the_input_of_the_child(self):
        @workflow(name="kit_typed_child")
        def child(input: Order, step) -> int:
            raise NotImplementedError

        @workflow(name="kit_parent_of_typed")
        def body(input, step):
            return step.invoke("child", child).run({"number": 5})

        run = run_workflow(body, stubs={"child": lambda order: order.number + 1})
        self.assertEqual(run.result(), 6)

        @workflow(name="kit_child_without_input")
        def without(step) -> int:
            raise NotImplementedError

        @workflow(name="kit_parent_of_child_without_input")
        def other(input, step):
            return step.invoke("child", without).run()

        self.assertEqual(run_workflow(other, stubs={"child": lambda: 3}).result(), 3)

    def test_exception_is_the_failure_of_the_child(self):
        with self.assertNoLogs("django_steps.testing", "ERROR"):
            for stub in (Broken("no paper"), lambda input: _fail("no paper")):
                run = run_workflow(kit_careful, stubs={"receipt": stub})
                self.assertEqual(run.result()[:2], ["failed", "Broken"])
            run = run_workflow(kit_selling, {"order": 1}, stubs={"receipt": Broken})
        self.assertEqual((run.status, run.error["step"]), ("failed", "receipt"))

    def test_child_is_canceled_or_takes_too_long_as_the_stub_says(self):
        for options in BOTH_WAYS:
            run = run_workflow(kit_careful, stubs={"receipt": RunCanceled}, **options)
            self.assertEqual(run.result(), ["canceled", str(run.children.get().pk)])
            run = run_workflow(kit_careful, stubs={"receipt": ChildTimedOut}, **options)
            self.assertEqual((run.result(), run.children.get().status), (["too late", "receipt"], "canceled"))
            run = run_workflow(kit_selling, {"order": 1}, stubs={"receipt": ChildTimedOut}, **options)
            self.assertIn(
                "The stub of step 'receipt' is ChildTimedOut, and the step has no timeout.", run.error["message"]
            )

    def test_stub_is_for_all_items_of_a_map_or_for_one(self):
        @workflow(name="kit_tolerant_site")
        def body(input, step):
            pages = step.map("page", kit_page, ["a", "b", "c"], max_failures=1)
            return [repr(page) if isinstance(page, RunFailed) else page for page in pages]

        stubs = {"page": lambda url: f"<{url}>", "page#b": Broken("no answer")}
        for options in BOTH_WAYS:
            first, second, third = run_workflow(body, stubs=stubs, **options).result()
            self.assertEqual((first, third), ("<a>", "<c>"))
            self.assertIn("no answer", second)
        with self.assertNoLogs("django_steps.testing", "ERROR"):
            run = run_workflow(kit_site, {"urls": ["a", "b"]}, stubs=stubs)
        self.assertIn(GroupFailed.__name__, run.error["type"])

    def test_stubs_of_steps_are_for_the_steps_of_children_too(self):
        run = run_workflow(kit_site, {"urls": ["a", "b"]}, stubs={"fetch": None, "parse": str})
        self.assertEqual(run.result(), ["", ""])
        self.assertEqual(effects.names(), [])

    def test_async_child_is_stubbed(self):
        @workflow(name="kit_parent_of_async")
        def body(input, step):
            return step.invoke("receipt", kit_async_receipt).run(5)

        async def stub(input):
            await asyncio.sleep(0)
            return input + 1

        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(body, stubs={"receipt": stub}, **options).result(), 6)
            self.assertEqual(run_workflow(body, stubs={"receipt": 7}, **options).result(), 7)
            self.assertIn("Broken", run_workflow(body, stubs={"receipt": Broken}, **options).error["message"])

    def test_stub_that_no_step_used_is_an_error(self):
        with self.assertRaisesMessage(UnusedStub, "No step used the stub 'reciept'. Did you mean 'receipt'?"):
            run_workflow(kit_selling, {"order": 7}, stubs={"reciept": 1})

    def test_stub_takes_the_place_of_a_run_that_is_started(self):
        @workflow(name="kit_starts_stubbed")
        def body(input, step):
            return step.start("news", kit_receipt).run({"order": 1})

        @workflow(name="kit_starts_stubbed_async")
        async def async_body(input, step: AsyncStep):
            return await step.start("news", kit_receipt).run({"order": 1})

        pk, inputs = uuid4(), []

        def started(input):
            inputs.append(input)
            return pk

        for one in (body, async_body):
            before = WorkflowRun.objects.count()
            self.assertEqual(run_workflow(one, stubs={"news": pk}).result(), pk)
            self.assertEqual(run_workflow(one, stubs={"news": started}).result(), pk)
            self.assertIn("Broken", run_workflow(one, stubs={"news": Broken}).error["type"])
            self.assertEqual(WorkflowRun.objects.count(), before + 3)  # no other run than its own
        self.assertEqual(inputs, [{"order": 1}] * 2)

    def test_assertion_in_a_stub_is_the_test_s(self):
        def check(input):
            self.assertEqual(input, {"order": 8})

        with self.assertRaisesMessage(AssertionError, "{'order': 7} != {'order': 8}"):
            run_workflow(kit_selling, {"order": 7}, stubs={"receipt": check})


class CommittedRunsTests(TransactionTestCase):
    def test_children_are_executed_where_everything_commits(self):
        for options in BOTH_WAYS:
            self.assertEqual(run_workflow(kit_selling, {"order": 7}, **options).result(), 7)
            self.assertEqual(run_workflow(kit_site, {"urls": ["a", "b"]}, **options).result(), ["A", "B"])


def _fail(text="no printer"):
    raise Broken(text)


def _seed(seed):
    return mock.patch.dict(os.environ, DJANGO_STEPS_TEST_SEED=seed)
