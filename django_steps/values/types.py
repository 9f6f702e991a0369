"""How each built-in kind of value is written as JSON, and how it is read back.

What JSON knows is written as it is; everything else becomes an object with the key `"$"`, which names the kind:
`{"$": "Decimal", "v": "1.10"}`. A dict that has such a key itself is tagged too, so the two can't be confused.
Classes of users are in `classes.py`; the list of all codecs, the text and the messages are in `codec.py`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from json import dumps
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

from .sets import RecordedFrozenSet, RecordedSet

TAG = "$"
# Fixed, not Python's recursion limit: what could be written must be readable on any stack.
MAX_DEPTH = 100
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep: flatten it, or store it and return a reference."
# Python itself refuses to convert longer integers from and to text.
_MAX_INT_BITS = 14_280
# Between two code points that JSON would join to one character.
_BETWEEN_SURROGATES = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")
_MICROSECOND = timedelta(microseconds=1)

Pack = Callable[[Any, int], Any]  # gives the tree of a value that may be nested so many levels deep
Packer = Callable[[Any, int, Pack], Any]  # the last one is for what the value holds
Unpacker = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one kind of value is written as JSON and read back.

    - `packs`: the class whose own instances it packs, not those of subclasses; or what says of a class whether it does.
    - `pack`: gives a tree that JSON can hold, or raises `Refused`.
    - `tags`: what `"$"` is in the objects that it writes; none if it writes plain JSON only.
    - `unpack`: gives the value of such an object, whose members have been read already.
    """

    packs: type | Callable[[type], bool]
    pack: Packer
    tags: tuple[str, ...] = ()
    unpack: Unpacker | None = None


class Refused(Exception):
    """A value that can't be written. `path` collects the way to it, innermost first, while the call unwinds."""

    def __init__(self, value: Any, advice: str | None = None) -> None:
        self.value, self.advice = value, advice
        self.path: list[tuple[str, Any]] = []


# -- Numbers and text ----------------------------------------------------------------------------


def _as_it_is(value: Any, depth: int, pack: Pack) -> Any:
    return value


def _pack_int(value: int, depth: int, pack: Pack) -> int:
    if value.bit_length() > _MAX_INT_BITS:
        raise Refused(value, "an integer of more than 4,298 digits has no text in Python: use hex(value) or bytes.")
    return value


def _pack_float(value: float, depth: int, pack: Pack) -> Any:
    return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}


def splits_a_character(text: str) -> bool:
    """Whether the text has two surrogates side by side, which JSON would read as one character."""
    return not text.isascii() and _BETWEEN_SURROGATES.search(text) is not None


def _pack_str(value: str, depth: int, pack: Pack) -> Any:
    return {TAG: "str", "v": _BETWEEN_SURROGATES.split(value)} if splits_a_character(value) else value


def _pack_safe_string(value: SafeString, depth: int, pack: Pack) -> Any:
    return {TAG: "SafeString", "v": pack(str.__str__(value), depth)}


def _pack_timedelta(value: timedelta, depth: int, pack: Pack) -> Any:
    return {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]}


# -- Dates and times -----------------------------------------------------------------------------

# Not looked up when a value is read: a test may have replaced the classes for the time that it freezes.
_read_datetime, _read_date = datetime.fromisoformat, date.fromisoformat


def frozen(kind: type) -> Callable[[type], bool]:
    """Whether a class is the one that freezegun puts in the place of `kind`; its instances are recorded as plain ones."""
    return lambda cls: cls.__module__.partition(".")[0] == "freezegun" and kind in cls.__mro__


def _pack_datetime(value: datetime, depth: int, pack: Pack) -> Any:
    fold = value.fold
    if value.tzinfo is None or value.tzinfo is UTC:
        node = {TAG: "datetime", "v": value.isoformat()}
    else:
        zone, fold = _pack_zone(value)
        node = {TAG: "datetime", "v": value.replace(tzinfo=None).isoformat(), "tz": zone}
    return node | {"fold": 1} if fold else node


def _pack_time(value: time, depth: int, pack: Pack) -> Any:
    node: dict[str, Any] = {TAG: "time", "v": value.replace(tzinfo=None).isoformat()}
    if value.tzinfo is not None:
        node["tz"], _ = _pack_zone(value)
    return node | {"fold": 1} if value.fold else node


