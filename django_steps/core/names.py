"""Which identifiers (workflow, version, queue, key, step) every database keeps and compares exactly.

MySQL takes `'a'` and `'a '` for equal and nobody can see a control character, so such names are refused
before they reach a table. What a name means is not decided here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ..errors import InvalidName

MAX_LENGTH = 255
# Control characters, surrogates (no database takes them), and line and paragraph separators.
_FORBIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
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


def _check_character(character: str, what: str, value: str) -> None:
    if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
        raise InvalidName(f"A {what} can't contain the character {character!r}: {value!r}.")
