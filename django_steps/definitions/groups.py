"""What a body says to have several things done at once: `step.gather`, `step.map`, `step.branch`.

Checked here, where it is typed; carried out in `engine/operations/`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar, overload

from ..core.names import check_name
from ..errors import DuplicateStepName
from .branches import check_branch, check_plain, refuse_workflow, wanted_by
from .calls import Bound, BranchCall
from .keys import item_segment, key_of
from .options import StepOptions, check_count, check_flag, refuse_unknown, step_options
from .requests import CallBranch, Gather, Map, Performer, RunStep

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal
    from enum import Enum
    from typing import Unpack
    from uuid import UUID

    from django.db.models import Model

    from ..core.unfinished import Unfinished
    from .step import Step

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

# How many items of functions are executed side by side, if nothing else is said.
CONCURRENCY = 10


class BranchFunction(Protocol[X_con, R_co]):
    """`def handle_order(order_id, step)`: the item first, `step` by name."""

    def __call__(self, item: X_con, /, *, step: Step) -> R_co: ...


class Branch0(Protocol[R_co]):
    """A branch without arguments of its own."""

    def __call__(self, *, step: Step) -> R_co: ...


class Branch2(Protocol[X_con, Y_con, R_co]):
    """A branch with two arguments."""

    def __call__(self, a: X_con, b: Y_con, /, *, step: Step) -> R_co: ...


class GroupOptions(TypedDict, total=False):
    """What `map()` takes for branches."""

    concurrency: int | None


class MapOptions(StepOptions, GroupOptions, total=False):
    """What `map()` takes beside the items."""

    key: Callable[[Any], Any] | None
    max_failures: int | None
    min_successes: int | None
    return_exceptions: bool


class Groups:
    """The part of `Step` that carries out several things at once."""

    __slots__ = ("_performer",)

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
        for call in calls:
            if not isinstance(call, Bound):
                raise TypeError(
                    'step.gather() takes steps that are bound, as in step.define("user", fetch_user).bind(7), and of a list '
                    f"step.gather(*calls); got {call!r}."
                )
            if call.performer is not self._performer:
                raise TypeError(f"step.gather() takes steps that were defined by the same `step`, got {call!r}.")
        members = [call.request for call in calls]
        return self._performer.perform(Gather(members, check_flag(return_exceptions, "return_exceptions of gather()")))

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
        **options: Unpack[StepOptions],
    ) -> list[R]: ...
    @overload
    def map(
        self,
        name: str,
        function: Callable[[K], Awaitable[R]],
        items: Iterable[K],
        *,
        concurrency: int | None = 10,
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
    ) -> list[R]: ...
    @overload
    def map(
        self,
        name: str,
        function: Callable[[K], R],
        items: Iterable[K],
        *,
        concurrency: int | None = 10,
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
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
        **options: Unpack[StepOptions],
    ) -> list[R | Exception | Unfinished]: ...
    def map(self, name: str, function: Any, items: Any, **options: Any) -> Any:
        """Call a function with each item, side by side; the results as a list, in the order of the items.

        A plain function makes a step of each item, recorded as `name#key`. A function with a parameter named `step` makes a
        branch of each: it gets a step of its own, and may sleep while the others go on.

        - `key`: makes the key of an item, the same on every pass. Text, whole numbers, UUIDs, Decimals, dates, members of an
          Enum and model instances are their own keys.
        - `concurrency`: how many may have begun and not be committed, branches that sleep included; default: 10 for functions,
          None (no limit) for branches. It is an upper bound: on a busy worker a map is a loop.
        - `max_failures`: how many failures are taken, and stand in the list; one more, and `GroupFailed` is raised.
        - `min_successes`: with so many the map is done. What never began, or sleeps, stands in the list as `UNFINISHED`.
        - `return_exceptions`: True: nothing stops, and exceptions stand in the list.
        - `retry`, `atomic`, `at_most_once`: as for `define()`; not for branches, whose steps have their own.

        Raises `GroupFailed`, `TypeError`, `ValueError`, `InvalidName`, `DuplicateStepName` for two equal keys.

        >>> sizes = step.map("resize", resize, images, key=lambda image: image["id"], concurrency=4)  # doctest: +SKIP
        """
        name = check_name(name, "name of a map", forbidden="#")
        refuse_workflow("map", name, function)
        if not callable(function):
            raise TypeError(f"Map {name!r} takes a function and then the items, got {function!r}.")
        refuse_unknown(options, MapOptions, f"Map {name!r}")
        if not isinstance(items, Iterable):
            raise TypeError(f"Map {name!r} takes its items as a list or another iterable, got {items!r:.80}.")
        return self._performer.perform(_map(self._performer, name, function, list(items), dict(options)))

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
        name = check_name(name, "name of a branch", forbidden="#")
        return BranchCall(self._performer, name, function, check_branch(name, function))


def _map(performer: Performer, name: str, function: Callable[..., Any], items: Sequence[Any], options: Any) -> Map:
    path, wanted = performer.path(name), wanted_by(function)
    key = options.pop("key", None)
    request = Map(
        path,
        {},
        check_count(
            options.pop("concurrency", None if wanted else CONCURRENCY), f"concurrency of map {name!r}", least=1
        ),
        check_count(options.pop("max_failures", None), f"max_failures of map {name!r}", least=0),
        check_count(options.pop("min_successes", None), f"min_successes of map {name!r}", least=1),
        check_flag(options.pop("return_exceptions", False), f"return_exceptions of map {name!r}"),
    )
    if request.return_exceptions and (request.max_failures is not None or request.min_successes is not None):
        raise TypeError(f"Map {name!r} takes return_exceptions, or max_failures and min_successes, not both.")
    if wanted and options:
        given = ", ".join(options)
        raise TypeError(f"Map {name!r} is over a branch, which takes no {given}: its steps have options of their own.")
    checked = step_options(name, options)
    if wanted:
        check_plain(name, function)
    members: dict[str, RunStep | CallBranch] = {}
    for item, text in zip(items, _keys(performer, name, items, key), strict=True):
        member = performer.path(f"{name}#{item_segment(text)}")
        if wanted:
            members[text] = CallBranch(member, function, (item,), {}, wanted)
        else:
            members[text] = RunStep(member, function, (item,), {}, checked)
    request.members = members
    return request


def _keys(performer: Performer, name: str, items: Sequence[Any], key: Callable[[Any], Any] | None) -> list[str]:
    """The key of each item; raises `TypeError` for what is none, `DuplicateStepName` for two that are equal."""
    positions: dict[str, int] = {}
    for position, item in enumerate(items):
        value = item if key is None else key(item)
        text = key_of(value)
        if text is None:
            what = (
                f"item {position} ({value!r:.80})"
                if key is None
                else f"key= made {value!r:.80} of item {position}, which"
            )
            raise TypeError(
                f"Map {name!r}: {what} is no key. Give key= a function that makes one, such as key=lambda item: "
                'item["id"]: text, a whole number, a UUID, a date, a Decimal, an Enum member or a saved model instance, the '
                "same on every pass. (An index would give an item the result of another one when the list changes.)"
            )
        if text in positions:
            performer.refuse(
                DuplicateStepName(
                    f"{name}#{item_segment(text)}",
                    f"Map {name!r}: the items at the positions {positions[text]} and {position} have the same key {text!r}. "
                    "Give key= a function that tells them apart.",
                )
            )
        positions[text] = position
    return list(positions)
