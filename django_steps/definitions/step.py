"""What a body sees: `step.define`, `step.get`, `step.poll`, `step.sleep`, `step.sleep_until`.

Here is only what users type, checked where they type it. What a step does is in `engine/`, which this module knows as a
`Performer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from ..core import clock
from ..core.names import check_name
from ..durations import Duration, to_microseconds
from .calls import Call
from .groups import Groups
from .options import StepOptions, check_datetime, shows_options, step_options
from .polling import polling
from .requests import Sleep
from .targets import resolve

if TYPE_CHECKING:
    from typing import Unpack

    import typing_extensions
    from django.db.models import Model, QuerySet
    from django.db.models.manager import BaseManager

    from ..core.retries import RetryPolicy

    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
    M = TypeVar("M", bound=Model)
else:
    P, R = ParamSpec("P"), TypeVar("R")
PrimaryKey = int | str | UUID


class StepDecorator(Protocol):
    """`@step.define(name)`: takes the function of the step."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Call[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Call[P, R]: ...


class Step(Groups):
    """The `step` argument of a body, or of a branch."""

    __slots__ = ()

    @overload
    def define(self, name: str, function: Callable[P, Awaitable[R]], **options: Unpack[StepOptions]) -> Call[P, R]: ...
    @overload
    def define(self, name: str, function: Callable[P, R], **options: Unpack[StepOptions]) -> Call[P, R]: ...
    @overload
    def define(self, name: str, function: None = None, **options: Unpack[StepOptions]) -> StepDecorator: ...
    @shows_options(StepOptions, atomic=False, at_most_once=False)
    def define(self, name: str, function: Callable[..., Any] | None = None, **options: Unpack[StepOptions]) -> Any:
        """Define a step: `step.define("fetch", fetch).run(user_id)`, or `@step.define("fetch")` above a function.

        - `name`: at most 255 characters without `#`, unique within the run.
        - `retry`: a `RetryPolicy`, or the number of attempts, the first included; default: the workflow's `step_retry`.
        - `atomic`: True: the function's database writes and the record commit together, exactly once; default: False.
        - `at_most_once`: True: each attempt is recorded before it begins. If its outcome is not recorded (a crash), the step
          fails with `StepInterrupted` and is not executed again by itself. `step_retry` doesn't apply; default: False.

        Raises `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        name = check_name(name, "step name", forbidden="#")
        if function is not None and not callable(function):
            raise TypeError(f"Step {name!r} takes a function, got {function!r}. Call it by .run(…), not in define().")
        return Call(self._performer, name, function, step_options(name, options))

    @overload
    def get(
        self,
        target: type[Model] | BaseManager[Any] | QuerySet[Any, Any],
        method: str,
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[..., Any]: ...
    @overload
    def get(
        self,
        target: type[M],
        method: Callable[Concatenate[M, P], Awaitable[R]],
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[Concatenate[M | PrimaryKey, P], R]: ...
    @overload
    def get(
        self,
        target: type[M],
        method: Callable[Concatenate[M, P], R],
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[Concatenate[M | PrimaryKey, P], R]: ...
    @overload
    def get(
        self,
        target: type[Model],
        method: Callable[P, Awaitable[R]],
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def get(
        self,
        target: type[Model],
        method: Callable[P, R],
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def get(
        self,
        target: Callable[P, Awaitable[R]],
        method: None = None,
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @overload
    def get(
        self,
        target: Callable[P, R],
        method: None = None,
        *,
        name: str | None = None,
        **options: Unpack[StepOptions],
    ) -> Call[P, R]: ...
    @shows_options(StepOptions, atomic=False, at_most_once=False)
    def get(self, target: Any, method: Any = None, *, name: str | None = None, **options: Unpack[StepOptions]) -> Any:
        """A model's method as a step: `step.get(User, "send_welcome_email").run(user_id)`.

        An instance method takes the instance or its primary key as first argument. Also takes any bound method:
        `step.get(User.objects.get).run(pk=user_id)`.

        - `name`: the name of the step; `User.send_welcome_email` by default.
        - `retry`, `atomic`, `at_most_once`: as for `define()`.

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
        - `max_checks`: the most checks.
        - `retry`: what happens when a check raises, as for `define()`; counted anew for each check.

        `.run()` raises `PollTimedOut` where `timeout` or `max_checks` ends it, and what a check raised for which no further
        attempt is made. Raises `InvalidName`, `DuplicateStepName`, `TypeError`, `ValueError`.
        """
        name = check_name(name, "step name", forbidden="#")
        if not callable(check):
            raise TypeError(f"Poll {name!r} takes a function, got {check!r}. Call it by .run(…), not in poll().")
        rules = polling(
            name,
            every=every,
            backoff=backoff,
            max_interval=max_interval,
            timeout=timeout,
            max_checks=max_checks,
            until=until,
        )
        return Call(self._performer, name, check, step_options(name, {"retry": retry}), rules)

    def sleep(self, name: str, duration: Duration) -> None:
        """Wait for a duration: `"100ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`, `"1h30m"`, a timedelta, or seconds.

        Holds no thread and no connection while it waits. A name may be used again: that is a sleep of its own.
        """
        name = check_name(name, "sleep name", forbidden="#")
        self._performer.perform(Sleep(self._performer.path(name), duration_us=to_microseconds(duration)))

    def sleep_until(self, name: str, moment: datetime) -> None:
        """Wait until a datetime, which must be aware where `USE_TZ` is on and naive where it is off."""
        name = check_name(name, "sleep name", forbidden="#")
        until_us = clock.to_microseconds(check_datetime(moment, "sleep_until()"))
        self._performer.perform(Sleep(self._performer.path(name), until_us=until_us))
