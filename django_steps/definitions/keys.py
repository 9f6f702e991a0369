"""The keys of items: what tells the items of a map apart, the same on every pass, and how they stand in names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.utils import timezone

MAX_KEY_LENGTH = 100  # characters, in names
_KEPT_OF_LONG, _DIGITS = 80, 16
# What would be taken for something else in a name. The other control characters are found one by one.
_SPECIAL = re.compile(r"[%#/\s\x00-\x1f\x7f-\x9f]")


def key_of(value: Any) -> str | None:
    """The key of an item, or of what a key function returned, as text; None for what is no key.

    An Enum member is its name, an instance its primary key, a date or datetime its ISO format (an aware one in UTC), and
    text, whole numbers, UUIDs and Decimals what `str()` says.
    """
    if isinstance(value, Enum):  # before text and numbers, which a member may be, too
        return value.name or None
    if isinstance(value, Model):
        return None if value.pk is None else key_of(value.pk)
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if timezone.is_aware(value) else value).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID, Decimal)):
        return None
    return str.__str__(str(value)) or None


def item_segment(key: str) -> str:
    """What stands for a key in a name: `%`, `#`, `/`, control characters and outer white space are percent-encoded, and the
    end of a long one is replaced by a hash.

    >>> item_segment("a/b")
    'a%2Fb'
    """
    text = key
    if _SPECIAL.search(key) or not key.isprintable():
        inner = key.strip()
        start = key.find(inner) if inner else len(key)
        text = "".join(
            _encoded(character) if _is_special(character) or not start <= index < start + len(inner) else character
            for index, character in enumerate(key)
        )
    if len(text) <= MAX_KEY_LENGTH:
        return text
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return text[:_KEPT_OF_LONG] + digest[:_DIGITS]


def _is_special(character: str) -> bool:
    return character in "%#/" or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
