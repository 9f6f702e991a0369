"""The workers that a notification wakes together with this one, and how they don't all look at once.

A notification reaches every worker, and most often says that one run is ready. If each of 64 idle workers claimed at once, 63
of these claims would find nothing, for each run that is started. So about two of them look at once, by lot, and the others a
moment later, when one look serves all notifications until then. The moment is as short as it can be: among many workers that
wait for a random time, one waits for a short one. The lot falls anew each time: runs that compute come to all processes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..ledger import workers

# How many look at once, on average; and for how many seconds the others wait at most: for each worker, and in all.
_AT_ONCE = 2
_PER_PEER, _LONGEST = 0.005, 0.25


class Peers:
    """How many live workers claim runs of the same queues as this one, which is one of them."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._queues = queues
        self.count = 1

    def look(self, connection: BaseDatabaseWrapper) -> None:
        """Count them. Of those that look for other queues none can take the place of this one."""
        self.count = max(1, workers.count_alike(connection, self._queues))

    def waits_for(self) -> float:
        """For how many seconds this one leaves a notification to the others."""
        if random.random() * self.count < _AT_ONCE:
            return 0.0
        return random.random() * min(_LONGEST, _PER_PEER * self.count)
