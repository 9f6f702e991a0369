"""`run_workflow()` in a plain `TestCase`: the real engine, on this connection, without waiting."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test import TestCase

from django_steps import RetryPolicy, RunFailed, StepsError, signals, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import DoesNotEnd, drain, run_workflow
from tests.app import effects

from .workflows import kit_flaky, kit_greeting, kit_order, kit_parent


class RunWorkflowTests(TestCase):
    def test_a_run_is_driven_through_its_sleeps_to_its_end(self):
        began = time.monotonic()
        run = run_workflow(kit_order, {"order": 7})
        self.assertEqual((run.status, run.output["order"]), ("succeeded", 7))
        self.assertEqual(effects.names(run), ["charge", "ship"])
        self.assertGreaterEqual(run.finished_at - run.started_at, timedelta(days=30))
        self.assertEqual(list(run.steps.values_list("name", flat=True)), ["charge", "wait", "ship"])
        self.assertLess(time.monotonic() - began, 10)

    def test_back_offs_pass_on_the_virtual_clock(self):
        run = run_workflow(kit_flaky)
        self.assertEqual(run.result(), 4)
        record = run.steps.get()
        self.assertEqual(record.attempts, 4)
        starts = [attempt["started_at"] for attempt in record.earlier_attempts] + [record.started_at]
        hours = [round((later - earlier) / timedelta(hours=1)) for earlier, later in itertools.pairwise(starts)]
        self.assertEqual(hours, [1, 2, 4])

    def test_the_body_is_called_again_after_every_step_unless_it_runs_straight_through(self):
        passes = []

        @workflow(name="kit_counts_passes")
        def body(input, step):
            passes.append("pass")
            for number in range(3):
                step.define(f"step {number}", lambda: None).run()
            step.sleep("short", "500ms")

        run_workflow(body)
        self.assertEqual(len(passes), 5)
        passes.clear()
        run_workflow(body, straight_through=True)
        self.assertEqual(len(passes), 1)

    def test_short_sleeps_take_no_time_where_a_worker_waits_them_out(self):
        @workflow(name="kit_many_short_sleeps")
        def body(input, step):
            for _ in range(20):
                step.sleep("short", "900ms")

        began = time.monotonic()
        run = run_workflow(body, straight_through=True)
        self.assertLess(time.monotonic() - began, 5)
        self.assertGreaterEqual(run.finished_at - run.started_at, timedelta(seconds=18))

    def test_a_failed_run_is_returned_and_its_result_raises(self):
        with self.assertLogs("django_steps.testing", "ERROR") as logs:
            run = run_workflow(_fails)
        self.assertEqual((run.status, run.error["step"]), ("failed", "break"))
        with self.assertRaisesMessage(RunFailed, "ZeroDivisionError"):
            run.result()
        self.assertIn("in step 'break'", logs.output[0])
        self.assertIn("1 / 0", logs.output[0])

    def test_start_options_are_those_of_start(self):
        run = run_workflow(kit_greeting, {"name": "a"}, key="one", priority=7, queue="slow", delay="3d")
        self.assertEqual((run.status, run.key, run.priority, run.queue), ("succeeded", "one", 7, "slow"))
        self.assertGreater(run.started_at - run.created_at, timedelta(days=2))
        again = run_workflow(kit_greeting, {"name": "a"}, key="one")
        self.assertEqual(again.pk, run.pk)
        self.assertEqual(effects.names(), ["hello a", "bye a"])

    def test_other_runs_have_their_turn_while_this_one_waits_and_not_before(self):
        waiting = kit_greeting.start({"name": "first"})
        run_workflow(kit_greeting, {"name": "second"})
        self.assertEqual(effects.names(), ["hello second", "bye second"])
        waiting.refresh_from_db()
        self.assertEqual(waiting.status, "pending")
        run_workflow(kit_greeting, {"name": "third", "pause": "2d"})
        waiting.refresh_from_db()
        self.assertEqual(waiting.status, "succeeded")

    def test_runs_that_start_others_see_them_done_when_they_come_back(self):
        run = run_workflow(kit_parent, {"children": ["a", "b"]})
        self.assertEqual(run.result(), ["hello a", "hello b", "bye a", "bye b"])
        self.assertEqual(WorkflowRun.objects.finished().count(), 3)

    def test_code_under_test_may_retry_and_cancel(self):
        run = run_workflow(kit_order, {"order": 1}, stubs={"ship": OSError("no truck")})
        self.assertEqual((run.status, run.error["step"]), ("failed", "ship"))
        run.retry()
        drain()
        self.assertEqual(run.result()["ship"], "real")
        self.assertEqual(effects.names(run), ["charge", "ship"])

        canceled = kit_order.start({"order": 2})
        drain()
        canceled.cancel()
        drain(advance="60d")
        canceled.refresh_from_db()
        self.assertEqual(canceled.status, "canceled")
        self.assertEqual(effects.names(canceled), ["charge"])

    def test_a_step_may_cancel_its_own_run(self):
        @workflow(name="kit_cancels_itself")
        def body(input, step, run):
            step.define("cancel", lambda: run.cancel()).run()
            step.define("never", lambda: effects.leave("never")).run()

        run = run_workflow(body)
        self.assertEqual(run.status, "canceled")
        self.assertEqual(effects.names(), [])

    def test_signals_are_sent(self):
        heard = []

        def hear(name):
            def receiver(sender, run, **details):
                heard.append((name, details.get("step", "")))

            return receiver

        receivers = {name: hear(name) for name in ("run_first_claimed", "step_succeeded", "step_failed", "run_failed")}
        for name, receiver in receivers.items():
            getattr(signals, name).connect(receiver)
            self.addCleanup(getattr(signals, name).disconnect, receiver)
        run_workflow(kit_order, {"order": 1}, stubs={"ship": OSError("no truck")})
        self.assertEqual(
            heard,
            [("run_first_claimed", ""), ("step_succeeded", "charge"), ("step_failed", "ship"), ("run_failed", "")],
        )

    def test_the_retries_of_the_whole_run_come_on_the_virtual_clock(self):
        @workflow(name="kit_run_retries", retry=RetryPolicy(max_attempts=3, initial_interval="1d", jitter=False))
        def body(input, step, run):
            step.define("before", lambda: effects.leave("before")).run()
            if run.attempts == 1:
                raise OSError("try again")
            step.define("after", lambda: effects.leave("after")).run()

        run = run_workflow(body)
        self.assertEqual((run.status, run.attempts), ("succeeded", 2))
        self.assertEqual(effects.names(run), ["before", "after"])
        self.assertGreaterEqual(run.finished_at - run.started_at, timedelta(days=1))

    def test_control_c_ends_the_test_and_not_the_run(self):
        @workflow(name="kit_interrupted")
        def body(input, step):
            @step.define("interrupt")
            def interrupt():
                raise KeyboardInterrupt

            interrupt.run()

        with self.assertRaises(KeyboardInterrupt):
            run_workflow(body)

    @pytest.mark.any_database
    def test_many_steps_are_put_down_and_replayed_in_reasonable_time(self):
        @workflow(name="kit_many_steps")
        def body(input, step):
            return sum(step.define(f"step {number}", lambda: 1).run() for number in range(150))

        self.assertEqual(run_workflow(body).result(), 150)

    @pytest.mark.any_database
    def test_a_loop_without_end_is_broken_off(self):
        @workflow(name="kit_polls_for_ever")
        def body(input, step):
            while True:
                step.sleep("poll", "1s")

        for options in ({}, {"straight_through": True}):
            with self.assertRaisesMessage(DoesNotEnd, "recorded 50 steps and sleeps"):
                run_workflow(body, max_steps=50, **options)

        @workflow(name="kit_retries_for_ever", retry=10**9)
        def again(input, step):
            raise OSError("and again")

        with self.assertRaises(DoesNotEnd):
            run_workflow(again, max_steps=50)

    def test_runs_that_start_runs_without_end_are_broken_off(self):
        @workflow(name="kit_starts_itself")
        def body(input, step):
            step.define("start", lambda: str(body.start().pk)).run()

        body.start()
        with self.assertRaisesMessage(DoesNotEnd, "Runs have started 20 runs"):
            drain(max_steps=20)

    def test_any_number_of_runs_may_be_there_already(self):
        kit_greeting.start_many({"name": str(number)} for number in range(15))
        self.assertEqual(len(drain(max_steps=5)), 15)

    def test_a_step_may_not_call_the_kit(self):
        @workflow(name="kit_in_a_step")
        def body(input, step):
            step.define("drain", drain).run()

        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(body)
        self.assertIn("for tests, not for bodies", run.error["message"])

    def test_a_plain_function_is_not_a_workflow(self):
        with self.assertRaisesMessage(TypeError, "takes a workflow"):
            run_workflow(lambda input: None)

    def test_a_run_that_never_becomes_due_is_an_error(self):
        run = kit_greeting.start({"name": "x"}, key="lost")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_steps_workflowrun SET version = '9'")
        with self.assertRaisesMessage(StepsError, "is not due at any time"):
            run_workflow(kit_greeting, {"name": "x"}, key="lost")
        self.assertEqual(run.status, "pending")


@workflow
def _fails(input, step):
    step.define("break", lambda: 1 / 0).run()
