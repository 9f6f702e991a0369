"""What the testing kit does around a pass: stubs, callbacks of commits, and an eye on what can't be repeated."""

from __future__ import annotations

import dis
import inspect
import logging
import threading
from collections.abc import Callable, Collection, Generator, Sequence, Sized
from contextvars import Context, copy_context
from datetime import date
from functools import lru_cache, partial
from types import CodeType
from typing import Any, NoReturn

from asgiref.sync import async_to_sync

from .. import values
from ..core.states import WITH_CHILDREN, StepStatus
from ..definitions.requests import CallBranch, Poll
from ..engine.desk import Desk
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
from .ways import Way

logger = logging.getLogger("django_steps.testing")

_NOT_SET = object()

_OF_BODY = "a variable of the body"
_OF_BRANCH = "a variable of the branch"
_OF_MODULE = "a variable of the module or the thread that the body reads"
_STEP_LOSES = (
    "After a suspension the body starts again from the top, maybe in another process, and the step is only replayed, so the"
    " change is lost. Let the step return what the body needs."
)
_BRANCH_LOSES = (
    "Once its end is recorded a branch is not called again, so the change is lost after a suspension. Let the branch return"
    " what the body needs."
)
_DATA = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset, date)
_WAITING_FOR_OTHERS = ("event", *WITH_CHILDREN)
_MOST_COMPARED = 10_000
# What tests and bodies do with a list that only notes that they came by.
_NOTING = ("append", "add", "extend")

# Of a variable: what it is, its name; and a print of its contents.
Variables = dict[tuple[str, str], Any]


class Watch(Interceptor):
    """Stands around one pass; `trouble` is what it found, and ends the whole call of the kit.

    - `way`: notes what the pass comes to, and compares it to the pass before.
    - `reach` is called with the name of each operation that the body comes to, and again with its kind when it is recorded.
    - `count` is called for each record, and raises `DoesNotEnd` when there are too many.
    - `answer` is called with the names of events that a wait looked for and did not find; whether there is one now.
    """

    def __init__(
        self,
        host: TestingHost,
        stubs: Stubs,
        *,
        way: Way,
        reach: Callable[[str, str], None],
        count: Callable[[], None],
        answer: Callable[[Collection[str]], bool],
    ) -> None:
        self._host, self._stubs, self.way = host, stubs, way
        self._reach, self._count, self._answer = reach, count, answer
        self.trouble: Exception | None = None
        self.has_recorded = False
        # The branches that are called in this pass: their functions, and the variables that they must not change.
        self._branches: dict[str, tuple[Callable[..., Any], Variables]] = {}
        self._will_end = False
        # What an earlier version of the body has recorded: said where the pass does the same as the one before.
        self._left_behind: str | None = None

    def begun(self, current: Pass) -> None:
        """The pass that is watched; called before its body is."""
        self._pass = current

    def around_pass(self, claim: Claim) -> Generator[None, Ending, Ending]:
        with self._host.autocommit.pretended():
            ending = yield
        self._host.autocommit.call_callbacks()
        deviation = self.way.end() if ending.how is Ended.SUCCEEDED else None
        self._note(deviation or self.way.changed_items() or self._left_behind)
        return ending

    def around_attempt(self, attempt: Attempt) -> Generator[None, Executed, Executed]:
        request = attempt.request
        original = request.function
        self._will_end = isinstance(request, Poll) and request.polling.is_bounded
        function = self._stubs.function_for(request.name, original)
        before = self._variables(request.name, function)
        desk = self._pass.state.desk
        step = _StepFunction(
            function,
            self._host.autocommit,
            is_atomic=request.options.atomic,
            call=desk.host.call if isinstance(desk, Desk) else None,
        )
        others = desk is not None and desk.calls > 1
        request.function = step
        try:
            with strictness.temporary_tables_dropped():
                executed = yield
            step.call_callbacks_left(request.name)
            return executed
        finally:
            request.function = original
            if not others and (desk is None or desk.calls < 2):  # else it may be others who change something
                self._compare(f"Step {request.name!r}", _STEP_LOSES, before, self._variables(request.name, function))

    def reached(self, claim: Claim, name: str, branch: str) -> None:
        self._reach(name, "")
        self._give_up_if(self.way.come_to(name, branch))

    def entered(self, claim: Claim, request: CallBranch) -> None:
        function = plain_function(request.function)
        self.way.enter(request.name)
        self._branches[request.name] = function, self._variables(request.name, function)

    def instead(self, claim: Claim, name: str) -> Callable[..., Any] | None:
        return self._stubs.function_for(name, type(None)) if self._stubs.has(name) else None

    def missed(self, claim: Claim, events: Sequence[str]) -> bool:
        return self._answer(events)

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        self.has_recorded = True
        if self._will_end and write.status == StepStatus.WAITING:
            return  # one of many checks
        self._reach(write.name, write.kind)
        if write.kind in _WAITING_FOR_OTHERS and write.status == StepStatus.WAITING:
            return  # its outcome counts
        if write.kind == "branch":
            self._left(write.name, has_returned=error is None and write.status != StepStatus.CANCELED)
        elif write.kind == "map":
            self._give_up_if(self.way.finish_map(write.name))
        try:
            self._count()
        except DoesNotEnd as too_many:
            self._give_up(too_many)

    def unreached(self, claim: Claim, names: Sequence[str]) -> None:
        self._left_behind = (
            f"Run {claim.run_id} of {claim.workflow!r} has recorded {', '.join(map(repr, names))}, to which its body does not"
            " come any more. Runs in flight would be left with that after a deploy: let step.patched() say which way they go,"
            " or register the changed workflow under a new version."
        )

    def _left(self, branch: str, *, has_returned: bool) -> None:
        """A branch is over, and will not be called again."""
        function, before = self._branches[branch]
        self._compare(f"Branch {branch!r}", _BRANCH_LOSES, before, self._variables(branch, function))
        if has_returned:
            self._give_up_if(self.way.end(branch))

    # -- What can't be repeated -----------------------------------------------------------------

    def _variables(self, path: str, function: Callable[..., Any]) -> Variables:
        """What a step or a branch must not change, so that it can be compared: what it is, its name, and a print of its
        contents.

        Variables of the body, and of the branches around it, that the function uses, and of the module that those read.
        """
        if not self._host.suspends_always:
            return {}
        around = [(self._pass.workflow.function, _OF_BODY)]
        around += [
            (outer, _OF_BRANCH) for branch, (outer, _) in self._branches.items() if path.startswith(f"{branch}/")
        ]
        found: Variables = {}
        own: dict[str, str] = {}
        for outer, what in around:
            code = getattr(outer, "__code__", None)
            if code is not None:
                of_module = getattr(outer, "__globals__", {})
                found |= {(_OF_MODULE, name): _print_of_global(of_module.get(name)) for name in names_read(code)}
                own |= dict.fromkeys(code.co_cellvars, what)
        function = plain_function(function)
        code = getattr(function, "__code__", None)
        if code is not None:
            cells = zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True)
            found |= {(own[name], name): _print_of_cell(cell) for name, cell in cells if name in own}
        return found

    def _compare(self, who: str, loses: str, before: Variables, after: Variables) -> None:
        changed = [variable for variable, was in before.items() if after[variable] != was]
        if changed and self.trouble is None:
            kind, variable = changed[0]
            self.trouble = StateLost(
                f"{who} of {self._pass.workflow.name!r} changed {variable!r}, {kind}. {loses}{self._host.order.hint()}"
            )

    def _note(self, deviation: str | None) -> None:
        if deviation is not None:
            self.trouble = self.trouble or NotRepeatable(f"{deviation}{self._host.order.hint()}")

    def _give_up_if(self, deviation: str | None) -> None:
        if deviation is not None:
            self._note(deviation)
            self._end_pass()

    def _give_up(self, trouble: Exception) -> NoReturn:
        self.trouble = self.trouble or trouble
        self._end_pass()

    def _end_pass(self) -> NoReturn:
        self._pass.frame.end(Ending(Ended.RELEASED))


