"""What a body says to have several things done at once: `step.gather`, `step.map`, `step.branch`.

Checked here, where it is typed; carried out in `engine/operations/`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from . import making
from .calls import Bound, BranchCall
from .kinds import AnyStep
from .options import GroupOptions, RunsOptions, UndoableOptions
from .requests import Performer

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal
    from enum import Enum
    from typing import Unpack
    from uuid import UUID

    from django.db.models import Model

    from ..core.unfinished import Unfinished
    from .step import Step
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


class BranchFunction(Protocol[X_con, R_co]):
    """`def handle_order(order_id, step)`: the item first, `step` by name."""

    def __call__(self, item: X_con, /, *, step: Step) -> R_co: ...


class Branch0(Protocol[R_co]):
    """A branch without arguments of its own."""

    def __call__(self, *, step: Step) -> R_co: ...


class Branch2(Protocol[X_con, Y_con, R_co]):
    """A branch with two arguments."""

    def __call__(self, a: X_con, b: Y_con, /, *, step: Step) -> R_co: ...


class Groups(AnyStep):
    """The part of `Step` that carries out several things at once."""

    __slots__ = ("_performer",)

    _of_async_body = False

    def __init__(self, performer: Performer) -> None:
        self._performer = performer

    @overload
    def gather(self, a: Bound[V1], /) -> tuple[V1]: ...
    @overload
    def gather(self, a: Bound[V1], b: Bound[V2], /) -> tuple[V1, V2]: ...
    @overload
    def gather(self, a: Bound[V1], b: Bound[V2], c: Bound[V3], /) -> tuple[V1, V2, V3]: ...
    @overload
    def gather(self, a: Bound[V1], b: Bound[V2], c: Bound[V3], d: Bound[V4], /) -> tuple[V1, V2, V3, V4]: ...
    @overload
    def gather(
        self, a: Bound[V1], b: Bound[V2], c: Bound[V3], d: Bound[V4], e: Bound[V5], /
    ) -> tuple[V1, V2, V3, V4, V5]: ...
    @overload
    def gather(
        self, a: Bound[V1], b: Bound[V2], c: Bound[V3], d: Bound[V4], e: Bound[V5], f: Bound[V6], /
    ) -> tuple[V1, V2, V3, V4, V5, V6]: ...
    @overload
    def gather(self, *calls: Bound[V1]) -> tuple[V1, ...]: ...
    @overload
    def gather(
        self, a: Bound[V1], b: Bound[V2], /, *, return_exceptions: Literal[True]
    ) -> tuple[V1 | Exception, V2 | Exception]: ...
    @overload
    def gather(
        self, a: Bound[V1], b: Bound[V2], c: Bound[V3], /, *, return_exceptions: Literal[True]
    ) -> tuple[V1 | Exception, V2 | Exception, V3 | Exception]: ...
    @overload
    def gather(self, *calls: Bound[V1], return_exceptions: Literal[True]) -> tuple[V1 | Exception, ...]: ...
    def gather(self, *calls: Any, return_exceptions: bool = False) -> Any:
        """Execute steps and branches side by side; their results as a tuple, in the order of the arguments.

        Each is a definition with its arguments: `step.define("user", fetch_user).bind(7)`. They are executed on idle threads of
        the worker and on the body's own, in any order; each has a record of its own.

        - `return_exceptions`: False: after a failure no further one begins, and once all that were executed have ended,
          `GroupFailed` is raised. True: nothing stops, and exceptions stand in the tuple.

        Raises `GroupFailed`, `TypeError`.

        >>> user, orders = step.gather(
        ...     step.define("user", fetch_user).bind(7), step.define("orders", fetch_orders).bind(7)
        ... )  # doctest: +SKIP
        """
        return self._performer.perform(making.gather(self._performer, calls, return_exceptions))

    # A workflow: a run of its own.
    @overload
    def map(
        self,
        name: str,
        function: Workflow[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        **options: Unpack[RunsOptions],
    ) -> list[R]: ...
    @overload
    def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        **options: Unpack[RunsOptions],
    ) -> list[R]: ...
    @overload
    def map(
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
    def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        *,
        max_failures: int,
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception]: ...
    @overload
    def map(
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
    def map(
        self,
        name: str,
        function: Workflow[K, R],
        items: Iterable[K],
        *,
        return_exceptions: Literal[True],
        **options: Unpack[RunsOptions],
    ) -> list[R | Exception]: ...
    @overload
    def map(
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
    def map(
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
    def map(
        self,
        name: str,
        function: BranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        **options: Unpack[GroupOptions],
    ) -> list[R]: ...
    @overload
    def map(
        self, name: str, function: BranchFunction[K, R], items: Iterable[K], **options: Unpack[GroupOptions]
    ) -> list[R]: ...
    @overload
    def map(
        self,
        name: str,
        function: BranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        max_failures: int,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    def map(
        self,
        name: str,
        function: BranchFunction[K, R],
        items: Iterable[K],
        *,
        max_failures: int,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    def map(
        self,
        name: str,
        function: BranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        return_exceptions: Literal[True],
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    def map(
        self,
        name: str,
        function: BranchFunction[K, R],
        items: Iterable[K],
        *,
        return_exceptions: Literal[True],
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception]: ...
    @overload
    def map(
        self,
        name: str,
        function: BranchFunction[T, R],
        items: Iterable[T],
        *,
        key: Callable[[T], Key],
        min_successes: int,
        max_failures: int = ...,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception | Unfinished]: ...
    @overload
    def map(
        self,
        name: str,
        function: BranchFunction[K, R],
        items: Iterable[K],
        *,
        min_successes: int,
        max_failures: int = ...,
        **options: Unpack[GroupOptions],
    ) -> list[R | Exception | Unfinished]: ...
    # A function, async or not.
    @overload
    def map(
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
    def map(
        self,
        name: str,
        function: Callable[[K], Awaitable[R]],
        items: Iterable[K],
        *,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R]: ...
    @overload
    def map(
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
    def map(
        self,
        name: str,
        function: Callable[[K], R],
        items: Iterable[K],
        *,
        concurrency: int | None = 10,
        **options: Unpack[UndoableOptions],
    ) -> list[R]: ...
    @overload
    def map(
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
    def map(
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
    def map(
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
    def map(
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
    def map(
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
    def map(
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
        """Call a function with each item, side by side; the results as a list, in the order of the items.

        A plain function makes a step of each item, recorded as `name#key`. A function with a parameter named `step` makes a
        branch of each: it gets a step of its own, and may sleep while the others go on. Of a workflow each item starts a run,
        and the runs are spread over all workers.

        - `key`: makes the key of an item, the same on every pass. Text, whole numbers, UUIDs, Decimals, dates, members of an
          Enum and model instances are their own keys.
        - `concurrency`: how many may have begun and not be committed, branches that sleep included; default: 10 for functions,
          None (no limit) for branches and runs. It is an upper bound: on a busy worker a map is a loop.
        - `max_failures`: how many failures are taken, and stand in the list; one more, and `GroupFailed` is raised.
        - `min_successes`: with so many the map is done. What never began, or sleeps, stands in the list as `UNFINISHED`.
        - `return_exceptions`: True: nothing stops, and exceptions stand in the list.
        - `retry`, `timeout`, `atomic`, `at_most_once`, `undo`: as for `define()`; not for branches and runs, whose steps have
          their own. Of runs `timeout` says how long each is waited for: those that have not ended by then are canceled, and
          have failed.

        Raises `GroupFailed`, `TypeError`, `ValueError`, `InvalidName`, `DuplicateStepName` for two equal keys.

        >>> sizes = step.map("resize", resize, images, key=lambda image: image["id"], concurrency=4)  # doctest: +SKIP
        """
        return self._performer.perform(
            making.map_items(self._performer, name, function, items, options, in_async_body=False)
        )

    @overload
    def branch(self, name: str, function: Branch0[R]) -> BranchCall[[], R]: ...
    @overload
    def branch(self, name: str, function: BranchFunction[T, R]) -> BranchCall[[T], R]: ...
    @overload
    def branch(self, name: str, function: Branch2[T, D, R]) -> BranchCall[[T, D], R]: ...
    def branch(self, name: str, function: Any) -> Any:
        """Define a branch: `step.branch("invoice", make_invoice).run(order)`.

        Its function has a parameter named `step`, and may have `run` and `logger`; the names of its steps are its own
        (`invoice#/total`). `.bind()` lets it take part in a `gather()`, where it may sleep while the others go on.

        Raises `TypeError` for a function without a parameter `step`, `InvalidName`, `DuplicateStepName`.
        """
        return BranchCall(self._performer, *making.branch(name, function, in_async_body=False))
