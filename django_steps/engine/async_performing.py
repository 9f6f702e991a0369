"""What a `step` argument of an async body talks to: it replays what is recorded, and has the event loop carry out the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from ..core import clock
from ..core.states import StepStatus
from ..definitions.requests import CallBranch, Gather, Map, Request, Undo
from ..errors import ClaimLost, PassEnded
from ..ledger.histories import Recorded
from . import fingerprints
from .canceling import is_of_body, record_canceled
from .desk import Desk
from .drivers.coroutines import desk_of, drive, if_need_be_on_thread
from .ending import Ended, Ending
from .frame import MISTAKES, Frame
from .operations import gather, undo
from .operations.base import Operation
from .operations.table import OPERATIONS
from .performing import Performing
from .units import Unit

# A body that goes on although its pass is ending has to wait after so many refused calls: for good.
_MOST_REFUSALS = 3


class AsyncPerforming(Performing):
    """Carries out the requests of an async body or branch."""

    __slots__ = ()

    def perform(self, request: Request) -> Coroutine[Any, Any, Any]:
        """Replay a recorded operation, or carry it out and record its outcome; what the body gets."""
        names = [member.name for member in request.members] if isinstance(request, Gather) else [request.name]
        return self.frame.scope.expect_awaited(names, partial(self._carry_out, request))

    def define(self, path: str) -> None:
        """As `Performing.define()`; where the pass is ending, it is canceled as whatever is awaited."""
        try:
            super().define(path)
        except PassEnded:
            raise asyncio.CancelledError from None

    async def _carry_out(self, request: Any, number: int) -> Any:
        frame, desk = self.frame, desk_of(self.frame)
        frame.scope.is_awaited(number)
        try:
            if isinstance(request, (Gather, Undo)):
                return await self._together(request, desk)
            return await self._one(request, OPERATIONS[type(request)], desk)
        except MISTAKES as mistake:
            if frame.replay is not None and frame.unit is not None:  # as `_has_made()` does in a plain body
                frame.replay.mistakes.append(mistake)
                while True:  # until the branch is left
                    await desk.wait_for_others(clock.NEVER_US, frame.state.waits.news)
            frame.state.mistake = mistake
            desk.end()
            await desk.until_nothing_executes()
            raise
        except ClaimLost:
            frame.state.ending = Ending(Ended.LOST)
            desk.end()
            raise asyncio.CancelledError from None
        except PassEnded:
            desk.end()
            if frame.refusals > _MOST_REFUSALS:  # its task is abandoned
                await desk.loop.create_future()
            # The body may take this for a reason to cancel others, whose steps are to end first.
            await desk.until_nothing_executes()
            raise asyncio.CancelledError from None

    async def _one(self, request: Any, operation: Operation[Any], desk: Desk) -> Any:
        frame = self.frame
        frame.check(request.name)
        frame.scope.note(request)
        name = operation.recorded_as(frame, request)
        for interceptor in frame.interceptors:
            interceptor.reached(frame.claim, request.name, frame.scope.branch)
        recorded = frame.scope.look_up(name, operation.kind)
        fingerprints.compare(frame, request, recorded)
        if recorded is not None and recorded.status == StepStatus.CANCELED:
            await self._stay(recorded, desk)
        after, started_at = frame.scope.called(name), frame.claim.now()
        final = recorded
        is_alone = not isinstance(request, (CallBranch, Map))
        desk.calls += is_alone
        try:
            if recorded is None or not recorded.is_final:
                if is_alone:  # what has others in it may hold some that are recorded
                    await desk.begin_by(recorded)
                final = await drive(operation.begin(frame, request, name, recorded), frame)
            assert final is not None
            await desk.deliver(final.position)
        except asyncio.CancelledError:
            if is_of_body(frame):
                await record_canceled(frame, desk, name, operation.kind, after, recorded, started_at)
            raise
        finally:
            desk.calls -= is_alone
        if frame.state.is_ending:
            raise PassEnded("ending")
        frame.scope.deliver(final)
        return await if_need_be_on_thread(partial(operation.outcome, frame, request, final), desk)

    async def _together(self, request: Gather | Undo, desk: Desk) -> tuple[Any, ...] | None:
        frame = self.frame
        frame.check(request.name)
        frame.scope.note(request)
        after, started_at = frame.scope.delivered, frame.claim.now()
        units: list[Unit] = []
        try:
            await drive(_core(frame, request, units), frame)
            await self._stay_with(units, desk)
            if units:
                await desk.deliver(max(unit.recorded.position for unit in units if unit.recorded is not None))
        except asyncio.CancelledError:
            if is_of_body(frame):
                last = -1
                for unit in units:  # those that have begun have recorded it themselves
                    if frame.history.find(unit.path) is None:
                        kind = OPERATIONS[type(unit.request)].kind
                        await record_canceled(frame, desk, unit.path, kind, after, None, started_at)
                    if (known := frame.history.find(unit.path)) is not None:
                        last = max(last, known.position)
                if last >= 0:
                    await desk.deliver_canceled(last)
            raise
        if frame.state.is_ending:
            raise PassEnded("ending")
        return await if_need_be_on_thread(partial(_results, frame, request, units), desk)

    async def _stay_with(self, units: Sequence[Unit], desk: Desk) -> None:
        for unit in units:
            if unit.recorded is not None and unit.recorded.status == StepStatus.CANCELED:
                await self._stay(unit.recorded, desk)

    async def _stay(self, recorded: Recorded, desk: Desk) -> None:
        """Wait until the body cancels again what it has canceled on an earlier pass."""
        try:
            await desk.stay(recorded.name, recorded.position)
        except asyncio.CancelledError:
            if is_of_body(self.frame):
                await desk.deliver_canceled(recorded.position)
                self.frame.scope.deliver(recorded)
            raise


def _core(frame: Frame, request: Gather | Undo, units: list[Unit]) -> Any:
    if isinstance(request, Undo):
        return undo.begin(frame, request, units)
    return gather.begin(frame, request, OPERATIONS, units)


def _results(frame: Frame, request: Gather | Undo, units: Sequence[Unit]) -> tuple[Any, ...] | None:
    if isinstance(request, Undo):
        undo.results(frame, units)
        return None
    return gather.results(frame, request, units)
