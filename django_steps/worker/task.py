"""One claimed run in this process: its pass, how it is interrupted, and what the heartbeat says of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..core.context import thread_id
from ..engine import afterwards, async_execution, conclusion, hooks
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass, run_claim
from ..engine.frame import Frame
from ..engine.host import endless_body
from ..engine.interceptors import Interceptor, give_up
from ..engine.loops import PassLoop
from ..engine.overdue import TimedCall
from ..errors import ClaimLost
from ..ledger import leases
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.leases import Holding
from ..ledger.waits import Waiting
from .async_host import WorkerAsyncHost
from .held import Held
from .host import WorkerHost

logger = logging.getLogger("django_steps")

# A run that has waited for a thread for so many seconds may have been canceled, paused or lost meanwhile.
_LONG_WAIT = 0.2


class Task(Held):
    """A claimed run on its way through a worker."""

    def __init__(
        self,
        claim: Claim,
        records: Sequence[Recorded] | None,
        host: WorkerHost,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        super().__init__(claim)
        self._records, self._host, self._interceptors = records, host, interceptors
        self._frame: Frame | None = None
        self._checkpoint = claim.checkpoint  # as the row of the run has it
        host.on_endless_body = self._has_endless_body
        # Called on the thread of a pass whose body doesn't let it end; never returns.
        self.abandon: Callable[[Task, Ending], NoReturn] | None = None
        # Told of each call of a plain function that has a timeout.
        self.watch: Callable[[TimedCall], None] | None = None
        self.thread_id = 0  # of the pass of a plain body
        # Called when nothing in this process holds the run any longer, if somebody waits for that.
        self.on_left: Callable[[], None] | None = None

    def run(self) -> Ending:
        """Execute the run once. What goes wrong here is the run's failure, or the next claim's."""
        self.has_begun, self.thread_id = True, thread_id()
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

    def waits_for(self) -> Sequence[Waiting]:
        """What calls of the pass wait for others for, if it does so in memory."""
        return () if self._frame is None else self._frame.state.waits.calls()

    def has_news(self) -> None:
        """There is something for one of these calls; may be called from any thread."""
        if self._frame is not None:
            self._frame.state.has_news()

    def silent_for(self) -> float:
        """For how many seconds the database has not answered to a write of the pass."""
        frames = () if self._frame is None else tuple(self._frame.state.frames)
        asked_on = [self._host.asked_on, *(frame.asked_on for frame in frames)]
        asked_on += [frame.host.asked_on for frame in frames if isinstance(frame.host, WorkerHost)]
        return max((time.monotonic() - asked for asked in asked_on if asked is not None), default=0.0)

    def end_lines(self) -> None:
        """The pass has ended: what it has written to the log is complete."""
        if self._frame is not None and self._frame.state.lines is not None:
            self._frame.state.lines.end()

    def recorded(self) -> list[Recorded]:
        """What the run had recorded when its pass ended: what its next pass need not load again."""
        return [] if self._frame is None else self._frame.history.records()

    def _has_endless_body(self, claim: Claim, ending: Ending) -> None:
        error = endless_body(claim.run_id)
        logger.error("%s", error)
        failed = conclusion.failed_as_endless(claim, self._host, ending, error)
        ending = conclusion.carried_out(failed, self._host)
        if self._frame is not None:
            give_up(self._frame.interceptors, claim, ending)
        hooks.run_left(claim, ending)
        if self.abandon is not None:
            self.abandon(self, ending)

    def _begun(self, current: Pass) -> None:
        self._frame = current.frame
        current.state.watch = self.watch
        if self.interrupt is not None:  # `stop` may have come first
            current.state.stop(self.interrupt)

    def _is_unwanted(self) -> bool:
        """Whether the run was canceled, paused or lost, or the worker stopped, while it waited for a thread."""
        if self.interrupt is None and time.monotonic() - self.claimed_on > _LONG_WAIT:
            claim = self.claim
            holding = {claim.run_id: Holding(claim.token)}
            found = self._host.write(lambda: leases.check(self._host.connection(), holding))
            if found.lost:
                self.stop(Ended.LOST)
            elif found.halted:
                self.stop(Ended.CANCELED)
        return self.interrupt is not None

    def _released(self) -> Ending:
        host = self._host
        has_ended = host.write(lambda: self._release(host.connection()))
        how = self.interrupt or Ended.RELEASED
        if has_ended:
            how = Ended.CANCELED
            host.write(lambda: afterwards.run_canceled(host.connection(), self.claim))
        elif how is Ended.CANCELED:  # it is paused, or canceling until its children have ended
            how = Ended.RELEASED
        ending = Ending(how)
        hooks.run_left(self.claim, ending)
        return ending


class AsyncTask(Task):
    """A claimed run of an async workflow. It is executed on the event loop."""

    def __init__(
        self,
        claim: Claim,
        records: Sequence[Recorded] | None,
        host: WorkerHost,
        async_host: WorkerAsyncHost,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        super().__init__(claim, records, host, interceptors)
        self.async_host = async_host

    async def run_async(self, loop: PassLoop) -> Ending:
        """Execute the run once, as `run()`."""
        self.has_begun = True
        if self.interrupt is not None:
            ending: Ending = await self.async_host.call(self._released_on_thread)
            return ending
        return await async_execution.run_claim(
            self.claim, self.async_host, loop, self._records, interceptors=self._interceptors, begun=self._begun
        )

    def silent_for(self) -> float:
        asked_on = self.async_host.asked_on
        return max(0.0 if asked_on is None else time.monotonic() - asked_on, super().silent_for())

    def writes_in_succession(self) -> bool:
        return True

    def _released_on_thread(self) -> Ending:
        try:
            return self._released()
        except ClaimLost:
            return Ending(Ended.LOST)
