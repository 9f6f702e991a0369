"""When a worker ends runs whose time is over: when the next one expires, which it learns with the next timed run; a busy one
looks each second.

What expiring is, is in `ledger/expiry.py`.
"""

from __future__ import annotations

import math
import time

from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine.afterwards import Aftercare
from ..ledger import expiry
from ..ledger.claims import Claimed

# Seconds after which a worker that has found work all the time looks for runs that have expired.
_LOOK_EACH = 1.0


class Expiry:
    """The runs of any queue and workflow that nobody holds; used on the thread of the loop."""

    def __init__(self) -> None:
        # Monotonic: when the next one expires, as far as is known, and when that was looked up.
        self._expires_on, self._looked_on = math.inf, 0.0

    def end(self, connection: BaseDatabaseWrapper, aftercare: Aftercare) -> None:
        """End what has expired: where something is known of, and where nothing was looked up for a while."""
        now = time.monotonic()
        if now < self._expires_on and now - self._looked_on < _LOOK_EACH:
            return
        self._expires_on, self._looked_on = math.inf, now
        if ended := expiry.end_expired(connection):
            aftercare.add(Claimed([], ended, [], set()))

    def learn(self, wait_us: int | None) -> None:
        """The next one expires in so many microseconds; None: none does."""
        self._looked_on = now = time.monotonic()
        self._expires_on = math.inf if wait_us is None else now + wait_us / 1_000_000
