"""Several at once in the kit: in an order that a failing test can repeat, with an eye on each branch."""

from __future__ import annotations

import itertools
import os
from functools import partial
from unittest import mock

from django.test import SimpleTestCase, TestCase

from django_steps import UNFINISHED, GroupFailed, NestedStep, RetryPolicy, StepNotRun, workflow
from django_steps.testing import DoesNotEnd, FakeStep, NotRepeatable, StateLost, UnusedStub, drain, run_workflow
from django_steps.testing.order import seed
from tests.app import effects
from tests.app.models import Effect


class CarrierDown(Exception):
    """Something of the user's own."""


def seeded(number):
    return mock.patch.dict(os.environ, DJANGO_STEPS_TEST_SEED=str(number))


def pack(parcel, step):
    step.define("book", effects.leave).run(f"book {parcel}")
    return step.define("label", lambda: effects.leave(f"label {parcel}") or f"label of {parcel}").run()


@workflow
def kit_parcels(input, step):
    labels = step.map("parcel", pack, input["parcels"], concurrency=input.get("concurrency"))
    return [labels, step.define("tell", lambda: effects.leave("tell")).run()]


@workflow
def kit_numbers(input, step):
    return step.map("number", effects.leave, [str(number) for number in range(6)])


@workflow
def kit_naps(input, step):
    def nap(days, step):
        step.define("before", effects.leave).run(f"before {days}")
        step.sleep("nap", f"{days}d")
        return step.define("after", lambda: effects.leave(f"after {days}") or days).run()

    return step.map("nap", nap, [3, 1, 2])


class SideBySideTests(TestCase):
    def test_everything_is_executed_once_in_any_order(self):
        for options in ({}, {"straight_through": True}):
            Effect.objects.all().delete()
            run = run_workflow(kit_parcels, {"parcels": ["a", "b", "c"]}, **options)
            self.assertEqual(run.result(), [["label of a", "label of b", "label of c"], None])
            names = effects.names()
            self.assertEqual(sorted(names[:-1]), [f"{what} {which}" for what in ("book", "label") for which in "abc"])
            self.assertEqual(names[-1], "tell")

    def test_a_gather_and_a_branch_are_executed(self):
        @workflow(name="kit_gathers")
        def gathers(input, step):
            pair = step.gather(
                step.define("one", lambda: 1).bind(),
                step.branch("two", lambda step: step.define("x", abs).run(-2)).bind(),
            )
            return [pair, step.branch("three", pack).run("t")]

        run = run_workflow(gathers)
        self.assertEqual(run.result(), [(1, 2), "label of t"])

    def order_of(self, body, number, input=None, **options):
        Effect.objects.all().delete()
        with seeded(number):
            run_workflow(body, input, **options)
        return effects.names()

    def test_the_seed_repeats_the_order(self):
        for options in ({}, {"straight_through": True}):
            orders = {number: self.order_of(kit_numbers, number, **options) for number in range(5)}
            for number, order in orders.items():
                self.assertEqual(self.order_of(kit_numbers, number, **options), order)
            self.assertGreater(len({tuple(order) for order in orders.values()}), 2)

    def test_the_order_of_a_call_does_not_follow_from_what_was_executed_before(self):
        with seeded(7):
            run_workflow(kit_numbers)
            Effect.objects.all().delete()
            run_workflow(kit_numbers)
        self.assertEqual(effects.names(), self.order_of(kit_numbers, 7))

    def test_any_text_is_a_seed_and_without_one_it_is_the_same_in_the_whole_process(self):
        self.assertEqual(self.order_of(kit_numbers, "a word"), self.order_of(kit_numbers, "a word"))
        with mock.patch.dict(os.environ, clear=True):
            self.assertEqual(seed(), seed())

    def test_steps_of_branches_mix(self):
        orders = [self.order_of(kit_parcels, number, {"parcels": ["a", "b", "c"]}) for number in range(5)]
        begun = [order.index("label b") > order.index("book a") < order.index("label a") for order in orders]
        self.assertIn(True, begun)
        self.assertTrue(any(order[0].startswith("book") and order[1].startswith("book") for order in orders))

    def test_no_more_branches_begin_than_may_be_under_way(self):
        for number in range(5):
            order = self.order_of(kit_parcels, number, {"parcels": list("abcdef"), "concurrency": 2})
            under_way = set()
            for what, _, parcel in (effect.partition(" ") for effect in order[:-1]):
                (under_way.add if what == "book" else under_way.discard)(parcel)
                self.assertLessEqual(len(under_way), 2)

    def test_branches_that_sleep_pass_on_the_virtual_clock(self):
        for options in ({}, {"straight_through": True}):
            Effect.objects.all().delete()
            run = run_workflow(kit_naps, **options)
            self.assertEqual(run.result(), [3, 1, 2])
            self.assertEqual(effects.names()[3:], ["after 1", "after 2", "after 3"])
            self.assertEqual((run.finished_at - run.started_at).days, 3)

    def test_time_passes_as_far_as_the_test_says(self):
        run = kit_naps.start()
        drain()
        self.assertEqual(len(effects.names()), 3)
        drain(advance="1d")
        self.assertEqual(effects.names()[3:], ["after 1"])
        drain(advance="2d")
        self.assertEqual(effects.names()[4:], ["after 2", "after 3"])
        self.assertEqual(run.result(), [3, 1, 2])

    def test_an_item_that_is_tried_again_waits_on_the_virtual_clock(self):
        stub = mock.Mock(side_effect=[OSError(), "sent", "sent"])

        @workflow(name="kit_retries_items")
        def retries(input, step):
            policy = RetryPolicy(max_attempts=2, initial_interval="1d", jitter=False)
            return step.map("send", str, ["a", "b"], retry=policy)

        self.assertEqual(run_workflow(retries, stubs={"send": stub}).result(), ["sent", "sent"])
        self.assertEqual(stub.call_count, 3)

    def test_a_retry_executes_the_member_that_failed_and_what_was_left(self):
        run = run_workflow(kit_parcels, {"parcels": ["a", "b"]}, stubs={"parcel#a/label": CarrierDown})
        self.assertEqual((run.status, run.failed_step), ("failed", "parcel/label"))
        run.retry()
        drain()
        self.assertEqual(run.result(), [["label of a", "label of b"], None])
        self.assertEqual(effects.count("book a"), 1)


