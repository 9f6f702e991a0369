"""`FakeStep`, `AsyncFakeStep`: a `step` argument that only calls functions, for testing a body as the function that it is.

No database, no records, no retries, no waiting. For everything else there is `run_workflow()`.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, NoReturn

from asgiref.sync import async_to_sync, sync_to_async

from ..conf import conf
from ..core import clock
from ..core.context import StepContext, active_step
from ..core.ids import uuid7
from ..core.names import inside, undo_of
from ..core.unfinished import UNFINISHED
from ..definitions.async_step import AsyncStep
from ..definitions.requests import (
    MISSING,
    CallBranch,
    Gather,
    Invoke,
    Map,
    Patch,
    Poll,
    Request,
    RunStep,
    Sleep,
    StartRun,
    Undo,
    WaitForEvent,
)
from ..definitions.step import Step
from ..definitions.undos import arguments_of
from ..definitions.workflow import Workflow
from ..engine.checkpoints import Checkpoints, OfAttempt
from ..engine.frame import MISTAKES
from ..engine.groups import Tolerance
from ..engine.guard import called_inside
from ..engine.history import History
from ..engine.operations.gather import member_keys
from ..engine.operations.undo import RunUndo
from ..engine.scopes import Scope
from ..errors import (
    ChildTimedOut,
    EventTimedOut,
    GroupFailed,
    InvalidEvent,
    InvalidInput,
    InvalidState,
    NestedStep,
    RunCanceled,
    StepsError,
)
from .answers import Answers
from .errors import UnansweredWait
from .faking import moment, polled, run_failed, span, unstubbed, value_of
from .noting import Called, Continued, Noting, Slept, Waited
from .stubs import Stubs

logger = logging.getLogger("django_steps.testing")


class FakeStep(Noting, Step):
    """Give it to a workflow instead of a real `step`: `process_order(input={…}, step=FakeStep())`.

    - `names`: steps, sleeps, waits, maps and branches in the order in which they were reached; the second sleep or wait of a
      name is `name#2`, an item of a map `name#key`, a step in a branch `order#17/charge`.
    - `calls`: the steps that were run, as `(name, args, kwargs)`; `sleeps`: as `(name, duration, until)`; `waits` for events:
      as `(name, events, timeout, until)`.

    Each step's function is called once, with no regard to its retry policy, and its result returned as it is; sleeps
    don't wait, and neither do polls: their checks follow each other, as many as there would be until the timeout. What may
    be executed side by side is executed one by one, as given. Branches that take `run` get None. Names and durations are
    checked as ever. `stubs` and `events` are those of `run_workflow()`. A wait that no event answers returns its `default` at
    once, or raises `EventTimedOut`; one without a timeout raises `UnansweredWait`.

    No run is started. The body of a workflow that is invoked, or mapped over, is called with a step of its own; what it raises
    is the `__cause__` of a `RunFailed`. `step.start()` gives an id that no run has, and `continue_as_new()` an object with the
    `input`.
    """

    __slots__ = ("calls", "names", "sleeps", "waits")

    def __init__(self, stubs: Mapping[str, Any] | None = None, events: Mapping[str, Any] | None = None) -> None:
        self.names, self.calls, self.sleeps, self.waits = [], [], [], []
        super().__init__(_PlainPerformer(self, Stubs(stubs), Answers(events)))


class AsyncFakeStep(Noting, AsyncStep):
    """Give it to an `async def` workflow instead of a real `step`: `await research(input={…}, step=AsyncFakeStep())`.

    It has the attributes of `FakeStep`, and does the same. The function of a step is called on the event loop, and awaited if
    it is `async def`: a plain one that uses the ORM needs a stub, since Django refuses that there. The members of
    `step.gather()` and `step.map()` are awaited one by one, as given; what the body gives to asyncio goes on side by side, as
    ever.
    """

    __slots__ = ("calls", "names", "sleeps", "waits")

    def __init__(self, stubs: Mapping[str, Any] | None = None, events: Mapping[str, Any] | None = None) -> None:
        self.names, self.calls, self.sleeps, self.waits = [], [], [], []
        super().__init__(_AsyncPerformer(self, Stubs(stubs), Answers(events)))


# The branch that is being called here, by whichever fake step; a task has its own.
_called_branch: ContextVar[_Performer | None] = ContextVar("fake_branch", default=None)


class _Performer(ABC):
    """Carries out what a body asks for, as a coroutine that waits for nothing but the functions that it calls."""

    def __init__(self, step: Noting, stubs: Stubs, answers: Answers, scope: Scope | None = None) -> None:
        self._step, self._stubs, self._answers = step, stubs, answers
        self._is_branch = scope is not None
        self._scope = scope or Scope(History())
        self._run_id = uuid7()
        self._done: list[tuple[RunStep, Any]] = []  # the steps that can be undone, with their results

    @abstractmethod
    async def _awaited(self, value: Any) -> Any:
        """What a function has returned; what it has to be awaited for, if it has to."""

    @abstractmethod
    async def _plain_body(self, call: Callable[[], Any]) -> Any:
        """What the plain body of another workflow returns."""

    @abstractmethod
    def _step_of_branch(self, performer: Any) -> Any:
        """What a branch gets as its `step`."""

    def path(self, name: str) -> str:
        return self._scope.path(name)

    def define(self, path: str) -> None:
        self._check(path)
        self._scope.define(path)

    def continue_as_new(self, input: Any) -> Continued:
        self._check("continue_as_new()")
        if self._is_branch:
            raise InvalidState("continue_as_new() was called in a branch: only the body can go on as another run.")
        return Continued(input)

    def refuse(self, mistake: StepsError) -> NoReturn:
        raise mistake

    async def _carry_out(self, request: Request) -> Any:
        if isinstance(request, Gather):
            return await self._gather(request)
        self._check(request.name)
        if isinstance(request, Map):
            return await self._map(request)
        if isinstance(request, Sleep):
            return self._sleep(request)
        if isinstance(request, WaitForEvent):
            return self._wait(request)
        if isinstance(request, Patch):
            return self._patched(request)
        if isinstance(request, Undo):
            return await self._undo()
        self._scope.use_defined(request.name)
        return await self._member(request)

    async def _member(self, request: RunStep | CallBranch | Invoke | StartRun) -> Any:
        if isinstance(request, StartRun):
            return await self._start(request)
        if isinstance(request, Invoke):
            return await self._invoke(request)
        return await (self._run(request) if isinstance(request, RunStep) else self._branch(request))

    async def _gather(self, request: Gather) -> tuple[Any, ...]:
        self._check("gather()")
        for member in request.members:
            self._scope.use_defined(member.name)
        keys = member_keys([member.name for member in request.members], self._scope.branch)
        members = dict(zip(keys, request.members, strict=True))
        tolerance = Tolerance(len(members), tolerates_all=request.return_exceptions)
        return tuple(await self._together(members, tolerance, f"of {len(members)} that were gathered"))

    async def _map(self, request: Map) -> list[Any]:
        request.check_successes()
        self._scope.reserve(request.name)
        self._step.names.append(request.name)
        tolerance = Tolerance(
            len(request.members),
            request.max_failures,
            request.min_successes,
            tolerates_all=request.return_exceptions,
        )
        return await self._together(request.members, tolerance, f"of {request.name!r}")

    async def _together(
        self, members: Mapping[str, RunStep | CallBranch | Invoke | StartRun], tolerance: Tolerance, what: str
    ) -> list[Any]:
        """One after the other; what `gather()` and `map()` return, or `GroupFailed`."""
        results: dict[str, Any] = {}
        failures: dict[str, Exception] = {}
        for key, member in members.items():
            if tolerance.is_decided:
                break
            try:
                results[key] = await self._member(member)
            except MISTAKES:
                raise
            except Exception as error:
                if self._is_the_tests(error):
                    raise
                error.add_note(f"This is the failure of {member.name!r}.")
                failures[key] = error
            tolerance.note(has_failed=key in failures)
        if tolerance.has_failed:
            raise GroupFailed(f"{len(failures)} {what} failed", failures, results)
        return [results[key] if key in results else failures.get(key, UNFINISHED) for key in members]

    def _is_the_tests(self, error: Exception) -> bool:
        """Whether an exception is no failure of the body, but what the kit or a stub has to say to the test."""
        return isinstance(error, AssertionError) and (
            isinstance(error, StepsError) or error is self._stubs.failed_assertion
        )

    async def _branch(self, request: CallBranch) -> Any:
        performer = type(self)(self._step, self._stubs, self._answers, self._scope.inner(request.name, ""))
        performer._done = self._done
        arguments = {"step": self._step_of_branch(performer), "logger": logger, "run": None}
        wanted = {name: arguments[name] for name in request.wanted}
        self._step.names.append(request.name)
        token = _called_branch.set(performer)
        try:
            value = await self._awaited(request.function(*request.args, **request.kwargs, **wanted))
        finally:
            _called_branch.reset(token)
        performer.check_all_run()
        return value

    def check_all_run(self) -> None:
        if (never_run := self._scope.mistake_at_the_end()) is not None:
            raise never_run

    async def _run(self, request: RunStep) -> Any:
        name, args, kwargs = request.name, request.args, request.kwargs
        self._step.names.append(name)
        self._step.calls.append(Called(name, args, kwargs))
        function = self._stubs.function_for(name, request.function)
        keeper = OfAttempt(Checkpoints(), name, conf.max_value_bytes, is_atomic=request.options.atomic)
        if request.options.timeout_us is not None:
            keeper.deadline_us = clock.host_time() + request.options.timeout_us
        token = active_step.set(StepContext(self._run_id, name, 1, keeper))
        try:
            if isinstance(request, Poll):
                return await polled(request, lambda: self._awaited(function(*args, **kwargs)))
            value = await self._awaited(function(*args, **kwargs))
        finally:
            active_step.reset(token)
        if request.options.undo is not None and not isinstance(request, RunUndo):
            self._done.append((request, value))
        return value

    async def _undo(self) -> None:
        """Call the undos of the steps of this body or branch, the newest first."""
        branch, failed, undone = self._scope.branch, dict[str, Exception](), 0
        for request, value in reversed(self._done[:]):
            undo = request.options.undo
            if undo is None or (branch and not request.name.startswith(f"{branch}/")):
                continue
            self._done.remove((request, value))
            args, kwargs = arguments_of(request.name, undo, request.args, request.kwargs)
            undone += 1
            try:
                await self._run(RunUndo(undo_of(request.name), undo, (value, *args), kwargs, request.options))
            except MISTAKES:
                raise
            except Exception as error:
                if self._is_the_tests(error):
                    raise
                failed[inside(branch, request.name)] = error
        if failed:
            raise GroupFailed(f"{len(failed)} of {undone} that were undone failed", failed)

    async def _invoke(self, request: Invoke) -> Any:
        """Call the body of a workflow, or the stub, as a run that has its own names, stubs and events."""
        arguments = self._noted(request)
        function = self._stubs.function_for(request.name, unstubbed)
        if self._stubs.is_stubbed_by(request.name, RunCanceled):
            raise RunCanceled(f"The run that step {request.name!r} has invoked was canceled.", uuid7())
        if self._stubs.is_stubbed_by(request.name, ChildTimedOut):
            raise ChildTimedOut(request.name, uuid7())
        try:
            if function is unstubbed:
                return await self._call_body(request.workflow, arguments)
            return await self._awaited(function(*arguments))
        except MISTAKES:
            raise
        except Exception as error:
            if self._is_the_tests(error):
                raise
            raise run_failed(request, error) from error

    async def _start(self, request: StartRun) -> Any:
        arguments = self._noted(request)
        function = self._stubs.function_for(request.name, unstubbed)
        return uuid7() if function is unstubbed else await self._awaited(function(*arguments))

    def _noted(self, request: Invoke | StartRun) -> tuple[Any, ...]:
        """The arguments of a run: its input, if it takes one."""
        takes_input = "input" in request.workflow.parameters
        arguments = (request.workflow.to_input(request.input),) if takes_input else ()
        self._step.names.append(request.name)
        self._step.calls.append(Called(request.name, arguments, {}))
        return arguments

    async def _call_body(self, workflow: Workflow[Any, Any], arguments: tuple[Any, ...]) -> Any:
        step = AsyncFakeStep() if workflow.is_async else FakeStep()
        performer: _Performer = step._performer
        performer._stubs, performer._answers = self._stubs, self._answers
        values = {"step": step, "logger": logger, "run": None, "input": arguments[0] if arguments else None}
        token = _called_branch.set(None)
        try:
            call = partial(workflow.call_body, {name: values[name] for name in workflow.parameters})
            value = await (self._awaited(call()) if workflow.is_async else self._plain_body(call))
        finally:
            _called_branch.reset(token)
        performer.check_all_run()
        return value

    def _sleep(self, request: Sleep) -> None:
        name = self._scope.reserve_sleep(request.name)
        self._step.names.append(name)
        self._step.sleeps.append(Slept(name, span(request.duration_us), moment(request.until_us)))

    def _patched(self, request: Patch) -> bool:
        """The new way, as a run that begins now; or what the stub of that name returns."""
        self._scope.ask_patch(request.name)
        self._step.names.append(request.name)
        return bool(self._stubs.function_for(request.name, lambda: True)())

    def _wait(self, request: WaitForEvent) -> Any:
        name = self._scope.reserve_sleep(request.name)
        self._step.names.append(name)
        self._step.waits.append(Waited(name, request.events, span(request.timeout_us), moment(request.until_us)))
        event = self._answers.next_for(self._step, request.events)
        if event is None:
            return self._unanswered(name, request)
        if request.is_any:
            event.sent_at = clock.to_datetime(clock.host_time())
            return event
        if request.type is None:
            return event.payload
        try:
            return request.type.validate(event.payload)
        except InvalidInput as error:
            raise InvalidEvent(name, event.name, error.errors) from None

    def _unanswered(self, name: str, request: WaitForEvent) -> Any:
        if request.default is not MISSING:
            return request.default
        if request.timeout_us is not None or request.until_us is not None:
            raise EventTimedOut(name, request.events)
        what = " or ".join(map(repr, request.events))
        hints = "".join(map(self._answers.hint, request.events))
        raise UnansweredWait(
            f"Wait {name!r} is for event {what}, and has no answer.{hints} Answer it by"
            f" events={{{request.events[0]!r}: payload}}."
        )

    def check(self) -> None:
        self.check_all_run()
        kinds = dict.fromkeys(self._step.names, "") | {call.name: "step" for call in self._step.calls}
        kinds |= {wait.name: "event" for wait in self._step.waits}
        self._stubs.check_used(kinds)
        self._answers.check_used(kinds)

    def _check(self, name: str) -> None:
        inside = active_step.get()
        if inside is not None:
            raise called_inside(name, inside.name)
        branch = _called_branch.get()
        is_here = self is branch if branch is not None and branch._step is self._step else not self._is_branch
        if not is_here:
            raise NestedStep(
                f"Step {name!r} was called in a branch by the `step` of another one. Give the branch's function a parameter"
                " named step, and use that."
            )


class _PlainPerformer(_Performer):
    """For plain bodies."""

    def perform(self, request: Request) -> Any:
        """Carry a request out at once."""
        coroutine = self._carry_out(request)
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("a plain fake step waits for nothing")

    async def _awaited(self, value: Any) -> Any:
        return async_to_sync(value_of)(value) if inspect.isawaitable(value) else value

    async def _plain_body(self, call: Callable[[], Any]) -> Any:
        return call()

    def _step_of_branch(self, performer: Any) -> Step:
        return Step(performer)


class _AsyncPerformer(_Performer):
    """For `async def` bodies."""

    def perform(self, request: Request) -> Coroutine[Any, Any, Any]:
        """Carry a request out when it is awaited."""
        return self._carry_out(request)

    async def _awaited(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def _plain_body(self, call: Callable[[], Any]) -> Any:
        return await sync_to_async(call)()  # where it may wait for what is async in it

    def _step_of_branch(self, performer: Any) -> AsyncStep:
        return AsyncStep(performer)
