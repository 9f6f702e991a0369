"""`@workflow`, what it returns, and the registry of (name, version).

Importable before the app registry is ready: the models are imported when a run is started.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, overload

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from .durations import Duration
from .errors import UnknownWorkflow
from .inputs import InputType, input_type_of
from .names import check_name
from .retries import RetryPolicy, to_policy

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    from .bodies import Decorator
    from .models import WorkflowRun

    I = TypeVarWithDefault("I", contravariant=True, default=Any)  # noqa: E741
    R = TypeVarWithDefault("R", covariant=True, default=Any)
else:
    I, R = TypeVar("I"), TypeVar("R")  # noqa: E741


class StartOptions(TypedDict, total=False):
    """What `start_many()` takes beside the inputs; see `Workflow.start()`."""

    priority: int | None
    queue: str | None
    delay: Duration | None
    start_at: datetime | None


class StartOptionsWithKey(StartOptions, total=False):
    """What `start()` takes beside the input."""

    key: str | None


INJECTED = ("input", "step", "logger", "run")
PRIORITIES = range(-100, 101)

_registry: dict[tuple[str, str], Workflow[Any, Any]] = {}


class Workflow(Generic[I, R]):
    """A registered workflow. Calling it calls the plain function; `start()` starts a run of it."""

    do_not_call_in_templates = True  # Django's templates call what can be called

    def __init__(
        self,
        function: Callable[..., R],
        *,
        name: str | None = None,
        version: str = "",
        queue: str = "default",
        priority: int = 0,
        retry: RetryPolicy | int | None = None,
        step_retry: RetryPolicy | int | None = None,
        mask: Iterable[str] = (),
    ) -> None:
        self.parameters = _check_function(function)
        self.function = function
        self.name = check_name(function.__name__ if name is None else name, "workflow name")
        self.version = check_name(version, "workflow version", empty=True)
        self.queue = check_name(queue, "queue name")
        self.priority = check_priority(priority)
        self.retry = to_policy(retry, "retry")
        self.step_retry = to_policy(step_retry, "step_retry")
        self.mask = _check_mask(mask)
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
    def start(
        self,
        input: Any = None,
        *,
        key: str | None = None,
        priority: int | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        start_at: datetime | None = None,
    ) -> WorkflowRun[R]:
        """Start a run, by one INSERT on the caller's connection: inside `atomic()` it exists only if that commits.

        - `key`: starting this workflow again with the same key returns the first run; `run.created` says which.
        - `priority`: -100 to 100, larger first. `queue`: which workers take it.
        - `delay`: a duration; `start_at`: a datetime; not before that.

        Raises `InvalidInput`, `UnserializableValue`, `ValueTooLarge`, `InvalidName`, `TypeError`, `ValueError`; and
        `StartOutsideStep` in a body outside a step.

        >>> process_order.start({"order_id": 7}, key="order-7", delay="10m")  # doctest: +SKIP
        """
        from .starting import start

        return start(self, input, key=key, priority=priority, queue=queue, delay=delay, start_at=start_at)

    def start_many(
        self,
        inputs: Iterable[I | Mapping[str, Any]],
        *,
        priority: int | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        start_at: datetime | None = None,
    ) -> list[WorkflowRun[R]]:
        """Start a run for each input by one bulk INSERT; all of them or none. Raises what `start()` raises."""
        from .starting import start_many

        return start_many(self, inputs, priority=priority, queue=queue, delay=delay, start_at=start_at)

    @overload
    async def astart(
        self: Workflow[None, R], input: None = None, **options: Unpack[StartOptionsWithKey]
    ) -> WorkflowRun[R]: ...
    @overload
    async def astart(self, input: I | Mapping[str, Any], **options: Unpack[StartOptionsWithKey]) -> WorkflowRun[R]: ...
    async def astart(self, input: Any = None, **options: Unpack[StartOptionsWithKey]) -> WorkflowRun[R]:
        """`start()` for async code."""
        return await sync_to_async(self.start)(input, **options)

    async def astart_many(
        self, inputs: Iterable[I | Mapping[str, Any]], **options: Unpack[StartOptions]
    ) -> list[WorkflowRun[R]]:
        """`start_many()` for async code."""
        return await sync_to_async(self.start_many)(inputs, **options)


def _typed(function: Callable[..., Any]) -> Decorator:
    """The same function; type checkers take it for what `bodies.py` says."""
    return function


@_typed
def workflow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a workflow: `@workflow`, or `@workflow(name="nightly", queue="reports", retry=3)`.

    - `name`: the function's name by default; with `version` it identifies the workflow.
    - `queue`, `priority` (-100 to 100, larger first): the defaults of its runs.
    - `retry`: automatic retries of the whole run; `step_retry`: the default policy of its steps. Each a `RetryPolicy`
      or a number of attempts, the first included.
    - `mask`: keys whose values no page and no log shows.

    Raises `TypeError` for a function that can't be a body, `InvalidName`, and `ImproperlyConfigured` if the name and
    version are taken.
    """

    def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
        return register(Workflow(function, **options))

    return decorate if function is None else decorate(function)


def register(definition: Workflow[Any, Any]) -> Workflow[Any, Any]:
    """Put a workflow into the registry; the same line may do so again (a module that is imported anew)."""
    key = definition.name, definition.version
    other = _registry.get(key)
    if other is not None and other.place != definition.place:
        version = f" (version {definition.version!r})" if definition.version else ""
        raise ImproperlyConfigured(
            f"Two workflows are named {definition.name!r}{version}: {other.place} and {definition.place}. "
            "Give one of them another name or version."
        )
    _registry[key] = definition
    return definition


def get_workflow(name: str, version: str | None = None) -> Workflow[Any, Any]:
    """The workflow of that name; without a version the only or the latest registered one.

    Raises `UnknownWorkflow`, which lists the known ones.
    """
    found = [item for (known, v), item in _registry.items() if known == name and version in (None, v)]
    if not found:
        known = ", ".join(sorted({name for name, _ in _registry})) or "none"
        version_text = f" version {version!r}" if version else ""
        raise UnknownWorkflow(f"Unknown workflow {name!r}{version_text}. Known are: {known}.")
    return found[-1]


def registered() -> list[Workflow[Any, Any]]:
    """All registered workflows, by name and version."""
    return [_registry[key] for key in sorted(_registry)]


def registered_kinds() -> frozenset[tuple[str, str]]:
    """The name and version of each registered workflow: what a worker of this process can claim."""
    return frozenset(_registry)


def check_priority(value: Any) -> int:
    """Return a priority from -100 to 100, or raise `TypeError` or `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority takes a whole number from -100 to 100, got {value!r}.")
    if value not in PRIORITIES:
        raise ValueError(f"priority takes a whole number from -100 to 100, got {value!r}.")
    return int(value)  # of an enum's member, the number


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
