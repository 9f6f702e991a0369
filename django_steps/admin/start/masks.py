"""Putting values back where an edited input has the mask in their place, and only where it is certain which.

Keys lead to values for certain. Entries of a list may have been moved, added and removed, so an entry with a mask is
known only by all that is shown of it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from ...presentation.values import Mask
from ...values.search import MASK


def restore(value: Any, shown: Any, original: Any, mask: Mask) -> tuple[Any, list[str]]:
    """The value without masks, and the places whose masks stand for what isn't known.

    `shown` is what the pattern's input looked like, `original` the same without masks; None where there is none.

    >>> shown, original = {"token": MASK, "n": 1}, {"token": "x", "n": 1}
    >>> restore({"token": MASK, "n": 2}, shown, original, Mask(["token"]))
    ({'token': 'x', 'n': 2}, [])
    >>> restore([{"token": MASK}], None, None, Mask(["token"]))
    ([{'token': '********'}], ['[0].token'])
    """
    unknown: list[str] = []
    return _restored(value, shown, original, mask, "", unknown), unknown


def _restored(value: Any, shown: Any, original: Any, mask: Mask, place: str, unknown: list[str]) -> Any:
    if isinstance(value, dict):
        return _members(value, shown, original, mask, place, unknown)
    if isinstance(value, list):
        return _items(value, shown, original, mask, place, unknown)
    return value


def _members(
    value: dict[str, Any], shown: Any, original: Any, mask: Mask, place: str, unknown: list[str]
) -> dict[str, Any]:
    if not (isinstance(shown, dict) and isinstance(original, dict)):
        shown, original = {}, {}
    restored = {}
    for key, item in value.items():
        where = f"{place}.{key}" if place else key
        is_mask = isinstance(item, str) and item == MASK
        if is_mask and shown.get(key) == MASK and key in original:
            restored[key] = original[key]
            continue
        if is_mask and mask.hides(key):
            unknown.append(where)
        restored[key] = _restored(item, shown.get(key), original.get(key), mask, where, unknown)
    return restored


def _items(value: list[Any], shown: Any, original: Any, mask: Mask, place: str, unknown: list[str]) -> list[Any]:
    if not (isinstance(shown, list) and isinstance(original, list)):
        shown, original = list[Any](), list[Any]()
    if _text(value) == _text(shown):
        return list(original)
    looks: dict[str, list[Any]] = defaultdict(list)
    for look, item in zip(shown, original, strict=True):
        looks[_text(look)].append(item)
    restored: list[Any] = []
    for index, item in enumerate(value):
        candidates = looks.get(_text(item), [])
        if candidates and all(candidate == candidates[0] for candidate in candidates):
            restored.append(candidates[0])
        else:
            restored.append(_restored(item, None, None, mask, f"{place}[{index}]", unknown))
    return restored


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)
