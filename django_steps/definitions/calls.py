"""What a definition in a body returns: something to `run()` now, or to `bind()` for a `gather()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .options import CallOptions
from .polling import Polling
from .requests import CallBranch, Performer, Poll, RunStep

if TYPE_CHECKING:
    import typing_extensions

    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
    V = typing_extensions.TypeVar("V", covariant=True, default=Any)
else:
    P, R, V = ParamSpec("P"), TypeVar("R"), TypeVar("V")


class Bound(Generic[V]):
    """A step or branch with its arguments, which `step.gather()` carries out."""

    __slots__ = ("performer", "request")

    def __init__(self, performer: Performer, request: RunStep | CallBranch) -> None:
        self.performer, self.request = performer, request

    def __repr__(self) -> str:
        return f"<bound step {self.request.name!r}>"

    if TYPE_CHECKING:
        _result: V  # never read: it makes the parameter count


class Call(Generic[P, R]):
    """A defined step. `run()` executes it, or returns what is recorded of it."""

    __slots__ = ("_performer", "_polling", "function", "name", "options")

    def __init__(
        self,
        performer: Performer,
        name: str,
        function: Callable[..., Any] | None,
        options: CallOptions,
        polling: Polling | None = None,
    ) -> None:
        self._performer, self._polling = performer, polling
        self.name, self.function, self.options = performer.path(name), function, options
        performer.define(self.name)

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
            raise self._no_function()
        result: R = self._performer.perform(self._request(self.function, args, kwargs))
        return result

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The step with these arguments, for `step.gather()`: nothing is executed yet.

        >>> step.gather(step.define("user", fetch_user).bind(7), step.define("orders", fetch_orders).bind(7))  # doctest: +SKIP
        """
        if self.function is None:
            raise self._no_function()
        return Bound(self._performer, self._request(self.function, args, kwargs))

    def _request(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> RunStep:
        if self._polling is None:
            return RunStep(self.name, function, args, kwargs, self.options)
        return Poll(self.name, function, args, kwargs, self.options, polling=self._polling)

    def _no_function(self) -> TypeError:
        return TypeError(f"Step {self.name!r} has no function: write step.define({self.name!r}, function).run(…).")


class BranchCall(Generic[P, R]):
    """A defined branch. `run()` calls its function, or returns what is recorded of it."""

    __slots__ = ("_performer", "_wanted", "function", "name")

    def __init__(self, performer: Performer, name: str, function: Callable[..., Any], wanted: tuple[str, ...]) -> None:
        self._performer, self._wanted = performer, wanted
        self.name, self.function = performer.path(f"{name}#"), function
        performer.define(self.name)

    def __repr__(self) -> str:
        return f"<branch {self.name!r}>"

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the branch with these arguments and return its result; on later passes, once it has ended, the recorded one.

        Raises what the function raised, on every pass.
        """
        result: R = self._performer.perform(self._request(args, kwargs))
        return result

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The branch with these arguments, for `step.gather()`: nothing is executed yet."""
        return Bound(self._performer, self._request(args, kwargs))

    def _request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallBranch:
        return CallBranch(self.name, self.function, args, kwargs, self._wanted)
