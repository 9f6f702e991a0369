"""The tags of runs: which names and values there may be, and the text that the row of a run keeps of them.

What a run is about is a tag, too, under a name that nobody can give otherwise. How its value stands for an object is in
`values/references.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .names import MAX_LENGTH, check_name

ABOUT = "about"
MAX_TAGS = 20  # of a run, beside what it is about
MAX_NAME_LENGTH = 100

Tags = Mapping[str, str]
# The same, where None takes a tag away.
Changes = Mapping[str, str | None]

NONE: Tags = {}


def check_tags(given: Any, what: str = "tags=") -> dict[str, str]:
    """The tags that somebody has given, or `TypeError`, `ValueError` or `InvalidName`, which say what is wrong with them."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f'{what} takes a dict of texts, as in {{"tenant": "acme"}}, got {given!r}.')
    checked = {check_tag_name(name): _check_value(name, value) for name, value in given.items()}
    check_number(checked)
    return checked


def check_changes(given: Mapping[str, Any]) -> dict[str, str | None]:
    """The same, where None takes a tag away."""
    removed = dict.fromkeys(check_tag_name(name) for name, value in given.items() if value is None)
    return {**removed, **check_tags({name: value for name, value in given.items() if value is not None}, "set_tags()")}


def check_number(tags: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a run can't have so many tags."""
    count = len(tags) - (ABOUT in tags)
    if count > MAX_TAGS:
        raise ValueError(f"A run can have at most {MAX_TAGS} tags, these are {count}: {', '.join(sorted(tags))[:200]}.")


def check_tag_name(name: Any) -> str:
    """The name of a tag, or `InvalidName` or `ValueError`."""
    checked = check_name(name, "tag name", forbidden="=")
    if "=" in checked or len(checked) > MAX_NAME_LENGTH:
        raise ValueError(f"A tag name has at most {MAX_NAME_LENGTH} characters, and none of them is '=': {checked!r}.")
    if checked == ABOUT:
        raise ValueError("No tag can be named 'about': what a run is about is said by start(about=…), as an instance.")
    return checked


def _check_value(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"The value of tag {name!r} is a text, got {value!r}. Write str(…) around it, or an f-string.")
    return check_name(value, f"value of tag {name!r}")


def merged(*given: Tags) -> Tags:
    """Several tags as one: of a name the last value. Raises `ValueError` if a run can't have so many."""
    found: dict[str, str] = {}
    for tags in given:
        found |= tags
    check_number(found)
    return found


def changed(tags: Tags, changes: Changes) -> dict[str, str]:
    """The tags after changes of some."""
    return {name: value for name, value in {**tags, **changes}.items() if value is not None}


def parse(text: str) -> tuple[str, str]:
    """The name and the value of `tenant=acme`; raises `ValueError` where it is none. Also of what a run is about.

    >>> parse("tenant=acme")
    ('tenant', 'acme')
    """
    name, equals, value = text.partition("=")
    if not equals or not name or not value or len(name) > MAX_NAME_LENGTH or len(value) > MAX_LENGTH:
        raise ValueError(f"{text[:80]!r} is no tag: write NAME=VALUE, as in tenant=acme.")
    return name, value


def as_text(tags: Tags) -> str:
    """What the row of a run keeps: a JSON object, an empty text for no tags."""
    return json.dumps(dict(sorted(tags.items())), separators=(",", ":")) if tags else ""


def read(text: str | None) -> dict[str, str]:
    """What a row keeps; nothing of what is damaged."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}
