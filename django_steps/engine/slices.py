"""Executes an async pass on the calling thread and its connection, in an order that can be repeated: in tests, and in replays.

The event loop goes on in slices, as long as it has anything to do. What blocks is carried out between two slices, where no
loop is running, so that it may use the ORM: one thing at a time, in the order that the host chooses. Where there is nothing to
do, time passes: on the virtual clock, unless something real is waited for, an answer from a network say.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from asyncio import events
from asyncio.tasks import _GatheringFuture  # type: ignore[attr-defined]
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from asgiref.sync import AsyncToSync

from ..core import clock as engine_clock
from ..errors import PassEnded, StepsError
from ..ledger import leases, waits
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.leases import Holding
from ..ledger.records import StepWrite
from ..ledger.transitions import Finish
from . import async_execution
from .ending import Ending
from .execution import Pass
from .host import Host
from .interceptors import Interceptor
from .loops import Known, PassLoop, Rounds, Signaled, Steady

_REAL_WAIT = 0.05  # seconds for which something real is waited for before timers are looked at again
# Seconds in succession for which a connection may say nothing while an event, a lock or a queue is waited for, which somebody
# else may be about to set.
_LONGEST_SILENCE = 5.0


class Order(Protocol):
    """Which of several things comes next."""

    def chosen(self, number: int) -> int:
        """Which of so many things, as an index."""
        ...

    def hint(self) -> str:
        """The end of a message about what went wrong: how to repeat the order."""
        ...


class SlicedHost(Host, Protocol):
    """The place of such a pass."""

    @property
    def order(self) -> Order:
        """In which order what may be done at once is done."""
        ...

    def execute_other(self) -> bool:
        """Execute another run, while this one waits for others; whether there is one."""
        ...

    def others_due(self) -> float:
        """In how many seconds another run becomes due by itself, or infinity."""
        ...


def run_claim(
    claim: Claim,
    host: SlicedHost,
    recorded: Sequence[Recorded],
    *,
    interceptors: Sequence[Interceptor],
    begun: Callable[[Pass], None],
) -> Ending:
    """Execute a claimed run of an async workflow once; as `async_execution.run_claim()`."""
    with Slices(host) as slices:
        ending: Ending = slices.run(
            async_execution.run_claim(
                claim, slices.host, slices.loop, recorded, interceptors=interceptors, begun=slices.noting(begun)
            )
        )
        return ending


@contextmanager
def _alone() -> Iterator[None]:
    """No loop is running on this thread, and nothing of asgiref's waits for it: a test may be async itself."""
    running = events._get_running_loop()
    waiting = getattr(AsyncToSync.executors, "current", None)
    events._set_running_loop(None)
    if waiting is not None:
        del AsyncToSync.executors.current
    try:
        yield
    finally:
        events._set_running_loop(running)
        if waiting is not None:
            AsyncToSync.executors.current = waiting


class _Slicing(Rounds):
    """Ends the slice instead of waiting."""

    loop: PassLoop
    heard_on = 0.0  # when anything was ready, monotonic

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready:
            self.heard_on = time.monotonic()
        if not ready and timeout != 0:
            self.loop.stop()
        return ready

    def wait(self, seconds: float) -> None:
        """Wait for what is real."""
        super(Rounds, self).select(seconds)


class _Loop(PassLoop):
    """A loop whose clock can be moved."""

    def __init__(self) -> None:
        self._ahead = engine_clock.offset_us
        rounds = _Slicing()
        rounds.loop = self
        super().__init__(rounds)

    def has_connections(self) -> bool:
        """Whether anything is read from or written to, but for the loop's own."""
        return len(self.rounds.get_map() or ()) > 1

    def time(self) -> float:
        return super().time() + (engine_clock.offset_us - self._ahead) / 1_000_000


class _Work(ABC):
    """Something that blocks, and who waits for it."""

    def __init__(self, function: Callable[[], Any], *, is_step: bool) -> None:
        self.function: Callable[[], Any] = partial(copy_context().run, function)
        self.is_step = is_step

    @abstractmethod
    def answer(self, value: Any) -> None:
        """Give what it has returned."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Give what it has raised."""


class _Awaited(_Work):
    def __init__(self, function: Callable[[], Any], answer: Steady, *, is_step: bool = False) -> None:
        super().__init__(function, is_step=is_step)
        self._answer = answer

    def answer(self, value: Any) -> None:
        self._answer.set_result(value)

    def fail(self, error: BaseException) -> None:
        self._answer.fail(error)


class _Submitted(_Work):
    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(function, is_step=False)
        self.future: Future[Any] = Future()

    def answer(self, value: Any) -> None:
        self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        self.future.set_exception(error)


