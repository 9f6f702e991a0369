"""What the testing kit does around a pass: stubs, callbacks of commits, and an eye on what can't be repeated."""

from __future__ import annotations

import dis
import inspect
import logging
import threading
from collections.abc import Callable, Sequence, Sized
from contextvars import Context, copy_context
from datetime import date
from functools import lru_cache
from types import CodeType
from typing import Any, NoReturn

from asgiref.sync import async_to_sync

from .. import values
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass
from ..engine.interceptors import Interceptor
from ..engine.operations.attempts import Attempt, Executed
from ..ledger.claims import Claim
from ..ledger.records import StepWrite
from . import strictness
from .autocommit import Autocommit
from .errors import DoesNotEnd, NotRepeatable, StateLost
from .host import TestingHost
from .stubs import Stubs

logger = logging.getLogger("django_steps.testing")

_NOT_SET = object()

_OF_BODY = "a variable of the body"
_OF_MODULE = "a variable of the module or the thread that the body reads"
_DATA = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset, date)
_MOST_COMPARED = 10_000
# What tests and bodies do with a list that only notes that they came by.
_NOTING = ("append", "add", "extend")


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
            with strictness.temporary_tables_dropped():
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

    def _variables(self, function: Callable[..., Any]) -> dict[tuple[str, str], Any]:
        """What a step must not change, so that it can be compared: what it is, its name, and a print of its contents.

        Variables of the body that the function uses, and of the module that the body reads.
        """
        if not self._host.suspends_always:
            return {}
        body = self._pass.workflow.function
        code_of_body, code = getattr(body, "__code__", None), getattr(function, "__code__", None)
        found: dict[tuple[str, str], Any] = {}
        if code_of_body is not None:
            of_module = getattr(body, "__globals__", {})
            found = {(_OF_MODULE, name): _print_of_global(of_module.get(name)) for name in names_read(code_of_body)}
        if code is not None:
            own = getattr(code_of_body, "co_cellvars", ())
            cells = zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True)
            found |= {(_OF_BODY, name): _print_of_cell(cell) for name, cell in cells if name in own}
        return found

    def _compare(self, name: str, before: dict[tuple[str, str], Any], after: dict[tuple[str, str], Any]) -> None:
        changed = [variable for variable, was in before.items() if after[variable] != was]
        if changed and self.trouble is None:
            kind, variable = changed[0]
            self.trouble = StateLost(
                f"Step {name!r} of {self._pass.workflow.name!r} changed {variable!r}, {kind}. After a suspension the body"
                " starts again from the top, maybe in another process, and the step is only replayed, so the change is lost."
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


@lru_cache(maxsize=256)
def names_read(code: CodeType) -> tuple[str, ...]:
    """The global names that the code of a body reads itself: not only to note there that it came by."""
    instructions = list(dis.get_instructions(code))
    return tuple(
        {
            str(this.argval): None
            for this, following in zip(instructions, [*instructions[1:], None], strict=True)
            if this.opname == "LOAD_GLOBAL" and not (following is not None and following.argval in _NOTING)
        }
    )


def _print_of_cell(cell: Any) -> Any:
    try:
        return _print_of(cell.cell_contents)
    except ValueError:
        return _NOT_SET


def _print_of_global(contents: Any) -> Any:
    """As below, of data only; what is code, or of a class of its own, may change as it likes."""
    if isinstance(contents, threading.local):
        contents = vars(contents)
    if isinstance(contents, Sized) and len(contents) > _MOST_COMPARED:
        return len(contents)
    return _print_of(contents) if contents is None or isinstance(contents, _DATA) else None


def _print_of(contents: Any) -> Any:
    """Something that is different when the contents are: their record, or else which object it is."""
    try:
        return values.encode(contents)
    except Exception:
        return id(contents)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