class StubsOfItemsTests(TestCase):
    def test_a_path_without_keys_stands_for_all_items(self):
        run = run_workflow(kit_parcels, {"parcels": ["a", "b"]}, stubs={"parcel/book": None, "parcel/label": "stubbed"})
        self.assertEqual(run.result(), [["stubbed", "stubbed"], None])
        self.assertEqual(run_workflow(kit_numbers, stubs={"number": 1}).result(), [1] * 6)
        self.assertEqual(effects.names(), ["tell"])

    def test_the_stub_of_one_item_goes_before_that_of_all(self):
        stubs = {"parcel/label": "others", "parcel#b/label": "this one"}
        run = run_workflow(kit_parcels, {"parcels": ["a", "b", "c"]}, stubs=stubs)
        self.assertEqual(run.result()[0], ["others", "this one", "others"])
        run = run_workflow(kit_numbers, stubs={"number#3": lambda number: f"<{number}>"})
        self.assertEqual(run.result(), [None, None, None, "<3>", None, None])

    def test_a_stubbed_failure_is_expected_and_not_logged(self):
        with self.assertNoLogs("django_steps.testing", "ERROR"):
            run = run_workflow(kit_parcels, {"parcels": ["a"]}, stubs={"parcel/label": CarrierDown("no truck")})
        self.assertEqual(run.status, "failed")

    def test_an_unused_stub_is_told_the_paths_without_keys_unless_it_has_one(self):
        for stub, advice in (
            ("parcel/lable", "Did you mean 'parcel/label'?"),
            ("parcel#b/lable", "Did you mean 'parcel#b/label'?"),
            ("parcel", "It is a branch, which is called as it is: stub the steps in it, such as 'parcel/book'."),
            ("parcel#b", "such as 'parcel#b/book'."),
        ):
            with self.assertRaisesMessage(UnusedStub, advice):
                run_workflow(kit_parcels, {"parcels": ["a", "b"]}, stubs={stub: 1})

    def test_a_misspelled_stub_is_found_also_where_the_run_failed(self):
        with self.assertRaisesMessage(UnusedStub, "and step 'parcel/book' was executed without a stub"):
            run_workflow(kit_parcels, {"parcels": ["a"]}, stubs={"parcel/bokk": 1, "parcel/label": CarrierDown})


