"""What `@workflow` returns: a `Workflow`, checked where it is defined.

Importable before the app registry is ready: the models are imported when a run is started.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from asgiref.sync import sync_to_async

from .. import values
from ..conf import conf
from ..core.event import Event
from ..core.names import check_name
from ..core.retries import to_policy
from ..core.tags import check_tags
from ..errors import InvalidInput, UnserializableValue
from .checked import check_priority, check_timeout
from .inputs import InputType, input_type_of
from .kinds import check_annotation, is_async_inside
from .options import (
    StartManyOptions,
    StartOptionsWithKey,
    WorkflowOptions,
    check_limits,
    check_retention,
    refuse_unknown,
    run_options,
    shows_options,
    workflow_options,
)
from .schedule import schedules_of

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    from ..models import WorkflowPause, WorkflowRun

    I = TypeVarWithDefault("I", contravariant=True, default=Any)  # noqa: E741
    R = TypeVarWithDefault("R", covariant=True, default=Any)
else:
    I, R = TypeVar("I"), TypeVar("R")  # noqa: E741


INJECTED = ("input", "step", "logger", "run")


class Workflow(Generic[I, R]):
    """A registered workflow. Calling it calls the plain function; `start()` starts a run of it.

    `is_async`: whether its body is `async def`; then it is an `AsyncWorkflow`.
    """

    do_not_call_in_templates = True  # Django's templates call what can be called

    def __init__(self, function: Callable[..., Any], **options: Unpack[WorkflowOptions]) -> None:
        given = workflow_options(options)
        self.parameters = _check_function(function)
        self.function = function
        self.is_async = is_async_inside(function)
        name = function.__name__ if given["name"] is None else given["name"]
        self.name = check_name(name, "workflow name")
        self.version = check_name(given["version"], "workflow version", empty=True)
        self.queue = check_name(given["queue"], "queue name")
        self.priority = check_priority(given["priority"])
        self.retry = to_policy(given["retry"], "retry")
        self.step_retry = to_policy(given["step_retry"], "step_retry")
        self.mask = _check_mask(given["mask"])
        self.timeout_us = check_timeout(given["timeout"], "timeout of @workflow:")
        self.start_within_us = check_timeout(given["start_within"], "start_within of @workflow:")
        self.schedules = schedules_of(given["schedule"], self.name)
        self.limits = check_limits(given["limit"])
        self.retention = check_retention(given["retention"])
        self.tags = check_tags(given["tags"])
        self._input_type: InputType | None = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        version = f" version {self.version!r}" if self.version else ""
        return f"<workflow {self.name!r}{version} at {self.place}>"

    if TYPE_CHECKING:
        # By keyword: or else a workflow passed for any function of an item, `step.map(name, workflow, wrong_items)`.
        def __call__(
            self, *, input: Any = ..., step: Any = ..., logger: Any = ..., run: Any = ..., **others: Any
        ) -> R: ...

    else:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
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

    def encoded_input(self, value: Any) -> tuple[Any, str, Any]:
        """The input as a body gets it, as a row keeps it, and what of it can be searched.

        Raises `InvalidInput` and `ValueTooLarge`.
        """
        if "input" in self.parameters:
            value = self.to_input(value)
        try:
            text = values.encode(value, root="input", max_bytes=conf.max_value_bytes)
        except UnserializableValue as error:
            raise InvalidInput(str(error)) from None
        return value, text, values.searchable(value, self.mask)

    def call_body(self, arguments: dict[str, Any]) -> Any:
        """Call the body with those of input, step, logger and run that it takes; an `async def` one gives a coroutine."""
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
        - `active_key`: text; while a run of this workflow that was started with the same active key has not ended, that run is
          returned (`created` is False), whatever its input. `InvalidState` while it is canceling.
        - `priority`: a whole number from -100 to 100, larger first; `queue`: text, which workers take it; defaults: the
          workflow's.
        - `tags`: a dict of texts, by which runs are found: `objects.tagged(tenant="acme")`; beside, and before, those of the
          workflow. `about`: a saved instance of a model, such as an order: `objects.about(order)`. Runs that this one invokes
          inherit both.
        - `event`: an `Event` that is sent to the run, new or not, in the same transaction.
        - `delay`: a duration, or `start_at`: a datetime; the run does not begin before that.
        - `timeout`: a duration; the run fails with `RunTimedOut` if it has not ended so long after a worker has begun it,
          whatever it waited for. `start_within`: a duration; if no worker has begun it so long after it might have begun, it
          is canceled, and its `cancel_reason` is `expired`. Defaults: the workflow's.

        Raises `InvalidInput`, `UnserializableValue`, `ValueTooLarge`, `InvalidName`, `InvalidState`, `TypeError`, `ValueError`;
        and `StartOutsideStep` in a body outside a step.

        >>> process_order.start({"order_id": 7}, key="order-7", delay="10m")  # doctest: +SKIP
        """
        from .starting import start

        return start(self, input, run_options(options))

    @shows_options(StartManyOptions)
    def start_many(
        self, inputs: Iterable[I | Mapping[str, Any]], **options: Unpack[StartManyOptions]
    ) -> list[WorkflowRun[R]]:
        """Start a run for each input by one bulk INSERT; all of them or none.

        - `key`: a function that makes the key of an input, as for `start()`: where a run has it already that run stands in
          the list, and its `created` is False.

        Takes the other options of `start()` but `active_key` and `event`, for all runs. Raises what `start()` raises.

        >>> import_shop.start_many(shops, key=lambda shop: f"{shop['id']}-{today}")  # doctest: +SKIP
        """
        from .starting import start_many

        plain: StartManyOptions = {**options}
        key = plain.pop("key", None)
        refuse_unknown(options, StartManyOptions, "start_many()")
        return start_many(self, inputs, run_options(plain, StartManyOptions, "start_many()"), key)

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

    @shows_options(StartManyOptions)
    async def astart_many(
        self, inputs: Iterable[I | Mapping[str, Any]], **options: Unpack[StartManyOptions]
    ) -> list[WorkflowRun[R]]:
        """`start_many()` for async code."""
        return await sync_to_async(self.start_many)(inputs, **options)

    def send_event(
        self, name: str, payload: Any = None, *, key: str, id: str | None = None, by: str = ""
    ) -> Event[Any]:
        """Send an event to the run of this workflow that is active under a key, or else to the one that has it as its `key`; it
        need not exist yet: a run that is started with the key takes it.

        - `key`: text, as for `start()`: an `active_key` or a `key`. The others are as for `run.send_event()`, and so is what is
          raised.

        >>> process_order.send_event("paid", {"amount": 5}, key="order-7", id="evt_1")  # doctest: +SKIP
        """
        from .starting import send_event

        return send_event(self, key, Event(name, payload, id=id, by=by))

    async def asend_event(
        self, name: str, payload: Any = None, *, key: str, id: str | None = None, by: str = ""
    ) -> Event[Any]:
        """`send_event()` for async code."""
        return await sync_to_async(self.send_event)(name, payload, key=key, id=id, by=by)

    def pause(self, reason: str = "", by: str = "") -> WorkflowPause:
        """Pause the workflow, in all its versions: workers take no run of it until it is resumed, whatever is deployed
        meanwhile. `reason` and `by` (who does it) are kept, for people.

        What workers hold goes on to its end, or until it is suspended. The statuses of runs don't change; `run.resume()` lets
        one of them through. Pausing what is paused does nothing.

        >>> sync_shop.pause(reason="the API answers nonsense", by=str(request.user))  # doctest: +SKIP
        """
        from ..models import WorkflowPause

        return WorkflowPause.objects.pause_workflow(self.name, reason, by)

    def resume(self, by: str = "") -> bool:
        """Let workers take runs of the workflow again; whether it was paused. `by`, who does it, is logged."""
        from ..models import WorkflowPause

        return WorkflowPause.objects.resume_workflow(self.name, by)

    async def apause(self, reason: str = "", by: str = "") -> WorkflowPause:
        """`pause()` for async code."""
        return await sync_to_async(self.pause)(reason, by)

    async def aresume(self, by: str = "") -> bool:
        """`resume()` for async code."""
        return await sync_to_async(self.resume)(by)