class _StepFunction:
    """The function of a step, and with it the callbacks of its commits: they are called in its context, as in a worker.

    Outside `atomic()` they are called when they are registered. Here that is at the end of the function, and what they raise
    is its failure. Those of an atomic step are called when it is committed, and harm nothing.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        autocommit: Autocommit,
        *,
        is_atomic: bool,
        call: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._function, self._autocommit, self._is_atomic = function, autocommit, is_atomic
        self._call = call  # awaitable, of an async pass: calls what blocks
        self._context: Context | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            value = self._function(*args, **kwargs)
            if inspect.isawaitable(value):
                if self._call is not None and not self._is_atomic:
                    return self._awaited(value)
                value = async_to_sync(_awaited)(value)
            if not self._is_atomic:
                self._autocommit.call_callbacks()
            return value
        finally:
            self._context = copy_context()

    async def _awaited(self, awaitable: Any) -> Any:
        """In an async body: await it on the loop."""
        assert self._call is not None
        value = await awaitable
        await self._call(self._autocommit.call_callbacks)
        return value

    def call_callbacks_left(self, step: str) -> None:
        """Call those of a commit that came after the function, or before it failed."""
        call_all = self._autocommit.call_callbacks
        while self._context is not None:
            try:
                self._context.run(call_all)
                break
            except Exception:  # and those after it are called all the same
                logger.exception("Step %r is done, but an on_commit() callback raised.", step)


def plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `functools.partial` and decorators have wrapped, which has the variables."""
    while isinstance(function, partial):
        function = function.func
    unwrapped: Callable[..., Any] = inspect.unwrap(function)
    return unwrapped


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