class RepeatingTests(TestCase):
    def test_a_branch_that_goes_another_way_is_told(self):
        numbers = itertools.count()

        def wander(item, step):
            step.define("first", lambda: None).run()
            step.define(f"step {next(numbers)}", lambda: None).run()

        @workflow(name="kit_branch_wanders")
        def wanders(input, step):
            step.map("m", wander, ["a", "b"])

        message = (
            r"Branch 'm#[ab]' of 'kit_branch_wanders' is not repeatable: .* came to 'm#[ab]/step \d' here, and now"
        )
        with self.assertRaisesRegex(NotRepeatable, message):
            run_workflow(wanders)

    def test_a_branch_that_forgets_a_step_is_told(self):
        seen = set()

        def forget(item, step):
            if item in seen:
                return
            seen.add(item)
            step.define("only once", lambda: None).run()

        @workflow(name="kit_branch_forgets")
        def forgets(input, step):
            step.map("m", forget, ["a", "b"])

        with self.assertRaisesRegex(NotRepeatable, r"came to 'm#[ab]/only once' here, and now it returned"):
            run_workflow(forgets)

    def test_a_body_that_goes_another_way_around_a_group_is_told(self):
        numbers = itertools.count()

        @workflow(name="kit_wanders_after_map")
        def wanders(input, step):
            step.map("m", abs, [1, 2])
            step.define(f"step {next(numbers)}", lambda: None).run()
            step.define("last", lambda: None).run()

        with self.assertRaisesMessage(NotRepeatable, "The body of 'kit_wanders_after_map' is not repeatable"):
            run_workflow(wanders)

    def test_items_that_vanish_while_the_map_is_under_way_are_told(self):
        waiting = [1, 2, 3]

        @workflow(name="kit_vanishing")
        def vanishing(input, step):
            step.map("send", waiting.remove, list(waiting))

        with self.assertRaisesRegex(NotRepeatable, r"Map 'send' of 'kit_vanishing' .* \(missing: '\d'\)"):
            run_workflow(vanishing)

    def test_all_items_that_vanish_are_told(self):
        passes = itertools.count()

        @workflow(name="kit_vanished")
        def vanished(input, step):
            return step.map("send", abs, [1] if next(passes) == 0 else [])

        with self.assertRaisesMessage(NotRepeatable, "(missing: '1')"):
            run_workflow(vanished)

    def test_items_may_come_in_another_order_and_change_once_the_map_has_ended(self):
        orders = itertools.cycle([[1, 2, 3], [3, 2, 1]])
        has_ended = []

        @workflow(name="kit_reordered")
        def reordered(input, step):
            step.map("send", abs, [4] if has_ended else next(orders))
            step.define("note", lambda: has_ended.append(True)).run()
            step.define("last", lambda: None).run()

        with self.assertLogs("django_steps", "WARNING"):
            self.assertEqual(run_workflow(reordered).status, "succeeded")

    def test_a_variable_of_the_body_that_a_branch_changes_is_lost(self):
        @workflow(name="kit_branch_fills")
        def fills(input, step):
            found = []

            def find(item, step):
                found.append(step.define("find", abs).run(item))

            step.map("m", find, [1, 2])
            return found

        with self.assertRaisesRegex(StateLost, r"Branch 'm#[12]' of .* changed 'found', a variable of the body"):
            run_workflow(fills)
        self.assertEqual(len(run_workflow(fills, straight_through=True).result()), 2)

    def test_a_variable_of_the_branch_that_a_step_changes_is_lost(self):
        def fill(item, step, also):
            found = []
            step.define("find", partial(lambda x: found.append(x), item)).run()
            return found

        @workflow(name="kit_step_fills_branch")
        def fills(input, step):
            return step.map("m", partial(fill, also=1), [1, 2])

        with self.assertRaisesRegex(StateLost, r"Step 'm#[12]/find' of .* changed 'found', a variable of the branch"):
            run_workflow(fills)

    def test_a_variable_of_the_body_that_an_item_changes_is_lost(self):
        @workflow(name="kit_item_fills")
        def fills(input, step):
            found = {}
            step.map("find", lambda item: found.update({item: 1}), [1, 2])
            return found

        with self.assertRaisesRegex(StateLost, r"Step 'find#[12]' .* changed 'found', a variable of the body"):
            run_workflow(fills)

    def test_variables_of_branches_that_no_step_changes_are_the_branch_s_own(self):
        def count(item, step):
            total = 0
            for name in "abc":
                total += step.define(name, lambda: item).run()
            return total

        @workflow(name="kit_counts")
        def counts(input, step):
            return step.map("m", count, [1, 2])

        self.assertEqual(run_workflow(counts).result(), [3, 6])


