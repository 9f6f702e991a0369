"""What people see of a value, and what queries search: both are lossy, and neither is ever decoded.

The faithful text of a value is made in `codec.py`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from json import dumps
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.utils.duration import duration_iso_string

from .classes import (
    dataclass_state,
    dataclass_with,
    is_namedtuple,
    is_plain_dataclass,
    is_pydantic,
    pydantic_state,
    pydantic_with,
)
from .instances import primary_key
from .sets import RecordedFrozenSet, RecordedSet
from .types import MAX_DEPTH

MASK = "********"

# MariaDB refuses JSON that is nested 32 levels deep.
_SEARCHABLE_DEPTH = 30
_CUT_OFF = "…"
_NOT_IN_DATABASES = dict.fromkeys([0, *range(0xD800, 0xE000)])
_TEXTS: dict[type, Callable[[Any], str]] = {
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: duration_iso_string,
    Decimal: str,
    UUID: str,
    bytes: lambda value: base64.b64encode(value).decode("ascii"),
}


def searchable(value: Any, mask: Collection[str] = ()) -> Any:
    """A lossy copy of plain JSON types, for a `JSONField` that queries search.

    Every database takes it: text is without NUL and lone surrogates, integers that need more than 64 bits are text,
    and what lies more than 30 levels deep is `"…"`. The values of the keys in `mask` are `"********"`, at every depth.

    >>> searchable({"day": date(2024, 1, 31), "tags": ("a",), "token": "x"}, mask=("token",))
    {'day': '2024-01-31', 'tags': ['a'], 'token': '********'}
    """
    return _searchable(value, frozenset(mask), _SEARCHABLE_DEPTH)


def masked(value: Any, mask: Collection[str]) -> Any:
    """The value with `"********"` for the values of the keys in `mask`, at every depth.

    Keys are those of dicts, and the names of fields of dataclasses, pydantic models and namedtuples.

    >>> masked({"user": {"name": "Ann", "token": "x"}}, mask=("token",))
    {'user': {'name': 'Ann', 'token': '********'}}
    """
    return _masked(value, frozenset(mask), MAX_DEPTH) if mask else value


# -- Searchable ----------------------------------------------------------------------------------


def _searchable(value: Any, mask: frozenset[str], depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _clean(value)
    if kind is int:
        return value if -(1 << 63) <= value < 1 << 63 else _clean_integer(value)
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if kind in _TEXTS:
        return _TEXTS[kind](value)
    if isinstance(value, date):  # or a datetime; of a class that stands in for the plain one
        return value.isoformat()
    if isinstance(value, Enum):
        return _searchable(value.value, mask, depth)
    if isinstance(value, str):
        return _clean(str.__str__(value))
    if depth <= 0:
        return _CUT_OFF
    if isinstance(value, Model):
        return {"model": value._meta.label, "pk": _searchable(primary_key(value), mask, depth - 1)}
    members = _members(value)
    if members is not None:
        return {
            _searchable_key(key): MASK if _is_masked(key, mask) else _searchable(member, mask, depth - 1)
            for key, member in members.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_searchable(item, mask, depth - 1) for item in value]
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_masked(key: Any, mask: frozenset[str]) -> bool:
    """Whether the mask has the key, or the name or value of a key that is a member of an Enum."""
    if type(key) is str or not mask:
        return key in mask
    if isinstance(key, Enum):
        return key.name in mask or str(key.value) in mask
    return isinstance(key, str) and str.__str__(key) in mask


def _searchable_key(key: Any) -> str:
    text = _searchable(key, frozenset(), 2)
    return text if isinstance(text, str) else dumps(text)


def _clean(text: str) -> str:
    # ASCII text, the usual case, can only hold a NUL.
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.translate(_NOT_IN_DATABASES)


def _clean_integer(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python converts
        return hex(value)


def _members(value: Any) -> Mapping[Any, Any] | None:
    cls = type(value)
    if isinstance(value, dict):
        return value
    if is_namedtuple(cls):
        return dict(zip(value._fields, value, strict=True))
    if is_pydantic(cls):
        state = pydantic_state(value)
        return {**state["__dict__"], **(state["__pydantic_extra__"] or {})}
    if is_plain_dataclass(cls):
        return dataclass_state(value)
    return None


# -- Masked --------------------------------------------------------------------------------------


def _masked(value: Any, mask: frozenset[str], depth: int) -> Any:
    if depth <= 0:
        return MASK
    cls = type(value)
    if cls in (list, tuple, set, frozenset, RecordedSet, RecordedFrozenSet):
        return cls(_masked(item, mask, depth - 1) for item in value)
    if isinstance(value, dict):
        return _masked_members(value, mask, depth)
    if isinstance(value, (Enum, Model)):
        return value
    if is_namedtuple(cls):
        return tuple.__new__(cls, _masked_members(_members(value) or {}, mask, depth).values())
    if is_pydantic(cls):
        return pydantic_with(cls, _masked_state(pydantic_state(value), mask, depth))
    if is_plain_dataclass(cls):
        return dataclass_with(cls, _masked_members(dataclass_state(value), mask, depth))
    return value


def _masked_members(members: Mapping[Any, Any], mask: frozenset[str], depth: int) -> dict[Any, Any]:
    return {key: MASK if _is_masked(key, mask) else _masked(member, mask, depth - 1) for key, member in members.items()}


def _masked_state(state: dict[str, Any], mask: frozenset[str], depth: int) -> dict[str, Any]:
    return {
        part: _masked_members(members, mask, depth) if isinstance(members, dict) else members
        for part, members in state.items()
    }
