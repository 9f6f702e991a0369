"""Which identifiers (workflow, version, queue, key, step) every database keeps and compares exactly.

MySQL takes `'a'` and `'a '` for equal and nobody can see a control character, so such names are refused
before they reach a table. How the names of branches, items and groups are put together is read here, too.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ..errors import InvalidName

MAX_LENGTH = 255
# Control characters, surrogates (no database takes them), and line and paragraph separators.
_FORBIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
# Stands behind the first member of a gather in the name of its group.
_GATHERED = "#+"
# Stands behind the name of a step in that of its undo.
_UNDO = "#undo"
# What most names are made of: a match needs no closer look.
_is_usual = re.compile(r"[\w.:/-]+", re.ASCII).fullmatch


def check_name(value: Any, what: str, *, empty: bool = False, forbidden: str = "") -> str:
    """Return `value` if it is a usable identifier, else raise `InvalidName` that says why.

    `what` names the identifier in the message (`"step name"`); `forbidden` lists characters it can't have.
    """
    if type(value) is str and len(value) <= MAX_LENGTH and _is_usual(value):
        return value
    if not isinstance(value, str):
        raise InvalidName(f"A {what} must be a string, got {type(value).__name__}: {value!r}.")
    if not value and not empty:
        raise InvalidName(f"A {what} can't be empty.")
    if len(value) > MAX_LENGTH:
        raise InvalidName(f"A {what} can have at most {MAX_LENGTH} characters, got {len(value)}: {value[:40]!r}….")
    if value != value.strip():
        raise InvalidName(f"A {what} can't begin or end with white space: {value!r}.")
    for character in value:
        if character in forbidden:
            raise InvalidName(f"A {what} can't contain {character!r}: {value!r}.")
        if not character.isascii() or not character.isprintable():
            _check_character(character, what, value)
    return str.__str__(value)  # a plain string also of a SafeString or an enum's member


def without_keys(path: str) -> str:
    """The name of a step without the keys of the items that it is in: what is the same for all of them.

    >>> without_keys("order#17/charge")
    'order/charge'
    >>> without_keys("order#17/charge#undo")
    'order/charge#undo'
    """
    if "#" not in path:
        return path
    undo = _UNDO if path.endswith(_UNDO) else ""
    return re.sub("#[^/]*", "", path.removesuffix(undo)) + undo


def undo_of(path: str) -> str:
    """What the undo of a step is recorded under.

    >>> undo_of("flight")
    'flight#undo'
    """
    return path + _UNDO


def undone_by(undo: str) -> str:
    """The step that an undo is of, by the name that this is recorded under."""
    return undo.removesuffix(_UNDO)


def gathered_with(first: str) -> str:
    """The name of the group of a gather, by the path of its first member. Nothing that is recorded can have it.

    >>> gathered_with("user")
    'user#+'
    """
    return first + _GATHERED


def first_gathered(group: str) -> str:
    """The path of the first member of a gather, by the name of its group."""
    return group.removesuffix(_GATHERED)


def is_gather(group: str) -> bool:
    """Whether this is the group of a gather, and not that of a map."""
    return group.endswith(_GATHERED)


def inside(branch: str, path: str) -> str:
    """What is recorded at `path` as it is called in the branch that it is in (an empty text: the body).

    >>> inside("order#17", "order#17/charge")
    'charge'
    """
    return path.removeprefix(f"{branch}/") if branch else path


def _check_character(character: str, what: str, value: str) -> None:
    if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
        raise InvalidName(f"A {what} can't contain the character {character!r}: {value!r}.")
