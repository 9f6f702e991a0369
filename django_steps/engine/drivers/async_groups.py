"""Executes the units of a group on the event loop, a task for each that has begun.

What waits for a time stays pending, as everything in an async body, and keeps its place among those that may have begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...core.states import StepStatus
from ...definitions.requests import CallBranch
from ...errors import ClaimLost, PassEnded
from ..canceling import is_of_body, record_canceled
from ..desk import Desk
from ..ending import Ended, Ending
from ..frame import MISTAKES, Frame
from ..groups import Group
from ..loops import Known
from ..operations.table import OPERATIONS
from ..units import Unit

Drive = Callable[[Any, Frame], Awaitable[Any]]


async def go_on(group: Group, frame: Frame, drive: Drive) -> None:
    """Execute units until the group is over. Raises what ends the pass, and `CancelledError`."""
    execution = _Execution(group, frame, drive)
    group.open()
    try:
        await execution.go_on()
    except asyncio.CancelledError:
        await execution.cancel()
        raise
    finally:
        group.close()
    if execution.crash is not None:
        raise execution.crash
    if frame.state.mistake is not None:
        raise frame.state.mistake
    if frame.state.is_ending:
        raise PassEnded("ending")


class _Execution:
    """One call of a group."""

    def __init__(self, group: Group, owner: Frame, drive: Drive) -> None:
        assert isinstance(owner.state.desk, Desk)
        self._group, self._owner, self._state, self._drive = group, owner, owner.state, drive
        self._desk: Desk = owner.state.desk
        self._running: dict[asyncio.Task[None], Unit] = {}
        self._changed: Known | None = None
        self.crash: BaseException | None = None
        for unit in group.units:
            owner.scope.called(unit.path)

    async def go_on(self) -> None:
        """Begin what may begin, until nothing is executed any more."""
        with self._desk.leaving(self._leave):
            while True:
                self._begin()
                if not self._running:
                    return
                self._changed = self._desk.loop.known()
                await self._changed

    async def cancel(self) -> None:
        """The body has canceled the group, or the pass is ending: nothing of it goes on when this returns."""
        for task in self._running:
            if not task.cancelling():  # as one of the pass, which is ending
                task.cancel()
        while self._running:
            self._changed = self._desk.loop.steady()
            try:
                await self._changed
            except asyncio.CancelledError:
                continue

    def _begin(self) -> None:
        group, state = self._group, self._state
        while not state.is_ending and self.crash is None:
            unit = group.take(state.claim.now())  # after a crash the desk lets one begin at a time
            if unit is None:
                return
            unit.outer = self._owner.unit
            task = self._desk.loop.create_task(self._execute(unit))
            self._running[task] = unit
            task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _leave(self) -> bool:
        """Once the group is decided, leave what waits for a time or for others; its records stay. Whether there was any."""
        if not self._group.may_leave(is_unfolding=self._desk.has_more):
            return False
        has_left = False
        for task, unit in list(self._running.items()):
            if not unit.is_left and self._desk.is_suspended(unit):
                unit.is_left = has_left = True
                task.cancel()
        return has_left

    async def _execute(self, unit: Unit) -> None:
        """Execute a unit to its end in this pass."""
        owner, state = self._owner, self._state
        frame = Frame(state, owner.host, owner.scope, unit, owner.connections)
        operation = OPERATIONS[type(unit.request)]
        after, started_at = frame.scope.after(unit.path), frame.claim.now()
        recorded = frame.history.look_up(unit.path, operation.kind)
        is_alone = not isinstance(unit.request, CallBranch)
        self._desk.calls += is_alone
        try:
            if is_alone:
                await self._desk.begin_by(recorded)
            unit.recorded = await self._drive(operation.begin(frame, unit.request, unit.path, recorded), frame)
        except MISTAKES as mistake:
            state.mistake = mistake
            self._desk.end()
        except asyncio.CancelledError:
            if is_of_body(frame):
                await record_canceled(frame, self._desk, unit.path, operation.kind, after, recorded, started_at)
        except ClaimLost:
            state.ending = Ending(Ended.LOST)
            self._desk.end()
        except PassEnded:
            pass
        except BaseException as error:
            self.crash = self.crash or error
        finally:
            self._desk.calls -= is_alone
            if unit.recorded is not None and unit.recorded.status == StepStatus.CANCELED:
                unit.recorded = None
            self._group.put_back(unit)
            if owner.unit is None and not owner.scope.branch:  # a group of the body itself
                state.map_progress = self._group.progress()