class SeedTests(TestCase):
    def test_the_log_of_a_failed_run_names_the_seed(self):
        @workflow(name="kit_fails_beside")
        def fails(input, step):
            step.map("check", lambda item: 1 / item, [0, 1])

        with seeded(4711), self.assertLogs("django_steps.testing", "ERROR") as logs:
            run_workflow(fails)
        self.assertIn("in the order of DJANGO_STEPS_TEST_SEED=4711; set it to repeat that order.", logs.output[0])

    def test_the_log_of_a_failed_group_says_where_its_members_failed(self):
        def handle(item, step):
            step.define("divide", lambda: 1 / item).run()

        @workflow(name="kit_fails_inside")
        def fails(input, step):
            step.map("check", handle, [0, 1])

        with self.assertLogs("django_steps.testing", "ERROR") as logs:
            run_workflow(fails)
        self.assertRegex(logs.output[0], r"(?s)Step 'check#0/divide':\nTraceback .*, in <lambda>\n.*ZeroDivisionError")

    def test_what_the_kit_finds_names_the_seed(self):
        numbers = itertools.count()

        @workflow(name="kit_wanders_beside")
        def wanders(input, step):
            step.map("m", abs, [1, 2])
            step.define(f"step {next(numbers)}", lambda: None).run()
            step.define("last", lambda: None).run()

        @workflow(name="kit_loses_beside")
        def loses(input, step):
            found = []
            step.gather(step.define("a", found.append).bind(1), step.define("b", lambda: found.append(1)).bind())

        @workflow(name="kit_endless_beside")
        def endless(input, step):
            for number in itertools.count():
                step.map(f"m{number}", abs, [1, 2])

        for body, error in ((wanders, NotRepeatable), (loses, StateLost), (endless, DoesNotEnd)):
            with seeded(4711), self.assertRaisesMessage(error, "DJANGO_STEPS_TEST_SEED=4711"):
                run_workflow(body, max_steps=20)

    def test_no_seed_is_named_where_nothing_was_side_by_side(self):
        @workflow(name="kit_fails_alone")
        def fails(input, step):
            step.map("check", lambda item: 1 / item, [0])

        with self.assertLogs("django_steps.testing", "ERROR") as logs:
            run_workflow(fails)
        self.assertNotIn("SEED", logs.output[0])

    def test_a_test_case_that_fails_by_its_own_assertion_names_the_seed(self):
        class Failing(SimpleTestCase):
            databases = "__all__"

            def test_order(self):
                run_workflow(kit_numbers)
                run_workflow(kit_numbers)
                self.assertEqual(effects.names()[0], "nothing of this name")

            def test_success(self):
                run_workflow(kit_numbers)

        with seeded(4711), self.assertLogs("django_steps.testing", "ERROR") as logs:
            result = Failing("test_order").run()
        self.assertEqual(len(result.failures), 1)
        [line] = logs.output
        self.assertIn("Failing.test_order", line)
        self.assertIn("DJANGO_STEPS_TEST_SEED=4711", line)
        with self.assertNoLogs("django_steps.testing", "ERROR"):
            Failing("test_success").run()


