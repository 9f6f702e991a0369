"""What hands a claim to another engine: the broker of Celery, the backend of django.tasks.

Not here: the engines, which are in `contrib`, and what is sent when, which is in `executors/dispatch.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..ledger.claims import Claim
from ..ledger.handovers import Handover

_APPS = {"celery": "django_steps.contrib.celery", "tasks": "django_steps.contrib.tasks"}


@dataclass(frozen=True, slots=True)
class Message:
    """A claim as it is sent: a handover, and the run's queue, by which the engine may route it."""

    handover: Handover
    queue: str

    @classmethod
    def of(cls, claim: Claim) -> Message:
        """The message of this claim."""
        return cls(Handover.of(claim), claim.queue)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the engine's task: JSON."""
        handover = self.handover
        return {
            "run_id": str(handover.run_id),
            "token": handover.token,
            "has_history": handover.has_history,
            "is_first": handover.is_first,
            "begin_by": handover.begin_by,
            "queue": self.queue,
        }

    @classmethod
    def read(cls, *, run_id: str, queue: str, **said: Any) -> Message:
        """The message that was sent with these arguments."""
        return cls(Handover(run_id=UUID(run_id), **said), queue)


class Messenger(ABC):
    """Sends messages. Whatever it raises means that the engine can't be reached; used by one thread at a time.

    `name`: the engine as people call it.
    """

    name: str

    @abstractmethod
    def send(self, message: Message) -> None:
        """Hand over one message. It may have arrived although this raises."""

    def probe(self) -> None:  # noqa: B027
        """Raise if nothing could be sent now. Where that can't be told, the next message tells it."""


def messenger_of(executor: str) -> Messenger:
    """The messenger of an executor, by the name that the setting `EXECUTOR` has for it.

    Raises `ImproperlyConfigured` where its app is not installed.
    """
    if problem := missing_app(executor):
        raise ImproperlyConfigured(problem)
    messenger: Messenger = import_string(f"{_APPS[executor]}.messenger.Messenger")()
    return messenger


def missing_app(executor: str) -> str:
    """What to add to `INSTALLED_APPS` for an executor, as a sentence; empty if all is there."""
    app = _APPS.get(executor)
    if app is None or apps.is_installed(app):
        return ""
    return f"The executor {executor!r} needs {app!r} in INSTALLED_APPS."
