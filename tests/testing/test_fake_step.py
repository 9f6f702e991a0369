"""`FakeStep`: a body called as the plain function that it is, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.test import SimpleTestCase

from django_steps import DuplicateStepName, InvalidName, NestedStep, StepNotRun, current_step, workflow
from django_steps.testing import FakeStep, UnusedStub


@workflow
def kit_faked(input, step):
    charge = step.define("charge", lambda amount, *, currency: f"{amount} {currency}").run(5, currency="EUR")
    for _ in range(2):
        step.sleep("pause", "30d")
    step.sleep_until("midnight", datetime(2030, 1, 1, tzinfo=UTC))

    @step.define("send")
    async def send():
        return current_step().name

    return [charge, send.run()]


class FakeStepTests(SimpleTestCase):
    def test_functions_are_called_and_everything_is_noted(self):
        step = FakeStep()
        self.assertEqual(kit_faked(input={}, step=step), ["5 EUR", "send"])
        self.assertEqual(step.names, ["charge", "pause", "pause#2", "midnight", "send"])
        self.assertEqual(step.calls, [("charge", (5,), {"currency": "EUR"}), ("send", (), {})])
        self.assertEqual(step.sleeps[0], ("pause", timedelta(days=30), None))
        self.assertEqual(step.sleeps[2], ("midnight", None, datetime(2030, 1, 1, tzinfo=UTC)))
        step.assert_all_run()

    def test_stubs_take_the_place_of_functions(self):
        step = FakeStep(stubs={"charge": "stubbed", "send": lambda: 7})
        self.assertEqual(kit_faked(input={}, step=step), ["stubbed", 7])
        with self.assertRaises(OSError):
            kit_faked(input={}, step=FakeStep(stubs={"charge": OSError("no network")}))
        step = FakeStep(stubs={"chrage": 1})
        kit_faked(input={}, step=step)
        with self.assertRaisesMessage(UnusedStub, "Did you mean 'charge'?"):
            step.assert_all_run()

    def test_model_methods_are_steps_too(self):
        step = FakeStep(stubs={"Person.greet": "Hi"})
        from tests.app.models import Person

        self.assertEqual(step.get(Person, "greet").run(1), "Hi")
        self.assertEqual(step.get(Person, Person.shout).run("hey"), "HEY")
        with self.assertRaises(AttributeError):
            step.get(Person, "misspelled")

    def test_names_and_durations_are_checked_as_ever(self):
        step = FakeStep()
        with self.assertRaises(InvalidName):
            step.define("a#1", print)
        with self.assertRaises(ValueError):
            step.sleep("nap", "5 parsecs")
        with self.assertRaises(ValueError):
            step.sleep_until("naive", datetime(2030, 1, 1))
        step.define("same", lambda: None).run()
        with self.assertRaises(DuplicateStepName):
            step.define("same", lambda: None)

    def test_one_call_is_run_once(self):
        call = FakeStep().define("once", lambda: None)
        call.run()
        with self.assertRaises(DuplicateStepName):
            call.run()

    def test_a_step_in_a_step_is_an_error(self):
        step = FakeStep()
        with self.assertRaises(NestedStep):
            step.define("outer", lambda: step.define("inner", lambda: None).run()).run()

    def test_steps_defined_and_never_run_are_told_when_asked(self):
        step = FakeStep()
        step.define("forgotten", lambda: None)
        with self.assertRaisesMessage(StepNotRun, "'forgotten'"):
            step.assert_all_run()
