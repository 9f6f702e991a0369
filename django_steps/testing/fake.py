"""`FakeStep`: a `step` argument that only calls functions, for testing a body as the plain function that it is.

No database, no records, no retries, no waiting. For everything else there is `run_workflow()`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, NoReturn

from asgiref.sync import async_to_sync

from ..conf import conf
from ..core import clock
from ..core.context import StepContext, active_step
from ..core.ids import uuid7
from ..core.unfinished import UNFINISHED
from ..definitions.requests import CallBranch, Gather, Map, Poll, Request, RunStep, Sleep
from ..definitions.step import Step
from ..engine.checkpoints import Checkpoints, OfAttempt
from ..engine.frame import MISTAKES
from ..engine.groups import Tolerance
from ..engine.guard import called_inside
from ..engine.history import History
from ..engine.operations.gather import member_keys
from ..engine.scopes import Scope
from ..errors import GroupFailed, NestedStep, PollTimedOut, StepsError
from .errors import DoesNotEnd
from .stubs import Stubs

logger = logging.getLogger("django_steps.testing")

_MOST_CHECKS = 1000  # of a poll that has neither a timeout nor max_checks


class Called(NamedTuple):
    """A step that was run, and the arguments of its `.run(…)`."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Slept(NamedTuple):
    """A sleep that was reached: for how long, or until when."""

    name: str
    duration: timedelta | None
    until: datetime | None


class FakeStep(Step):
    """Give it to a workflow instead of a real `step`: `process_order(input={…}, step=FakeStep())`.

    - `names`: steps, sleeps, maps and branches in the order in which they were reached; the second sleep of a name is
      `name#2`, an item of a map `name#key`, a step in a branch `order#17/charge`.
    - `calls`: the steps that were run, as `(name, args, kwargs)`; `sleeps`: as `(name, duration, until)`.

    Each step's function is called once, with no regard to its retry policy, and its result returned as it is; sleeps
    don't wait, and neither do polls: their checks follow each other, as many as there would be until the timeout. What may
    be executed side by side is executed one by one, as given. Branches that take `run` get None. Names and durations are
    checked as ever. `stubs` are those of `run_workflow()`.
    """

    __slots__ = ("_current", "calls", "names", "sleeps")

    _performer: _FakePerformer

    def __init__(self, stubs: Mapping[str, Any] | None = None) -> None:
        super().__init__(_FakePerformer(self, Stubs(stubs)))
        self._current = self._performer  # that of the branch which is being called, or of the body
        self.names: list[str] = []
        self.calls: list[Called] = []
        self.sleeps: list[Slept] = []

    def assert_all_run(self) -> None:
        """Raise `StepNotRun` if a step was defined and never run, `UnusedStub` for a stub that no step used."""
        self._performer.check()


