"""One claimed run in this process: its pass, how it is interrupted, and what the heartbeat says of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine import hooks
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass, fail_endless, run_claim
from ..engine.frame import Frame
from ..engine.host import endless_body
from ..engine.interceptors import Interceptor
from ..errors import ClaimLost
from ..ledger import leases, transitions
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.leases import Holding
from .host import WorkerHost

logger = logging.getLogger("django_steps")

# A run that has waited for a thread for so many seconds may have been canceled or lost meanwhile.
_LONG_WAIT = 0.2


class Task:
    """A claimed run on its way through a worker."""

    def __init__(
        self,
        claim: Claim,
        records: Sequence[Recorded] | None,
        host: WorkerHost,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.claim = claim
        self.claimed_on = time.monotonic()
        self.interrupt: Ended | None = None
        self.has_begun = False
        self._records, self._host, self._interceptors = records, host, interceptors
        self._frame: Frame | None = None
        # The checkpoints that the row of the run holds, and since when.
        self._checkpoint, self.checkpoint_written_on = claim.checkpoint, self.claimed_on
        host.on_endless_body = self._has_endless_body
        # Called on the thread of a pass whose body doesn't let it end; never returns.
        self.abandon: Callable[[Task, Ending], NoReturn] | None = None

    def run(self) -> Ending:
        """Execute the run once. What goes wrong here is the run's failure, or the next claim's."""
        self.has_begun = True
        try:
            if self._is_unwanted():
                return self._released()
        except ClaimLost:
            return Ending(Ended.LOST)
        return run_claim(self.claim, self._host, self._records, interceptors=self._interceptors, begun=self._begun)

    def stop(self, reason: Ended) -> None:
        """Let the pass end at its next operation; may be called from any thread."""
        self.interrupt = self.interrupt or reason
        if self._frame is not None:
            self._frame.state.stop(self.interrupt)
        self._host.interrupt()

    def release(self, connection: BaseDatabaseWrapper) -> None:
        """Release a run that has found no thread. Raises what the database raises."""
        if self._release(connection):
            hooks.run_left(self.claim, Ending(Ended.CANCELED))

    def holding(self) -> Holding:
        """What the renewal of the lease writes about the run."""
        frame = self._frame
        if frame is None:
            return Holding(self.claim.token)
        state = frame.state
        step = next((executed.current_step for executed in tuple(state.frames) if executed.current_step), "")
        text = state.checkpoints.text
        checkpoint = None if text == self._checkpoint else text
        return Holding(self.claim.token, step, state.progress or state.map_progress, checkpoint)

    def checkpoint_written(self, text: str) -> None:
        """A renewal has written the checkpoints of `holding()`."""
        self._checkpoint, self.checkpoint_written_on = text, time.monotonic()

    def writes_in_succession(self) -> bool:
        """Whether several things are executed side by side, so that writes of its own may lock the run all the time."""
        return self._frame is not None and len(self._frame.state.frames) > 1

    def silent_for(self) -> float:
        """For how many seconds the database has not answered to a write of the pass."""
        frames = () if self._frame is None else tuple(self._frame.state.frames)
        asked_on = [self._host.asked_on, *(frame.asked_on for frame in frames)]
        asked_on += [frame.host.asked_on for frame in frames if isinstance(frame.host, WorkerHost)]
        return max((time.monotonic() - asked for asked in asked_on if asked is not None), default=0.0)

    def recorded(self) -> list[Recorded]:
        """What the run had recorded when its pass ended: what its next pass need not load again."""
        return [] if self._frame is None else self._frame.history.records()

    def _has_endless_body(self, claim: Claim, ending: Ending) -> None:
        error = endless_body(claim.run_id)
        logger.error("%s", error)
        ending = fail_endless(claim, self._host, ending, error)
        hooks.run_left(claim, ending)
        if self.abandon is not None:
            self.abandon(self, ending)

    def _begun(self, current: Pass) -> None:
        self._frame = current.frame
        if self.interrupt is not None:  # `stop` may have come first
            current.state.stop(self.interrupt)

    def _is_unwanted(self) -> bool:
        """Whether the run was canceled or lost, or the worker stopped, while it waited for a thread."""
        if self.interrupt is None and time.monotonic() - self.claimed_on > _LONG_WAIT:
            claim = self.claim
            holding = {claim.run_id: Holding(claim.token)}
            found = self._host.write(lambda: leases.check(self._host.connection(), holding))
            if found.lost:
                self.stop(Ended.LOST)
            elif found.canceled:
                self.stop(Ended.CANCELED)
        return self.interrupt is not None

    def _released(self) -> Ending:
        has_ended = self._host.write(lambda: self._release(self._host.connection()))
        ending = Ending(Ended.CANCELED if has_ended else self.interrupt or Ended.RELEASED)
        hooks.run_left(self.claim, ending)
        return ending

    def _release(self, connection: BaseDatabaseWrapper) -> bool:
        claim = self.claim
        return transitions.release(connection, claim.run_id, claim.token, is_untouched=claim.is_first)
