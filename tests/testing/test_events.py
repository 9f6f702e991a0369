"""Workflows that wait for events, in the testing kit: answered by `events=`, by `send_event()`, or by nobody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

from django_steps import AsyncStep, Event, EventTimedOut, ResultUnavailable, UnserializableValue, workflow
from django_steps.models import WorkflowEvent, WorkflowRun
from django_steps.testing import DoesNotEnd, NotRepeatable, StateLost, UnansweredWait, UnusedStub, drain, run_workflow


@dataclass
class Decision:
    ok: bool
    why: str = ""


@workflow
def kit_approval(input, step):
    step.define("ask", lambda: None).run()
    decision = step.wait_for_event("approval")
    return step.define("act", lambda: decision).run()


@workflow
def kit_messages(input, step):
    return [step.wait_for_event("message") for _ in range(input["count"])]


@workflow
def kit_patient(input, step):
    waited_since = step.define("ask", lambda: timezone.now().isoformat()).run()
    try:
        decision = step.wait_for_event("approval", timeout="7d")
    except EventTimedOut:
        decision = "nobody"
    return [waited_since, decision, step.define("act", lambda: timezone.now().isoformat()).run()]


class GivenEventsTests(TestCase):
    def test_event_answers_the_wait_of_its_name(self):
        for options in ({}, {"straight_through": True}):
            run = run_workflow(kit_approval, events={"approval": {"ok": True}}, **options)
            self.assertEqual(run.result(), {"ok": True})
            event = run.events.get()
            self.assertEqual((event.name, event.consumed_by), ("approval", "approval"))

    def test_list_gives_one_payload_after_the_other(self):
        run = run_workflow(kit_messages, {"count": 3}, events={"message": [1, [2], None]})
        self.assertEqual(run.result(), [1, [2], None])

    def test_event_objects_have_an_id_and_a_sender(self):
        given = [
            Event("message", 1, id="evt_1", by="carla"),
            Event("message", 1, id="evt_1"),
            Event("message", 2, id="evt_2"),
        ]
        run = run_workflow(kit_messages, {"count": 2}, events={"message": given})
        self.assertEqual(run.result(), [1, 2])  # what comes twice is one event
        self.assertEqual(list(run.events.values_list("event_id", "by")), [("evt_1", "carla"), ("evt_2", "")])

    def test_any_of_several_events_is_answered_by_the_one_that_is_given(self):
        @workflow(name="kit_outcome")
        def body(input, step):
            event = step.wait_for_any_event("outcome", ["paid", "expired"], timeout="1h")
            return [event.name, event.payload, event.by]

        given = {"expired": Event("expired", {"after": 5}, by="provider")}
        self.assertEqual(run_workflow(body, events=given).result(), ["expired", {"after": 5}, "provider"])

    def test_payload_is_made_into_the_type_of_the_wait(self):
        @workflow(name="kit_typed_wait")
        def body(input, step):
            return step.wait_for_event("approval", type=Decision).why

        self.assertEqual(run_workflow(body, events={"approval": {"ok": True, "why": "cheap"}}).result(), "cheap")
        self.assertEqual(run_workflow(body, events={"approval": Decision(True, "cheap")}).result(), "cheap")
        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(body, events={"approval": {"okay": True}})
        self.assertIn("InvalidEvent", run.error["type"])

    def test_each_run_gets_what_is_given(self):
        runs = [kit_messages.start({"count": 2}) for _ in range(2)]
        drain(events={"message": ["a", "b"]})
        self.assertEqual([run.result() for run in runs], [["a", "b"], ["a", "b"]])

    def test_runs_that_wait_already_are_answered_by_drain(self):
        run, other = kit_approval.start(), kit_messages.start({"count": 1})
        self.assertEqual([found.status for found in drain()], ["waiting", "waiting"])
        self.assertEqual(drain(events={"approval": 1}), [run])
        self.assertEqual(run.result(), 1)
        other.refresh_from_db()
        self.assertEqual(other.status, "waiting")

    def test_run_workflow_answers_no_runs_of_others(self):
        other = kit_approval.start()
        drain()
        self.assertEqual(run_workflow(kit_approval, events={"approval": 1}, delay="1d").result(), 1)
        other.refresh_from_db()
        self.assertEqual(other.status, "waiting")

    def test_run_that_waits_already_is_answered_by_its_key(self):
        run = kit_approval.start(key="k")
        drain()
        again = run_workflow(kit_approval, key="k", events={"approval": 1})
        self.assertEqual((again.pk, again.result()), (run.pk, 1))

    def test_event_that_was_sent_comes_before_what_is_given(self):
        run = kit_messages.start({"count": 2})
        run.send_event("message", "sent")
        drain(events={"message": "given"})
        self.assertEqual(run.result(), ["sent", "given"])

    def test_wait_that_only_looks_is_answered(self):
        @workflow(name="kit_looks")
        def body(input, step):
            return step.wait_for_event("stop", timeout=0, default="go on")

        self.assertEqual(run_workflow(body, events={"stop": "stop"}).result(), "stop")
        self.assertEqual(run_workflow(body).result(), "go on")

    def test_branches_are_answered_each_for_itself(self):
        def sign(signer, step):
            step.sleep("think", "1h")
            return step.define("note", str).run(step.wait_for_event(f"signature-{signer}"))

        @workflow(name="kit_signatures")
        def body(input, step):
            return step.map("sign", sign, ["a", "b", "c"])

        given = {f"signature-{signer}": signer.upper() for signer in "abc"}
        for options in ({}, {"straight_through": True}):
            self.assertEqual(run_workflow(body, events=given, **options).result(), ["A", "B", "C"])
        with self.assertRaisesMessage(UnansweredWait, "waits for event 'signature-b', and nobody sends it."):
            run_workflow(body, events={"signature-a": 1, "signature-c": 3})

    def test_async_bodies_are_answered(self):
        @workflow(name="kit_async_wait")
        async def body(input, step: AsyncStep):
            async with asyncio.timeout(60):
                first = await step.wait_for_event("first")
            second, third = await asyncio.gather(
                step.wait_for_event("second"), step.wait_for_event("third", timeout="1d")
            )
            return [first, second, third]

        for options in ({}, {"straight_through": True}):
            run = run_workflow(body, events={"first": 1, "third": 3, "second": 2}, **options)
            self.assertEqual(run.result(), [1, 2, 3])
        with self.assertRaisesMessage(UnansweredWait, "waits for event 'second'"):
            run_workflow(body, events={"first": 1, "third": 3})

    def test_what_is_no_payload_is_refused_before_anything_begins(self):
        for given, error, text in (
            ([1], TypeError, "events takes a dict by names of events"),
            ({"approval": lambda: 1}, TypeError, "takes payloads"),
            ({"approval": ValueError()}, TypeError, "leave its event out"),
            ({"approval": Event("paid")}, ValueError, "has the event 'paid' under the name 'approval'"),
            ({"approval": object()}, UnserializableValue, "payload"),
            ({"a#b": 1}, ValueError, "event name"),
        ):
            with self.assertRaisesMessage(error, text):
                run_workflow(kit_approval, events=given)
        self.assertFalse(WorkflowRun.objects.exists())


class UnusedEventTests(TestCase):
    def test_event_that_no_wait_took_is_an_error(self):
        with self.assertRaisesMessage(
            UnusedStub, "No wait took the event 'paid' of events=. The events that were waited for: 'approval'."
        ):
            run_workflow(kit_approval, events={"approval": 1, "paid": 5})
        with self.assertRaisesMessage(UnusedStub, "No run has waited for an event."):
            run_workflow(kit_messages, {"count": 0}, events={"message": 5})
        with self.assertRaisesMessage(
            UnusedStub, "events= gives 'message' 3 times, and no run waited for it more than twice."
        ):
            run_workflow(kit_messages, {"count": 2}, events={"message": [1, 2, 3]})

    def test_stub_for_a_wait_and_event_for_a_step_are_told_apart(self):
        with self.assertRaisesMessage(UnusedStub, "It is a wait for an event: give its payload by events="):
            run_workflow(kit_approval, events={"approval": 1}, stubs={"approval": 2})
        with self.assertRaisesMessage(UnusedStub, "'act' is a step: give what takes its place by stubs=."):
            run_workflow(kit_approval, events={"approval": 1, "act": 2})

    def test_misspelled_event_is_named_where_the_wait_has_no_answer(self):
        with self.assertRaisesMessage(UnansweredWait, "Did you mean it by 'aproval' in events=?"):
            run_workflow(kit_approval, events={"aproval": 1})
        kit_approval.start()
        with self.assertRaisesMessage(
            UnusedStub, "No wait took the event 'aproval' of events=, and the wait for 'approval' was not"
        ):
            drain(events={"aproval": 1})

    def test_run_that_did_not_get_as_far_may_leave_events_unused(self):
        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(_fails, events={"paid": 1})
        self.assertEqual(run.status, "failed")


@workflow(name="kit_fails_before_its_wait")
def _fails(input, step):
    step.define("break", lambda: 1 / 0).run()
    step.wait_for_event("paid")


class UnansweredWaitTests(TestCase):
    def test_wait_that_nobody_answers_says_so(self):
        for options in ({}, {"straight_through": True}):
            with self.assertRaises(UnansweredWait) as raised:
                run_workflow(kit_approval, **options)
            run = WorkflowRun.objects.latest("pk")
            message = (
                f"Run {run.pk} of 'kit_approval' waits for event 'approval', and nobody sends it. Answer it by"
                " events={'approval': payload}, or start the run by start(), call drain(), then"
                " run.send_event('approval', payload) and drain() again."
            )
            self.assertEqual(str(raised.exception), message)
            self.assertEqual(timezone.now() < run.created_at + timedelta(seconds=50), True)

    def test_result_of_a_run_that_waits_says_for_what(self):
        run = kit_approval.start()
        drain()
        with self.assertRaises(ResultUnavailable) as raised:
            run.result()
        message = (
            "result() inside atomic() would never return: workers see the run after the commit."
            f" Run {run.pk} of 'kit_approval' has not ended; it waits for event 'approval'. In a test, answer it by"
            " events={'approval': payload} of run_workflow() or drain(), or call send_event('approval', payload) of that run"
            " and then drain() again."
        )
        self.assertEqual(str(raised.exception), message)
        run.send_event("approval", 7)
        drain()
        self.assertEqual(run.result(), 7)

    def test_result_of_a_run_that_is_not_executed_names_drain(self):
        run = kit_approval.start()
        with self.assertRaisesMessage(ResultUnavailable, "has not ended; it is pending. In a test, drain() "):
            run.result()

    def test_wait_for_which_nothing_is_left_says_so(self):
        with self.assertRaisesMessage(
            UnansweredWait, "events= gives it once, and its wait came twice: give a list of 2."
        ):
            run_workflow(kit_messages, {"count": 2}, events={"message": 1})

    def test_no_time_passes_while_a_run_waits(self):
        run = kit_approval.start()
        for _ in range(3):
            drain()
        with self.assertRaises(UnansweredWait):
            run_workflow(kit_approval)
        later = run_workflow(kit_messages, {"count": 0})
        self.assertLess(later.started_at - run.created_at, timedelta(seconds=50))

    def test_wait_with_a_timeout_times_out_on_the_virtual_clock(self):
        for options in ({}, {"straight_through": True}):
            asked, decision, acted = run_workflow(kit_patient, **options).result()
            self.assertEqual(decision, "nobody")
            passed = timezone.datetime.fromisoformat(acted) - timezone.datetime.fromisoformat(asked)
            self.assertLess(abs(passed - timedelta(days=7)), timedelta(minutes=1))
        self.assertEqual(run_workflow(kit_patient, events={"approval": "yes"}).result()[1], "yes")

    def test_drain_advances_to_the_timeout_and_not_before(self):
        run = kit_patient.start()
        [waiting] = drain()
        self.assertEqual((waiting.status, waiting.waiting_for), ("waiting", ["approval"]))
        self.assertEqual(drain(advance="6d"), [])
        self.assertEqual(drain(advance="2d"), [run])
        self.assertEqual(run.result()[1], "nobody")

    def test_others_go_on_while_a_run_waits_and_may_answer_it(self):
        waiting = kit_approval.start(key="k")

        @workflow(name="kit_answers_others")
        def body(input, step):
            step.sleep("think", "3d")
            step.define("answer", lambda: kit_approval.send_event("approval", 5, key="k").name).run()

        body.start()
        run = run_workflow(kit_approval, key="k")
        self.assertEqual((run.pk, run.result()), (waiting.pk, 5))

    def test_waiting_run_is_not_called_again_in_vain(self):
        passes = []

        @workflow(name="kit_counts_passes_of_waits")
        def body(input, step):
            passes.append("pass")
            return step.wait_for_event("approval", timeout="7d", default=None)

        body.start()
        for _ in range(3):
            drain(advance="2d")
        self.assertEqual(len(passes), 1)
        drain(advance="2d")
        self.assertEqual(len(passes), 3)  # the time is over; and once more after what that recorded

    def test_wait_counts_once_whether_it_is_answered_or_not(self):
        @workflow(name="kit_waits_fifteen_times")
        def body(input, step):
            return [step.wait_for_event("message", timeout="1h", default=None) for _ in range(15)]

        given = {"message": [1, 2, 3]}
        self.assertEqual(run_workflow(body, events=given, max_steps=16).result(), [1, 2, 3, *[None] * 12])

    @pytest.mark.any_database
    def test_loop_of_waits_without_end_is_broken_off(self):
        @workflow(name="kit_waits_for_ever")
        def body(input, step):
            while True:
                step.wait_for_event("message", timeout="1h", default=None)

        for options in ({}, {"straight_through": True}):
            with self.assertRaisesMessage(DoesNotEnd, "has recorded 20 steps and sleeps"):
                run_workflow(body, max_steps=20, **options)


class SentEventsTests(TestCase):
    def test_event_that_is_sent_between_two_drains_is_taken(self):
        run = kit_approval.start()
        drain()
        run.send_event("approval", {"ok": True}, by="carla")
        self.assertEqual(drain(), [run])
        self.assertEqual(run.result(), {"ok": True})
        self.assertTrue(WorkflowEvent.objects.get().told)

    def test_event_that_is_sent_by_key_is_taken(self):
        run = kit_approval.start(key="k")
        drain()
        kit_approval.send_event("approval", 1, key="k")
        drain()
        kit_messages.send_event("message", 2, key="later")
        later = run_workflow(kit_messages, {"count": 1}, key="later")
        self.assertEqual((run.result(), later.result()), (1, [2]))

    def test_event_of_a_start_is_taken(self):
        self.assertEqual(run_workflow(kit_approval, event=Event("approval", 3)).result(), 3)

    def test_other_run_goes_on_in_run_workflow_too(self):
        run = kit_approval.start()
        drain()
        run.send_event("approval", 1)
        run_workflow(kit_messages, {"count": 0}, delay="1d")
        self.assertEqual(run.result(), 1)

    def test_event_that_a_step_sends_to_its_own_run_is_taken(self):
        def ask(step, run):
            return step.define("ask", lambda: run.send_event("approval", 7).name).run()

        def wait(step):
            return step.wait_for_event("approval", timeout="1d", default="late")

        @workflow(name="kit_asks_itself")
        def body(input, step):
            return list(step.gather(step.branch("wait", wait).bind(), step.branch("ask", ask).bind()))

        for options in ({}, {"straight_through": True}):
            self.assertEqual(run_workflow(body, **options).result(), [7, "approval"])

    def test_event_that_a_step_sends_reaches_an_async_body_that_waits_in_memory(self):
        @workflow(name="kit_async_asks_itself")
        async def body(input, step: AsyncStep, run):
            async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
                waiting = group.create_task(step.wait_for_event("approval"))
                group.create_task(step.define("ask", lambda: run.send_event("approval", 7).name).run())
            return waiting.result()

        for options in ({}, {"straight_through": True}):
            self.assertEqual(run_workflow(body, **options).result(), 7)

    def test_body_that_waits_for_something_else_after_the_wait_is_not_repeatable(self):
        passes = []

        @workflow(name="kit_waits_otherwise")
        def body(input, step):
            passes.append("pass")
            return step.wait_for_event("approval" if len(passes) == 1 else "paid")

        with self.assertRaisesMessage(NotRepeatable, "it came to 'approval' here, and now it came to 'paid'."):
            run_workflow(body, events={"paid": 1, "approval": 1})

    def test_variable_that_a_step_changes_is_lost_over_a_wait(self):
        @workflow(name="kit_loses_state_over_a_wait")
        def body(input, step):
            seen = []
            step.wait_for_event("first")
            step.define("note", lambda: seen.append(1)).run()
            step.wait_for_event("second")
            return seen

        with self.assertRaisesMessage(StateLost, "Step 'note' of 'kit_loses_state_over_a_wait' changed 'seen'"):
            run_workflow(body, events={"first": 1, "second": 2})

    def test_captured_callbacks_may_be_executed(self):
        run = kit_approval.start()
        drain()
        with self.captureOnCommitCallbacks(execute=True):
            run.send_event("approval", 1)
        run.refresh_from_db()
        self.assertEqual(run.status, "pending")
        drain()
        self.assertEqual(run.result(), 1)


class CommittedEventsTests(TransactionTestCase):
    def test_event_is_taken_where_everything_commits(self):
        run = kit_approval.start()
        drain()
        with self.assertRaisesMessage(TimeoutError, "within 0 seconds; it waits for event 'approval'."):
            run.result(timeout=0)
        run.send_event("approval", 1)
        drain()
        self.assertEqual(run.result(), 1)
        self.assertEqual(run_workflow(kit_approval, events={"approval": 2}).result(), 2)