class _FakePerformer:
    def __init__(self, step: FakeStep, stubs: Stubs, scope: Scope | None = None) -> None:
        self._step, self._stubs = step, stubs
        self._scope = scope or Scope(History())
        self._run_id = uuid7()

    def path(self, name: str) -> str:
        return self._scope.path(name)

    def define(self, path: str) -> None:
        self._check(path)
        self._scope.define(path)

    def refuse(self, mistake: StepsError) -> NoReturn:
        raise mistake

    def perform(self, request: Request) -> Any:
        if isinstance(request, Gather):
            return self._gather(request)
        self._check(request.name)
        if isinstance(request, Map):
            return self._map(request)
        if isinstance(request, Sleep):
            return self._sleep(request)
        self._scope.use_defined(request.name)
        return self._member(request)

    def _member(self, request: RunStep | CallBranch) -> Any:
        return self._run(request) if isinstance(request, RunStep) else self._branch(request)

    def _gather(self, request: Gather) -> tuple[Any, ...]:
        self._check("gather()")
        for member in request.members:
            self._scope.use_defined(member.name)
        keys = member_keys([member.name for member in request.members], self._scope.branch)
        members = dict(zip(keys, request.members, strict=True))
        tolerance = Tolerance(len(members), tolerates_all=request.return_exceptions)
        return tuple(self._together(members, tolerance, f"of {len(members)} that were gathered"))

    def _map(self, request: Map) -> list[Any]:
        request.check_successes()
        self._scope.reserve(request.name)
        self._step.names.append(request.name)
        tolerance = Tolerance(
            len(request.members),
            request.max_failures,
            request.min_successes,
            tolerates_all=request.return_exceptions,
        )
        return self._together(request.members, tolerance, f"of {request.name!r}")

    def _together(self, members: Mapping[str, RunStep | CallBranch], tolerance: Tolerance, what: str) -> list[Any]:
        """One after the other; what `gather()` and `map()` return, or `GroupFailed`."""
        results: dict[str, Any] = {}
        failures: dict[str, Exception] = {}
        for key, member in members.items():
            if tolerance.is_decided:
                break
            try:
                results[key] = self._member(member)
            except MISTAKES:
                raise
            except Exception as error:
                error.add_note(f"This is the failure of {member.name!r}.")
                failures[key] = error
            tolerance.note(has_failed=key in failures)
        if tolerance.has_failed:
            raise GroupFailed(f"{len(failures)} {what} failed", failures, results)
        return [results[key] if key in results else failures.get(key, UNFINISHED) for key in members]

    def _branch(self, request: CallBranch) -> Any:
        performer = _FakePerformer(self._step, self._stubs, self._scope.inner(request.name, ""))
        arguments = {"step": Step(performer), "logger": logger, "run": None}
        wanted = {name: arguments[name] for name in request.wanted}
        self._step.names.append(request.name)
        self._step._current = performer
        try:
            value = request.function(*request.args, **request.kwargs, **wanted)
        finally:
            self._step._current = self
        performer.check_all_run()
        return value

    def check_all_run(self) -> None:
        if (never_run := self._scope.mistake_at_the_end()) is not None:
            raise never_run

    def _run(self, request: RunStep) -> Any:
        name, args, kwargs = request.name, request.args, request.kwargs
        self._step.names.append(name)
        self._step.calls.append(Called(name, args, kwargs))
        function = self._stubs.function_for(name, request.function)
        keeper = OfAttempt(Checkpoints(), name, conf.max_value_bytes, is_atomic=request.options.atomic)
        token = active_step.set(StepContext(self._run_id, name, 1, keeper))
        try:
            if isinstance(request, Poll):
                return _polled(request, lambda: _called(function, args, kwargs))
            return _called(function, args, kwargs)
        finally:
            active_step.reset(token)

    def _sleep(self, request: Sleep) -> None:
        name = self._scope.reserve_sleep(request.name)
        self._step.names.append(name)
        span = None if request.duration_us is None else timedelta(microseconds=request.duration_us)
        until = None if request.until_us is None else clock.to_datetime(request.until_us)
        self._step.sleeps.append(Slept(name, span, until))

    def check(self) -> None:
        self.check_all_run()
        self._stubs.check_used(self._step.names)

    def _check(self, name: str) -> None:
        inside = active_step.get()
        if inside is not None:
            raise called_inside(name, inside.name)
        if self._step._current is not self:
            raise NestedStep(
                f"Step {name!r} was called in a branch by the `step` of another one. Give the branch's function a parameter"
                " named step, and use that."
            )


def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = function(*args, **kwargs)
    return async_to_sync(_awaited)(value) if inspect.isawaitable(value) else value


def _polled(request: Poll, check: Callable[[], Any]) -> Any:
    """Check until something is found, as long as the timeout would last if only the waits took time."""
    rules, waited_us, checks = request.polling, 0, 0
    while True:
        value, checks = check(), checks + 1
        if rules.is_done(value):
            return value
        if checks == rules.max_checks or (rules.timeout_us is not None and waited_us >= rules.timeout_us):
            raise PollTimedOut(request.name, checks, value)
        if checks == _MOST_CHECKS and not rules.is_bounded:
            raise DoesNotEnd(
                f"Poll {request.name!r} has checked {checks:,} times and found nothing; maybe it never does. Give it a stub, "
                "or give the poll a timeout."
            )
        waited_us += rules.interval_us(checks)
        if rules.timeout_us is not None:
            waited_us = min(waited_us, rules.timeout_us)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
