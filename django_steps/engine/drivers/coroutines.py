"""Drives the core of an operation on the event loop: what takes time is awaited.

An async step whose function waits costs no thread. A plain function, and everything that asks the database, goes to threads.
"""

from __future__ import annotations

import asyncio
import decimal
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

from django.core.exceptions import SynchronousOnlyOperation

from ...core.context import active_pass
from ...core.states import StepStatus
from ...definitions.kinds import is_async
from ...definitions.requests import CallBranch
from ...errors import ClaimLost, PassEnded, StepNotRun, StepsError, StepTimedOut
from ...ledger.records import Outcome, StepWrite
from .. import hooks
from ..canceling import is_left
from ..connections import Connections
from ..desk import ALLOWED, Desk
from ..frame import MISTAKES, Frame
from ..interceptors import around_attempt
from ..loops import Known
from ..operations.attempts import Attempt, Executed
from ..operations.base import (
    Announce,
    Commit,
    Confirm,
    Effect,
    End,
    Enter,
    Execute,
    Record,
    SideBySide,
    Wait,
    WaitForOthers,
)
from . import async_groups
from .execute import PASS_THROUGH, LeftAwaitable, enter_step, execute
from .limits import canceled_in_time

T = TypeVar("T")

_LONGEST_UNWINDING = 5.0  # seconds that a task that was canceled takes to end without a call


async def drive(core: Any, frame: Frame) -> Any:
    """Carry out what the core asks for until it returns: the record. Raises what ends the pass, and `CancelledError`."""
    answer, error = None, None
    try:
        while True:
            effect = core.send(answer) if error is None else core.throw(error)
            if frame.untold:
                await tell(frame)
            try:
                answer, error = await carry_out(effect, frame), None
            except asyncio.CancelledError:
                core.close()
                raise
            except BaseException as raised:
                answer, error = None, raised
    except StopIteration as returned:  # of the core: an effect raises into it
        if frame.untold:
            await tell(frame)
        return returned.value


async def tell(frame: Frame) -> None:
    """Let the interceptors know what was recorded."""
    told, frame.untold = frame.untold, []
    await desk_of(frame).host.call(lambda: [tell() for tell in told])


async def carry_out(effect: Effect, frame: Frame) -> Any:
    """Do what an effect asks for, and return its answer."""
    kind, desk = type(effect), desk_of(frame)
    if kind is Execute:
        return await _execute(effect.attempt, frame, desk)  # type: ignore[union-attr]
    if kind is Record:
        return await _record(effect.write, frame, desk)  # type: ignore[union-attr]
    if kind is Wait:
        return await desk.wait(effect.seconds)  # type: ignore[union-attr]
    if kind is Commit:
        return await _commit(effect, frame, desk)  # type: ignore[arg-type]
    if kind is WaitForOthers:
        return await desk.wait_for_others(effect.until_us, effect.news)  # type: ignore[union-attr]
    if kind is Enter:
        return await _enter(effect.request, frame, desk)  # type: ignore[union-attr]
    if kind is SideBySide:
        return await async_groups.go_on(effect.group, effect.caller or frame, drive)  # type: ignore[union-attr]
    with desk.executing(frame.unit):
        if kind is Confirm:
            return await desk.host.confirm(frame.claim)
        if kind is End:
            return await desk.host.finish(effect.finish)  # type: ignore[union-attr]
        host = desk.host.host
        if kind is Announce:
            return await desk.host.call(partial(hooks.children_canceled, effect.run_ids))  # type: ignore[union-attr]
        return await desk.host.call(partial(host.write, effect.statement))  # type: ignore[union-attr]


def desk_of(frame: Frame) -> Desk:
    """The desk of an async pass."""
    desk = frame.state.desk
    assert isinstance(desk, Desk)
    return desk


async def if_need_be_on_thread(function: Callable[[], T], desk: Desk) -> T:
    """Call something that is quick, unless it asks the database: then on a thread, where it may."""
    try:
        if desk.is_refused_by_django:
            return function()
        with _refused_here():
            return function()
    except SynchronousOnlyOperation:
        return await desk.host.call(function)


@contextmanager
def _refused_here() -> Iterator[None]:
    """Let Django refuse to ask the database on the loop, also where the project allows it: there is another connection for each
    context, which nobody would look after, and which sees nothing of a test's transaction."""
    allowed = os.environ.pop(ALLOWED, None)
    try:
        yield
    finally:
        if allowed is not None:
            os.environ[ALLOWED] = allowed


async def _record(write: StepWrite, frame: Frame, desk: Desk) -> Outcome:
    """Commit a record; also where the caller is canceled meanwhile, who hears of it then."""
    history = frame.history
    history.expect(write.position)
    with desk.executing(frame.unit):
        try:
            answer = desk.host.record(write)
            outcome = await answer
            desk.written.add(write.name)
            return outcome
        except asyncio.CancelledError:
            desk.written.add(write.name)
            if write.status == StepStatus.SUCCEEDED and write.output is not None:
                desk.returned[write.name] = write.output
            raise
        finally:
            desk.is_settled(write.position)


