"""`drain()`: everything that is due, and the virtual clock that it moves."""

from __future__ import annotations

from datetime import timedelta

from django.test import TestCase
from django.utils import timezone

from django_steps import workflow
from django_steps.testing import drain, run_workflow
from tests.app import effects

from .workflows import kit_greeting, kit_order, kit_parent


class DrainTests(TestCase):
    def test_what_is_due_is_executed_whoever_started_it(self):
        kit_greeting.start_many([{"name": "a"}, {"name": "b"}])
        sleeping = kit_greeting.start({"name": "c", "pause": "6d"})
        runs = drain()
        self.assertEqual([run.status for run in runs], ["succeeded", "succeeded", "sleeping"])
        self.assertEqual(runs[2].pk, sleeping.pk)
        self.assertEqual(effects.names(), ["hello a", "bye a", "hello b", "bye b", "hello c"])
        self.assertEqual(drain(), [])

    def test_time_passes_as_far_as_it_is_told_to(self):
        kit_greeting.start({"name": "a", "pause": "6d"})
        drain()
        drain(advance="5d")
        self.assertEqual(effects.names(), ["hello a"])
        drain(advance=timedelta(hours=23))
        self.assertEqual(effects.names(), ["hello a"])
        drain(advance="1h")
        self.assertEqual(effects.names(), ["hello a", "bye a"])

    def test_runs_wake_in_the_order_of_their_times(self):
        for name, pause in (("a", "3d"), ("b", "1d"), ("c", "2d")):
            kit_greeting.start({"name": name, "pause": pause})
        drain()
        drain(advance="1w")
        self.assertEqual(effects.names()[3:], ["bye b", "bye c", "bye a"])

    def test_what_starts_after_time_has_passed_is_timed_from_then_on(self):
        drain(advance="6d")
        run = kit_greeting.start({"name": "a"}, delay="1d")
        self.assertLess(abs(run.created_at - timezone.now() - timedelta(days=6)), timedelta(minutes=1))
        self.assertEqual(drain(), [])
        self.assertEqual(drain(advance="1d"), [run])

    def test_waits_that_a_worker_waits_out_pass_without_being_told(self):
        @workflow(name="kit_rate_limited")
        def body(input, step):
            for number in range(3):
                step.define(f"call {number}", lambda: effects.leave("call")).run()
                step.sleep("rate limit", "100ms")

        body.start()
        drain()
        self.assertEqual(effects.count("call"), 3)

    def test_a_delayed_start_and_a_given_time_are_waited_for(self):
        kit_greeting.start({"name": "a"}, start_at=timezone.now() + timedelta(hours=1))
        kit_greeting.start({"name": "b"}, delay="2h")
        drain()
        self.assertEqual(effects.names(), [])
        drain(advance="61m")
        self.assertEqual(effects.names(), ["hello a", "bye a"])
        drain(advance="60m")
        self.assertEqual(effects.count("bye b"), 1)

    def test_children_and_parents_go_on_together(self):
        parent = kit_parent.start({"children": ["a", "b"]})
        drain()
        self.assertEqual(effects.names(), ["hello a", "hello b"])
        drain(advance="1w")
        self.assertEqual(parent.result(), ["hello a", "hello b", "bye a", "bye b"])

    def test_stubs_hold_for_all_runs_of_the_call(self):
        kit_order.start({"order": 1})
        kit_order.start({"order": 2})
        runs = drain(advance="30d", stubs={"charge": 1, "ship": 2})
        self.assertEqual([run.output["charge"] for run in runs], [1, 1])
        self.assertEqual(effects.names(), [])

    def test_runs_of_unknown_workflows_are_left_alone(self):
        run = kit_greeting.start({"name": "a"})
        type(run).objects.filter(pk=run.pk).update(version="from another deploy")
        self.assertEqual(drain(advance="1d"), [])
        self.assertEqual(run_workflow(kit_greeting, {"name": "b"}).status, "succeeded")
