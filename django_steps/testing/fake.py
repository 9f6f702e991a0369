"""`FakeStep`: a `step` argument that only calls functions, for testing a body as the plain function that it is.

No database, no records, no retries, no waiting. For everything else there is `run_workflow()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync

from ..core import clock
from ..core.context import StepContext, active_step
from ..core.ids import uuid7
from ..definitions.requests import Request, RunStep, Sleep
from ..definitions.step import Step
from ..engine.history import History
from ..errors import NestedStep, StepNotRun
from .stubs import Stubs


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

    - `names`: the steps and sleeps in the order in which they were reached; the second sleep of a name is `name#2`.
    - `calls`: the steps that were run, as `(name, args, kwargs)`; `sleeps`: as `(name, duration, until)`.

    Each step's function is called once, with no regard to its retry policy, and its result returned as it is; sleeps
    don't wait. Names and durations are checked as ever. `stubs` are those of `run_workflow()`.
    """

    __slots__ = ("calls", "names", "sleeps")

    _performer: _FakePerformer

    def __init__(self, stubs: Mapping[str, Any] | None = None) -> None:
        super().__init__(_FakePerformer(self, Stubs(stubs)))
        self.names: list[str] = []
        self.calls: list[Called] = []
        self.sleeps: list[Slept] = []

    def assert_all_run(self) -> None:
        """Raise `StepNotRun` if a step was defined and never run, `UnusedStub` for a stub that no step used."""
        self._performer.check()


class _FakePerformer:
    def __init__(self, step: FakeStep, stubs: Stubs) -> None:
        self._step, self._stubs = step, stubs
        self._history = History()
        self._run_id = uuid7()
        self._unrun: set[str] = set()

    def define(self, name: str) -> None:
        self._check(name)
        self._history.reserve(name)
        self._unrun.add(name)

    def perform(self, request: Request) -> Any:
        self._check(request.name)
        return self._run(request) if isinstance(request, RunStep) else self._sleep(request)

    def _run(self, request: RunStep) -> Any:
        name, args, kwargs = request.name, request.args, request.kwargs
        if name not in self._unrun:
            self._history.reserve(name)  # run a second time: raises
        self._unrun.discard(name)
        self._step.names.append(name)
        self._step.calls.append(Called(name, args, kwargs))
        function = self._stubs.function_for(name, request.function)
        token = active_step.set(StepContext(self._run_id, name, 1))
        try:
            value = function(*args, **kwargs)
            return async_to_sync(_awaited)(value) if inspect.isawaitable(value) else value
        finally:
            active_step.reset(token)

    def _sleep(self, request: Sleep) -> None:
        name = self._history.reserve_sleep(request.name)
        self._step.names.append(name)
        span = None if request.duration_us is None else timedelta(microseconds=request.duration_us)
        until = None if request.until_us is None else clock.to_datetime(request.until_us)
        self._step.sleeps.append(Slept(name, span, until))

    def check(self) -> None:
        if self._unrun:
            names = ", ".join(sorted(map(repr, self._unrun)))
            raise StepNotRun(f"Defined and never run: {names}. Call .run() on it, or don't define it.")
        self._stubs.check_used(self._step.names)

    def _check(self, name: str) -> None:
        inside = active_step.get()
        if inside is not None:
            raise NestedStep(
                f"Step {name!r} was called inside step {inside.name!r}. Call steps from the body, one after the other."
            )


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
