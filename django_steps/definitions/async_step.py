"""What an `async def` body sees: the verbs of `Step`, each of them to be awaited.

The twin of `step`: what is checked, and what is asked for, is the same. What a step does is in `engine/`, which this module
knows as an `AsyncPerformer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from ..core.event import Event
from ..durations import Duration
from . import invoking, making
from .async_groups import AsyncGroups
from .awaited import Awaited
from .calls import AsyncCall
from .events import check_names, wait
from .invoking import AsyncInvokeCall
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


class AsyncStepDecorator(Protocol):
    """`@step.define(name)`: takes the function of the step."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> AsyncCall[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> AsyncCall[P, R]: ...


class AsyncStep(AsyncGroups):
    """The `step` argument of an `async def` body, or of a branch in one.

    It has the verbs of `Step`, with the same arguments. What they return is to be awaited, or given to asyncio:
    `asyncio.gather()`, `TaskGroup`, `create_task()` and others, in any nesting. What they are given is checked at once, not
    where it is awaited.
    """

    __slots__ = ()

    @overload
    def define(
        self,
        name: str,
        function: Callable[P, Awaitable[R]],
        *,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[P, R]: ...
    @overload
    def define(
        self,
        name: str,
        function: Callable[P, R],
        *,
        undo: Callable[Concatenate[R, P], object] | Callable[[R], object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[P, R]: ...
    @overload
    def define(
        self,
        name: str,
        function: None = None,
        *,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncStepDecorator: ...
    @shows_options(UndoableOptions, atomic=False, at_most_once=False)
    def define(self, name: str, function: Callable[..., Any] | None = None, **options: Unpack[UndoableOptions]) -> Any:
        """Define a step: `await step.define("fetch", fetch).run(user_id)`, or `@step.define("fetch")` above a function.

        An `async def` function is awaited on the event loop, a plain one is executed on a thread.

        - `name`: at most 255 characters without `#`, unique within the run.
        - `retry`: a `RetryPolicy`, or the number of attempts, the first included; default: the workflow's `step_retry`.
        - `timeout`: a duration that each attempt may take; then it fails with `StepTimedOut`. An async function is canceled; a
          plain one can't be interrupted, and may ask `current_step().remaining()`. Default: as long as it takes.
        - `atomic`: True: the function's database writes and the record commit together, exactly once; default: False.
          Its function is a plain one.
        - `at_most_once`: True: each attempt is recorded before it begins. If its outcome is not recorded (a crash), the step
          fails with `StepInterrupted` and is not executed again by itself. `step_retry` doesn't apply; default: False.
        - `undo`: a function that takes back what the step has done: `step.undo()` and `run.cancel(undo=True)` call it with the
          result of the step; and with the step's arguments behind that, if it needs more than one or takes `*args` or
          `**kwargs`. Executed and recorded as a step of its own, `fetch#undo`, with the same options.

        Raises `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        return AsyncCall(self._performer, *making.definition(name, function, options))

    @overload
    def get(
        self,
        target: type[Model] | BaseManager[Any] | QuerySet[Any, Any],
        method: str,
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[..., Any]: ...
    @overload
    def get(
        self,
        target: type[M],
        method: Callable[Concatenate[M, P], Awaitable[R]],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[Concatenate[M | PrimaryKey, P], R]: ...
    @overload
    def get(
        self,
        target: type[M],
        method: Callable[Concatenate[M, P], R],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[Concatenate[M | PrimaryKey, P], R]: ...
    @overload
    def get(
        self,
        target: type[Model],
        method: Callable[P, Awaitable[R]],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[P, R]: ...
    @overload
    def get(
        self,
        target: type[Model],
        method: Callable[P, R],
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[P, R]: ...
    @overload
    def get(
        self,
        target: Callable[P, Awaitable[R]],
        method: None = None,
        *,
        name: str | None = None,
        undo: Callable[..., object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[P, R]: ...
    @overload
    def get(
        self,
        target: Callable[P, R],
        method: None = None,
        *,
        name: str | None = None,
        undo: Callable[Concatenate[R, P], object] | Callable[[R], object] | None = None,
        **options: Unpack[StepOptions],
    ) -> AsyncCall[P, R]: ...
    @shows_options(UndoableOptions, atomic=False, at_most_once=False)
    def get(
        self, target: Any, method: Any = None, *, name: str | None = None, **options: Unpack[UndoableOptions]
    ) -> Any:
        """A model's method as a step: `await step.get(User, "send_welcome_email").run(user_id)`.

        An instance method takes the instance or its primary key as first argument. Also takes any bound method:
        `await step.get(User.objects.aget).run(pk=user_id)`.

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
    ) -> AsyncCall[P, R]: ...
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
    ) -> AsyncCall[P, R]: ...
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
        """A step that checks until it finds something: `await step.poll("shipped", find, every="10m").run(7)`.

        As `Step.poll()`, with the same options.

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
        return AsyncCall(self._performer, *definition)

    if TYPE_CHECKING:  # as `async def`: a checker then reports one that is not awaited

        async def sleep(self, name: str, duration: Duration) -> None: ...

        async def sleep_until(self, name: str, moment: datetime) -> None: ...

        def patched(self, name: str) -> Awaited[bool]: ...

        async def undo(self, reason: str = "") -> None: ...

    else:

        def sleep(self, name: str, duration: Duration) -> Awaited[None]:
            """Wait for a duration: `await step.sleep("pause", "10m")`; as `Step.sleep()`.

            A long one suspends the run once every task of the body waits for a step.
            """
            request = making.sleep(self._performer, name, duration)
            return Awaited(self._performer.perform(request), f"sleep {request.name!r}")

        def sleep_until(self, name: str, moment: datetime) -> Awaited[None]:
            """Wait until a datetime, which must be aware where `USE_TZ` is on and naive where it is off."""
            request = making.sleep_until(self._performer, name, moment)
            return Awaited(self._performer.perform(request), f"sleep {request.name!r}")

        def patched(self, name: str) -> Awaited[bool]:
            """Whether this run goes the new way of a body that was changed: `if await step.patched("new_tax"): …`; as
            `Step.patched()`."""
            request = making.patch(self._performer, name)
            return Awaited(self._performer.perform(request), f"patch {request.name!r}")

        def undo(self, reason: str = "") -> Awaited[None]:
            """Take back what was done: `await step.undo()`; as `Step.undo()`."""
            return Awaited(self._performer.perform(making.undo(reason)), "undo()")

    @overload
    async def wait_for_event(
        self, event: str, *, name: str | None = None, timeout: Duration | None = None, until: datetime | None = None
    ) -> Any: ...
    @overload
    async def wait_for_event(
        self,
        event: str,
        *,
        type: type[T],
        name: str | None = None,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> T: ...
    @overload
    async def wait_for_event(
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
    async def wait_for_event(
        self,
        event: str,
        *,
        default: Any,
        name: str | None = None,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> Any: ...

    if TYPE_CHECKING:

        async def wait_for_event(self, event: str, **options: Any) -> Any: ...

    else:

        def wait_for_event(
            self,
            event: str,
            *,
            name: str | None = None,
            timeout: Duration | None = None,
            until: datetime | None = None,
            default: Any = MISSING,
            type: Any = None,
        ) -> Awaited[Any]:
            """Wait until somebody has sent an event of this name: `await` gives its payload. As `Step.wait_for_event()`.

            >>> decision = await step.wait_for_event("approval", timeout="7d", default=None)  # doctest: +SKIP
            """
            request = wait(self._performer, name, [event], timeout=timeout, until=until, default=default, type_=type)
            return Awaited(self._performer.perform(request), f"wait {request.name!r}")

    @overload
    async def wait_for_any_event(
        self, name: str, events: Sequence[str], *, timeout: Duration | None = None, until: datetime | None = None
    ) -> Event[Any]: ...
    @overload
    async def wait_for_any_event(
        self,
        name: str,
        events: Sequence[str],
        *,
        default: D,
        timeout: Duration | None = None,
        until: datetime | None = None,
    ) -> Event[Any] | D: ...

    if TYPE_CHECKING:

        async def wait_for_any_event(self, name: str, events: Any, **options: Any) -> Any: ...

    else:

        def wait_for_any_event(
            self,
            name: str,
            events: Sequence[str],
            *,
            timeout: Duration | None = None,
            until: datetime | None = None,
            default: Any = MISSING,
        ) -> Awaited[Any]:
            """Wait for the first event of several names: `await` gives the `Event`. As `Step.wait_for_any_event()`.

            >>> event = await step.wait_for_any_event("outcome", ["paid", "expired"], timeout="1h")  # doctest: +SKIP
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
            return Awaited(self._performer.perform(request), f"wait {request.name!r}")

    def invoke(self, name: str, workflow: Workflow[T, S], *, timeout: Duration | None = None) -> AsyncInvokeCall[T, S]:
        """A run of another workflow as a step: `await step.invoke("receipt", make_receipt).run(input)`. As `Step.invoke()`."""
        return AsyncInvokeCall(self._performer, *invoking.invoke(name, workflow, timeout))

    def start(
        self, name: str, workflow: Workflow[T, Any], **options: Unpack[StartOptionsWithKey]
    ) -> AsyncInvokeCall[T, UUID]:
        """A run of another workflow that is not waited for: `await step.start("news", send_news).run(input)` gives its id. As
        `Step.start()`.
        """
        return AsyncInvokeCall(self._performer, *invoking.start(name, workflow, options))

    # What the body returns, whatever that is.
    def continue_as_new(self, input: Any = None) -> T:  # type: ignore[type-var]
        """Let a new run of this workflow go on with another input: `return step.continue_as_new({"cursor": cursor})`, without
        `await`. As `Step.continue_as_new()`.
        """
        returned: T = self._performer.continue_as_new(input)
        return returned
