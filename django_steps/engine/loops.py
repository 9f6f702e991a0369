"""The event loop of async bodies: it knows what each pass has scheduled, and what its tasks wait for.

A pass is *idle* when nothing of it is scheduled: then each of its tasks waits for something. The loop notes with each
pass in which round it has scheduled anything last; what was scheduled in one round is executed in the next. So that a pass
is idle is exact, and costs no look at its tasks. (To count rounds alone would take a chain of futures for a standstill.)

What a task waits for decides whether its pass may be suspended: what asyncio itself made to bring tasks together (locks,
queues, groups, `wait`, `shield`, `sleep`) and what the engine made is known, and anything else may end by itself.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from asyncio import events
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Protocol

from ..core.context import active_pass, active_step
from .connections import Connections

_COORDINATING = frozenset(
    getattr(asyncio, name).__file__ for name in ("locks", "queues", "taskgroups", "tasks", "timeouts")
)
_SIGNALING = frozenset(getattr(asyncio, name).__file__ for name in ("locks", "queues"))


class OfPass(Protocol):
    """What the loop knows of a pass: its desk."""

    timers: dict[int, asyncio.TimerHandle]
    tasks: dict[asyncio.Task[Any], Any]  # with the frame that made each
    calls: int
    thread_number: int | None
    connected: int  # connections that the body reads from

    def is_alone(self) -> bool:
        """Whether the call that asks is the only thing that its body waits for."""
        ...

    def touch(self, round_number: int) -> None:
        """Something of the pass was scheduled in this round."""
        ...

    def fire(self, timer: asyncio.TimerHandle, callback: Any, args: Any) -> None:
        """A timer of the body is over."""
        ...

    def forget(self, task: asyncio.Task[Any]) -> None:
        """A task has ended."""
        ...


class Known(asyncio.Future[Any]):
    """A future that was made to bring tasks together, by asyncio or by the engine."""


class Signaled(Known):
    """A future of an event, a lock or a queue. Tasks of the pass may be what it waits for; a connection may be, too."""


class Steady(Known):
    """A future that can't be canceled. A task that is canceled while it waits for it goes on waiting, and hears of it then."""

    def cancel(self, msg: Any | None = None) -> bool:
        return False

    def fail(self, error: BaseException) -> None:
        """Raise this where it is waited for; nothing comes of it if it isn't any more."""
        if not self.done():
            self.set_exception(error)
            self._log_traceback = False

    def answer(self, value: Any) -> None:
        """Give this where it is waited for, unless that was answered already."""
        if not self.done():
            self.set_result(value)


class Rounds(selectors.DefaultSelector):
    """Counts the rounds of the loop, and knows since when the present one lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.busy_since: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        self.busy_since = None
        ready = super().select(timeout)
        self.busy_since = time.monotonic()
        self.number += 1
        return ready


class PassLoop(asyncio.SelectorEventLoop):
    """An event loop for passes; each has a desk, which its context leads to."""

    def __init__(self, rounds: Rounds | None = None) -> None:
        self.rounds = rounds or Rounds()
        self._nowhere = Context()
        self._connected: dict[Any, OfPass] = {}  # connections that passes read from, by their file descriptor
        self.connections: Connections | None = None
        super().__init__(self.rounds)
        self.set_task_factory(_make_task)

    # -- For the desks --------------------------------------------------------------------------

    def known(self) -> Known:
        """A future of the engine's own."""
        return Known(loop=self)

    def steady(self) -> Steady:
        """A future of the engine's own that can't be canceled."""
        return Steady(loop=self)

    def own_connections(self) -> Connections:
        """Those of the thread of the loop, which async code doesn't use."""
        if self.connections is None:
            self.connections = Connections()
        return self.connections

    def soon(self, callback: Callable[[], None]) -> None:
        """Call something in the next round, on behalf of no pass."""
        self._ready.append(events.Handle(callback, (), self, self._nowhere))  # type: ignore[attr-defined]

    def after(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call something after so many seconds, on behalf of no pass."""
        return super().call_at(self.time() + seconds, callback, context=self._nowhere)

    # -- What asyncio calls ---------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        # Called several times for each step, so that everything is spelled out here.
        if context is None:
            context = copy_context()
        frame = context.get(active_pass)
        if frame is not None and (desk := frame.state.desk) is not None:
            desk.touch(self.rounds.number)
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = copy_context()
        # What a step has begun is its own: a client's timer that outlives it must not keep the pass.
        desk = desk_of(context) if context.get(active_step) is None else None
        if desk is None:
            return super().call_at(when, callback, *args, context=context)
        fire: Any = desk.fire
        handle = super().call_at(when, fire, callback, args, context=context)
        handle._args = (handle, callback, args)
        desk.timers[id(handle)] = handle
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        maker = sys._getframe(1).f_code.co_filename
        if maker not in _COORDINATING:
            return asyncio.Future(loop=self)
        return Signaled(loop=self) if maker in _SIGNALING else Known(loop=self)

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        frame = active_pass.get()
        # What a step has opened is its own, as its timers are.
        if frame is not None and (desk := frame.state.desk) is not None and active_step.get() is None:
            self._remove_connection(fd)
            self._connected[fd] = desk
            desk.connected += 1
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _remove_reader(self, fd: Any) -> Any:
        self._remove_connection(fd)
        return super()._remove_reader(fd)  # type: ignore[misc]

    def _remove_connection(self, fd: Any) -> None:
        desk = self._connected.pop(fd, None)
        if desk is not None:
            desk.connected -= 1


def fire_now(timer: asyncio.TimerHandle) -> None:
    """Do what a timer of a body is for before its time has come, and not again."""
    handle: Any = timer
    (_, callback, args), context = handle._args, handle._context
    timer.cancel()
    context.run(callback, *args)


def desk_of(context: Context) -> OfPass | None:
    """The desk of the pass that a context belongs to."""
    frame = context.get(active_pass)
    desk: OfPass | None = None if frame is None else frame.state.desk
    return desk


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task, which belongs to the pass that makes it, unless a step does."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    context: Context = options.get("context") or copy_context()
    frame = context.get(active_pass)
    if frame is not None and (desk := frame.state.desk) is not None and context.get(active_step) is None:
        desk.tasks[task] = frame
        task.add_done_callback(desk.forget)
    return task
