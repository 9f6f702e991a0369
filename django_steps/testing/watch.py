"""What the testing kit does around a pass: stubs, callbacks of commits, and an eye on what can't be repeated."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, NoReturn

from asgiref.sync import async_to_sync

from .. import values
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass
from ..engine.interceptors import Interceptor
from ..engine.operations.attempts import Attempt, Executed
from ..ledger.claims import Claim
from ..ledger.records import StepWrite
from .autocommit import Autocommit
from .errors import DoesNotEnd, NotRepeatable, StateLost
from .host import TestingHost
from .stubs import Stubs

logger = logging.getLogger("django_steps.testing")

_NOT_SET = object()


class Watch(Interceptor):
    """Stands around one pass; `trouble` is what it found, and ends the whole call of the kit.

    - `expected`: the operations that the pass before came to, in order; empty where that doesn't matter.
    - `reach` is called with the name of each operation that the body comes to.
    - `count` is called for each record, and raises `DoesNotEnd` when there are too many.
    """

    def __init__(
        self,
        host: TestingHost,
        stubs: Stubs,
        *,
        expected: Sequence[str],
        reach: Callable[[str], None],
        count: Callable[[], None],
    ) -> None:
        self._host, self._stubs, self._expected = host, stubs, expected
        self._reach, self._count = reach, count
        self.trouble: Exception | None = None
        self.way: list[str] = []
        self.has_recorded = False

    def begun(self, current: Pass) -> None:
        """The pass that is watched; called before its body is."""
        self._pass = current

    def around_pass(self, claim: Claim, proceed: Callable[[], Ending]) -> Ending:
        with self._host.autocommit.pretended():
            ending = proceed()
        self._host.autocommit.call_callbacks()
        if ending.how is Ended.SUCCEEDED and len(self.way) < len(self._expected):
            self.trouble = self._not_repeatable(len(self.way), "returned")
        return ending

    def around_attempt(self, attempt: Attempt, proceed: Callable[[], Executed]) -> Executed:
        request = attempt.request
        original = request.function
        function = self._stubs.function_for(request.name, original)
        before = self._variables(function)
        step = _StepFunction(function, self._host.autocommit, is_atomic=request.options.atomic)
        request.function = step
        try:
            executed = proceed()
            step.call_callbacks_left(request.name)
            return executed
        finally:
            request.function = original
            self._compare(request.name, before, self._variables(function))

    def reached(self, claim: Claim, name: str) -> None:
        self.way.append(name)
        self._reach(name)
        place = len(self.way) - 1
        if place < len(self._expected) and self._expected[place] != name:
            self._give_up(self._not_repeatable(place, f"came to {name!r}"))

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        self.has_recorded = True
        try:
            self._count()
        except DoesNotEnd as too_many:
            self._give_up(too_many)

    # -- What can't be repeated -----------------------------------------------------------------

    def _not_repeatable(self, place: int, did: str) -> NotRepeatable:
        return NotRepeatable(
            f"The body of {self._pass.workflow.name!r} is not repeatable: on the pass before it came to"
            f" {self._expected[place]!r} here, and now it {did}. After every suspension it is called again from the top, so"
            " what it decides must follow from its input and from what its steps returned. Put what changes (the time,"
            " random numbers, reading the database) into a step."
        )

    def _variables(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The variables of the body that the function of a step uses, so that they can be compared."""
        code = getattr(function, "__code__", None)
        own = getattr(getattr(self._pass.workflow.function, "__code__", None), "co_cellvars", ())
        if code is None or not self._host.suspends_always:
            return {}
        cells = zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True)
        return {name: _print_of(cell) for name, cell in cells if name in own}

    def _compare(self, name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        changed = [variable for variable, was in before.items() if after[variable] != was]
        if changed and self.trouble is None:
            self.trouble = StateLost(
                f"Step {name!r} of {self._pass.workflow.name!r} changed {changed[0]!r}, a variable of the body. After a"
                " suspension the body starts again from the top and the step is only replayed, so the change is lost."
                " Let the step return what the body needs."
            )

    def _give_up(self, trouble: Exception) -> NoReturn:
        self.trouble = self.trouble or trouble
        self._pass.frame.end(Ending(Ended.RELEASED))


class _StepFunction:
    """The function of a step, and with it the callbacks of its commits: they are called in its context, as in a worker.

    Outside `atomic()` they are called when they are registered. Here that is at the end of the function, and what they raise
    is its failure. Those of an atomic step are called when it is committed, and harm nothing.
    """

    def __init__(self, function: Callable[..., Any], autocommit: Autocommit, *, is_atomic: bool) -> None:
        self._function, self._autocommit, self._is_atomic = function, autocommit, is_atomic
        self._context: Context | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            value = self._function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = async_to_sync(_awaited)(value)
            if not self._is_atomic:
                self._autocommit.call_callbacks()
            return value
        finally:
            self._context = copy_context()

    def call_callbacks_left(self, step: str) -> None:
        """Call those of a commit that came after the function, or before it failed."""
        call_all = self._autocommit.call_callbacks
        while self._context is not None:
            try:
                self._context.run(call_all)
                break
            except Exception:  # and those after it are called all the same
                logger.exception("Step %r is done, but an on_commit() callback raised.", step)


def _print_of(cell: Any) -> Any:
    """Something that is different when the contents are: their record, or else which object it is."""
    try:
        contents = cell.cell_contents
    except ValueError:
        return _NOT_SET
    try:
        return values.encode(contents)
    except Exception:
        return id(contents)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
