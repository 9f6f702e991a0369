"""One pass of a run whose body is `async def`, on the event loop: the twin of `execution.py`.

`run_claim()` is the way in. It is called in a task that belongs to no pass; the body gets a task and a context of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..core.context import active_pass
from ..definitions import Workflow, get_workflow
from ..definitions.async_step import AsyncStep
from ..errors import ClaimLost
from ..ledger import histories
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from . import conclusion, hooks, marks, undoing
from .async_host import AsyncHost
from .async_performing import AsyncPerforming
from .conclusion import Conclusion
from .desk import Desk
from .drivers.coroutines import drive, if_need_be_on_thread, tasks_left, until_canceled_have_ended
from .ending import Ended, Ending
from .execution import Pass, clean_context, enter, loaded
from .frame import Frame
from .history import History
from .interceptors import Interceptor, around_pass, everywhere
from .loops import PassLoop
from .operations.base import Announce, End, Tell

logger = logging.getLogger("django_steps")

_LONGEST_GOODBYE = 5.0  # seconds for which the end of a pass waits for what its tasks still do
_ROUNDS = 5  # of the loop, in which the end of one task reaches those that it waits for


async def run_claim(
    claim: Claim,
    host: AsyncHost,
    loop: PassLoop,
    recorded: Sequence[Recorded] | None = None,
    *,
    interceptors: Sequence[Interceptor] = (),
    begun: Callable[[Pass], None] = lambda current: None,
) -> Ending:
    """Execute a claimed run once, and return how the pass ended. As `execution.run_claim()`."""
    standing = [*everywhere, *hooks.listening(), *interceptors]
    try:
        if not standing:
            return await _pass(claim, host, loop, recorded, standing, begun)
        around = around_pass(standing, claim)
        ending, error = None, None
        try:
            await host.call(around.enter)
            ending = await _pass(claim, host, loop, recorded, standing, begun)
        except GeneratorExit as closed:  # the loop is closed: nothing can be awaited any more
            return around.leave(None, closed)
        except BaseException as raised:
            error = raised
        return await host.call(partial(around.leave, ending, error))
    except Exception as error:  # of an interceptor
        return await _carried_out(conclusion.failed_of_its_own(claim, host.host, error), host)


async def _pass(
    claim: Claim,
    host: AsyncHost,
    loop: PassLoop,
    recorded: Sequence[Recorded] | None,
    interceptors: Sequence[Interceptor],
    begun: Callable[[Pass], None],
) -> Ending:
    try:
        enter(interceptors, claim)
        blocking = host.host
        if recorded is None:
            recorded = await host.call(lambda: blocking.write(lambda: loaded(claim, blocking)))
        history = History(
            recorded,
            lambda name: blocking.write(lambda: histories.long_output(blocking.connection(), claim.run_id, name)),
        )
        workflow = get_workflow(claim.workflow, claim.version)
        current = AsyncPass(workflow, claim, history, host, loop, interceptors)
        begun(current)
        if not claim.is_undoing:
            return await current.proceed()
        undoing.replay_only(current.frame)
        await current.call()
        rest = Undoing(workflow, claim, history, host, loop, interceptors)
        begun(rest)
        return await rest.follow(current)
    except ClaimLost:
        return Ending(Ended.LOST)
    except Exception as error:
        return await _carried_out(conclusion.failed_of_its_own(claim, host.host, error), host)


class AsyncPass(Pass):
    """One call of an async body."""

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        claim: Claim,
        history: History,
        host: AsyncHost,
        loop: PassLoop,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        super().__init__(workflow, claim, history, host.host, interceptors, loop.own_connections())
        self._async_host, self._loop = host, loop
        self.desk = Desk(loop, self.state, host)
        self.state.desk = self.desk

    async def proceed(self) -> Ending:
        """Call the body, and bring the run to where the call leaves it."""
        value, error = await self.call()
        ending = await _carried_out(self._conclusion(value, error), self._async_host)
        if (found := marks.look(self.frame, ending)) is not None:
            await self._async_host.call(partial(marks.say, self.frame, self.host, found))
        return ending

    async def call(self) -> tuple[Any, BaseException | None]:
        """Call the body; what it returned or raised."""
        context = clean_context()
        context.run(active_pass.set, self.frame)
        context.run(enter, self.frame.interceptors, self.claim)
        body = self._loop.create_task(self._body(self.frame), context=context)
        self.desk.body = body
        body.add_done_callback(lambda task: self.desk.end())
        await self._until_over()
        await self._close(body)
        return self._outcome_of(body)

    def _conclusion(self, value: Any, error: BaseException | None) -> Conclusion:
        ending = self.state.ending
        if ending is not None and ending.suspension is not None:
            return conclusion.suspended(self.frame, ending.suspension)
        return conclusion.conclude(self.frame, self.workflow, value, error)

    async def _until_over(self) -> None:
        """Until the body has ended, or the pass, at the latest by the timeout of the run."""
        if self.claim.expires_at is None:
            await self.desk.is_over
            return
        seconds = (self.claim.expires_at - self.claim.now()) / 1_000_000
        timer = self._loop.after(max(seconds, 0.0), partial(self.state.stop, Ended.TIMED_OUT))
        try:
            await self.desk.is_over
        finally:
            timer.cancel()

    async def _body(self, frame: Frame) -> Any:  # `frame` says whose it is
        arguments = await if_need_be_on_thread(self._arguments, self.desk)
        value = await self.workflow.call_body(arguments)
        await until_canceled_have_ended(self.frame, self.desk)
        return value

    async def _close(self, body: asyncio.Task[Any]) -> None:
        """Let what is executed come to its end, and what waits, too; what doesn't is left alone."""
        state, desk = self.state, self.desk
        if body.done() and not state.is_ending and not body.cancelled() and body.exception() is None:
            state.mistake = tasks_left(self.frame, desk, "The body")
        state.is_closing = True
        await desk.until_nothing_executes()
        desk.fire_all()
        if not body.done():
            body.cancel()
        if desk.tasks:
            # Each task is canceled once: a second time would cut what it does about the first. Where one waits for others,
            # it cancels them itself.
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            for task in list(desk.tasks):
                if not task.done() and not task.cancelling():
                    task.cancel()
        left = {task for task in desk.tasks if not task.done()} - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=_LONGEST_GOODBYE)
        for task in left:
            text = "Run %s goes on without %r, which has been canceled and does not end."
            logger.error(text, self.claim.run_id, task.get_coro())

    def _outcome_of(self, body: asyncio.Task[Any]) -> tuple[Any, BaseException | None]:
        """What the body returned, and what it raised."""
        if not body.done():
            return None, None
        error = asyncio.CancelledError() if body.cancelled() else body.exception()
        if isinstance(error, self.host.lets_through):
            raise error
        return (None, error) if error is not None else (body.result(), None)

    def _step_of(self, frame: Frame) -> AsyncStep:
        return AsyncStep(AsyncPerforming(frame))


