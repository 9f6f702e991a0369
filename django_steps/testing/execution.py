"""A pass as the testing kit executes it: with stubs, without waiting, and with an eye on what can't be repeated."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from asgiref.sync import async_to_sync

from .. import values
from ..core.context import active_step
from ..definitions import Workflow
from ..definitions.step import Call
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass
from ..engine.history import History
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.records import Outcome, StepWrite
from .errors import DoesNotEnd, NotRepeatable, StateLost
from .host import TestingHost

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger("django_steps.testing")

_NOT_SET = object()


class TestingPass(Pass):
    """One pass; `trouble` is what the kit found, and ends the whole call."""

    __test__ = False

    host: TestingHost

    def __init__(
        self, workflow: Workflow[Any, Any], claim: Claim, history: History, host: TestingHost, session: Session
    ) -> None:
        super().__init__(workflow, claim, history, host)
        self.trouble: Exception | None = None
        self.way: list[str] = []
        self.has_recorded = False
        self._session = session
        self._is_repeated = host.suspends_always
        self._expected = session.way_of(claim) if self._is_repeated else []

    def run(self) -> Ending:
        with self.host.autocommit.pretended():
            ending = super().run()
        self.host.autocommit.call_callbacks()
        if ending.how is Ended.SUCCEEDED and len(self.way) < len(self._expected):
            self.trouble = self._not_repeatable(len(self.way), "returned")
        return ending

    def perform(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._reach(call.name)
        return super().perform(call, args, kwargs)

    def sleep(self, name: str, duration: int | None, until: int | None) -> None:
        self._reach(name)
        super().sleep(name, duration, until)

    def _execute(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], tried: Recorded | None) -> Any:
        function = self._session.stubs.function_for(call.name, call.function)
        assert function is not None
        before = self._variables(function)
        call.function = function if call.options.atomic else self._committing(function)
        try:
            return super()._execute(call, args, kwargs, tried)
        finally:
            self._compare(call.name, before, self._variables(function))

    def _raised(self, error: BaseException) -> Ending:
        if isinstance(error, KeyboardInterrupt):  # it means the whole test run
            raise error
        return super()._raised(error)

    def _record(self, write: StepWrite, outcome: Outcome | None = None) -> Recorded:
        recorded = super()._record(write, outcome)
        try:
            self.host.autocommit.call_callbacks()  # those of an atomic step: it is committed, and they harm nothing
        except Exception:
            logger.exception("Step %r is done and recorded, but an on_commit() callback raised.", write.name)
        self._count()
        return recorded

    def _suspend(self, write: StepWrite, wakes_at_us: int) -> None:
        super()._suspend(write, wakes_at_us)
        self._count()

    def _count(self) -> None:
        self.has_recorded = True
        try:
            self._session.count(self.claim)
        except DoesNotEnd as error:
            self._give_up(error)

    def _committing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the callbacks of its commits: outside `atomic()` they belong to the function."""

        def call(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = async_to_sync(_awaited)(value)
            self.host.autocommit.call_callbacks()
            return value

        return call

    # -- What can't be repeated -----------------------------------------------------------------

    def _reach(self, name: str) -> None:
        if active_step.get() is not None or self.ending is not None:
            return
        self.way.append(name)
        self._session.reach(name)
        place = len(self.way) - 1
        if place < len(self._expected) and self._expected[place] != name:
            self._give_up(self._not_repeatable(place, f"came to {name!r}"))

    def _not_repeatable(self, place: int, did: str) -> NotRepeatable:
        return NotRepeatable(
            f"The body of {self.workflow.name!r} went another way than before: where it had come to"
            f" {self._expected[place]!r}, it now {did}. After every put-down it is called again from the top, so what it"
            " decides must follow from its input and from what its steps returned. Put what changes (the time, random"
            " numbers, reading the database) into a step."
        )

    def _variables(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The variables of the body that the function of a step uses, so that they can be compared."""
        code = getattr(function, "__code__", None)
        own = getattr(getattr(self.workflow.function, "__code__", None), "co_cellvars", ())
        if code is None or not self._is_repeated:
            return {}
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        return {name: _print_of(cell) for name, cell in cells if name in own}

    def _compare(self, name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        changed = [variable for variable, was in before.items() if after[variable] != was]
        if changed and self.trouble is None:
            self.trouble = StateLost(
                f"Step {name!r} of {self.workflow.name!r} changed {changed[0]!r}, a variable of the body. When the run is put"
                " down, the body starts again from the top and passes over the step, so the change is lost. Let the"
                " step return what the body needs."
            )

    def _give_up(self, trouble: Exception) -> NoReturn:
        self.trouble = self.trouble or trouble
        self._end(Ending(Ended.RELEASED))


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
