"""Bodies that change while runs are in flight: the same workflow defined a second time, as after a deploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connection

from django_steps import workflow
from django_steps.definitions import registry
from django_steps.models import StepRecord, WorkflowRun
from django_steps.replaying import recordings
from django_steps.replaying.replays import replay


def deploy(name: str, body: Callable[..., Any], **options: Any) -> Any:
    """The workflow of this name with another body, in this process."""
    registry._registry.pop((name, options.get("version", "")), None)
    return workflow(name=name, **options)(body)


def assert_fits(run: Any) -> None:
    """No pass has left a record of the run behind, and a replay comes to all of them."""
    left = [record.name for record in StepRecord.objects.filter(run_id=run.pk) if record.is_unreached]
    assert not left, left
    (recording,) = recordings.of_runs(connection, iter([WorkflowRun.objects.get(pk=run.pk)]))
    verdict = replay(recording, "default")
    assert verdict.fits, verdict.problems
