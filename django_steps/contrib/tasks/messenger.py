"""Sends claims by a backend of `django.tasks`."""

from __future__ import annotations

from django.conf import settings

from ...worker import messenger
from ...worker.messenger import Message
from .tasks import execute, task_backends

_OWN = "django_steps"


class Messenger(messenger.Messenger):
    """Sends messages by the backend `django_steps` of the setting `TASKS`, or else by the default one.

    A run goes to the queue of its own name where the backend lists it in `QUEUES`, else to the task queue `default`.
    """

    name = "The backend of django.tasks"

    def __init__(self) -> None:
        alias = _OWN if _OWN in getattr(settings, "TASKS", {}) else "default"
        self._task = execute.using(backend=alias)
        self._queues = frozenset(task_backends[alias].queues)

    def send(self, message: Message) -> None:
        task = self._task.using(queue_name=message.queue) if message.queue in self._queues else self._task
        task.enqueue(**message.arguments())
