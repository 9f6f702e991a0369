"""What a definition in a body returns: something to `run()` now, or to `bind()` for a `gather()`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from .awaited import Awaited
from .kinds import refuse_async_atomic
from .options import CallOptions
from .polling import Polling
from .requests import AsyncPerformer, CallBranch, Invoke, Names, Performer, Poll, RunStep, StartRun
from .undos import check_fits

if TYPE_CHECKING:
    from typing import Self

    import typing_extensions

    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
    V = typing_extensions.TypeVar("V", covariant=True, default=Any)
    W = TypeVar("W", bound=Names)
else:
    P, R, V, W = ParamSpec("P"), TypeVar("R"), TypeVar("V"), TypeVar("W")


class Bound(Generic[V]):
    """A step or branch with its arguments, which `step.gather()` carries out."""

    __slots__ = ("performer", "request")

    def __init__(self, performer: Names, request: RunStep | CallBranch | Invoke | StartRun) -> None:
        self.performer, self.request = performer, request

    def __repr__(self) -> str:
        return f"<bound step {self.request.name!r}>"

    if TYPE_CHECKING:
        _result: V  # never read: it makes the parameter count


class Definition(Generic[W, P, R]):
    """A defined step: all of it but `run()`."""

    __slots__ = ("_performer", "_polling", "function", "name", "options")

    def __init__(
        self,
        performer: W,
        name: str,
        function: Callable[..., Any] | None,
        options: CallOptions,
        polling: Polling | None = None,
    ) -> None:
        self._performer, self._polling = performer, polling
        self.name, self.options = performer.path(name), options
        self.function = None if function is None else self._checked(function)
        performer.define(self.name)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def __call__(self, function: Callable[..., Any]) -> Self:
        """The decorator form: `@step.define("send")` above a function."""
        if self.function is not None or not callable(function):
            raise TypeError(f"Step {self.name!r} has its function already; execute it with .run(…).")
        if self.options.undo is not None:
            check_fits(self.name, self.options.undo, function)
        self.function = self._checked(function)
        return self

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The step with these arguments, for `step.gather()`: nothing is executed yet.

        >>> step.gather(step.define("user", fetch_user).bind(7), step.define("orders", fetch_orders).bind(7))  # doctest: +SKIP
        """
        return Bound(self._performer, self._request(args, kwargs))

    def _checked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def _request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RunStep:
        if self.function is None:
            raise TypeError(f"Step {self.name!r} has no function: write step.define({self.name!r}, function).run(…).")
        if self._polling is None:
            return RunStep(self.name, self.function, args, kwargs, self.options).checked()
        return Poll(self.name, self.function, args, kwargs, self.options, polling=self._polling)


class Call(Definition[Performer, P, R]):
    """A defined step. `run()` executes it, or returns what is recorded of it."""

    __slots__ = ()

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Execute the step with these arguments and return its result; on later passes the recorded result.

        Raises what the step's function raised, on every pass.
        """
        result: R = self._performer.perform(self._request(args, kwargs))
        return result


class StepDecorator(Protocol):
    """`@step.define(name)`: takes the function of the step."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Call[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Call[P, R]: ...


class AsyncCall(Definition[AsyncPerformer, P, R]):
    """A defined step of an `async def` body. `run()` is to be awaited, or given to asyncio."""

    __slots__ = ()

    if TYPE_CHECKING:  # as `async def`: of what returns a coroutine mypy forgets the result in `asyncio.gather()`

        async def run(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    else:

        def run(self, *args: Any, **kwargs: Any) -> Awaited[Any]:
            """Execute the step with these arguments: `await` gives its result; on later passes the recorded result.

            Raises what the step's function raised, on every pass.

            >>> a, b = await asyncio.gather(step.define("a", fetch).run(1), step.define("b", fetch).run(2))  # doctest: +SKIP
            """
            return Awaited(self._performer.perform(self._request(args, kwargs)), f"step {self.name!r}")

    def _checked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.options.atomic:
            refuse_async_atomic(f"Step {self.name!r}", function)
            refuse_async_atomic(f"The undo of step {self.name!r}", self.options.undo)
        return function


class BranchDefinition(Generic[W, P, R]):
    """A defined branch: all of it but `run()`."""

    __slots__ = ("_performer", "_wanted", "function", "name")

    def __init__(self, performer: W, name: str, function: Callable[..., Any], wanted: tuple[str, ...]) -> None:
        self._performer, self._wanted = performer, wanted
        self.name, self.function = performer.path(f"{name}#"), function
        performer.define(self.name)

    def __repr__(self) -> str:
        return f"<branch {self.name!r}>"

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The branch with these arguments, for `step.gather()`: nothing is executed yet."""
        return Bound(self._performer, self._request(args, kwargs))

    def _request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallBranch:
        return CallBranch(self.name, self.function, args, kwargs, self._wanted)


class BranchCall(BranchDefinition[Performer, P, R]):
    """A defined branch. `run()` calls its function, or returns what is recorded of it."""

    __slots__ = ()

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the branch with these arguments and return its result; on later passes, once it has ended, the recorded one.

        Raises what the function raised, on every pass.
        """
        result: R = self._performer.perform(self._request(args, kwargs))
        return result


class AsyncBranchCall(BranchDefinition[AsyncPerformer, P, R]):
    """A defined branch of an `async def` body. `run()` is to be awaited, or given to asyncio."""

    __slots__ = ()

    if TYPE_CHECKING:  # as that of `AsyncCall`

        async def run(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    else:

        def run(self, *args: Any, **kwargs: Any) -> Awaited[Any]:
            """Call the branch with these arguments: `await` gives its result; on later passes, once it has ended, the
            recorded one.

            Raises what the function raised, on every pass.
            """
            return Awaited(self._performer.perform(self._request(args, kwargs)), f"branch {self.name!r}")
