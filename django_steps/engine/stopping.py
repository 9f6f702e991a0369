"""Canceling the children of a run on behalf of its pass: the writes, and the signals that follow."""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any
from uuid import UUID

from ..ledger import cascades
from .host import Host
from .operations.base import Announce, Call, Effect

Part = Generator[Effect, Any, None]


def cancel_children(
    host: Host, run_id: UUID, reason: str, steps: Collection[str] | None = None, started_by_us: int | None = None
) -> Part:
    """Cancel the children of a run that have not ended; `steps`: only those of these steps and maps; `started_by_us`: only
    those that had been started then."""
    finished = yield Call(lambda: cascades.cancel_children(host.connection(), run_id, reason, steps, started_by_us))
    yield from tell(finished)


def tell(finished: Collection[UUID]) -> Part:
    """Send the signals of runs that were canceled and held by nobody."""
    if finished:
        yield Announce(finished)