class FakeStepTests(SimpleTestCase):
    def test_groups_are_executed_one_by_one_and_noted(self):
        step = FakeStep()

        def handle(item, step, run, logger):
            logger.info("handling")
            step.sleep("nap", "1d")
            inner = step.map("inner", abs, [-item])
            return step.gather(step.define("a", abs).bind(item), step.branch("b", lambda step: inner).bind())

        self.assertEqual(step.map("m", handle, [1, 2]), [(1, [1]), (2, [2])])
        self.assertEqual(step.gather(), ())
        self.assertEqual(step.branch("c", lambda a, b, step: a + b).run(1, 2), 3)
        self.assertEqual(
            step.names,
            [
                "m",
                *("m#1", "m#1/nap", "m#1/inner", "m#1/inner#-1", "m#1/a", "m#1/b#"),
                *("m#2", "m#2/nap", "m#2/inner", "m#2/inner#-2", "m#2/a", "m#2/b#"),
                "c#",
            ],
        )
        self.assertEqual(step.calls[0], ("m#1/inner#-1", (-1,), {}))
        self.assertEqual([sleep.name for sleep in step.sleeps], ["m#1/nap", "m#2/nap"])
        step.assert_all_run()

    def test_stubs_are_by_path(self):
        def handle(item, step):
            return step.define("charge", lambda: "real").run()

        step = FakeStep(stubs={"order/charge": "all", "order#2/charge": "this one"})
        self.assertEqual(step.map("order", handle, [1, 2, 3]), ["all", "this one", "all"])
        step.assert_all_run()
        step = FakeStep(stubs={"order": 1})
        step.map("order", handle, [1])
        with self.assertRaisesMessage(UnusedStub, "such as 'order/charge'"):
            step.assert_all_run()

    def test_failures_come_as_a_group_by_key(self):
        step = FakeStep(stubs={"send#2": CarrierDown("no truck")})
        with self.assertRaises(GroupFailed) as caught:
            step.map("send", str, [1, 2, 3])
        group = caught.exception
        self.assertEqual((list(group.failures), group.results), (["2"], {"1": "1"}))
        self.assertEqual(group.message, "1 of 'send' failed")
        self.assertIn("send#2", group.exceptions[0].__notes__[0])
        self.assertNotIn("send#3", step.names)

    def test_failures_of_a_gather_in_a_branch_are_by_the_names_that_it_uses(self):
        def handle(step):
            try:
                step.gather(step.define("a", abs).bind(1), step.branch("b", lambda step: 1 / 0).bind())
            except GroupFailed as group:
                return list(group.failures), dict(group.results)

        self.assertEqual(FakeStep().branch("x", handle).run(), (["b"], {"a": 1}))

    def test_what_may_fail_stands_in_the_list(self):
        def results(**options):
            stubs = {"send#2": CarrierDown(), "send#3": CarrierDown()}
            found = FakeStep(stubs).map("send", str, [1, 2, 3, 4, 5], **options)
            return [one if isinstance(one, str) else type(one).__name__ for one in found]

        failed = ["1", "CarrierDown", "CarrierDown"]
        self.assertEqual(results(return_exceptions=True), [*failed, "4", "5"])
        self.assertEqual(results(max_failures=2), [*failed, "4", "5"])
        self.assertEqual(results(min_successes=2), [*failed, "4", "Unfinished"])
        for options in ({"max_failures": 1}, {"min_successes": 4}, {"min_successes": 2, "max_failures": 1}):
            with self.assertRaises(GroupFailed):
                results(**options)
        self.assertIs(FakeStep().map("m", str, [1, 2], min_successes=1)[1], UNFINISHED)
        step = FakeStep(stubs={"a": CarrierDown})
        pair = step.gather(step.define("a", str).bind(1), step.define("b", str).bind(2), return_exceptions=True)
        self.assertEqual([type(pair[0]), pair[1]], [CarrierDown, "2"])

    def test_mistakes_stand_in_no_list(self):
        step = FakeStep()

        def forget(item, step):
            step.define("forgotten", abs)

        with self.assertRaises(StepNotRun):
            step.map("m", forget, [1], return_exceptions=True)
        with self.assertRaisesMessage(NestedStep, "Give the branch's function a parameter named step"):
            outer = step
            step.map("n", lambda item, step: outer.define("x", abs).run(item), [1], return_exceptions=True)
        with self.assertRaises(NestedStep):
            step.define("z", lambda: step.gather()).run()
