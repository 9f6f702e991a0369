"""Pauses in tests: `drain()` leaves what is paused, and `run_workflow()` says why it can't go on."""

from __future__ import annotations

import pytest
from django.test import TestCase

from django_steps.errors import StepsError
from django_steps.models import WorkflowPause
from django_steps.testing import drain, run_workflow

from .workflows import kit_greeting


class PauseTests(TestCase):
    def test_a_paused_run_is_left_until_it_is_resumed(self):
        run = kit_greeting.start({"name": "a"})
        run.pause()
        self.assertEqual(drain(advance="30d"), [])
        run.resume()
        self.assertEqual([one.status for one in drain(advance="30d")], ["succeeded"])

    def test_a_paused_queue_or_workflow_is_left_and_a_run_is_let_through(self):
        runs = [kit_greeting.start({"name": "a"}) for _ in range(2)]
        kit_greeting.pause()
        self.assertEqual(drain(), [])
        runs[0].resume()
        self.assertEqual([run.pk for run in drain()], [runs[0].pk])
        kit_greeting.resume()
        self.assertEqual([run.pk for run in drain()], [runs[1].pk])

    def test_a_run_that_can_not_go_on_is_told(self):
        WorkflowPause.objects.pause_queue("default")
        with pytest.raises(StepsError, match="is not executed, since its queue or its workflow is paused"):
            run_workflow(kit_greeting, {"name": "a"})
