"""What a body sees: `step.define`, `step.get`, `step.sleep`, `step.sleep_until`.

Here is only what users type, checked where they type it. What a step does is in `engine/`, which this module knows as a
`Performer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from ..core import clock
from ..core.names import check_name
from ..durations import Duration, to_microseconds
from .options import CallOptions, StepOptions, check_datetime, shows_options, step_options
from .requests import Performer, RunStep, Sleep
from .targets import resolve

if TYPE_CHECKING:
    from typing import Unpack

    import typing_extensions
    from django.db.models import Model, QuerySet
    from django.db.models.manager import BaseManager

    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
    M = TypeVar("M", bound=Model)
else:
    P, R = ParamSpec("P"), TypeVar("R")
PrimaryKey = int | str | UUID


class Call(Generic[P, R]):
    """A defined step. `run()` executes it, or returns what is recorded of it."""

    __slots__ = ("_performer", "function", "name", "options")

    def __init__(
        self, performer: Performer, name: str, function: Callable[..., Any] | None, options: CallOptions
    ) -> None:
        self._performer = performer
        self.name, self.function, self.options = name, function, options
        performer.define(name)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def __call__(self, function: Callable[..., Any]) -> Call[..., Any]:
        """The decorator form: `@step.define("send")` above a function."""
        if self.function is not None or not callable(function):
            raise TypeError(f"Step {self.name!r} has its function already; execute it with .run(…).")
        self.function = function
        return self

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Execute the step with these arguments and return its result; on later passes the recorded result.

        Raises what the step's function raised, on every pass.
        """
        if self.function is None:
            raise TypeError(f"Step {self.name!r} has no function: write step.define({self.name!r}, function).run(…).")
        request = RunStep(self.name, self.function, args, kwargs, self.options)
        result: R = self._performer.perform(request)
        return result


class StepDecorator(Protocol):
    """`@step.define(name)`: takes the function of the step."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Call[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Call[P, R]: ...


class Step:
    """The `step` argument of a body."""

    __slots__ = ("_performer",)

    def __init__(self, performer: Performer) -> None:
        self._performer = performer

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

    def sleep(self, name: str, duration: Duration) -> None:
        """Wait for a duration: `"100ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`, `"1h30m"`, a timedelta, or seconds.

        Holds no thread and no connection while it waits. A name may be used again: that is a sleep of its own.
        """
        name = check_name(name, "sleep name", forbidden="#")
        self._performer.perform(Sleep(name, duration_us=to_microseconds(duration)))

    def sleep_until(self, name: str, moment: datetime) -> None:
        """Wait until a datetime, which must be aware where `USE_TZ` is on and naive where it is off."""
        name = check_name(name, "sleep name", forbidden="#")
        self._performer.perform(Sleep(name, until_us=clock.to_microseconds(check_datetime(moment, "sleep_until()"))))
