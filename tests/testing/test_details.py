"""`run.update_details()` in the testing kit."""

from __future__ import annotations

from django.test import TestCase

from django_steps import AsyncStep, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import drain, run_workflow


def _item(number, step, run):
    run.update_details(**{f"item {number}": "begun"})
    step.sleep("nap", "1h")
    run.update_details(**{f"item {number}": "done"})


class DetailsTests(TestCase):
    def test_details_are_those_of_a_worker_however_often_the_body_is_replayed(self):
        @workflow(name="kit_telling")
        def telling(input, step, run):
            run.update_details(stage="begun")
            found = [step.define("first", lambda: WorkflowRun.objects.get().details).run()]
            run.update_details(stage="mapping")
            step.map("item", _item, [1, 2])
            found.append(step.define("last", lambda: WorkflowRun.objects.get().details).run())
            run.update_details(stage="over")
            return found

        for straight_through in (False, True):
            with self.subTest(straight_through=straight_through):
                WorkflowRun.objects.all().delete()
                run = run_workflow(telling, straight_through=straight_through)
                done = {"item 1": "done", "item 2": "done"}
                self.assertEqual(run.output, [{}, {"stage": "mapping", **done}])
                self.assertEqual(run.details, {"stage": "over", **done})

    def test_what_is_said_before_a_sleep_is_there_between_drains_and_what_comes_after_it_at_the_end(self):
        @workflow(name="kit_telling_async")
        async def telling(input, step: AsyncStep, run):
            run.update_details(stage="begun")
            await step.define("first", lambda: None).run()
            await step.sleep("nap", "1h")
            run.update_details(stage="over")

        run = telling.start()
        drain()
        run.refresh_from_db()
        self.assertEqual((run.status, run.details), ("sleeping", {"stage": "begun"}))
        self.assertEqual(run_workflow(telling).details, {"stage": "over"})