def _pack_zone(value: datetime | time) -> tuple[Any, int]:
    """How the zone is written, a key or an offset, and the fold that the value has in the zone that is read."""
    zone: Any = value.tzinfo
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key, value.fold
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # what copying and pickling use
        return [offset // _MICROSECOND, *name], value.fold
    return _pack_zone_of_another_class(value)


def _pack_zone_of_another_class(value: datetime | time) -> tuple[Any, int]:
    """By its key, if the zone of that key has the same offset at that time; otherwise by its offset at that time."""
    own_offset = value.utcoffset()
    known = _zone_of_the_same_key(value.tzinfo)
    for fold in (value.fold, 1 - value.fold):  # zones of pytz tell two equal hours apart without it
        if known is not None and value.replace(tzinfo=known, fold=fold).utcoffset() == own_offset:
            return known.key, fold
    if own_offset is None:
        raise Refused(value, f"its time zone is {value.tzinfo!r}: use zoneinfo.ZoneInfo(…) or datetime.timezone.")
    return [own_offset // _MICROSECOND], value.fold


def _zone_of_the_same_key(zone: Any) -> ZoneInfo | None:
    """The zone of the standard library for one that names its key: as `key`, or as `zone` in pytz."""
    key = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if not isinstance(key, str):
        return None
    try:
        return ZoneInfo(key)
    except (LookupError, OSError, ValueError):  # no such key, a directory, a path that leads elsewhere
        return None


def _unpack_datetime(node: dict[str, Any]) -> datetime:
    value = _read_datetime(node["v"])
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


def _pack_items(
    container: Any, items: Iterable[Any], depth: int, pack: Pack, place: Callable[[int], str] = "[{}]".format
) -> list[Any]:
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
    container: Any, members: Mapping[str, Any], depth: int, pack: Pack, place: Callable[[str], str] = ".{}".format
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


def _pack_list(value: list[Any], depth: int, pack: Pack) -> Any:
    return _pack_items(value, value, depth, pack)


def _pack_tuple(value: tuple[Any, ...], depth: int, pack: Pack) -> Any:
    return {TAG: "tuple", "v": _pack_items(value, value, depth, pack)}


def _pack_set(value: set[Any] | frozenset[Any], depth: int, pack: Pack) -> Any:
    # Sorted, so that equal sets give equal text in every process. What is read has this order, also on the first pass.
    node = pack_set_in_its_order(value, depth, pack)
    node["v"].sort(key=dumps)
    return node


def pack_set_in_its_order(value: set[Any] | frozenset[Any], depth: int, pack: Pack) -> dict[str, Any]:
    """A set with its items in the order that it has in this process."""
    items = _pack_items(value, value, depth, pack, lambda _: "{…}")
    return {TAG: "set" if isinstance(value, set) else "frozenset", "v": items}


def _pack_dict(value: dict[Any, Any], depth: int, pack: Pack) -> Any:
    if TAG not in value and all(type(key) is str and not splits_a_character(key) for key in value):
        return pack_members(value, value, depth, pack, _place_of_key)
    names = list(value)
    keys = _pack_items(value, names, depth, pack, lambda _: ".keys()")
    items = _pack_items(value, value.values(), depth, pack, lambda index: _place_of_key(names[index]))
    return {TAG: "dict", "v": [list(pair) for pair in zip(keys, items, strict=True)]}


def _place_of_key(key: Any) -> str:
    text = dumps(key, ensure_ascii=False) if type(key) is str else repr(key)
    return f"[{text if len(text) <= 60 else text[:59] + '…'}]"


# -- Their codecs --------------------------------------------------------------------------------


def _as_text(cls: type, text: Callable[[Any], str], read: Callable[[str], Any]) -> Codec:
    """Of a kind whose whole value is in a text."""
    tag = cls.__name__
    return Codec(cls, lambda value, depth, pack: {TAG: tag, "v": text(value)}, (tag,), lambda node: read(node["v"]))


NONE = Codec(NoneType, _as_it_is)
BOOL = Codec(bool, _as_it_is)
INT = Codec(int, _pack_int)
FLOAT = Codec(float, _pack_float, ("float",), lambda node: float(node["v"]))
STR = Codec(str, _pack_str, ("str",), lambda node: "".join(node["v"]))
SAFE_STRING = Codec(SafeString, _pack_safe_string, ("SafeString",), lambda node: SafeString(node["v"]))
LIST = Codec(list, _pack_list)
DICT = Codec(dict, _pack_dict, ("dict",), lambda node: {key: item for key, item in node["v"]})  # noqa: C416
TUPLE = Codec(tuple, _pack_tuple, ("tuple",), lambda node: tuple(node["v"]))
SET = Codec(set, _pack_set, ("set",), lambda node: RecordedSet(node["v"]))
FROZENSET = Codec(frozenset, _pack_set, ("frozenset",), lambda node: RecordedFrozenSet(node["v"]))
READ_SET = Codec(RecordedSet, _pack_set)
READ_FROZENSET = Codec(RecordedFrozenSet, _pack_set)
DATETIME = Codec(datetime, _pack_datetime, ("datetime",), _unpack_datetime)
DATE = _as_text(date, date.isoformat, _read_date)
FROZEN_DATETIME = Codec(frozen(datetime), _pack_datetime)
FROZEN_DATE = Codec(frozen(date), DATE.pack)
TIME = Codec(time, _pack_time, ("time",), _unpack_time)
TIMEDELTA = Codec(timedelta, _pack_timedelta, ("timedelta",), lambda node: timedelta(*node["v"]))
DECIMAL = _as_text(Decimal, str, Decimal)
UUIDS = _as_text(UUID, str, UUID)
BYTES = _as_text(bytes, lambda value: base64.b64encode(value).decode("ascii"), base64.b64decode)
