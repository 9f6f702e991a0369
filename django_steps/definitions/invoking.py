"""What a body says to start other runs: `step.invoke`, `step.start`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ..core.names import check_name
from ..durations import Duration, to_microseconds
from .awaited import Awaited
from .calls import Bound
from .options import StartOptionsWithKey, run_options
from .requests import AsyncPerformer, Invoke, Names, Performer, StartRun
from .workflow import Workflow

X = TypeVar("X", contravariant=True)
R = TypeVar("R")
W = TypeVar("W", bound=Names)


def check_workflow(method: str, name: str, workflow: Any) -> Workflow[Any, Any]:
    """Raise `TypeError` for what is no workflow."""
    if not isinstance(workflow, Workflow):
        raise TypeError(
            f"step.{method}({name!r}, …) takes a workflow, got {workflow!r}. For a function write step.define()."
        )
    return workflow


Make = Callable[[str, Any], Invoke | StartRun]  # of the whole path of the name, and the input


def invoke(name: str, workflow: Any, timeout: Duration | None) -> tuple[str, Make]:
    """What `invoke()` was given, checked."""
    name = check_name(name, "step name", forbidden="#")
    checked = check_workflow("invoke", name, workflow)
    timeout_us = None if timeout is None else to_microseconds(timeout)
    return name, lambda path, input: Invoke(path, checked, input, timeout_us)


def start(name: str, workflow: Any, options: StartOptionsWithKey) -> tuple[str, Make]:
    """What `start()` was given, checked."""
    name = check_name(name, "step name", forbidden="#")
    checked = check_workflow("start", name, workflow)
    how = run_options(options, method=f"step.start({name!r})")
    return name, lambda path, input: StartRun(path, checked, input, how)


class _Invocation(Generic[W, X, R]):
    """A run that is to be started: all of it but `run()`."""

    __slots__ = ("_make", "_performer", "name")

    def __init__(self, performer: W, name: str, make: Make) -> None:
        self._performer, self._make = performer, make
        self.name = performer.path(name)
        performer.define(self.name)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    @overload
    def bind(self: _Invocation[W, None, R], input: None = None, /) -> Bound[R]: ...
    @overload
    def bind(self, input: X | Mapping[str, Any], /) -> Bound[R]: ...
    def bind(self, input: Any = None, /) -> Any:
        """The run with this input, for `step.gather()`: nothing is started yet."""
        return Bound(self._performer, self._make(self.name, input))


class InvokeCall(_Invocation[Performer, X, R]):
    """What `step.invoke()` and `step.start()` return: `run()` starts the run."""

    __slots__ = ()

    @overload
    def run(self: InvokeCall[None, R], input: None = None, /) -> R: ...
    @overload
    def run(self, input: X | Mapping[str, Any], /) -> R: ...
    def run(self, input: Any = None, /) -> Any:
        """Start a run with this input, as `Workflow.start()`, exactly once. Of `invoke()`: wait for its end, and return its
        result. Of `start()`: return its id.

        Raises `InvalidInput`; and, of `invoke()`, `RunFailed` (its `__cause__` is the exception), `RunCanceled` and
        `ChildTimedOut`.
        """
        return self._performer.perform(self._make(self.name, input))


class AsyncInvokeCall(_Invocation[AsyncPerformer, X, R]):
    """What `step.invoke()` and `step.start()` of an `async def` body return. `run()` is to be awaited, or given to asyncio."""

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        async def run(self: AsyncInvokeCall[None, R], input: None = None, /) -> R: ...
        @overload
        async def run(self, input: X | Mapping[str, Any], /) -> R: ...
        async def run(self, input: Any = None, /) -> Any: ...

    else:

        def run(self, input: Any = None, /) -> Awaited[Any]:
            """As `InvokeCall.run()`, to be awaited."""
            return Awaited(self._performer.perform(self._make(self.name, input)), f"step {self.name!r}")
