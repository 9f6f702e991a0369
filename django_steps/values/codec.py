"""Python values ⇄ JSON text, faithfully: what is decoded has the types and the order of what was encoded.

The text is strictly valid, ASCII-only JSON. `CODECS` lists every kind of value that can be recorded; how each of them is
written is in `types.py`, `classes.py` and `instances.py`. What people see of a value, or search for, is made in
`search.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from ..errors import StepsError, UnreadableValue, UnserializableResult, UnserializableValue, ValueTooLarge
from . import classes, instances, types
from .advice import advice
from .types import MAX_DEPTH, TAG, Codec, Pack, Packer, Refused, Unpacker

_dump = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_load = json.JSONDecoder().raw_decode

# No text inside a JSON string looks like these: its quotes are escaped.
_TAG_MARK = f'"{TAG}":'
_INSTANCE_MARK = f'{{"{TAG}":"model",'

# Escaped surrogates side by side: a character beyond U+FFFF, or two lone surrogates that would be read as one.
_SURROGATE_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f]")

_LITERALS = {"null": None, "true": True, "false": False}
_SMALL = 1 << 63
SCALARS = frozenset({type(None), bool, int, float, str})


class Codecs:
    """The kinds of values that a text may hold. Of those that pack a class, the first in the list does it.

    `pack` gives the tree of a value that JSON can hold, or raises `Refused`; `packer_of` gives what packs the instances of a
    class, or None; `unpack` gives what a JSON object stands for, whose members have been read already; `load` reads a text.
    """

    def __init__(self, codecs: Iterable[Codec]) -> None:
        self.all = tuple(codecs)
        self.pack, self.packer_of = _packing(self.all)
        self.unpack = _unpacking(self.all)
        self.load = json.JSONDecoder(object_hook=self.unpack).raw_decode


# All are functions and not methods, since every member of a value takes a call.
def _packing(codecs: Sequence[Codec]) -> tuple[Pack, Callable[[type], Packer | None]]:
    packers: dict[type, Packer] = {codec.packs: codec.pack for codec in codecs if isinstance(codec.packs, type)}

    @lru_cache(maxsize=512)
    def found(cls: type) -> Packer | None:
        return next((c.pack for c in codecs if not isinstance(c.packs, type) and c.packs(cls)), None)

    def packer_of(cls: type) -> Packer | None:
        return packers.get(cls) or found(cls)

    def pack(value: Any, depth: int) -> Any:
        cls: Any = type(value)
        packer = packers.get(cls) or found(cls)
        if packer is None:
            raise Refused(value)
        return packer(value, depth, pack)

    return pack, packer_of


def _unpacking(codecs: Sequence[Codec]) -> Unpacker:
    unpackers: dict[str, Unpacker] = {tag: codec.unpack for codec in codecs for tag in codec.tags if codec.unpack}

    def unpack(node: dict[str, Any]) -> Any:
        kind = node.get(TAG)
        if kind is None:
            return node
        if not isinstance(kind, str) or kind not in unpackers:
            raise UnreadableValue(f"A recorded value is of the kind {kind!r}, which this version doesn't know.")
        try:
            return unpackers[kind](node)
        except StepsError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UnreadableValue(f"A recorded {kind} can't be read: {type(error).__name__}: {error}") from error

    return unpack


# Every kind of value that inputs and results may hold.
CODECS = Codecs(
    [
        types.NONE,
        types.BOOL,
        types.INT,
        types.FLOAT,
        types.STR,
        types.SAFE_STRING,
        types.LIST,
        types.DICT,
        types.TUPLE,
        types.SET,
        types.FROZENSET,
        types.READ_SET,
        types.READ_FROZENSET,
        types.DATETIME,
        types.DATE,
        types.FROZEN_DATETIME,
        types.FROZEN_DATE,
        types.TIME,
        types.TIMEDELTA,
        types.DECIMAL,
        types.UUIDS,
        types.BYTES,
        instances.MODEL,
        classes.ENUM,
        classes.NAMEDTUPLE,
        classes.PYDANTIC,
        classes.DATACLASS,
    ]
)


def encode(value: Any, *, root: str = "result", max_bytes: int | None = None, codecs: Codecs = CODECS) -> str:
    """The value as JSON text.

    `root` is the word that a path in an error starts with; `max_bytes` limits the size of the text; `codecs` are the kinds
    that it may hold. Raises `UnserializableValue` (of a result, `UnserializableResult`), naming the path to what can't
    be encoded, and `ValueTooLarge`.

    >>> encode({"total": Decimal("9.90"), "seen": (1, 2)})
    '{"total":{"$":"Decimal","v":"9.90"},"seen":{"$":"tuple","v":[1,2]}}'
    """
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) is int and -_SMALL < value < _SMALL:
        return repr(value)
    try:
        text = _encode_plain(value)
        if text is None:
            text = _dump(codecs.pack(value, MAX_DEPTH))
    except Refused as refused:
        raise _unserializable(root)(_explain(refused, root)) from None
    except Exception as error:
        raise _unserializable(root)(f"{root} can't be encoded: {type(error).__name__}: {error}") from error
    if max_bytes is not None and len(text) > max_bytes:
        raise ValueTooLarge(
            f"{root} has {len(text):,} bytes when encoded, and the limit is {max_bytes:,} "
            '(DJANGO_STEPS["MAX_VALUE_BYTES"]). Store the value and return a reference to it, such as a primary key.'
        )
    return text


def decode(text: str, codecs: Codecs = CODECS) -> Any:
    """The value that `encode` wrote with these codecs, as a fresh object.

    Raises `RecordedInstanceGone` when a row that it refers to is gone, and `UnreadableValue` when a class is.
    """
    if len(text) < 6 and text in _LITERALS:
        return _LITERALS[text]
    try:
        if _TAG_MARK not in text:
            return _load(text)[0]
        if text.count(_INSTANCE_MARK) < 2 or instances.MODEL not in codecs.all:
            return codecs.load(text)[0]
        return _load_with_instances(text, codecs)
    except json.JSONDecodeError as error:
        raise UnreadableValue(f"A recorded value is no valid JSON: {error}.") from error


def _load_with_instances(text: str, codecs: Codecs) -> Any:
    rows, unpack = instances.Instances(), codecs.unpack
    json.loads(text, object_hook=rows.note)
    rows.load(lambda pk: json.loads(json.dumps(pk), object_hook=unpack))
    return json.loads(text, object_hook=lambda node: rows.get(node) if node.get(TAG) == "model" else unpack(node))


# -- What JSON can hold as it is -----------------------------------------------------------------


def _encode_plain(value: Any) -> str | None:
    """The text of a value that needs no tags, or None."""
    kind = type(value)
    if kind is list or kind is dict:
        if not _is_plain(value, MAX_DEPTH):
            return None
    elif kind not in SCALARS:
        return None
    try:
        text = _dump(value)
    except ValueError:  # NaN, infinity, or too long an integer
        return None
    if "\\ud" in text and _SURROGATE_PAIR.search(text) and _load(text)[0] != value:
        return None
    return text


def _is_plain(container: Any, depth: int) -> bool:
    if depth <= 0:
        return False
    items = container
    if type(container) is dict:
        if TAG in container:
            return False
        for key in container:
            if type(key) is not str:
                return False
        items = container.values()
    for item in items:
        kind = type(item)
        if kind in SCALARS:
            continue
        if kind is not list and kind is not dict:
            return False
        if not _is_plain(item, depth - 1):
            return False
    return True


# -- Messages ------------------------------------------------------------------------------------


def _unserializable(root: str) -> type[UnserializableValue]:
    return UnserializableResult if root == "result" else UnserializableValue


def _explain(refused: Refused, root: str) -> str:
    path = root
    seen: dict[int, str] = {}
    for place, container in reversed(refused.path):
        if id(container) in seen:
            return f"{_short(path)} is {seen[id(container)]} again: a value that contains itself can't be recorded."
        seen[id(container)] = path
        path += place
    name = classes.shown_name(type(refused.value))
    return f"{_short(path)}: <class {name!r}> can't be recorded; {refused.advice or advice(refused.value)}"


def _short(path: str) -> str:
    return path if len(path) <= 300 else f"{path[:150]} … {path[-150:]}"
