"""What a worker knows of paused queues and workflows: it claims no runs of them, and parks those that come in."""

from __future__ import annotations

import time

from django.db.backends.base.base import BaseDatabaseWrapper

from ..ledger import pauses
from ..ledger.pauses import Paused

_READ_AFTER = 0.5  # how many seconds old may be what a claim knows


class Pauses:
    """The pauses as they were read last; used on the thread of the loop."""

    def __init__(self) -> None:
        self._paused, self._read_on = pauses.NONE, 0.0

    def now(self, connection: BaseDatabaseWrapper) -> Paused:
        """What is paused. Where anything is, parks what claims would have to walk over. Raises what the database raises."""
        asked_on = time.monotonic()
        if not self._read_on or asked_on - self._read_on >= _READ_AFTER:
            self._paused = pauses.read(connection)
            if self._paused:
                pauses.park_front(connection)
            self._read_on = asked_on
        return self._paused
