"""How each built-in kind of value is written as JSON, and how it is read back.

What JSON knows is written as it is; everything else becomes an object with the key `"$"`, which names the kind:
`{"$": "Decimal", "v": "1.10"}`. A dict that has such a key itself is tagged too, so the two can't be confused.
Classes of users are in `value_classes.py`; the text, its limits and the messages are in `values.py`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from json import dumps
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

from ..errors import StepsError, UnreadableValue

Packer = Callable[[Any, int], Any]
Unpacker = Callable[[dict[str, Any]], Any]

TAG = "$"
# Fixed, not Python's recursion limit: what could be written must be readable on any stack.
MAX_DEPTH = 100
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep: flatten it, or store it and return a reference."
# Python itself refuses to convert longer integers from and to text.
_MAX_INT_BITS = 14_280
# Between two code points that JSON would join to one character.
_BETWEEN_SURROGATES = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")


class Refused(Exception):
    """A value that can't be written. `path` collects the way to it, innermost first, while the call unwinds."""

    def __init__(self, value: Any, advice: str | None = None) -> None:
        self.value, self.advice = value, advice
        self.path: list[tuple[str, Any]] = []


def pack(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The value as a tree that JSON can hold; raises `Refused`."""
    cls: Any = type(value)
    packer = PACKERS.get(cls) or packer_of(cls)
    if packer is None:
        raise Refused(value)
    return packer(value, depth)


@lru_cache(maxsize=512)
def packer_of(cls: type) -> Packer | None:
    """What packs the instances of a class that is not in `PACKERS`, if anything does."""
    return next((packer for applies, packer in CLASS_PACKERS if applies(cls)), None)


def unpack(node: dict[str, Any]) -> Any:
    """What a JSON object stands for; its members have been read already."""
    kind = node.get(TAG)
    if kind is None:
        return node
    if not isinstance(kind, str) or kind not in UNPACKERS:
        raise UnreadableValue(f"A recorded value is of the kind {kind!r}, which this version doesn't know.")
    try:
        return UNPACKERS[kind](node)
    except StepsError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadableValue(f"A recorded {kind} can't be read: {type(error).__name__}: {error}") from error


# -- Numbers and text ----------------------------------------------------------------------------


def _as_it_is(value: Any, depth: int) -> Any:
    return value


def _pack_int(value: int, depth: int) -> int:
    if value.bit_length() > _MAX_INT_BITS:
        raise Refused(value, "an integer of more than 4,298 digits has no text in Python: use hex(value) or bytes.")
    return value


def _pack_float(value: float, depth: int) -> Any:
    return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}


def splits_a_character(text: str) -> bool:
    """Whether the text has two surrogates side by side, which JSON would read as one character."""
    return not text.isascii() and _BETWEEN_SURROGATES.search(text) is not None


def _pack_str(value: str, depth: int) -> Any:
    return {TAG: "str", "v": _BETWEEN_SURROGATES.split(value)} if splits_a_character(value) else value


def _pack_safe_string(value: SafeString, depth: int) -> Any:
    return {TAG: "SafeString", "v": _pack_str(str.__str__(value), depth)}


def _pack_text(kind: str, text: Callable[[Any], str]) -> Packer:
    return lambda value, depth: {TAG: kind, "v": text(value)}


def _pack_timedelta(value: timedelta, depth: int) -> Any:
    return {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]}


# -- Dates and times -----------------------------------------------------------------------------


def _pack_datetime(value: datetime, depth: int) -> Any:
    if value.tzinfo is None or value.tzinfo is UTC:
        node = {TAG: "datetime", "v": value.isoformat()}
    else:
        node = {TAG: "datetime", "v": value.replace(tzinfo=None).isoformat(), "tz": _pack_zone(value)}
    return node | {"fold": 1} if value.fold else node


def _pack_time(value: time, depth: int) -> Any:
    node: dict[str, Any] = {TAG: "time", "v": value.replace(tzinfo=None).isoformat()}
    if value.tzinfo is not None:
        node["tz"] = _pack_zone(value)
    return node | {"fold": 1} if value.fold else node


def _pack_zone(value: datetime | time) -> Any:
    zone: Any = value.tzinfo
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # what copying and pickling use
        return [offset // timedelta(microseconds=1), *name]
    raise Refused(value, f"its time zone is {zone!r}: use zoneinfo.ZoneInfo(…) or datetime.timezone.")


def _unpack_datetime(node: dict[str, Any]) -> datetime:
    value = datetime.fromisoformat(node["v"])
    if "tz" in node:
        value = value.replace(tzinfo=_unpack_zone(node["tz"]))
    return value.replace(fold=1) if "fold" in node else value


def _unpack_time(node: dict[str, Any]) -> time:
    zone = _unpack_zone(node["tz"]) if "tz" in node else None
    return time.fromisoformat(node["v"]).replace(tzinfo=zone, fold=node.get("fold", 0))


def _unpack_zone(zone: Any) -> tzinfo:
    if isinstance(zone, str):
        return ZoneInfo(zone)
    offset, *name = zone
    return timezone(timedelta(microseconds=offset), *name)


# -- Containers ----------------------------------------------------------------------------------


def _pack_items(container: Any, items: Iterable[Any], depth: int, place: Callable[[int], str]) -> list[Any]:
    if depth <= 0:
        raise Refused(container, _TOO_DEEP)
    out: list[Any] = []
    try:
        for item in items:
            out.append(pack(item, depth - 1))
    except Refused as refused:
        refused.path.append((place(len(out)), container))
        raise
    return out


def pack_members(
    container: Any, members: Mapping[str, Any], depth: int, place: Callable[[str], str] = ".{}".format
) -> dict[str, Any]:
    """Named members, packed; `place` says how a member is reached from its container."""
    if depth <= 0:
        raise Refused(container, _TOO_DEEP)
    out: dict[str, Any] = {}
    name = ""
    try:
        for name, member in members.items():
            out[name] = pack(member, depth - 1)
    except Refused as refused:
        refused.path.append((place(name), container))
        raise
    return out


def _pack_list(value: list[Any], depth: int) -> Any:
    return _pack_items(value, value, depth, "[{}]".format)


def _pack_tuple(value: tuple[Any, ...], depth: int) -> Any:
    return {TAG: "tuple", "v": _pack_items(value, value, depth, "[{}]".format)}


def _pack_set(value: set[Any] | frozenset[Any], depth: int) -> Any:
    # Sorted, so that equal sets give equal text in every process.
    return {TAG: type(value).__name__, "v": sorted(_pack_items(value, value, depth, lambda _: "{…}"), key=dumps)}


def _pack_dict(value: dict[Any, Any], depth: int) -> Any:
    if TAG not in value and all(type(key) is str and not splits_a_character(key) for key in value):
        return pack_members(value, value, depth, _place_of_key)
    names = list(value)
    keys = _pack_items(value, names, depth, lambda _: ".keys()")
    items = _pack_items(value, value.values(), depth, lambda index: _place_of_key(names[index]))
    return {TAG: "dict", "v": [list(pair) for pair in zip(keys, items, strict=True)]}


def _place_of_key(key: Any) -> str:
    text = dumps(key, ensure_ascii=False) if type(key) is str else repr(key)
    return f"[{text if len(text) <= 60 else text[:59] + '…'}]"


# -- The tables ----------------------------------------------------------------------------------

PACKERS: dict[type, Packer] = {
    NoneType: _as_it_is,
    bool: _as_it_is,
    int: _pack_int,
    float: _pack_float,
    str: _pack_str,
    SafeString: _pack_safe_string,
    list: _pack_list,
    dict: _pack_dict,
    tuple: _pack_tuple,
    set: _pack_set,
    frozenset: _pack_set,
    datetime: _pack_datetime,
    date: _pack_text("date", date.isoformat),
    time: _pack_time,
    timedelta: _pack_timedelta,
    Decimal: _pack_text("Decimal", str),
    UUID: _pack_text("UUID", str),
    bytes: _pack_text("bytes", lambda value: base64.b64encode(value).decode("ascii")),
}
# For other classes: the first whose condition applies. Filled, with their `UNPACKERS`, by `value_classes.py` and
# `value_instances.py`.
CLASS_PACKERS: list[tuple[Callable[[type], bool], Packer]] = []
UNPACKERS: dict[str, Unpacker] = {
    "float": lambda node: float(node["v"]),
    "str": lambda node: "".join(node["v"]),
    "SafeString": lambda node: SafeString(node["v"]),
    "dict": lambda node: {key: item for key, item in node["v"]},  # noqa: C416
    "tuple": lambda node: tuple(node["v"]),
    "set": lambda node: set(node["v"]),
    "frozenset": lambda node: frozenset(node["v"]),
    "datetime": _unpack_datetime,
    "date": lambda node: date.fromisoformat(node["v"]),
    "time": _unpack_time,
    "timedelta": lambda node: timedelta(*node["v"]),
    "Decimal": lambda node: Decimal(node["v"]),
    "UUID": lambda node: UUID(node["v"]),
    "bytes": lambda node: base64.b64decode(node["v"]),
}
