"""`run_workflow()` in a plain `TestCase`: the real engine, on this connection, without waiting."""

from __future__ import annotations

import time
from datetime import timedelta

from django.test import TestCase

from django_steps import RetryPolicy, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import drain, run_workflow
from tests.app import effects
from tests.app.models import Person


@workflow
def kit_order(input, step):
    step.define("charge", lambda: effects.leave("charge")).run()
    step.sleep("wait", "30d")
    step.define("ship", lambda: effects.leave("ship")).run()
    return {"order": input["order"]}


@workflow
def kit_flaky(input, step):
    policy = RetryPolicy(max_attempts=5, initial_interval="1h", backoff_coefficient=2, max_interval="1d", jitter=False)

    @step.define("flaky", retry=policy)
    def flaky():
        effects.leave("flaky")
        if effects.count("flaky") < 4:
            raise OSError("not yet")
        return effects.count("flaky")

    return flaky.run()


class RunWorkflowTests(TestCase):
    def test_a_run_is_driven_through_its_sleeps_to_its_end(self):
        began = time.monotonic()
        run = run_workflow(kit_order, {"order": 7})
        self.assertEqual((run.status, run.output), ("succeeded", {"order": 7}))
        self.assertEqual(effects.names(run), ["charge", "ship"])
        self.assertGreaterEqual(run.finished_at - run.started_at, timedelta(days=30))
        self.assertLess(time.monotonic() - began, 10)

    def test_back_offs_pass_on_the_virtual_clock(self):
        run = run_workflow(kit_flaky)
        self.assertEqual(run.result(), 4)
        record = run.steps.get()
        self.assertEqual(record.attempts, 4)
        starts = [attempt["started_at"] for attempt in record.earlier_attempts] + [record.started_at]
        hours = [round((later - earlier) / timedelta(hours=1)) for earlier, later in zip(starts, starts[1:])]
        self.assertEqual(hours, [1, 2, 4])
