"""The task of Celery that executes a pass of a run."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from ...worker.messenger import Message
from ...worker.receiver import receiver_of
from . import process

NAME = "django_steps.execute"


# Acknowledged early, whatever the project does else: the row is the truth, and what gets lost is sent again.
@shared_task(name=NAME, ignore_result=True, acks_late=False, max_retries=0)  # type: ignore[untyped-decorator]
def execute(**said: Any) -> None:
    """Adopt the claim of a run and execute a pass of it; nothing if the claim has gone on."""
    execution = receiver_of("celery", process.is_ending, process.end).begin(Message.read(**said))
    if execution is None:
        return
    try:
        execution.wait()
    except SoftTimeLimitExceeded:  # the pass is on another thread, and ends after its present step
        execution.release()
        execution.wait()
