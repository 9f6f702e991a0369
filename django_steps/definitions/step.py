"""What a body sees: `step.define`, `step.get`, `step.poll`, `step.sleep`, `step.wait_for_event` and the others.

Here is only what users type, checked where they type it. What a step does is in `engine/`, which this module knows as a
`Performer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload
from uuid import UUID

from ..core.event import Event
from ..durations import Duration
from . import invoking, making
from .calls import Call, StepDecorator
from .events import check_names, wait
from .groups import Groups
from .invoking import InvokeCall
from .options import StartOptionsWithKey, StepOptions, UndoableOptions, shows_options
from .requests import MISSING
from .targets import resolve
from .workflow import Workflow

if TYPE_CHECKING:
    from typing import Unpack

    import typing_extensions
    from django.db.models import Model, QuerySet
    from django.db.models.manager import BaseManager

    from ..core.retries import RetryPolicy

    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
    M = TypeVar("M", bound=Model)
    T = TypeVar("T")
    S = TypeVar("S")
    D = TypeVar("D")
else:
    P, R = ParamSpec("P"), TypeVar("R")
PrimaryKey = int | str | UUID


class Step(Groups):
    """The `step` argument of a body, or of a branch."""

    __slots__ = ()

    @overload
    def define(
        self,
        name: str,
        function: Callable[P, Awaitable[R]],
        *,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def define(
        self,
        name: str,
        function: Callable[P, R],
        *,
        undo: Callable[Concatenate[R, P], object] | Callable[[R], object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def define(
        self,
        name: str,
        function: None = None,
        *,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> StepDecorator: ...
    @shows_options(UndoableOptions, atomic=False, at_most_once=False)
    def define(self, name: str, function: Callable[..., Any] | None = None, **options: Unpack[UndoableOptions]) -> Any:
        """Define a step: `step.define("fetch", fetch).run(user_id)`, or `@step.define("fetch")` above a function.

        - `name`: at most 255 characters without `#`, unique within the run.
        - `retry`: a `RetryPolicy`, or the number of attempts, the first included; default: the workflow's `step_retry`.
        - `timeout`: a duration that each attempt may take; then it fails with `StepTimedOut`. An async function is canceled; a
          plain one can't be interrupted, and may ask `current_step().remaining()`. Default: as long as it takes.
        - `atomic`: True: the function's database writes and the record commit together, exactly once; default: False.
        - `at_most_once`: True: each attempt is recorded before it begins. If its outcome is not recorded (a crash), the step
          fails with `StepInterrupted` and is not executed again by itself. `step_retry` doesn't apply; default: False.
        - `undo`: a function that takes back what the step has done: `step.undo()` and `run.cancel(undo=True)` call it with the
          result of the step; and with the step's arguments behind that, if it needs more than one or takes `*args` or
          `**kwargs`. Executed and recorded as a step of its own, `fetch#undo`, with the same options.

        Raises `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        return Call(self._performer, *making.definition(name, function, options))

    @overload
    def get(
        self,
        target: type[Model] | BaseManager[Any] | QuerySet[Any, Any],
        method: str,
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[..., Any]: ...
    @overload
    def get(
        self,
        target: type[M],
        method: Callable[Concatenate[M, P], Awaitable[R]],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[Concatenate[M | PrimaryKey, P], R]: ...
    @overload
    def get(
        self,
        target: type[M],
        method: Callable[Concatenate[M, P], R],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[Concatenate[M | PrimaryKey, P], R]: ...
    @overload
    def get(
        self,
        target: type[Model],
        method: Callable[P, Awaitable[R]],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def get(
        self,
        target: type[Model],
        method: Callable[P, R],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def get(
        self,
        target: Callable[P, Awaitable[R]],
        method: None = None,
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def get(
        self,
        target: Callable[P, R],
        method: None = None,
        *,
        name: str | None = None,
        undo: Callable[Concatenate[R, P], object] | Callable[[R], object] | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @shows_options(UndoableOptions, atomic=False, at_most_once=False)
    def get(
        self, target: Any, method: Any = None, *, name: str | None = None, **options: Unpack[UndoableOptions]
    ) -> Any:
        """A model's method as a step: `step.get(User, "send_welcome_email").run(user_id)`.

        An instance method takes the instance or its primary key as first argument. Also takes any bound method:
        `step.get(User.objects.get).run(pk=user_id)`.

        - `name`: the name of the step; `User.send_welcome_email` by default.
        - `retry`, `timeout`, `atomic`, `at_most_once`, `undo`: as for `define()`.

        Raises `AttributeError` for a method that does not exist, and what `define()` raises.
        """
        function, default = resolve(target, method)
        return self.define(default if name is None else name, function, **options)

    @overload
    def poll(
        self,
        name: str,
        check: Callable[P, Awaitable[R]],
        *,
        every: Duration,
        timeout: Duration | None = None,
        until: Callable[[R], object] | None = None,
        backoff: float = 1.0,
        max_interval: Duration | None = None,
        max_checks: int | None = None,
        check_timeout: Duration | None = None,
        retry: RetryPolicy | int | None = None,
    ) -> Call[P, R]: ...
    @overload
    def poll(
        self,
        name: str,
        check: Callable[P, R],
        *,
        every: Duration,
        timeout: Duration | None = None,
        until: Callable[[R], object] | None = None,
        backoff: float = 1.0,
        max_interval: Duration | None = None,
        max_checks: int | None = None,
        check_timeout: Duration | None = None,
        retry: RetryPolicy | int | None = None,
    ) -> Call[P, R]: ...
    def poll(
        self,
        name: str,
        check: Callable[..., Any],
        *,
        every: Duration,
        timeout: Duration | None = None,
        until: Callable[[Any], object] | None = None,
        backoff: float = 1.0,
        max_interval: Duration | None = None,
        max_checks: int | None = None,
        check_timeout: Duration | None = None,
        retry: RetryPolicy | int | None = None,
    ) -> Any:
        """A step that checks until it finds something: `step.poll("shipped", find, every="10m", timeout="3d").run(7)`.

        It checks at once, then `every` so often, until `check` returns something true; `.run()` returns that. All its checks
        are one record. Between them no thread and no connection is held.

        - `name`: the name of the step, as for `define()`.
        - `check`: a function, called with the arguments of `.run()`; what it returns is recorded as a step's result.
        - `every`: a duration: how long to wait after a check. `backoff` is the factor from one wait to the next, at least 1,
          and `max_interval` the longest wait.
        - `timeout`: a duration: how long to check, from when the poll is first reached. At its end comes the last check.
        - `until`: a function of what a check returned, which says whether that is what is waited for; it must be quick and
          have no effect. Default: whether it is true.
        - `max_checks`: the most checks. `check_timeout`: a duration that each of them may take, as `timeout` for `define()`.
        - `retry`: what happens when a check raises, as for `define()`; counted anew for each check.

        `.run()` raises `PollTimedOut` where `timeout` or `max_checks` ends it, and what a check raised for which no further
        attempt is made. Raises `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        definition = making.poll(
            name,
            check,
            retry,
            check_timeout,
            every=every,
            backoff=backoff,
            max_interval=max_interval,
            timeout=timeout,
            max_checks=max_checks,
            until=until,
        )
        return Call(self._performer, *definition)

    def sleep(self, name: str, duration: Duration) -> None:
        """Wait for a duration: `"100ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`, `"1h30m"`, a timedelta, or seconds.

        Holds no thread and no connection while it waits. A name may be used again: that is a sleep of its own.
        """
        self._performer.perform(making.sleep(self._performer, name, duration))

    def sleep_until(self, name: str, moment: datetime) -> None:
        """Wait until a datetime, which must be aware where `USE_TZ` is on and naive where it is off."""
        self._performer.perform(making.sleep_until(self._performer, name, moment))

    @overload
    def wait_for_event(
        self, event: str, *, name: str | None = None, timeout: Duration | None = None, until: datetime | None = None
    ) -> Any: ...
    @overload
    def wait_for_event(
        self,
        event: str,
        *,
        type: type[T],
        name: str | None = None,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> T: ...
    @overload
    def wait_for_event(
        self,
        event: str,
        *,
        type: type[T],
        default: D,
        name: str | None = None,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> T | D: ...
    @overload
    def wait_for_event(
        self,
        event: str,
        *,
        default: Any,
        name: str | None = None,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> Any: ...
    def wait_for_event(
        self,
        event: str,
        *,
        name: str | None = None,
        timeout: Duration | None = None,
        until: datetime | None = None,
        default: Any = MISSING,
        type: Any = None,
    ) -> Any:
        """Wait until somebody has sent an event of this name to the run, and return its payload.

        What was sent before is there: events are taken in the order in which they were sent, each by one wait. Meanwhile the
        run holds nothing.

        - `event`: the name of the event, at most 255 characters without `#`.
        - `name`: the name under which the wait is recorded; the event's by default. As that of a sleep it may be used again.
        - `timeout`: a duration, or `until`: a datetime; None: without end. Counted from when the wait is first reached;
          `timeout=0` only looks.
        - `default`: what is returned if no event has come in time; without it `EventTimedOut` is raised.
        - `type`: a dataclass, a pydantic model or another class: what the payload has to be. One that is not raises
          `InvalidEvent`, and is not used up.

        Raises also `InvalidName`, `TypeError`, `ValueError`.

        >>> decision = step.wait_for_event("approval", timeout="7d", default=None)  # doctest: +SKIP
        """
        request = wait(self._performer, name, [event], timeout=timeout, until=until, default=default, type_=type)
        return self._performer.perform(request)

    @overload
    def wait_for_any_event(
        self, name: str, events: Sequence[str], *, timeout: Duration | None = None, until: datetime | None = None
    ) -> Event[Any]: ...
    @overload
    def wait_for_any_event(
        self,
        name: str,
        events: Sequence[str],
        *,
        default: D,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> Event[Any] | D: ...
    def wait_for_any_event(
        self,
        name: str,
        events: Sequence[str],
        *,
        timeout: Duration | None = None,
        until: datetime | None = None,
        default: Any = MISSING,
    ) -> Any:
        """Wait for the first event of several names, and return it: an `Event` with `name`, `payload`, `id`, `by`, `sent_at`.

        - `name`: the name under which the wait is recorded; `events`: the names of the events.
        - `timeout`, `until`, `default`: as for `wait_for_event()`.

        >>> event = step.wait_for_any_event("outcome", ["paid", "expired"], timeout="1h")  # doctest: +SKIP
        """
        request = wait(
            self._performer,
            name,
            check_names(name, events),
            timeout=timeout,
            until=until,
            default=default,
            is_any=True,
        )
        return self._performer.perform(request)

    def invoke(self, name: str, workflow: Workflow[T, S], *, timeout: Duration | None = None) -> InvokeCall[T, S]:
        """A run of another workflow as a step: `step.invoke("receipt", make_receipt, timeout="1h").run(input)`.

        `.run()` starts it, waits for its end and gives its result; meanwhile this run holds nothing. The run that is started
        has the queue and the priority of its own workflow. `.bind()` lets it take part in a `gather()`.

        - `name`: the name of the step, as for `define()`.
        - `timeout`: a duration: how long to wait; then `ChildTimedOut` is raised, and the run is canceled.

        Canceling this run cancels it too, and a retry of this run lets it go on from the step that failed. Raises
        `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        return InvokeCall(self._performer, *invoking.invoke(name, workflow, timeout))

    def start(
        self, name: str, workflow: Workflow[T, Any], **options: Unpack[StartOptionsWithKey]
    ) -> InvokeCall[T, UUID]:
        """Start a run of another workflow without waiting for it: `step.start("news", send_news).run(input)` gives its id.

        The run is started exactly once, in the transaction of the step's record. It is independent: canceling or retrying
        this run doesn't touch it. `options` are those of `Workflow.start()`.

        Raises `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        return InvokeCall(self._performer, *invoking.start(name, workflow, options))

    def patched(self, name: str) -> bool:
        """Whether this run goes the new way of a body that was changed: `if step.patched("new_tax"): …`.

        False for a run that has come past this line before the line was there, by what it has recorded; True for all others.
        The answer is recorded, and the same on every pass. It may be asked for again, in a loop say; in a branch it is the
        branch's own. `manage.py showworkflows --patches` says when no run needs the old way any more.

        - `name`: at most 255 characters without `#`. Raises `InvalidName`, and `DuplicateStepName` for the name of a step.
        """
        answer: bool = self._performer.perform(making.patch(self._performer, name))
        return answer

    def undo(self, reason: str = "") -> None:
        """Take back what was done: execute the undo of each step that has succeeded and has one, the newest first. Of the body:
        of all its steps, also of those that this pass only replays, and in the branches below; of a branch: of its own.

        Each is recorded as a step, `flight#undo`, and tried by the policy of its step; all are tried. A failed step is not
        undone: it may have had its effect. `reason`, a text, is for the log. Raises `GroupFailed` for those that have failed.

        >>> step.undo(reason="the hotel is full")  # doctest: +SKIP
        """
        self._performer.perform(making.undo(reason))

    # What the body returns, whatever that is.
    def continue_as_new(self, input: Any = None) -> T:  # type: ignore[type-var]
        """Let a new run of this workflow go on with another input: `return step.continue_as_new({"cursor": cursor})`.

        What it returns has to be returned by the body. Then this run has succeeded, and the new one takes over, in the same
        transaction: its key, the events that it has not taken, and whoever waits for its result. So a run that goes on for
        years keeps a short history.

        Raises `InvalidInput`; and `StepNotRun`, at the end of the body, if it is not returned.

        >>> return step.continue_as_new({"cursor": 41})  # doctest: +SKIP
        """
        returned: T = self._performer.continue_as_new(input)
        return returned