async def _commit(effect: Commit, frame: Frame, desk: Desk) -> Any:
    """Carry out a statement that commits a record together with something else; as `_record()`."""
    write, host = effect.write, desk.host.host
    outcomes: list[Any] = []

    def statement() -> Any:
        outcomes.append(effect.statement())
        return outcomes[-1]

    frame.history.expect(write.position)
    with desk.executing(frame.unit):
        try:
            return await desk.host.call(partial(host.write, statement))
        finally:
            if Outcome.WRITTEN in outcomes:  # and not where another call has taken the event
                desk.written.add(write.name)
            desk.is_settled(write.position)


# -- Executing a step --------------------------------------------------------------------------------


class _Executed:
    """What a step that is executed shows of itself to the heartbeat, in the place of a frame."""

    __slots__ = ("asked_on", "current_step", "host")

    def __init__(self, name: str) -> None:
        self.current_step, self.asked_on, self.host = name, None, None


async def _execute(attempt: Attempt, frame: Frame, desk: Desk) -> Executed:
    shown: Any = _Executed(attempt.request.name)
    frame.state.frames[shown] = None
    try:
        with desk.executing(frame.unit):
            if not frame.interceptors:
                return await _attempt(attempt, frame, desk)
            return await _within(attempt, frame, desk)
    except asyncio.CancelledError:
        if attempt.outcome is not None:  # an atomic step has recorded itself
            desk.written.add(attempt.request.name)
        if attempt.returned is not None:
            desk.returned[attempt.request.name] = attempt.returned
        if attempt.position is not None:
            desk.is_settled(attempt.position)
        raise
    finally:
        del frame.state.frames[shown]


async def _within(attempt: Attempt, frame: Frame, desk: Desk) -> Executed:
    """Execute a step with all that stands around it."""
    around = around_attempt(frame.interceptors, attempt)
    executed, error = None, None
    try:
        await desk.host.call(around.enter)
        executed = await _attempt(attempt, frame, desk)
    except GeneratorExit as closed:  # the loop is closed: nothing can be awaited any more
        return around.leave(None, closed)
    except BaseException as raised:
        error = raised
    return await desk.host.call(partial(around.leave, executed, error))


async def _attempt(attempt: Attempt, frame: Frame, desk: Desk) -> Executed:
    request = attempt.request
    attempt.is_over = False
    try:
        if is_async(request.function):
            attempt.started_at = frame.claim.now()
            function = partial(request.function, *request.args, **request.kwargs)
            return await _awaited(attempt, frame, desk, function, copy_context())
        desk.on_threads += 1
        try:
            executed = await _on_thread(attempt, frame, desk)
        except LeftAwaitable as left:
            awaitable, context = left.awaitable, left.context
        except StepTimedOut as error:  # the thread goes on, and what comes of that is refused
            return attempt.failed(error), error
        else:
            if attempt.outcome is not None:
                desk.is_settled(executed[0].position)
            return executed
        finally:
            desk.on_threads -= 1
        return await _awaited(attempt, frame, desk, lambda: awaitable, context)
    finally:
        attempt.is_over = True


async def _on_thread(attempt: Attempt, frame: Frame, desk: Desk) -> Executed:
    """Execute a plain function on a thread of the worker; raises `StepTimedOut` where it is given up."""

    def give_up(error: StepsError) -> None:
        desk.loop.call_soon_threadsafe(answer.fail, error)

    answer = desk.host.run_step(partial(_execute_plain, attempt, frame, give_up))
    executed: Executed = await answer
    return executed


def _execute_plain(attempt: Attempt, frame: Frame, give_up: Callable[[StepsError], None]) -> Executed:
    connections = Connections()
    own = Frame(frame.state, frame.host, frame.scope, frame.unit, connections)
    own.leaves_awaitables, own.give_up = True, give_up
    frame.state.frames[own] = None
    try:
        with connections.watched():
            return execute(attempt, own)
    finally:
        del frame.state.frames[own]


async def _awaited(
    attempt: Attempt, frame: Frame, desk: Desk, function: Callable[[], Awaitable[Any]], context: Context
) -> Executed:
    """Execute an async function, in a context of its own."""
    context.run(enter_step, attempt, frame)
    if time.monotonic() > frame.claim.held_until:
        await _ensure_held(frame, desk)
    try:
        with canceled_in_time(attempt, desk.loop):
            value = await _InContext(_call(function, frame), context)
        misuse = frame.guard.take_misuse()
        if misuse is not None:
            raise misuse
        attempt.examine(value)
        return await if_need_be_on_thread(partial(attempt.succeeded, value), desk), None
    except asyncio.CancelledError as canceled:
        if is_canceled(frame):
            raise
        return attempt.failed(canceled), canceled  # the function has raised it by itself
    except PASS_THROUGH:
        raise
    except BaseException as error:
        return attempt.failed(error), error


