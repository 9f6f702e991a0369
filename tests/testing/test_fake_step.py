"""`FakeStep`: a body called as the plain function that it is, without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.test import SimpleTestCase

from django_steps import (
    DuplicateStepName,
    Event,
    EventTimedOut,
    InvalidEvent,
    InvalidName,
    NestedStep,
    StepNotRun,
    current_step,
    workflow,
)
from django_steps.testing import FakeStep, UnansweredWait, UnusedStub


@dataclass
class Decision:
    ok: bool


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

    def test_waits_are_answered_by_the_names_of_their_events(self):
        step = FakeStep(
            events={"approval": [{"ok": True}, {"ok": False}], "paid": Event("paid", 5, id="evt_1", by="bank")}
        )
        first, second = step.wait_for_event("approval", type=Decision), step.wait_for_event("approval", timeout="7d")
        self.assertEqual((first, second), (Decision(True), {"ok": False}))
        event = step.wait_for_any_event("outcome", ["expired", "paid"], until=datetime(2030, 1, 1, tzinfo=UTC))
        self.assertEqual((event.name, event.payload, event.id, event.by), ("paid", 5, "evt_1", "bank"))
        self.assertIsInstance(event.sent_at, datetime)
        self.assertEqual(step.names, ["approval", "approval#2", "outcome"])
        self.assertEqual(step.waits[1], ("approval#2", ("approval",), timedelta(days=7), None))
        self.assertEqual(step.waits[2], ("outcome", ("expired", "paid"), None, datetime(2030, 1, 1, tzinfo=UTC)))
        step.assert_all_run()

    def test_event_that_comes_twice_answers_one_wait(self):
        step = FakeStep(events={"paid": [Event("paid", 5, id="evt_1"), Event("paid", 5, id="evt_1"), 6]})
        self.assertEqual([step.wait_for_event("paid"), step.wait_for_event("paid")], [5, 6])

    def test_wait_without_an_answer_times_out_if_it_can(self):
        step = FakeStep()
        self.assertIsNone(step.wait_for_event("approval", timeout="7d", default=None))
        self.assertEqual(step.wait_for_any_event("outcome", ["paid"], default="nothing"), "nothing")
        for limit in ({"timeout": "7d"}, {"timeout": 0}, {"until": datetime(2030, 1, 1, tzinfo=UTC)}):
            with self.assertRaises(EventTimedOut) as raised:
                step.wait_for_event("approval", **limit)
        self.assertEqual((raised.exception.step, raised.exception.events), ("approval#4", ("approval",)))
        message = (
            "Wait 'approval#5' is for event 'approval', and has no answer. Answer it by events={'approval': payload}."
        )
        with self.assertRaisesMessage(UnansweredWait, message):
            step.wait_for_event("approval")
        step = FakeStep(events={"aproval": 1})
        with self.assertRaisesMessage(
            UnansweredWait, "has no answer. Did you mean it by 'aproval' in events=? Answer it by"
        ):
            step.wait_for_event("approval")

    def test_payload_that_does_not_fit_its_type_is_refused(self):
        with self.assertRaisesMessage(InvalidEvent, "ok: expected bool, got 'perhaps'"):
            FakeStep(events={"approval": {"ok": "perhaps"}}).wait_for_event("approval", type=Decision)

    def test_event_that_no_wait_took_is_told_when_asked(self):
        step = FakeStep(events={"approval": [1, 2]})
        step.wait_for_event("approval")
        with self.assertRaisesMessage(UnusedStub, "gives 'approval' twice, and no run waited for it more than once"):
            step.assert_all_run()
        step = FakeStep(stubs={"approval": 1})
        step.wait_for_event("approval", default=None)
        with self.assertRaisesMessage(UnusedStub, "It is a wait for an event"):
            step.assert_all_run()

    def test_waits_in_branches_have_their_paths(self):
        def sign(signer, step):
            return step.wait_for_event(f"signature-{signer}")

        step = FakeStep(events={"signature-b": 2, "signature-a": 1})
        self.assertEqual(step.map("sign", sign, ["a", "b"]), [1, 2])
        self.assertEqual([wait.name for wait in step.waits], ["sign#a/signature-a", "sign#b/signature-b"])

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
