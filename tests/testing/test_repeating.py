"""What would break in production breaks in the test, because the body is called again after every step."""

from __future__ import annotations

import itertools
import threading

from django.test import TestCase

from django_steps import workflow
from django_steps.testing import NotRepeatable, StateLost, run_workflow

found: dict[str, int] = {}
noted: list[str] = []
session = None
local = threading.local()


def log_in():
    global session
    session = "opened"


class RepeatingTests(TestCase):
    def test_a_variable_changed_by_a_step_is_lost(self):
        @workflow(name="kit_rebinds")
        def rebinds(input, step):
            total = 0

            @step.define("add")
            def add():
                nonlocal total
                total += 1

            add.run()
            return total

        with self.assertRaisesMessage(
            StateLost, "Step 'add' of 'kit_rebinds' changed 'total', a variable of the body."
        ):
            run_workflow(rebinds)
        self.assertEqual(run_workflow(rebinds, straight_through=True).result(), 1)

    def test_a_container_filled_by_a_step_is_lost(self):
        @workflow(name="kit_fills")
        def fills(input, step):
            found = {}
            step.define("find", lambda: found.update(x=1)).run()
            return found

        with self.assertRaisesMessage(StateLost, "changed 'found'"):
            run_workflow(fills)

    def test_what_lies_outside_the_body_may_change(self):
        outside = []

        @workflow(name="kit_traces")
        def traces(input, step):
            step.define("trace", lambda: outside.append("trace")).run()

        self.assertEqual(run_workflow(traces).status, "succeeded")
        self.assertEqual(outside, ["trace"])

    def test_a_variable_of_the_module_or_the_thread_that_the_body_reads_is_lost(self):
        @workflow(name="kit_fills_module")
        def fills(input, step):
            step.define("find", lambda: found.update(x=1)).run()
            return found["x"]

        @workflow(name="kit_rebinds_module")
        def rebinds(input, step):
            step.define("log in", log_in).run()
            return session

        @workflow(name="kit_fills_thread")
        def fills_thread(input, step):
            step.define("set", lambda: setattr(local, "tenant", "acme")).run()
            return local.tenant

        self.addCleanup(found.clear)
        self.addCleanup(vars(local).clear)
        self.addCleanup(globals().update, session=None)
        for body, step, name in (
            (fills, "find", "found"),
            (rebinds, "log in", "session"),
            (fills_thread, "set", "local"),
        ):
            with self.assertRaisesMessage(
                StateLost, f"Step '{step}' of '{body.name}' changed '{name}', a variable of the module"
            ):
                run_workflow(body)

    def test_a_variable_of_the_module_that_the_body_does_not_read_may_change(self):
        @workflow(name="kit_traces_in_module")
        def traces(input, step):
            noted.append("body")
            step.define("note", lambda: noted.append("step")).run()
            step.define("log in", log_in).run()

        self.addCleanup(noted.clear)
        self.addCleanup(globals().update, session=None)
        self.assertEqual(run_workflow(traces).status, "succeeded")
        self.assertEqual(noted.count("step"), 1)

    def test_a_body_that_goes_another_way_is_told(self):
        numbers = itertools.count()

        @workflow(name="kit_wanders")
        def wanders(input, step):
            step.define("first", lambda: None).run()
            step.define(f"step {next(numbers)}", lambda: None).run()

        with self.assertRaisesMessage(NotRepeatable, "it came to 'step 0' here, and now it came to 'step 1'"):
            run_workflow(wanders)

    def test_a_body_that_forgets_a_step_is_told(self):
        passes = itertools.count()

        @workflow(name="kit_forgets")
        def forgets(input, step):
            if next(passes) == 0:
                step.define("only once", lambda: None).run()

        with self.assertRaisesMessage(NotRepeatable, "it came to 'only once' here, and now it returned"):
            run_workflow(forgets)

    def test_mistakes_fail_the_run_and_are_logged_with_what_to_do(self):
        @workflow(name="kit_duplicates")
        def duplicates(input, step):
            step.define("same", lambda: None).run()
            step.define("same", lambda: None).run()

        @workflow(name="kit_unrecordable")
        def unrecordable(input, step):
            step.define("make", lambda: {"a": [object()]}).run()

        @workflow(name="kit_never_run")
        def never_run(input, step):
            step.define("forgotten", lambda: None)

        for body, advice in (
            (duplicates, "include the index"),
            (unrecordable, 'result["a"][0]'),
            (never_run, "Call .run() on it"),
        ):
            with self.assertLogs("django_steps.testing", "ERROR") as logs:
                run = run_workflow(body)
            self.assertEqual(run.status, "failed")
            self.assertIn(advice, logs.output[0])

    def test_a_failure_handled_by_the_body_is_replayed_not_executed_again(self):
        executed = []

        @workflow(name="kit_handles")
        def handles(input, step):
            try:
                step.define("ship", lambda: executed.append("ship") or 1 / 0).run()
            except ZeroDivisionError:
                step.define("refund", lambda: executed.append("refund")).run()
            step.define("tell", lambda: executed.append("tell")).run()

        self.assertEqual(run_workflow(handles).status, "succeeded")
        self.assertEqual(executed, ["ship", "refund", "tell"])
