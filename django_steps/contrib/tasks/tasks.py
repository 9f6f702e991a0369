"""The task that executes a pass of a run."""

from __future__ import annotations

import atexit
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...worker.messenger import Message
from ...worker.receiver import close_receivers, receiver_of

if TYPE_CHECKING or find_spec("django.tasks"):
    from django.tasks import task, task_backends
else:  # Django 5.2
    from django_tasks import task, task_backends

__all__ = ["execute", "task_backends"]

# Whoever executes tasks has no signal for the end of its process.
atexit.register(close_receivers)


@task
def execute(**said: Any) -> None:
    """Adopt the claim of a run and execute a pass of it; nothing if the claim has gone on."""
    execution = receiver_of("tasks").begin(Message.read(**said))
    if execution is not None:
        execution.wait()
