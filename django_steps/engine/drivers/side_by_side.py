"""Executes the units of a group: on the thread of whoever called it, which always takes part, and on idle threads that help.

Whoever called the group never waits for a thread to become idle, so that nothing can deadlock: groups within groups on a
busy worker are executed like loops.

A record is handed over to be committed together with others while the next unit is executed already. So units that take no
time cost a share of a commit, and those that do cost nothing more than in a loop.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, cast

from ...errors import ClaimLost, PassEnded, StepsError
from ...ledger.records import StepWrite
from ..connections import Connections
from ..ending import Ended, Ending
from ..frame import MISTAKES, Frame
from ..groups import Group
from ..host import Handed, ThreadedHost
from ..operations.base import Record
from ..operations.table import OPERATIONS
from ..units import Unit
from .effects import carry_out

# A unit that takes longer, in seconds, is no reason to save on commits; if they do so on average, other threads help. Where
# units are quick, one thread alone is faster.
_QUICK = 0.002
_LOOK_AGAIN = 0.003  # seconds after which a thread that would help looks again whether units are quick
_WEIGHT = 0.2  # of the last unit in the average
_MOST_HANDED_OVER = 64  # records of one thread that are on their way at a time
_LONGEST_WAIT_US = 1_000_000  # microseconds after which the owner looks again without having been woken


def go_on(group: Group, frame: Frame) -> int | None:
    """Execute units until none can go on now; when the first suspended one is due, or None if the group is over.

    Raises what ends the pass.
    """
    host = cast(ThreadedHost, frame.host)
    execution = Execution(group, frame, host)
    state = frame.state
    stop_waking = state.woken_by(execution.wake)
    group.open()
    host.offer(execution)
    try:
        _Hand(execution, host, frame.connections).work()
    finally:
        execution.is_over = True
        host.withdraw(execution)
        stop_waking()
    if execution.crash is not None:
        raise execution.crash
    if state.mistake is not None:
        raise state.mistake
    if state.ending is not None:
        raise PassEnded(state.ending.how.value)
    frame.end_if_interrupted()
    return group.next_due()


class Execution:
    """One call of a group. Threads that are idle call `help()`."""

    def __init__(self, group: Group, frame: Frame, host: ThreadedHost) -> None:
        self.group, self.owner, self.state, self._host = group, frame, frame.state, host
        self.crash: BaseException | None = None  # what neither a record nor the end of the pass stands for
        # A thread that was about to help finds nothing, also when the same group goes on in another execution.
        self.is_over = False
        self._context = copy_context()
        self._changed = threading.Condition()
        self._pace = 0.0  # seconds that a unit takes, on average
        self.began_on: float | None = None  # when the owner's unit began
        self._news = self.state.waits.news

    def wake(self) -> None:
        """Look at what has changed; may be called from any thread."""
        with self._changed:
            self._let_look()
            self._changed.notify_all()

    def _let_look(self) -> None:
        """Where there is news let the units look that wait for others: threads that help take them, if the owner is busy."""
        if self.state.waits.news != self._news:
            self._news = self.state.waits.news
            self.group.let_look(self._now())

    def wants_help(self) -> bool:
        """Whether there is a unit that another thread could execute."""
        return not self.is_ending() and not self.state.is_careful and self.group.has_work(self._now())

    def help(self, gives_way: Callable[[], bool]) -> None:
        """Execute units on this thread too, as long as there are any and it is not wanted elsewhere."""
        while not self._are_slow():
            if gives_way() or not self.wants_help():
                return
            time.sleep(_LOOK_AGAIN)
        host = self._host
        host.call_for_help()
        connections = Connections()
        hand = _Hand(self, host.for_helper(), connections, lambda: gives_way() or not self._are_slow())
        with connections.watched():
            self._context.copy().run(hand.work)

    def take(self) -> Unit | None:
        """The next unit to execute; None if there is none now."""
        if self.is_ending():
            return None
        return self.group.take(self._now(), alone=self.state.is_careful)

    def put_back(self, unit: Unit) -> None:
        """A unit that was taken is executed no further in this pass."""
        self.group.put_back(unit)
        if self.owner.unit is None and not self.owner.scope.branch:  # a group of the body itself
            self.state.map_progress = self.group.progress()
        self.wake()

    def note(self, seconds: float) -> None:
        """A unit has taken so long."""
        self._pace += (seconds - self._pace) * _WEIGHT

    def is_ending(self) -> bool:
        """Whether no further unit begins."""
        state = self.state
        return self.is_over or state.is_ending or state.is_interrupted or self.crash is not None

    def wait(self) -> bool:
        """Wait until something has changed; False if nothing will without time passing, or the group is over."""
        with self._changed:
            self._let_look()
            has_work = not self.is_ending() and self.group.has_work(self._now())
            if has_work and not (self.state.is_careful and self.group.is_executing):
                return True
            if self.group.close():
                return False
            due = self.group.next_due()
            wait_us = _LONGEST_WAIT_US if due is None else min(due - self._now(), _LONGEST_WAIT_US)
            self._changed.wait(max(self.state.no_longer_than(wait_us) / 1_000_000, 0.001))
        return True

    def _now(self) -> int:
        return self.state.claim.now()

    def _are_slow(self) -> bool:
        began = self.began_on
        return self._pace > _QUICK or (began is not None and time.monotonic() - began > _QUICK)


class _Paused(NamedTuple):
    """A unit whose record is on its way to the database."""

    unit: Unit
    core: Any
    handed: Handed


class _Hand:
    """A thread that executes units of a group: the owner's, or one that helps and `gives_way()` between two units."""

    def __init__(
        self,
        execution: Execution,
        host: ThreadedHost,
        connections: Connections,
        gives_way: Callable[[], bool] | None = None,
    ) -> None:
        self._execution, self._state, self._host, self._gives_way = execution, execution.state, host, gives_way
        self._frame = Frame(self._state, host, execution.owner.scope, None, connections)
        if gives_way is not None:
            self._frame.helps = execution.owner
        self._paused: deque[_Paused] = deque()

    def work(self) -> None:
        """Execute units. The owner returns when nothing goes on without time passing, others when they are not needed."""
        self._state.frames[self._frame] = None
        try:
            while self._go_on():
                pass
        finally:
            del self._state.frames[self._frame]

    def _go_on(self) -> bool:
        """Do one thing; False if there is nothing to do any more."""
        paused, host = self._paused, self._host
        if paused and host.is_answered(paused[0].handed):
            self._settle()
            return True
        unit = None if self._gives_way is not None and self._gives_way() else self._execution.take()
        if unit is not None:
            self._begin(unit)
            return True
        if paused:
            self._settle()
            return True
        return self._gives_way is None and self._execution.wait()

    def _begin(self, unit: Unit) -> None:
        began = time.monotonic()
        if self._gives_way is None:
            self._execution.began_on = began
            outer = self._execution.owner.unit  # of a thread that helps with a group around this one
            unit.abandon = None if outer is None else outer.abandon
        else:
            unit.abandon = partial(self._abandon, unit)
        unit.give_up = partial(self._give_up, unit)
        operation = OPERATIONS[type(unit.request)]
        recorded = self._frame.history.look_up(unit.path, operation.kind)
        self._frame.unit = unit
        self._advance(unit, operation.begin(self._frame, unit.request, unit.path, recorded), None, None)
        if self._gives_way is None:
            self._execution.began_on = None
        seconds = time.monotonic() - began
        self._execution.note(seconds)
        if seconds > _QUICK or len(self._paused) >= _MOST_HANDED_OVER:
            while self._paused:
                self._settle()

    def _settle(self) -> None:
        """Take the answer to what was handed over first, and go on with its unit."""
        unit, core, handed = self._paused.popleft()
        answer, error = None, None
        try:
            answer = self._host.settle(handed)
        except BaseException as raised:
            error = raised
        self._frame.unit = unit
        self._advance(unit, core, answer, error)

    def _advance(self, unit: Unit, core: Any, answer: Any, error: BaseException | None) -> None:
        """Execute a unit until its record is handed over, or it ends for this pass."""
        state = self._state
        try:
            handed = self._run_to_record(unit, core, answer, error)
            if handed is not None:
                self._paused.append(_Paused(unit, core, handed))
                return
        except MISTAKES as mistake:
            state.mistake = mistake
            state.wake()
        except ClaimLost:
            state.ending = Ending(Ended.LOST)
        except PassEnded:
            pass
        except BaseException as raised:
            self._execution.crash = self._execution.crash or raised
        self._execution.put_back(unit)

    def _run_to_record(self, unit: Unit, core: Any, answer: Any, error: BaseException | None) -> Handed | None:
        """Execute a unit until its record is handed over, which is returned, or to its end: then it has `recorded`."""
        try:
            while True:
                effect = core.send(answer) if error is None else core.throw(error)
                try:
                    if type(effect) is Record and self._may_wait(effect.write):
                        return self._host.hand_over(effect.write)
                    answer, error = carry_out(effect, self._frame), None
                except BaseException as raised:
                    answer, error = None, raised
        except StopIteration as returned:  # of the core: an effect raises into it
            unit.recorded = returned.value
            return None

    def _may_wait(self, write: StepWrite) -> bool:
        """Whether a record may be on its way while the next unit begins: not one that may decide that none does."""
        if write.is_alone or self._state.is_careful:
            return False
        return write.status == "succeeded" and self._execution.group.tolerance.min_successes is None

    def _abandon(self, unit: Unit, error: StepsError) -> None:
        """Give up a unit that doesn't let its pass end, and this thread with it, which helps: the owner ends the pass."""
        self._state.mistake = self._state.mistake or error
        self._leave(unit)
        self._state.wake()
        self._host.park()

    def _give_up(self, unit: Unit) -> None:
        """Let the groups that this thread takes part in go on without it: of the last one it is no more than a helper."""
        self._leave(unit)
        outer = self._execution.owner.unit
        if self._gives_way is None and outer is not None and outer.give_up is not None:
            outer.give_up()

    def _leave(self, unit: Unit) -> None:
        """Let the group go on without a unit that doesn't end, in place of the thread that executes it."""
        while self._paused:  # the owner waits for these, too
            self._settle()
        self._execution.put_back(unit)
