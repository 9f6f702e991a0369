"""What `@workflow` returns: a `Workflow`, checked where it is defined.

Importable before the app registry is ready: the models are imported when a run is started.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from asgiref.sync import sync_to_async

from ..core.names import check_name
from ..core.retries import to_policy
from .inputs import InputType, input_type_of
from .options import (
    StartOptions,
    StartOptionsWithKey,
    WorkflowOptions,
    check_priority,
    run_options,
    shows_options,
    workflow_options,
)

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    from ..models import WorkflowRun

    I = TypeVarWithDefault("I", contravariant=True, default=Any)  # noqa: E741
    R = TypeVarWithDefault("R", covariant=True, default=Any)
else:
    I, R = TypeVar("I"), TypeVar("R")  # noqa: E741


INJECTED = ("input", "step", "logger", "run")


class Workflow(Generic[I, R]):
    """A registered workflow. Calling it calls the plain function; `start()` starts a run of it."""

    do_not_call_in_templates = True  # Django's templates call what can be called

    def __init__(self, function: Callable[..., R], **options: Unpack[WorkflowOptions]) -> None:
        given = workflow_options(options)
        self.parameters = _check_function(function)
        self.function = function
        name = function.__name__ if given["name"] is None else given["name"]
        self.name = check_name(name, "workflow name")
        self.version = check_name(given["version"], "workflow version", empty=True)
        self.queue = check_name(given["queue"], "queue name")
        self.priority = check_priority(given["priority"])
        self.retry = to_policy(given["retry"], "retry")
        self.step_retry = to_policy(given["step_retry"], "step_retry")
        self.mask = _check_mask(given["mask"])
        self._input_type: InputType | None = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        version = f" version {self.version!r}" if self.version else ""
        return f"<workflow {self.name!r}{version} at {self.place}>"

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the plain function, as if it had not been decorated."""
        return self.function(*args, **kwargs)

    @property
    def place(self) -> str:
        """The function and its line, for messages."""
        code = self.function.__code__
        return f"{self.function.__module__}.{self.function.__qualname__} ({code.co_filename}:{code.co_firstlineno})"

    @property
    def input_type(self) -> InputType:
        """What the annotation of `input` says; read when first needed, since annotations may refer to later code."""
        if self._input_type is None:
            self._input_type = input_type_of(self.function, self.mask)
        return self._input_type

    def to_input(self, value: Any) -> Any:
        """The argument of the body from a decoded input."""
        return self.input_type.validate(value)

    def call_body(self, arguments: dict[str, Any]) -> R:
        """Call the body with those of input, step, logger and run that it takes."""
        return self.function(**arguments)

    @overload
    def start(
        self: Workflow[None, R], input: None = None, **options: Unpack[StartOptionsWithKey]
    ) -> WorkflowRun[R]: ...
    @overload
    def start(self, input: I | Mapping[str, Any], **options: Unpack[StartOptionsWithKey]) -> WorkflowRun[R]: ...
    @shows_options(StartOptionsWithKey)
    def start(self, input: Any = None, **options: Unpack[StartOptionsWithKey]) -> WorkflowRun[R]:
        """Start a run, by one INSERT on the caller's connection: inside `atomic()` it exists only if that commits.

        - `key`: text; starting this workflow again with the same key returns the first run; `run.created` says which.
        - `priority`: a whole number from -100 to 100, larger first; `queue`: text, which workers take it; defaults: the
          workflow's.
        - `delay`: a duration, or `start_at`: a datetime; the run does not begin before that.

        Raises `InvalidInput`, `UnserializableValue`, `ValueTooLarge`, `InvalidName`, `TypeError`, `ValueError`; and
        `StartOutsideStep` in a body outside a step.

        >>> process_order.start({"order_id": 7}, key="order-7", delay="10m")  # doctest: +SKIP
        """
        from .starting import start

        return start(self, input, run_options(options))

    @shows_options(StartOptions)
    def start_many(
        self, inputs: Iterable[I | Mapping[str, Any]], **options: Unpack[StartOptions]
    ) -> list[WorkflowRun[R]]:
        """Start a run for each input by one bulk INSERT; all of them or none.

        Takes the options of `start()` but `key`, for all runs. Raises what `start()` raises.
        """
        from .starting import start_many

        return start_many(self, inputs, run_options(options, StartOptions, "start_many()"))

    @overload
    async def astart(
        self: Workflow[None, R], input: None = None, **options: Unpack[StartOptionsWithKey]
    ) -> WorkflowRun[R]: ...
    @overload
    async def astart(self, input: I | Mapping[str, Any], **options: Unpack[StartOptionsWithKey]) -> WorkflowRun[R]: ...
    @shows_options(StartOptionsWithKey)
    async def astart(self, input: Any = None, **options: Unpack[StartOptionsWithKey]) -> WorkflowRun[R]:
        """`start()` for async code."""
        return await sync_to_async(self.start)(input, **options)

    @shows_options(StartOptions)
    async def astart_many(
        self, inputs: Iterable[I | Mapping[str, Any]], **options: Unpack[StartOptions]
    ) -> list[WorkflowRun[R]]:
        """`start_many()` for async code."""
        return await sync_to_async(self.start_many)(inputs, **options)


def _check_mask(mask: Any) -> frozenset[str]:
    if isinstance(mask, str) or not all(isinstance(key, str) for key in mask):
        raise TypeError(f'mask takes a collection of keys, as in mask=("token",), got {mask!r}.')
    return frozenset(mask)


def _check_function(function: Any) -> Sequence[str]:
    if not inspect.isfunction(function):
        raise TypeError(f"@workflow takes a function, got {function!r}.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"The body of workflow {function.__name__!r} is async def, which is not supported yet. "
            "Make it a plain def; the functions of its steps may be async."
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"The body of workflow {function.__name__!r} is a generator; it must return, not yield.")
    wanted = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in INJECTED and parameter.kind is not parameter.POSITIONAL_ONLY:
            wanted.append(parameter.name)
        elif parameter.default is parameter.empty:
            raise TypeError(
                f"The body of workflow {function.__name__!r} takes {parameter.name!r}; "
                f"a body takes any of {', '.join(INJECTED)}, by name."
            )
    return wanted
