"""Where the calls of an async pass wait for their turn, and where it shows that the pass can't go on.

A body is called again and again, and has to decide the same each time. So what was recorded is given to it in the order in
which it was recorded, one outcome at a time, and each only once everything that follows from the one before has happened: when
the pass is idle (`loops.py`). What is not recorded begins after that. During the first pass outcomes are given in just the same
way, so that a later pass is a true copy of it.

What the body decides by a timer, or by whatever else it awaits outside of steps, is not recorded. So it gets time for that: an
outcome is held back while something is missing that an earlier pass had called or canceled before the body was given that
outcome, and a timer that is over fires once what came before it is given.

The pass is *quiet* when it is idle, nothing of it is executed or written, and each of its tasks waits for a call. Then only
time can go on, and the run is suspended. Whatever else a task waits for keeps the pass in memory: it may end by itself.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from asyncio.tasks import _GatheringFuture  # type: ignore[attr-defined]
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from ..errors import PassEnded, StepCanceled
from ..ledger.histories import Recorded
from .async_host import AsyncHost
from .ending import Ended, Ending
from .frame import Frame, PassState
from .loops import Known, PassLoop, Signaled, Steady, fire_now
from .units import Executing, Unit, with_outer

ALLOWED = "DJANGO_ALLOW_ASYNC_UNSAFE"  # what lets Django ask the database on the thread of an event loop
_LONGEST_TIMER = 7 * 24 * 3600.0  # seconds; a pass that waits for longer is suspended, or looked at meanwhile
# Seconds for which a pass waits, in all, for timers and the like that may call what an earlier pass had called; and how long a
# timer may be for that.
_LONGEST_HOLD = 60.0
_MOST_FIRED_EARLY = 1000  # timers of a pass that only replays: more are a loop without end
_GOODBYE = (
    2.0  # seconds that what is executed has to end when the pass is ending, before timers of the body may break it off
)


class Desk:
    """The desk of one pass. It is used on the thread of the loop, but for `interrupt()`."""

    def __init__(self, loop: PassLoop, state: PassState, host: AsyncHost) -> None:
        self.loop, self.host, self._state = loop, host, state
        # Looked up once: the environment takes its time.
        self.is_refused_by_django = ALLOWED not in os.environ
        # What belongs to the pass: its tasks, each with the frame that made it, and the timers of its body.
        self.tasks: dict[asyncio.Task[Any], Frame] = {}
        self.timers: dict[int, asyncio.TimerHandle] = {}  # until they are over
        # Set when the pass is to end although its body has not.
        self.is_over = loop.known()
        self.body: asyncio.Task[Any] | None = None
        self.connected = 0  # connections that the body reads from
        self.thread_number: int | None = None  # which thread its calls that block go to
        self.calls = 0  # operations that have neither others in them nor an outcome yet
        self.written: set[str] = set()  # what has a row by now that it did not have when the pass began
        self.returned: dict[str, str] = {}  # what was canceled after its function had returned this, encoded
        self.on_threads = 0  # functions that nothing can break off
        self._executing = 0
        self._executing_in: dict[Unit, int] = {}
        self._nothing_executes: Known | None = None
        self._breaks_off = False  # the pass is ending, and something was executed then
        self._numbers = count()
        self._recorded: list[tuple[int, int, Known]] = []  # a heap of what waits to be given, by position
        self._new: dict[Known, float] = {}
        self._waits: dict[Known, int] = {}  # until when, machine time in microseconds
        self._for_others: dict[Known, None] = {}  # those of them that not only time can end
        self._news = state.waits.news
        self._canceled: dict[Known, tuple[str, int]] = {}  # the name and position of each that is to be canceled again
        self._held_since: float | None = None
        self._fired_early = 0
        self._has_given = False  # and what follows from that has not all happened
        self._fired: list[tuple[asyncio.TimerHandle, Callable[..., Any], Any]] = []
        self._leaving: dict[Callable[[], bool], None] = {}
        self._touched = 0  # the round in which something was last scheduled
        self._is_looking = False
        # Nothing is left that earlier passes have recorded, as far as this one has come.
        self._is_live = not state.history.has_any
        state.history.pending = set()
        if state.history.has_any:
            state.history.uncalled = state.history.to_be_called()
        # A heap of the same, by the position that was delivered last when each was called.
        self._uncalled = [(after, name) for name, after in state.history.uncalled.items()]
        heapify(self._uncalled)
        state.woken_by(self.interrupt)
        if state.is_careful:
            loop.after(state.careful_until - time.monotonic(), self._look_soon)

    # -- What a call waits for --------------------------------------------------------------------

    async def begin_by(self, recorded: Recorded | None) -> None:
        """Wait until what has no outcome may begin; what has waited for a time that is over comes by that time."""
        due_us = math.inf if recorded is None else recorded.wakes_at_us or math.inf
        if self._is_live and not self._recorded and not self._state.is_careful:
            return
        turn = self.loop.known()
        self._new[turn] = due_us
        try:
            await self._held(turn)
        finally:
            self._new.pop(turn, None)

    async def deliver(self, position: int) -> None:
        """Wait until the body may be given the outcome that was recorded at a position."""
        if len(self.tasks) == 1 and not self._recorded and not self._state.is_ending:
            return  # it is the body itself that waits, and it waits for nothing else
        turn = self.loop.known()
        heappush(self._recorded, (position, next(self._numbers), turn))
        try:
            await self._held(turn)
        except asyncio.CancelledError:
            self._recorded = [entry for entry in self._recorded if entry[2] is not turn]
            heapify(self._recorded)
            raise

    async def deliver_canceled(self, position: int) -> None:
        """Wait until the body may hear of a cancellation that is recorded; to cancel once more changes nothing."""
        if self._state.is_ending:
            return
        turn = self.loop.steady()
        heappush(self._recorded, (position, next(self._numbers), turn))
        self._look_soon()
        while not turn.done():
            with suppress(asyncio.CancelledError):
                await turn

    async def wait(self, seconds: float) -> None:
        """Wait for a time. A pass in which all wait is suspended meanwhile."""
        turn = self.loop.known()
        self._waits[turn] = self._state.claim.now() + int(seconds * 1_000_000)
        timer = self.loop.after(seconds, partial(_let_go, turn))
        try:
            await self._held(turn)
        finally:
            timer.cancel()
            del self._waits[turn]

    async def wait_for_others(self, until_us: int, news: int) -> None:
        """Wait until there may be something new, or until a time. A pass in which all wait is suspended meanwhile."""
        if self._state.waits.news != news:
            return  # it came after the caller had looked
        turn = self.loop.known()
        self._waits[turn] = until_us
        self._for_others[turn] = None
        seconds = (until_us - self._state.claim.now()) / 1_000_000
        timer = self.loop.after(seconds, partial(_let_go, turn)) if seconds < _LONGEST_TIMER else None
        try:
            await self._held(turn)
        finally:
            if timer is not None:
                timer.cancel()
            del self._waits[turn]
            self._for_others.pop(turn, None)

    async def stay(self, name: str, position: int) -> None:
        """Wait until the body cancels what it has canceled on an earlier pass; `StepCanceled` if nothing will do so."""
        turn = self.loop.known()
        self._canceled[turn] = name, position
        try:
            await self._held(turn)
        finally:
            self._canceled.pop(turn, None)

    async def _held(self, turn: Known) -> None:
        if self._state.is_ending:
            raise PassEnded("ending")
        self._look_soon()
        await turn

    def is_alone(self) -> bool:
        """Whether the call that asks is the only thing that its body waits for."""
        return self.calls < 2 and len(self.tasks) == 1

    # -- What is executed -------------------------------------------------------------------------

    def executing(self, unit: Unit | None) -> Executing:
        """In this context something is executed or written: the pass is not suspended meanwhile."""
        return Executing(self._note, self._executed, unit)

    def _note(self, unit: Unit | None, change: int) -> None:
        self._executing += change
        while unit is not None:
            self._executing_in[unit] = self._executing_in.get(unit, 0) + change
            unit = unit.outer

    def _executed(self, unit: Unit | None) -> None:
        """Something has come to its end."""
        self._note(unit, -1)
        if not self._executing and self._nothing_executes is not None and not self._nothing_executes.done():
            self._nothing_executes.set_result(None)
            self._nothing_executes = None
        if self._has_reason_to_look():
            self._look_soon()

    async def until_nothing_executes(self) -> None:
        """Wait until what is executed or written has come to its end, since the pass is ending."""
        if self._executing and not self._breaks_off:
            self._breaks_off = True
            self.loop.after(_GOODBYE, self._break_off)
        while self._executing:
            if self._nothing_executes is None:
                self._nothing_executes = self.loop.known()
            await asyncio.shield(self._nothing_executes)

    @contextmanager
    def leaving(self, leave: Callable[[], bool]) -> Iterator[None]:
        """In here `leave` is called whenever the pass is idle: a group that is decided leaves what is suspended in it. It
        returns whether it did."""
        self._leaving[leave] = None
        self._look_soon()
        try:
            yield
        finally:
            del self._leaving[leave]

    def is_suspended(self, unit: Unit) -> bool:
        """Whether a unit waits for time only; asked while the pass is idle."""
        return not self._executing_in.get(unit) and self._only_wait(unit=unit)

    @property
    def has_more(self) -> bool:
        """Whether something waits to be given to the body, or to begin."""
        return bool(self._recorded or self._new)

    # -- How the pass goes on ---------------------------------------------------------------------

    def touch(self, round_number: int) -> None:
        """Something of the pass was scheduled in this round."""
        self._touched = round_number
        if not self._is_looking and self._has_reason_to_look():
            self._is_looking = True
            self.loop.soon(self._look)

    def forget(self, task: asyncio.Task[Any]) -> None:
        """A task has ended."""
        self.tasks.pop(task, None)

    def interrupt(self) -> None:
        """Something outside has happened to the pass; may be called from any thread."""
        self.loop.call_soon_threadsafe(self._end_if_interrupted, context=None)

    def end(self) -> None:
        """End the pass, whose state says how."""
        for _, _, turn in self._recorded:
            if isinstance(turn, Steady) and not turn.done():
                turn.set_result(None)
        if not self.is_over.done():
            self.is_over.set_result(None)

    def _break_off(self) -> None:
        """The pass is ending. What is executed may be something that only a timer of the body ends, a timeout around it."""
        if self._executing:
            if not self.on_threads:
                self.fire_all()
            self.loop.after(_GOODBYE, self._break_off)

    def is_settled(self, position: int) -> None:
        """No outcome comes at a position any more, or it is committed."""
        self._state.history.settle(position)
        if self._recorded or self._fired:
            self._look_soon()

    def fire(self, timer: asyncio.TimerHandle, callback: Callable[..., Any], args: Any) -> None:
        """A timer of the body is over: once the body has what was recorded before."""
        self.timers.pop(id(timer), None)
        must_wait = self._executing if self._state.is_ending else self._is_unfolding()
        if not must_wait:
            callback(*args)
            return
        self._fired.append((timer, callback, args))
        self._look_soon()

    def _is_unfolding(self) -> bool:
        """Whether the body is being given something, or about to be."""
        return bool(self._has_given or self._recorded or self._state.history.pending)

    def fire_all(self) -> None:
        """Let all timers fire that had to wait, when the pass is ending."""
        while self._fired:
            self._let_fire()

    def _end_if_interrupted(self) -> None:
        state = self._state
        if state.waits.news != self._news:
            self._news = state.waits.news
            for turn in self._for_others:
                _let_go(turn)
        if state.interrupt is not None and not state.is_ending:
            state.ending = Ending(state.interrupt)
        if state.is_ending:
            self.end()

    def _has_reason_to_look(self) -> bool:
        if self._recorded or self._new or self._waits or self._canceled or self._leaving or self._fired:
            return True
        return self._state.only_replays and bool(self.timers)

    def _look_soon(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self.loop.soon(self._look)

    def _look(self) -> None:
        # What was scheduled then is executed in this round or the next.
        if self._touched >= self.loop.rounds.number - 1:
            self.loop.soon(self._look)
            return
        self._is_looking = False
        self._end_if_interrupted()
        # A body that has ended may have left tasks behind that wait: they are no reason to suspend the run.
        if not self._state.is_ending and not (self.body is not None and self.body.done()):
            self._go_on()

    def _go_on(self) -> None:
        """The pass is idle: let what comes next go on."""
        self._has_given = False
        has_left = [leave() for leave in tuple(self._leaving)]
        if any(has_left):
            self._look_soon()  # what follows from that comes first
            return
        if self._recorded and self._give():
            return
        if self._fired and not self._state.history.pending:  # what is on its way comes first
            self._let_fire()
        elif self._recorded:  # and held back: a timer may come before it
            if self._state.only_replays and not self._executing:
                self._fire_early()
        elif self._new:
            self._begin()
        elif not self._executing and (self._waits or self._canceled) and self._only_wait():
            self._suspend()
        elif self._state.only_replays and not self._executing:
            self._fire_early()

    def _give(self) -> bool:
        """Give the body the outcome that was recorded first, unless something comes before it; whether it is given."""
        position, _, turn = self._recorded[0]
        if any(earlier < position for earlier in self._state.history.pending or ()) or self._is_held(position):
            return False
        heappop(self._recorded)
        self._has_given = True
        if not turn.done():
            turn.set_result(None)
        self._look_soon()
        return True

    def _is_held(self, position: int) -> bool:
        """Whether the body may still do what it did before this outcome, by what it awaits outside of steps."""
        while self._uncalled and self._uncalled[0][1] not in self._state.history.uncalled:
            heappop(self._uncalled)
        is_early = bool(self._uncalled) and self._uncalled[0][0] < position
        if not is_early and not any(canceled < position for _, canceled in self._canceled.values()):
            return False
        if self._fired:
            return True
        if self._only_wait(_LONGEST_HOLD):
            return False
        now = self.loop.time()
        if self._held_since is None:
            self._held_since = now
            self.loop.after(_LONGEST_HOLD, self._look_soon)
        return now - self._held_since < _LONGEST_HOLD

    def _fire_early(self) -> None:
        """A pass that only replays waits for no timer of the body: what an earlier pass has come to after it comes at once."""
        pending = [timer for timer in self.timers.values() if not timer.cancelled()]
        if not pending:
            return
        if self._fired_early == _MOST_FIRED_EARLY:
            self._state.ending = Ending(Ended.RELEASED)
            self.end()
            return
        self._fired_early += 1
        timer = min(pending, key=asyncio.TimerHandle.when)
        del self.timers[id(timer)]
        fire_now(timer)
        self._look_soon()

    def _let_fire(self) -> None:
        timer, callback, args = self._fired.pop(0)
        if not timer.cancelled():
            timer._context.run(callback, *args)  # type: ignore[attr-defined]
        self._look_soon()

    def _begin(self) -> None:
        """Let what is new begin; after a crash one at a time, until something is recorded."""
        self._is_live = True
        if self._state.is_careful:
            if not self._executing:
                self._let(min(self._new, key=self._new.__getitem__))
            return
        for turn in sorted(self._new, key=self._new.__getitem__):
            self._let(turn)

    def _let(self, turn: Known) -> None:
        del self._new[turn]
        if not turn.done():
            turn.set_result(None)

    def _only_wait(self, longest_timer: float = math.inf, unit: Unit | None = None) -> bool:
        """Whether all tasks (or those of a unit) wait for each other or for calls, and no timer of the body is pending (that
        takes no longer than this)."""
        for task, frame in self.tasks.items():
            if task.done() or (unit is not None and unit not in with_outer(frame.unit)):
                continue
            waits_for = getattr(task, "_fut_waiter", None)
            if isinstance(waits_for, asyncio.Task):
                if waits_for not in self.tasks:
                    return False
            elif not isinstance(waits_for, (Known, _GatheringFuture)):
                return False
            elif self.connected and isinstance(waits_for, Signaled):
                return False  # an HTTP client may wait so for an answer
        if self._state.only_replays and unit is None and not self._state.history.uncalled:
            return True  # a timer leads to nothing that is recorded
        self.timers = {key: timer for key, timer in self.timers.items() if not timer.cancelled()}
        if longest_timer < math.inf:
            latest = self.loop.time() + longest_timer
            return all(timer.when() > latest for timer in self.timers.values())
        return not self.timers

    def _suspend(self) -> None:
        """Only time can go on, or nothing."""
        claim = self._state.claim
        if not self._waits:
            turn, (name, _) = next(iter(self._canceled.items()))
            del self._canceled[turn]
            turn.set_exception(StepCanceled(name))
            return
        until_us = min(self._waits.values())
        if until_us - claim.now() > self.host.host.limits.inline_wait_us:
            # Taken now: the calls are canceled before the suspension is written.
            suspension = self._state.waits.suspension(until_us, claim.now())
            self._state.ending = Ending(Ended.SUSPENDED, suspension.available_us, suspension=suspension)
            self.end()


def _let_go(turn: Known) -> None:
    if not turn.done():
        turn.set_result(None)
