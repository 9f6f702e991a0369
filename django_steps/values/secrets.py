"""The masked values within a recorded value, as they may appear in a line of text.

How masked values are shown is in `search.py`, and in the presentation of recorded values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from .search import MASK
from .types import TAG

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT")


def secrets(text: str, keys: Collection[str]) -> set[str]:
    """What is recorded under these keys, at every depth: each text and number, also as it is escaped within JSON and `repr()`.

    `text` is recorded text; of what can't be read nothing is found.

    >>> sorted(secrets('{"user": {"name": "Ann", "token": "x-1"}}', ["token"]))
    ['x-1']
    """
    try:
        found = _under(json.loads(text), frozenset(keys), is_secret=False)
        return {form for leaf in found for form in _forms(leaf)}
    except (ValueError, RecursionError):
        return set()


def without(line: str, hidden: Collection[str]) -> str:
    """The line with a mask for each of these texts, the longest first.

    >>> without("got x-12, not x-1", {"x-1", "x-12"})
    'got ********, not ********'
    """
    for text in sorted(hidden, key=len, reverse=True):
        if text in line:
            line = line.replace(text, MASK)
    return line


def _under(node: Any, keys: frozenset[str], *, is_secret: bool) -> Iterator[str]:
    if isinstance(node, dict) and node.get(TAG) == "dict":  # its keys are not all text
        for key, item in node.get("v") or []:
            # What an Enum's member is called is in its class: in doubt it is masked.
            yield from _under(item, keys, is_secret=is_secret or isinstance(key, dict) or str(key) in keys)
    elif isinstance(node, dict):
        for key, item in node.items():
            if key != TAG:
                yield from _under(item, keys, is_secret=is_secret or key in keys)
    elif isinstance(node, list):
        for item in node:
            yield from _under(item, keys, is_secret=is_secret)
    elif is_secret and node is not None and not isinstance(node, bool):
        yield str(node)


def _forms(leaf: str) -> set[str]:
    quoted = {json.dumps(leaf)[1:-1], json.dumps(leaf, ensure_ascii=False)[1:-1], repr(leaf)[1:-1]}
    if _MOMENT.match(leaf):  # as `str()` says it
        quoted.add(leaf.replace("T", " ", 1))
    return {form for form in {leaf, *quoted} if form}
