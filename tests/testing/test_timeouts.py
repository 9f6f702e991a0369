"""Time limits pass on the virtual clock: of runs that wait, and of steps that take long."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.test import TestCase

from django_steps import AsyncStep, RetryPolicy, StepTimedOut, current_step, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import clock, drain, run_workflow

SECOND = 1_000_000
HOUR = 3600 * SECOND


def slow(seconds):
    """A step's function that takes so long on the virtual clock."""
    return lambda: clock.advance(int(seconds * SECOND)) or "done"


class RunTimeouts(TestCase):
    def test_a_run_that_sleeps_past_its_timeout_has_failed(self):
        @workflow(name="kit_sleeping", timeout="2h")
        def body(step):
            step.sleep("long", "30d")

        run = run_workflow(body)
        assert run.status == "failed" and run.error["type"].endswith("RunTimedOut")
        assert timedelta(hours=2) <= run.finished_at - run.started_at < timedelta(hours=3)

    def test_a_run_that_sleeps_less_has_not(self):
        @workflow(name="kit_sleeping_less", timeout="2h")
        def body(step):
            step.sleep("short", "1h")

        assert run_workflow(body).status == "succeeded"

    def test_a_step_that_takes_too_long_ends_its_run(self):
        @workflow(name="kit_slow")
        def body(step):
            step.define("slow", slow(3 * 3600)).run()
            step.define("never", lambda: 1).run()

        for straight_through in (False, True):
            run = run_workflow(body, timeout="2h", straight_through=straight_through)
            assert run.status == "failed" and run.error["type"].endswith("RunTimedOut")
            assert [step.name for step in run.steps.all()] == ["slow"]

    def test_an_async_body_that_waits_in_memory_ends_with_its_timeout(self):
        @workflow(name="kit_in_memory")
        async def body(step: AsyncStep):
            async with asyncio.timeout(5 * 3600):
                await step.wait_for_event("never")

        run = run_workflow(body, timeout="2h")
        assert run.status == "failed" and run.error["type"].endswith("RunTimedOut")

    def test_a_wait_that_nobody_answers_times_out_with_its_run(self):
        @workflow(name="kit_unanswered")
        def body(step):
            step.wait_for_event("never")

        assert run_workflow(body, timeout="2h").error["type"].endswith("RunTimedOut")

    def test_what_does_not_begin_in_time_is_canceled(self):
        @workflow(name="kit_late")
        def body():
            return 1

        run = body.start(start_within="10m")
        with clock.running():
            clock.advance(11 * 60 * SECOND)
        drain()
        run.refresh_from_db()
        assert (run.status, run.cancel_reason) == ("canceled", "expired")

    def test_time_passes_with_drain(self):
        @workflow(name="kit_drained", timeout="2h")
        def body(step):
            step.sleep("long", "30d")

        run = body.start()
        drain(advance="1h")
        assert WorkflowRun.objects.get(pk=run.pk).status == "sleeping"
        drain(advance="2h")
        assert WorkflowRun.objects.get(pk=run.pk).status == "failed"


class StepTimeouts(TestCase):
    def test_a_plain_function_that_ends_within_the_grace_keeps_its_result(self):
        @workflow(name="kit_within")
        def body(step):
            return step.define("slow", slow(50), timeout="30s").run()

        assert run_workflow(body).output == "done"

    def test_a_plain_function_that_ends_later_has_timed_out(self):
        @workflow(name="kit_beyond")
        def body(step):
            return step.define("slow", slow(70), timeout="30s").run()

        run = run_workflow(body)
        assert run.status == "failed" and run.error["type"].endswith("StepTimedOut")

    def test_it_is_retried_by_its_policy(self):
        seconds = [70, 1]

        @workflow(name="kit_retried")
        def body(step):
            policy = RetryPolicy(max_attempts=2, initial_interval="10m")
            return step.define("slow", lambda: slow(seconds.pop(0))(), timeout="30s", retry=policy).run()

        assert run_workflow(body).output == "done" and not seconds

    def test_a_step_sees_its_time_go(self):
        seen = []

        def look():
            seen.append(current_step().remaining())
            clock.advance(10 * SECOND)
            seen.append(current_step().remaining())

        @workflow(name="kit_remaining")
        def body(step):
            step.define("look", look, timeout="30s").run()

        run_workflow(body)
        assert [round(remaining) for remaining in seen] == [30, 20]

    def test_an_atomic_step_that_takes_too_long_writes_nothing(self):
        @workflow(name="kit_atomic")
        def body(step):
            return step.define("slow", slow(70), timeout="30s", atomic=True).run()

        assert run_workflow(body).error["type"].endswith("StepTimedOut")

    def test_a_plain_step_of_an_async_body(self):
        @workflow(name="kit_async")
        async def body(step: AsyncStep):
            try:
                await step.define("slow", slow(70), timeout="30s").run()
            except StepTimedOut as error:
                return error.step

        assert run_workflow(body).output == "slow"

    def test_a_stub_may_stand_for_a_step_that_is_too_slow(self):
        @workflow(name="kit_stubbed")
        def body(step):
            try:
                step.define("slow", slow(1), timeout="30s").run()
            except StepTimedOut as error:
                return error.timeout.total_seconds()

        too_slow = StepTimedOut("slow", timedelta(seconds=30))
        assert run_workflow(body, stubs={"slow": too_slow}).output == 30


@pytest.mark.django_db
def test_the_grace_is_the_setting(settings):
    settings.DJANGO_STEPS = {"STEP_GRACE": "10s"}

    @workflow(name="kit_grace")
    def body(step):
        return step.define("slow", slow(50), timeout="30s").run()

    assert run_workflow(body).status == "failed"
