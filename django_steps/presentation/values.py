"""Recorded values as people read them: plain JSON, without what the workflow masks.

Values are read as text and never decoded. To decode them would import classes and load rows, and this must work for
a value that the code can't read any more. Masks hide the values of keys in inputs and results; messages and tracebacks
of errors are shown as they were recorded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from datetime import timedelta
from datetime import timezone as fixed_offset
from typing import Any

from django.utils.duration import duration_iso_string
from django.utils.translation import gettext as _

from ..definitions import get_workflow, masked_keys
from ..errors import UnknownWorkflow
from ..models import WorkflowRun
from ..values.search import MASK
from ..values.types import MAX_DEPTH, TAG
from .text import portable

WITH_MEMBERS = {"namedtuple", "dataclass", "pydantic"}  # the tags of values whose members have names
UNREADABLE = (ValueError, TypeError, LookupError, RecursionError)  # what reading text that is no record raises
_DEEPEST = MAX_DEPTH + 50  # levels: more than the codec writes, and no danger to the stack


class Mask:
    """Which keys of a run's values are hidden. `keys` is None where this process doesn't know the workflow: then all are."""

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = None if keys is None else frozenset(keys)

    @classmethod
    def of(cls, run: WorkflowRun) -> Mask:
        try:
            get_workflow(run.workflow, run.version)
        except UnknownWorkflow:
            return cls(None)
        return cls(masked_keys(run.workflow))

    @property
    def hides_everything(self) -> bool:
        return self.keys is None

    @property
    def hides_anything(self) -> bool:
        return self.keys is None or bool(self.keys)

    def hides(self, key: Any) -> bool:
        return self.keys is not None and key in self.keys

    def hides_key(self, node: Any) -> bool:
        """The same of the recorded key of a dict that has others than text. In doubt it is hidden."""
        if not self.keys:
            return False
        names = _names_of(node)
        return names is None or not self.keys.isdisjoint(names)


def plain(text: str, mask: Mask) -> Any:
    """Recorded text as plain JSON types, masked. Raises one of `UNREADABLE` if it is no record.

    >>> plain('{"color": {"$": "Enum", "of": "shop.models:Color", "v": "RED"}, "token": "x"}', Mask(["token"]))
    {'color': 'Color.RED', 'token': '********'}
    """
    return _Reader(mask).read(json.loads(text))


def readable(text: str | None, mask: Mask, indent: int | None = 2) -> str:
    """Recorded text as JSON for people, indented or in one line; empty for None. It never raises."""
    if text is None:
        return ""
    try:
        return portable(json.dumps(plain(text, mask), indent=indent, ensure_ascii=False))
    except UNREADABLE:
        return unreadable(text, mask)


def entries(text: str, mask: Mask) -> list[tuple[str, str]]:
    """A recorded dict as pairs of a name and what it stands for, in a line each: text as it is, the rest as JSON. It never
    raises: what can't be read has no name.

    >>> entries('{"stage": "packed", "boxes": [1, 2]}', Mask(()))
    [('stage', 'packed'), ('boxes', '[1, 2]')]
    """
    if not text:
        return []
    try:
        found = plain(text, mask)
        return [(portable(key), _in_a_line(item)) for key, item in found.items()]
    except (*UNREADABLE, AttributeError):
        return [("", unreadable(text, mask))]


def _in_a_line(shown: Any) -> str:
    return portable(shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False))


def unreadable(text: str, mask: Mask) -> str:
    """What is shown of text that is no record: the text itself, unless it could hold something that is masked."""
    return _("This value can't be read.") if mask.hides_anything else portable(text)


def masked(text: str, mask: Mask) -> str:
    """Recorded text that can still be decoded, where each value that is masked is a placeholder.

    >>> masked('{"color": "red", "token": "x"}', Mask(["token"]))
    '{"color": "red", "token": "********"}'
    """
    if not mask.hides_anything:
        return text
    if mask.hides_everything:
        return json.dumps(MASK)
    return json.dumps(_masked(json.loads(text), mask))


def _masked(node: Any, mask: Mask) -> Any:
    if isinstance(node, list):
        return [_masked(item, mask) for item in node]
    if not isinstance(node, dict):
        return node
    if TAG not in node:
        return {key: MASK if mask.hides(key) else _masked(item, mask) for key, item in node.items()}
    if node[TAG] == "dict":
        pairs = [[key, MASK if mask.hides_key(key) else _masked(item, mask)] for key, item in node.get("v") or []]
        return {**node, "v": pairs}
    return {key: _masked(item, mask) for key, item in node.items()}


# -- Recorded text → plain JSON ---------------------------------------------------------------------


class _Reader:
    """Reads the nodes of one recorded value."""

    def __init__(self, mask: Mask) -> None:
        self._mask, self._depth = mask, 0

    def read(self, node: Any) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("The value is nested too deep.")
        try:
            return self._read(node)
        finally:
            self._depth -= 1

    def _read(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.read(item) for item in node]
        if isinstance(node, dict):
            return self._members(node) if TAG not in node else self._tagged(node)
        return MASK if self._mask.hides_everything and node is not None else node

    def _members(self, members: dict[str, Any]) -> dict[str, Any]:
        return {key: MASK if self._mask.hides(key) else self.read(item) for key, item in members.items()}

    def _tagged(self, node: dict[str, Any]) -> Any:
        kind, value = node[TAG], node.get("v")
        if kind == "dict":
            return {_key_text(key): MASK if self._mask.hides_key(key) else self.read(item) for key, item in value or []}
        if kind in WITH_MEMBERS:
            return self._members((value or {}) | (node.get("extra") or {}))
        if kind in ("tuple", "set", "frozenset"):
            return [self.read(item) for item in value or []]
        if self._mask.hides_everything:
            return MASK
        if kind == "model":
            return self._members({"model": node.get("of"), "pk": node.get("pk")})
        if kind == "timedelta":
            days, seconds, microseconds = value or (0, 0, 0)
            return duration_iso_string(timedelta(days, seconds, microseconds))
        if kind == "str":
            return "".join(value or [])
        if kind in ("Enum", "Flag"):
            return f"{str(node.get('of')).rpartition(':')[2]}.{value}"
        if "tz" in node:
            return f"{value} {_zone(node['tz'])}"
        return self.read(value) if "v" in node else self._members(node)


def _names_of(key: Any) -> set[str] | None:
    """The texts that a recorded key may be masked by; None where they can't be known.

    The record of a member of an Enum has its name, not its value: that is in the class, which is not imported for this.
    """
    if not isinstance(key, dict) or key.get(TAG) != "Enum":
        return {_key_text(key)}
    module, _colon, path = str(key.get("of")).partition(":")
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    try:
        return {str(key["v"]), str(found[key["v"]].value)}
    except (LookupError, TypeError, AttributeError):
        return None


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    shown = _Reader(Mask(())).read(key)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def _zone(node: Any) -> str:
    if isinstance(node, str):
        return node
    offset, *name = node
    return str(name[0] if name else fixed_offset(timedelta(microseconds=offset)))