class AsyncWorkflow(Workflow[I, R]):
    """A registered workflow whose body is `async def`. Calling it gives the coroutine of the function.

    >>> await research(input=question, step=AsyncFakeStep())  # doctest: +SKIP
    """

    if TYPE_CHECKING:

        def __call__(  # type: ignore[override]
            self, *, input: Any = ..., step: Any = ..., logger: Any = ..., run: Any = ..., **others: Any
        ) -> Coroutine[Any, Any, R]: ...


def made_of(function: Any, options: WorkflowOptions) -> Workflow[Any, Any]:
    """The workflow with this body, plain or async; raises what `@workflow` raises."""
    return (AsyncWorkflow if is_async_inside(function) else Workflow)(function, **options)


def _check_mask(mask: Any) -> frozenset[str]:
    if isinstance(mask, str) or not all(isinstance(key, str) for key in mask):
        raise TypeError(f'mask takes a collection of keys, as in mask=("token",), got {mask!r}.')
    return frozenset(mask)


def _check_function(function: Any) -> Sequence[str]:
    if not inspect.isfunction(function):
        raise TypeError(f"@workflow takes a function, got {function!r}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"The body of workflow {function.__name__!r} is a generator; it must return, not yield.")
    check_annotation(f"The body of workflow {function.__name__!r}", function)
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
