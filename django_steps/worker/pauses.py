"""What a worker knows of paused queues and workflows: it claims no runs of them, and parks those that come in. A receiver,
which executes what a dispatcher has claimed, releases runs that have been paused meanwhile.
"""

from __future__ import annotations

import time

from django.db.backends.base.base import BaseDatabaseWrapper

from ..ledger import pauses
from ..ledger.claims import Claim
from ..ledger.pauses import Paused

_READ_AFTER = 0.5  # how many seconds old may be what a claim knows


class Pauses:
    """The pauses as they were read last. `parks`: where anything is paused, what claims would have to walk over is parked.

    Used on one thread if it parks. Otherwise on any: then the worst is that two of them read.
    """

    def __init__(self, *, parks: bool) -> None:
        self._parks = parks
        self._paused, self._read_on = pauses.NONE, 0.0

    def now(self, connection: BaseDatabaseWrapper) -> Paused:
        """What is paused. Raises what the database raises."""
        asked_on = time.monotonic()
        if not self._read_on or asked_on - self._read_on >= _READ_AFTER:
            self._paused = pauses.read(connection)
            if self._paused and self._parks:
                pauses.park_front(connection)
            self._read_on = asked_on
        return self._paused

    def hold(self, connection: BaseDatabaseWrapper, claim: Claim) -> bool:
        """Whether one of them holds this run, and nobody has let it through. Raises what the database raises."""
        if not self.now(connection).holds(claim.queue, claim.workflow):
            return False
        return pauses.hold(connection, claim.run_id)[0]
