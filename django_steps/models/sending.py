"""Sending events: by a run, by the key of one, to many. Checked and encoded before anything is written."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import values
from ..conf import conf
from ..core import clock
from ..core.event import Event
from ..errors import StepsError
from ..ledger import events as ledger
from ..ledger.events import NewEvent, To

logger = logging.getLogger("django_steps")


def prepared(event: Event[Any]) -> NewEvent:
    """An event as it is inserted; raises `UnserializableValue` or `ValueTooLarge` for its payload."""
    return NewEvent(
        name=event.name,
        payload=values.encode(event.payload, root="payload", max_bytes=conf.max_value_bytes),
        event_id=event.id,
        by=event.by[:255],
        sent_at=clock.host_time(),
    )


def send(connection: BaseDatabaseWrapper, to: To, event: Event[Any], new: NewEvent | None = None) -> Event[Any]:
    """Send an event; what is returned is the first with its id."""
    new = prepared(event) if new is None else new
    sent = ledger.send(connection, to, new)
    event.created, event.sent_at = sent.is_new, clock.to_datetime(sent.sent_at)
    if not sent.is_new:
        if sent.payload != new.payload and not _are_equal(sent.payload, new.payload):
            whom = to.run_id if to.run_id is not None else f"key {to.key!r} of {to.workflow!r}"
            logger.warning(
                "Event %r with id %r was sent again to %s with another payload; the first one stands.",
                event.name,
                event.id,
                whom,
            )
        event.by = sent.by
        with suppress(StepsError):  # a class or a row that the first one refers to is gone
            event.payload = values.decode(sent.payload)
    return event


def _are_equal(first: str, second: str) -> bool:
    """Whether two encoded payloads are equal, also if their keys are in another order."""
    try:
        return bool(values.decode(first) == values.decode(second))
    except Exception:  # a row or a class that the first one refers to is gone
        return False
