"""Python values ⇄ JSON text, faithfully: what is decoded has the types and the order of what was encoded.

The text is strictly valid, ASCII-only JSON. How single kinds of values are written is in `value_types.py`,
`value_classes.py` and `value_instances.py`; what people see of a value, or search for, is made in `value_views.py`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import UnreadableValue, UnserializableResult, UnserializableValue, ValueTooLarge
from .advice import advice
from .instances import Instances
from .search import masked, searchable
from .types import MAX_DEPTH, TAG, Refused, pack, unpack

__all__ = ["decode", "encode", "holds_instances", "masked", "searchable"]

_dump = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_load = json.JSONDecoder().raw_decode
_load_tagged = json.JSONDecoder(object_hook=unpack).raw_decode

# No text inside a JSON string looks like these: its quotes are escaped.
_TAG_MARK = f'"{TAG}":'
_INSTANCE_MARK = f'{{"{TAG}":"model",'

# Escaped surrogates side by side: a character beyond U+FFFF, or two lone surrogates that would be read as one.
_SURROGATE_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f]")

_LITERALS = {"null": None, "true": True, "false": False}
_SMALL = 1 << 63
_SCALARS = frozenset({type(None), bool, int, float, str})


def encode(value: Any, *, root: str = "result", max_bytes: int | None = None) -> str:
    """The value as JSON text.

    `root` is the word that a path in an error starts with; `max_bytes` limits the size of the text. Raises
    `UnserializableValue` (of a result, `UnserializableResult`), naming the path to what can't be encoded, and
    `ValueTooLarge`.

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
            text = _dump(pack(value))
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


def decode(text: str) -> Any:
    """The value that `encode` wrote, as a fresh object.

    Raises `RecordedInstanceGone` when a row that it refers to is gone, and `UnreadableValue` when a class is.
    """
    if len(text) < 6 and text in _LITERALS:
        return _LITERALS[text]
    try:
        if _TAG_MARK not in text:
            return _load(text)[0]
        if text.count(_INSTANCE_MARK) < 2:
            return _load_tagged(text)[0]
        return _load_with_instances(text)
    except json.JSONDecodeError as error:
        raise UnreadableValue(f"A recorded value is no valid JSON: {error}.") from error


def holds_instances(text: str) -> bool:
    """Whether decoding the text loads model instances from the database."""
    return _INSTANCE_MARK in text


def _load_with_instances(text: str) -> Any:
    instances = Instances()
    json.loads(text, object_hook=instances.note)
    instances.load(lambda pk: json.loads(json.dumps(pk), object_hook=unpack))
    return json.loads(text, object_hook=lambda node: instances.get(node) if node.get(TAG) == "model" else unpack(node))


# -- What JSON can hold as it is -----------------------------------------------------------------


def _encode_plain(value: Any) -> str | None:
    """The text of a value that needs no tags, or None."""
    kind = type(value)
    if kind is list or kind is dict:
        if not _is_plain(value, MAX_DEPTH):
            return None
    elif kind not in _SCALARS:
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
        if kind in _SCALARS:
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
    cls = type(refused.value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{_short(path)}: <class {name!r}> can't be recorded; {refused.advice or advice(refused.value)}"


def _short(path: str) -> str:
    return path if len(path) <= 300 else f"{path[:150]} … {path[-150:]}"
