"""A claim that this process holds: what the heartbeat asks of it and says to it, and how its run is released."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine import afterwards, hooks
from ..engine.ending import Ended, Ending
from ..ledger import lines, transitions
from ..ledger.claims import Claim
from ..ledger.leases import Holding
from ..ledger.waits import Waiting


class Held(ABC):
    """A run between its claim and the end of its pass; here as one that nobody in this process executes."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.claimed_on = time.monotonic()
        self.interrupt: Ended | None = None
        self.has_begun = False
        # Since when the row of the run holds the checkpoints that it holds.
        self.checkpoint_written_on = self.claimed_on

    @abstractmethod
    def stop(self, reason: Ended) -> None:
        """Let the run be released as soon as possible; may be called from any thread, and must not take long."""

    def holding(self) -> Holding:
        """What the renewal of the lease writes about the run."""
        return Holding(self.claim.token)

    def checkpoint_written(self, text: str) -> None:  # noqa: B027
        """A renewal has written the checkpoints of `holding()`."""

    def writes_in_succession(self) -> bool:
        """Whether several things are executed side by side, so that writes of its own may lock the run all the time."""
        return False

    def waits_for(self) -> Sequence[Waiting]:
        """What calls of the pass wait for others for, if it does so in memory."""
        return ()

    def has_news(self) -> None:  # noqa: B027
        """There is something for one of these calls; may be called from any thread."""

    def silent_for(self) -> float:
        """For how many seconds the database has not answered to a write of the pass."""
        return 0.0

    def release(self, connection: BaseDatabaseWrapper) -> None:
        """Release a run whose body was not called. Raises what the database raises."""
        has_ended = self._release(connection)
        if self.claim.limits:  # it gives up its slots if it is paused or has ended
            lines.promote_after_commit(connection, lines.names(*self.claim.limits))
        if has_ended:
            hooks.run_left(self.claim, Ending(Ended.CANCELED))
            afterwards.run_canceled(connection, self.claim)

    def _release(self, connection: BaseDatabaseWrapper) -> bool:
        claim = self.claim
        return transitions.release(
            connection, claim.run_id, claim.token, is_untouched=claim.is_first, begin_by=claim.begin_by
        )
