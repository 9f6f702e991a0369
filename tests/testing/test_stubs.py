"""Stubs: what takes the place of a step's function, and what becomes of a stub that no step uses."""

from __future__ import annotations

from decimal import Decimal
from unittest.mock import Mock

from django.test import TestCase

from django_steps import RetryPolicy, UnserializableResult, workflow
from django_steps.testing import UnusedStub, drain, run_workflow
from tests.app import effects
from tests.app.models import Person

from .workflows import kit_order


class CarrierDown(Exception):
    """Something of the user's own."""


@workflow
def kit_calls(input, step):
    policy = RetryPolicy(max_attempts=3, initial_interval="1m", retry_on=ConnectionError)
    return step.define("call", lambda *args, **kwargs: "real", retry=policy).run(1, two=2)


@workflow
def kit_model_method(input, step):
    step.get(Person, "greet").run(12345, "Hi")
    return step.define("last", lambda: "real", atomic=True).run()


class StubTests(TestCase):
    def test_a_value_comes_back_as_a_recorded_result(self):
        given = {"id": ("ch", 1), "amount": Decimal("9.90")}
        run = run_workflow(kit_calls, stubs={"call": given})
        self.assertEqual(run.result(), given)
        self.assertIsNot(run.steps.get().output, given)
        self.assertEqual(run_workflow(kit_calls, stubs={"call": None}).result(), None)

    def test_a_value_that_cannot_be_recorded_fails_as_a_real_one(self):
        run = run_workflow(kit_calls, stubs={"call": {"user": object()}})
        self.assertEqual(run.status, "failed")
        self.assertIn(UnserializableResult.__name__, run.error["type"])
        self.assertIn('result["user"]', run.error["message"])

    def test_an_exception_is_the_failure_of_the_step(self):
        for stub in (CarrierDown("no truck"), CarrierDown):
            run = run_workflow(kit_order, {"order": 1}, stubs={"charge": 1, "ship": stub})
            self.assertEqual((run.status, run.error["step"]), ("failed", "ship"))
            self.assertIn("CarrierDown", run.error["type"])

    def test_the_retry_policy_is_the_step_s_own(self):
        stub = Mock(side_effect=[ConnectionError(), ConnectionError(), "third"])
        self.assertEqual(run_workflow(kit_calls, stubs={"call": stub}).result(), "third")
        stub = Mock(side_effect=[ConnectionError(), CarrierDown()])
        run = run_workflow(kit_calls, stubs={"call": stub})
        self.assertEqual((run.status, stub.call_count), ("failed", 2))

    def test_a_callable_takes_the_arguments(self):
        run = run_workflow(kit_calls, stubs={"call": lambda *args, **kwargs: [args, kwargs]})
        self.assertEqual(run.result(), [(1,), {"two": 2}])

        async def later(*args, two):
            return two

        self.assertEqual(run_workflow(kit_calls, stubs={"call": later}).result(), 2)

    def test_model_methods_and_atomic_steps_are_stubbed_by_name(self):
        run = run_workflow(kit_model_method, stubs={"Person.greet": "Hi", "last": [1]})
        self.assertEqual(run.result(), [1])

    def test_a_stub_that_no_step_uses_is_an_error_that_names_the_steps(self):
        with self.assertRaisesMessage(UnusedStub, "No step used the stub 'shpi'. Did you mean 'ship'?"):
            run_workflow(kit_order, {"order": 1}, stubs={"shpi": 1})
        kit_order.start({"order": 2})
        with self.assertRaisesMessage(UnusedStub, "The steps were: 'charge', 'wait', 'ship'."):
            drain(advance="30d", stubs={"refund": 1})
        with self.assertRaisesMessage(UnusedStub, "No steps were executed at all."):
            drain(stubs={"refund": 1})

    def test_a_run_that_did_not_get_as_far_may_leave_stubs_unused(self):
        run = run_workflow(kit_order, {"order": 1}, stubs={"charge": CarrierDown(), "ship": 1})
        self.assertEqual(run.status, "failed")
        kit_order.start({"order": 2})
        drain(stubs={"charge": 1, "ship": 2})

    def test_a_misspelled_stub_of_a_step_that_was_executed_is_an_error_also_where_the_run_failed(self):
        message = "No step used the stub 'chrage', and step 'charge' was executed without a stub."
        with self.assertRaisesMessage(UnusedStub, message):
            run_workflow(kit_order, {"order": 1}, stubs={"chrage": 1, "ship": CarrierDown()})
        kit_order.start({"order": 2})
        with self.assertRaisesMessage(UnusedStub, message):
            drain(stubs={"chrage": 1})

    def test_a_stub_that_only_resembles_a_step_is_not_taken_for_misspelled(self):
        stubs = {"recharge": 1, "charge_2": 1, "refund": 1, "ship": CarrierDown()}
        self.assertEqual(run_workflow(kit_order, {"order": 1}, stubs=stubs).status, "failed")
        kit_order.start({"order": 2})
        drain(stubs={"chrage": CarrierDown(), "charge": 1})

    def test_stubs_hold_for_one_call_only(self):
        kit_order.start({"order": 1})
        drain(stubs={"charge": "stubbed"})
        [run] = drain(advance="30d")
        self.assertEqual(run.output, {"order": 1, "charge": "stubbed", "ship": "real"})
        self.assertEqual(effects.names(), ["ship"])

    def test_stubs_are_a_dict_by_step_names(self):
        with self.assertRaisesMessage(TypeError, "stubs takes a dict"):
            run_workflow(kit_order, {"order": 1}, stubs=["charge"])

    def test_an_assertion_in_a_stub_is_the_test_s(self):
        def check(*args, **kwargs):
            self.assertEqual(args, (2,))

        with self.assertRaisesMessage(AssertionError, "(1,) != (2,)"):
            run_workflow(kit_calls, stubs={"call": check})