class Undoing(AsyncPass):
    """What comes after a body that has only replayed: the undos, in its place."""

    async def follow(self, before: Pass) -> Ending:
        """Undo what the pass before has come to, and bring the run to where that leaves it."""
        ending, error = undoing.cut_short(before.frame), None
        if ending is None:
            undoing.take_over(self.frame, before.frame)
            _, error = await self.call()
        else:
            self.state.ending = ending
        return await _carried_out(self._conclusion(None, error), self._async_host)

    def _conclusion(self, value: Any, error: BaseException | None) -> Conclusion:
        if self.state.ending is not None:
            return super()._conclusion(value, error)
        return conclusion.undone(self.frame, error)

    async def _body(self, frame: Frame) -> Any:
        await drive(undoing.undo_all(frame), frame)


async def _carried_out(core: Conclusion, host: AsyncHost) -> Ending:
    """Carry a conclusion out."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = core.send(answer) if error is None else core.throw(error)
        except StopIteration as returned:
            ending: Ending = returned.value
            return ending
        try:
            if isinstance(effect, End):
                answer, error = await host.finish(effect.finish), None
            elif isinstance(effect, Announce):
                answer, error = await host.call(partial(hooks.children_canceled, effect.run_ids)), None
            elif isinstance(effect, Tell):
                answer, error = await host.call(partial(host.host.tell_parent, *effect)), None
            else:
                answer, error = await host.call(partial(host.host.write, effect.statement)), None  # type: ignore[union-attr]
        except BaseException as raised:
            answer, error = None, raised
