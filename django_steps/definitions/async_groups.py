"""What an `async def` body says to have several things done at once, each of them to be awaited.

The twin of `groups`: what is checked, and what is asked for, is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from . import making
from .awaited import Awaited
from .calls import AsyncBranchCall, Bound
from .kinds import AnyStep
from .options import GroupOptions, RunsOptions, UndoableOptions
from .requests import AsyncPerformer

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal
    from enum import Enum
    from typing import Unpack
    from uuid import UUID

    from django.db.models import Model

    from ..core.unfinished import Unfinished
    from .async_step import AsyncStep
    from .workflow import Workflow

    Key = str | int | UUID | date | Decimal | Enum | Model
    # Items that are their own key. (A bool is an int for type checkers; it is refused.)
    K = TypeVar("K", bound=Key)

R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D")
V1 = TypeVar("V1")
V2 = TypeVar("V2")
V3 = TypeVar("V3")
V4 = TypeVar("V4")
V5 = TypeVar("V5")
V6 = TypeVar("V6")
R_co = TypeVar("R_co", covariant=True)
X_con = TypeVar("X_con", contravariant=True)
Y_con = TypeVar("Y_con", contravariant=True)


class AsyncBranchFunction(Protocol[X_con, R_co]):
    """`async def handle_order(order_id, step)`: the item first, `step` by name."""

    def __call__(self, item: X_con, /, *, step: AsyncStep) -> Coroutine[Any, Any, R_co]: ...


class AsyncBranch0(Protocol[R_co]):
    """A branch without arguments of its own."""

    def __call__(self, *, step: AsyncStep) -> Coroutine[Any, Any, R_co]: ...


class AsyncBranch2(Protocol[X_con, Y_con, R_co]):
    """A branch with two arguments."""

    def __call__(self, a: X_con, b: Y_con, /, *, step: AsyncStep) -> Coroutine[Any, Any, R_co]: ...


class AsyncGroups(AnyStep):
    """The part of `AsyncStep` that carries out several things at once."""

    __slots__ = ("_performer",)

    _of_async_body = True

    def __init__(self, performer: AsyncPerformer) -> None:
        self._performer = performer

    @overload
    async def gather(self, a: Bound[V1], /) -> tuple[V1]: ...
    @overload
    async def gather(self, a: Bound[V1], b: Bound[V2], /) -> tuple[V1, V2]: ...
    @overload
    async def gather(self, a: Bound[V1], b: Bound[V2], c: Bound[V3], /) -> tuple[V1, V2, V3]: ...
    @overload
    async def gather(self, a: Bound[V1], b: Bound[V2], c: Bound[V3], d: Bound[V4], /) -> tuple[V1, V2, V3, V4]: ...
    @overload
    async def gather(
        self, a: Bound[V1], b: Bound[V2], c: Bound[V3], d: Bound[V4], e: Bound[V5], /
    ) -> tuple[V1, V2, V3, V4, V5]: ...
    @overload
    async def gather(
        self, a: Bound[V1], b: Bound[V2], c: Bound[V3], d: Bound[V4], e: Bound[V5], f: Bound[V6], /
    ) -> tuple[V1, V2, V3, V4, V5, V6]: ...
    @overload
    async def gather(self, *calls: Bound[V1]) -> tuple[V1, ...]: ...
    @overload
    async def gather(
        self, a: Bound[V1], b: Bound[V2], /, *, return_exceptions: Literal[True]
    ) -> tuple[V1 | Exception, V2 | Exception]: ...
    @overload
    async def gather(
        self, a: Bound[V1], b: Bound[V2], c: Bound[V3], /, *, return_exceptions: Literal[True]
    ) -> tuple[V1 | Exception, V2 | Exception, V3 | Exception]: ...
    @overload
    async def gather(self, *calls: Bound[V1], return_exceptions: Literal[True]) -> tuple[V1 | Exception, ...]: ...
    def gather(self, *calls: Any, return_exceptions: bool = False) -> Any:
        """Execute steps and branches side by side; `await` gives their results as a tuple, in the order of the arguments.

        As `Step.gather()`. `asyncio.gather()` of what `.run()` returns does the same, but for the failures: here nothing
        begins after one, and all come as one `GroupFailed`.

        Raises `GroupFailed`, `TypeError`.

        >>> user, orders = await step.gather(
        ...     step.define("user", fetch_user).bind(7), step.define("orders", fetch_orders).bind(7)
        ... )  # doctest: +SKIP
        """
        request = making.gather(self._performer, calls, return_exceptions)
        return Awaited(self._performer.perform(request), "step.gather()")

    # A workflow: a run of its own.
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        **options: Unpack[RunsOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        **options: Unpack[RunsOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        max_failures: int,
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        *,
        max_failures: int,
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        return_exceptions: Literal[True],
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        *,
        return_exceptions: Literal[True],
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        min_successes: int,
        max_failures: int = ...,
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception | Unfinished]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        *,
        min_successes: int,
        max_failures: int = ...,
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception | Unfinished]: ...
    # A branch: the item first, and a `step` of its own.
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        **options: Unpack[GroupOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self, name: str, function: AsyncBranchFunction[K, R], items: Iterable[K], **options: Unpack[GroupOptions]
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        max_failures: int,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[K, R],
        items: Iterable[K],
        *,
        max_failures: int,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        return_exceptions: Literal[True],
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[K, R],
        items: Iterable[K],
        *,
        return_exceptions: Literal[True],
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        min_successes: int,
        max_failures: int = ...,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception | Unfinished]: ...
    @overload
    async def map(
        self,
        name: str,
        function: AsyncBranchFunction[K, R],
        items: Iterable[K],
        *,
        min_successes: int,
        max_failures: int = ...,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception | Unfinished]: ...
    # A function, async or not.
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[K], Awaitable[R]],
        items: Iterable[K],
        *,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[K], R],
        items: Iterable[K],
        *,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        max_failures: int,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[K], R],
        items: Iterable[K],
        *,
        max_failures: int,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        return_exceptions: Literal[True],
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[K], R],
        items: Iterable[K],
        *,
        return_exceptions: Literal[True],
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R | Exception]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        min_successes: int,
        max_failures: int = ...,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R | Exception | Unfinished]: ...
    @overload
    async def map(
        self,
        name: str,
        function: Callable[[K], R],
        items: Iterable[K],
        *,
        min_successes: int,
        max_failures: int = ...,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R | Exception | Unfinished]: ...
    def map(self, name: str, function: Any, items: Any, **options: Any) -> Any:
        """Call a function with each item, side by side; `await` gives the results as a list, in the order of the items.

        As `Step.map()`, with the same options. A branch is `async def`, and with `atomic=True` the function is a plain one.

        Raises `GroupFailed`, `TypeError`, `ValueError`, `InvalidName`, `DuplicateStepName` for two equal keys.

        >>> pages = await step.map("fetch", fetch, urls, concurrency=20)  # doctest: +SKIP
        """
        request = making.map_items(self._performer, name, function, items, options, in_async_body=True)
        return Awaited(self._performer.perform(request), f"map {request.name!r}")

    @overload
    def branch(self, name: str, function: AsyncBranch0[R]) -> AsyncBranchCall[[], R]: ...
    @overload
    def branch(self, name: str, function: AsyncBranchFunction[T, R]) -> AsyncBranchCall[[T], R]: ...
    @overload
    def branch(self, name: str, function: AsyncBranch2[T, D, R]) -> AsyncBranchCall[[T, D], R]: ...
    def branch(self, name: str, function: Any) -> Any:
        """Define a branch: `await step.branch("invoice", make_invoice).run(order)`.

        As `Step.branch()`; its function is `async def`.

        Raises `TypeError` for a function that is plain or without a parameter `step`, `InvalidName`, `DuplicateStepName`.
        """
        return AsyncBranchCall(self._performer, *making.branch(name, function, in_async_body=True))
