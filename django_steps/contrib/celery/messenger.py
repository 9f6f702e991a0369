"""Sends claims by the broker of Celery."""

from __future__ import annotations

from typing import Any

from celery import current_app

from ...worker import messenger
from ...worker.messenger import Message
from .tasks import execute

# One more attempt, for a connection that was closed while it was not used. Celery's own three would take 0.6 seconds.
_RETRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
_PATIENCE = 3.0  # seconds that the broker has to take a new connection


class Messenger(messenger.Messenger):
    """Sends messages by the current Celery app, to the queue that its routes say."""

    name = "Celery's broker"

    def send(self, message: Message) -> None:
        options: dict[str, Any] = {"retry": True, "retry_policy": _RETRY}
        execute.apply_async(kwargs=message.arguments(), **options)

    def probe(self) -> None:
        with current_app.connection_for_write(connect_timeout=_PATIENCE) as connection:
            connection.connect()
            connection.default_channel.close()