class Slices:
    """One loop for one pass, on the calling thread."""

    def __init__(self, host: SlicedHost) -> None:
        self._host = host
        self._order = host.order
        self._work: list[_Work] = []
        self._pass: Pass | None = None
        self._silent_since: float | None = None
        self.loop = _Loop()
        self.host = _AsyncHost(host, self.loop, self._work)

    def __enter__(self) -> Slices:
        self._alone = _alone()
        self._alone.__enter__()
        AsyncToSync.loop_thread_executors[self.loop] = _Executor(self._work)  # type: ignore[assignment]
        return self

    def __exit__(self, *raised: object) -> None:
        del AsyncToSync.loop_thread_executors[self.loop]
        for task in asyncio.all_tasks(self.loop):  # where something was raised out of the loop
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):
                task.get_coro().close()
        self.loop.close()
        self._alone.__exit__(None, None, None)

    def noting(self, begun: Callable[[Pass], None]) -> Callable[[Pass], None]:
        """The same, and this learns of the pass, too."""

        def note(current: Pass) -> None:
            self._pass = current
            begun(current)

        return note

    def run(self, coroutine: Any) -> Any:
        """Go on until the coroutine has ended; what it returns."""
        task = self.loop.create_task(coroutine, context=Context())
        while True:
            self.loop.run_forever()
            if task.done():
                return task.result()
            if self._work:
                self._do(self._work.pop(self._order.chosen(len(self._work))))
            else:
                self._let_time_pass()

    def _do(self, work: _Work) -> None:
        if work.is_step and self._pass is not None and self._pass.state.is_ending:
            work.fail(PassEnded("ending"))  # it has not begun
            return
        try:
            value = work.function()
        except self._host.lets_through:
            raise
        except BaseException as error:
            work.fail(error)
        else:
            work.answer(value)

    def _is_something_real_awaited(self) -> bool:
        awaited = [getattr(task, "_fut_waiter", None) for task in asyncio.all_tasks(self.loop)]
        if any(map(_is_real, awaited)):
            return True
        if not self.loop.has_connections() or not any(isinstance(future, Signaled) for future in awaited):
            self._silent_since = None
            return False
        now = time.monotonic()
        if self._silent_since is None or self.loop.rounds.heard_on > self._silent_since:  # type: ignore[attr-defined]
            self._silent_since = now
        return now - self._silent_since < _LONGEST_SILENCE

    def _waits_for_others(self) -> bool:
        return self._pass is not None and bool(self._pass.state.waits)

    def _let_others_go_on(self) -> bool:
        """Bring the pass what it waits for, or execute a run that may do so; whether anything has happened.

        Nobody hears of commits in a test. And what keeps the pass in memory, a timer of the body say, must not pass before
        others have had their turn.
        """
        assert self._pass is not None
        run_id, state = self._pass.claim.run_id, self._pass.state
        if waits.news(self._host.connection(), {run_id: state.waits.calls()}):
            state.has_news()
            return True
        return self._host.execute_other()

    def _let_time_pass(self) -> None:
        timers = [timer for timer in self.loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        wait = max(0.0, min(timer.when() for timer in timers) - self.loop.time()) if timers else None
        if wait is not None and self._waits_for_others():
            wait = min(wait, self._host.others_due())
        if self._waits_for_others() and self._let_others_go_on():
            return
        if self._is_something_real_awaited():
            self.loop.rounds.wait(_REAL_WAIT if wait is None else min(wait, _REAL_WAIT))  # type: ignore[attr-defined]
        elif wait is None:
            workflow = self._pass.workflow.name if self._pass is not None else "?"
            raise StepsError(
                f"The body of {workflow!r} waits for something that nobody does any more: a lock, an event or a queue of"
                f" asyncio, say.{self._order.hint()}"
            )
        else:
            self._host.wait(wait)


def _is_real(waits_for: Any) -> bool:
    """Whether nothing of asyncio's or the engine's brings a task together with others."""
    return waits_for is not None and not isinstance(waits_for, (Known, asyncio.Task, _GatheringFuture))


class _AsyncHost:
    """The place of an async pass in a test."""

    def __init__(self, host: SlicedHost, loop: PassLoop, work: list[_Work]) -> None:
        self.host, self._loop, self._work = host, loop, work

    def record(self, write: StepWrite) -> Steady:
        return self.call(partial(self.host.record, write))

    def finish(self, end: Finish) -> Steady:
        return self.call(partial(self.host.finish, end))

    def confirm(self, claim: Claim) -> Steady:
        host, holdings = self.host, {claim.run_id: Holding(claim.token)}
        return self.call(lambda: leases.check(host.connection(), holdings))

    def call(self, function: Callable[[], Any]) -> Steady:
        return self._put(function, is_step=False)

    def run_step(self, function: Callable[[], Any]) -> Steady:
        return self._put(function, is_step=True)

    def _put(self, function: Callable[[], Any], *, is_step: bool) -> Steady:
        answer = self._loop.steady()
        self._work.append(_Awaited(function, answer, is_step=is_step))
        return answer


class _Executor:
    """Where asgiref puts what is called by `sync_to_async` and the ORM's `a…` methods."""

    def __init__(self, work: list[_Work]) -> None:
        self._work = work

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        submitted = _Submitted(partial(function, *args, **kwargs))
        self._work.append(submitted)
        return submitted.future
