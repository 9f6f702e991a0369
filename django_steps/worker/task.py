"""One claimed run in a worker: the pass over it, and the place where that pass runs.

The worker makes jobs and hands them to threads; the keeper interrupts them. Neither is known here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..definitions import get_workflow
from ..engine import hooks
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass
from ..engine.history import History
from ..errors import ClaimLost
from ..ledger import histories, leases, transitions
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.leases import Holding
from ..ledger.records import Outcome
from ..ledger.transitions import Finish
from .host import WorkerHost

logger = logging.getLogger("django_steps")

# A run that has waited for a thread for so many seconds may have been canceled or lost meanwhile.
_LONG_WAIT = 0.2


class Job:
    """A claimed run on its way through a worker."""

    def __init__(self, claim: Claim, records: Sequence[Recorded] | None, host: WorkerHost) -> None:
        self.claim = claim
        self.claimed_on = time.monotonic()
        self.interrupt: Ended | None = None
        self.recorded: list[Recorded] = []  # what the pass left behind, for the next one
        self._records, self._host = records, host
        self._pass: Pass | None = None
        self.has_begun = False

    def run(self) -> Ending:
        """Go over the run once. Never raises: what goes wrong here is the run's failure, or the next claim's affair."""
        self.has_begun = True
        try:
            ending = self._left_untouched() if self._is_unwanted() else self._go_over()
        except ClaimLost:
            ending = Ending(Ended.LOST)
        except Exception as error:
            logger.exception("The pass over run %s broke off.", self.claim.run_id)
            ending = self._fail(error)
        hooks.pass_ended(self.claim, ending)
        return ending

    def stop(self, reason: Ended) -> None:
        """Let the pass end at its next step; may be called from any thread."""
        self.interrupt = self.interrupt or reason
        if self._pass is not None:
            self._pass.interrupt = self.interrupt
        self._host.interrupt()

    def release(self, connection: BaseDatabaseWrapper) -> None:
        """Let go of a run that has found no thread. Raises what the database raises."""
        if self._release(connection):
            hooks.pass_ended(self.claim, Ending(Ended.CANCELED))

    def holding(self) -> Holding:
        """What the renewal of the lease writes about the run."""
        current = self._pass
        if current is None:
            return Holding(self.claim.token)
        return Holding(self.claim.token, current.current_step, current.progress)

    def _is_unwanted(self) -> bool:
        """Whether the run was canceled or lost, or the worker told to stop, while it waited for a thread."""
        if self.interrupt is None and time.monotonic() - self.claimed_on > _LONG_WAIT:
            claim = self.claim
            holding = {claim.run_id: Holding(claim.token)}
            found = self._host.write(lambda: leases.check(self._host.connection(), holding))
            if found.lost:
                self.stop(Ended.LOST)
            elif found.canceled:
                self.stop(Ended.CANCELED)
        return self.interrupt is not None

    def _left_untouched(self) -> Ending:
        has_ended = self._host.write(lambda: self._release(self._host.connection()))
        return Ending(Ended.CANCELED if has_ended else self.interrupt or Ended.RELEASED)

    def _release(self, connection: BaseDatabaseWrapper) -> bool:
        claim = self.claim
        return transitions.release(connection, claim.run_id, claim.token, is_untouched=claim.is_first)

    def _go_over(self) -> Ending:
        claim, host = self.claim, self._host
        if self._records is None:
            loaded = host.write(lambda: histories.load(host.connection(), {claim.run_id: -1}))
            self._records = loaded[claim.run_id]
        history = History(
            self._records,
            lambda name: host.write(lambda: histories.long_output(host.connection(), claim.run_id, name)),
        )
        self._pass = Pass(get_workflow(claim.workflow, claim.version), claim, history, host)
        self._pass.interrupt = self.interrupt
        hooks.run_claimed(claim)
        ending = self._pass.run()
        if ending.how is Ended.SUSPENDED:
            self.recorded = history.records()
        return ending

    def _fail(self, error: Exception) -> Ending:
        end = Finish(
            run_id=self.claim.run_id,
            token=self.claim.token,
            status="failed",
            error=failures.with_steps(failures.record(error), []),
            finished_at=self.claim.now(),
        )
        try:
            outcome = self._host.finish(end)
        except (Exception, ClaimLost):
            logger.exception("Run %s could not be ended; it is taken over when its lease runs out.", end.run_id)
            return Ending(Ended.LOST)
        return Ending(Ended.FAILED, finish=end) if outcome is Outcome.WRITTEN else Ending(Ended.LOST)
