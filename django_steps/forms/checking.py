"""Whether a payload fits a type: by the code that validates inputs."""

from __future__ import annotations

import typing
from collections.abc import Collection
from typing import Any

from ..definitions.events import type_of
from ..errors import InvalidInput
from .members import without_none


def check(type_: Any, value: Any, mask: Collection[str] = ()) -> None:
    """Raise `InvalidInput` if the value doesn't fit; `errors` says why, without the values of the keys in `mask`."""
    try:
        _check(type_, value, mask)
    except InvalidInput:
        raise
    except Exception as error:  # the code of the class, which may object in any way; its text may hold anything
        raise InvalidInput(type(error).__name__) from None


def _check(type_: Any, value: Any, mask: Collection[str]) -> None:
    type_, is_optional = without_none(type_)
    if value is None and is_optional:
        return
    if typing.get_origin(type_) is typing.Literal:
        items = typing.get_args(type_)
        if not any(value == item and type(value) is type(item) for item in items):
            raise InvalidInput(f"expected one of {', '.join(map(repr, items))}")
    elif isinstance(type_, type):
        type_of(type_, mask).validate(value)