class _InContext:
    """Awaits a coroutine in a context of its own, which costs less than a task, and where cancellations arrive as they are."""

    __slots__ = ("_context", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        self._coroutine, self._context = coroutine, context

    def __await__(self) -> Generator[Any, Any, Any]:
        run, send, throw = self._context.run, self._coroutine.send, self._coroutine.throw
        proceed: Callable[[], Any] = partial(run, send, None)
        try:
            while True:
                waits_for = proceed()
                try:
                    yield waits_for
                except BaseException as error:
                    proceed = partial(run, throw, error)
                else:
                    proceed = partial(run, send, None)
        except StopIteration as returned:
            return returned.value


async def _call(function: Callable[[], Awaitable[Any]], frame: Frame) -> Any:  # `frame` says whose it is
    return await function()


def is_canceled(frame: Frame) -> bool:
    """Whether somebody has canceled the present task, or the pass is ending."""
    task = asyncio.current_task()
    return frame.state.is_ending or is_left(frame.unit) or (task is not None and task.cancelling() > 0)


async def _ensure_held(frame: Frame, desk: Desk) -> None:
    if (await desk.host.confirm(frame.claim)).lost:
        raise ClaimLost


# -- Branches ----------------------------------------------------------------------------------------


async def _enter(request: CallBranch, outer: Frame, desk: Desk) -> tuple[Any, BaseException | None]:
    """Call the function of a branch; what it returned, and what it raised."""
    state = outer.state
    frame = Frame(state, outer.host, outer.scope.inner(request.name, outer.group), outer.unit, outer.connections)
    for interceptor in frame.interceptors:
        interceptor.entered(frame.claim, request)
    context = copy_context()
    context.run(_in_branch, frame)
    task = desk.loop.create_task(_branch(request, frame), context=context)
    value: Any = None
    error: BaseException | None = None
    try:
        value = await task
    except asyncio.CancelledError as canceled:
        if is_canceled(frame):
            raise
        error = canceled
    except BaseException as raised:
        if isinstance(raised, frame.host.lets_through):
            raise
        error = raised
    if state.is_ending or is_left(frame.unit):
        raise PassEnded(request.name)  # whatever the function made of it
    error = frame.guard.take_misuse() or error
    if error is None:
        error = frame.scope.mistake_at_the_end() or tasks_left(frame, desk, f"Branch {request.name!r}")
    if isinstance(error, MISTAKES):
        if frame.replay is None:
            raise error
        frame.replay.mistakes.append(error)  # and what is to be recorded next ends the call
    frame.has_left()
    return value, error


def _in_branch(frame: Frame) -> None:
    active_pass.set(frame)
    decimal.setcontext(decimal.getcontext().copy())  # the copied context refers to the body's


async def _branch(request: CallBranch, frame: Frame) -> Any:
    arguments = frame.state.arguments_of(frame, request.wanted)
    value = await request.function(*request.args, **request.kwargs, **arguments)
    await until_canceled_have_ended(frame, desk_of(frame))
    return value


async def until_canceled_have_ended(frame: Frame, desk: Desk) -> None:
    """Wait for the tasks that a body or branch has canceled and not awaited, as `asyncio.gather()` leaves them."""
    while not frame.state.is_ending:
        left = [task for task, maker in desk.tasks.items() if maker is frame and task.cancelling() and not task.done()]
        left = [task for task in left if task is not asyncio.current_task()]
        if not left:
            return
        one_ends = desk.loop.known()
        for task in left:
            task.add_done_callback(partial(_tell_end, one_ends))
        timer = desk.loop.after(_LONGEST_UNWINDING, partial(_tell_end, one_ends))
        try:
            await one_ends
        finally:
            timer.cancel()
        if not desk.calls and not any(task.done() for task in left):
            return  # it does something else


def _tell_end(one_ends: Known, task: Any = None) -> None:
    if not one_ends.done():
        one_ends.set_result(None)


def tasks_left(frame: Frame, desk: Desk, who: str) -> StepNotRun | None:
    """What is wrong if a body or branch ends here: tasks that it has begun and that have not ended."""
    left = [task for task, maker in desk.tasks.items() if maker is frame and not task.done()]
    if not left:
        return None
    names = ", ".join(_name_of(task) for task in left[:3])
    return StepNotRun(
        f"{who} has ended, and {len(left)} of its tasks have not: {names}. What is left would be lost: await them, as "
        "`async with asyncio.TaskGroup()` does, or cancel them."
    )


def _name_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", None) or coroutine)
