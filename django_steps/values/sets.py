"""Sets that were recorded: they are read in the same order in every process.

The order of a plain set of texts depends on their hashes, which differ in each process. A body that goes through such
a set would come to other steps on its next pass. So the items have the order of the record here, also in what operators
and methods make of the set. To everything else these are sets as any other; pickled they are plain ones.

Not here: how a set is written, which is in `types.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, Self


def _method(name: str) -> Callable[..., Any]:
    """A method that returns a new set: `union` and the like."""

    def method(self: Any, *others: Iterable[Any]) -> Any:
        lists = [list(other) for other in others]  # iterators can be read only once
        result = getattr(self._plain(), name)(*lists)
        return type(self)(item for item in chain(self, *lists) if item in result)

    method.__name__ = name
    return method


def _operator(name: str) -> Callable[..., Any]:
    """A binary operator that returns a new set: `__or__` and the like."""

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        result = getattr(self._plain(), name)(frozenset(other))
        return type(self)(item for item in chain(self, other) if item in result)

    method.__name__ = name
    return method


class _Ordered:
    """What both kinds have in common. `_order` holds the items, in order."""

    __slots__ = ()

    _order: dict[Any, None]

    def _in_order(self) -> dict[Any, None]:
        return self._order

    def _plain(self) -> Any:
        """The same items in a plain set, whose methods are called instead of those here."""
        return frozenset(self._in_order())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._in_order())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (set if isinstance(self, set) else frozenset), (list(self),)

    def copy(self) -> Self:
        return type(self)(self._in_order())  # type: ignore[call-arg]

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(copy.deepcopy(list(self), memo))  # type: ignore[call-arg]

    union, intersection = _method("union"), _method("intersection")
    difference, symmetric_difference = _method("difference"), _method("symmetric_difference")
    __or__, __and__, __sub__, __xor__ = map(_operator, ("__or__", "__and__", "__sub__", "__xor__"))
    __ror__, __rand__, __rsub__, __rxor__ = map(_operator, ("__ror__", "__rand__", "__rsub__", "__rxor__"))


class RecordedFrozenSet(_Ordered, frozenset[Any]):
    """A frozenset that is read in the order in which it was made."""

    __slots__ = ("_order",)

    def __new__(cls, items: Iterable[Any] = ()) -> Self:
        order = dict.fromkeys(items)
        self = super().__new__(cls, order)
        self._order = order
        return self

    def __repr__(self) -> str:
        return f"frozenset({{{', '.join(map(repr, self))}}})" if self else "frozenset()"


class RecordedSet(_Ordered, set[Any]):
    """A set that is read in the order in which items were added."""

    __slots__ = ("_order",)

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order = dict.fromkeys(items)
        super().__init__(self._order)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"

    def _in_order(self) -> dict[Any, None]:
        if self._order.keys() != self:  # code in C, such as pydantic's, has changed the set past the methods here
            kept = [item for item in self._order if item in self]
            self._order = dict.fromkeys([*kept, *set.__iter__(self)])
        return self._order

    def add(self, item: Any) -> None:
        super().add(item)
        self._order.setdefault(item)

    def discard(self, item: Any) -> None:
        if item in self:
            self.remove(item)

    def remove(self, item: Any) -> None:
        super().remove(item)
        # Of a set that is an item, an equal frozenset is removed.
        self._order.pop(frozenset(item) if isinstance(item, set) else item, None)

    def pop(self) -> Any:
        """Remove the first item, and return it."""
        if not self:
            raise KeyError("pop from an empty set")
        item = next(iter(self))
        self.remove(item)
        return item

    def clear(self) -> None:
        super().clear()
        self._order.clear()

    def update(self, *others: Iterable[Any]) -> None:
        self._become(self.union(*others))

    def intersection_update(self, *others: Iterable[Any]) -> None:
        self._become(self.intersection(*others))

    def difference_update(self, *others: Iterable[Any]) -> None:
        self._become(self.difference(*others))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        self._become(self.symmetric_difference(other))

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        return self._changed(self | other) if isinstance(other, AbstractSet) else NotImplemented

    def __iand__(self, other: Any) -> Any:  # type: ignore[misc]
        return self._changed(self & other) if isinstance(other, AbstractSet) else NotImplemented

    def __isub__(self, other: Any) -> Any:  # type: ignore[misc]
        return self._changed(self - other) if isinstance(other, AbstractSet) else NotImplemented

    def __ixor__(self, other: Any) -> Any:  # type: ignore[misc]
        return self._changed(self ^ other) if isinstance(other, AbstractSet) else NotImplemented

    def _changed(self, items: Iterable[Any]) -> Self:
        self._become(items)
        return self

    def _become(self, items: Iterable[Any]) -> None:
        order = dict.fromkeys(items)
        self.clear()
        super().update(order)
        self._order = order
