"""What the arguments and attributes of a recorded exception may hold: what results may hold, and some things more.

Errors of the operating system carry paths, those of `decimal` carry classes, and many carry other exceptions. In the result
of a step each of them is refused. Rows are not referred to: rebuilding an exception must not depend on them.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace
from typing import Any

from .. import values
from ..values import instances
from ..values.classes import class_name, find_class
from ..values.codec import CODECS as OF_RESULTS
from ..values.codec import Codecs
from ..values.types import (
    FROZENSET,
    READ_FROZENSET,
    READ_SET,
    SET,
    TAG,
    Codec,
    Pack,
    Refused,
    pack_set_in_its_order,
)


@dataclass(frozen=True)
class Reference:
    """Stands for another exception of the same record."""

    index: int


def encode(value: Any, max_bytes: int | None = None) -> str:
    """The value as JSON text, with a `Reference` in place of each exception; raises as `values.encode` does."""
    return values.encode(value, max_bytes=max_bytes, codecs=_CODECS)


def decode(text: str) -> Any:
    """What `encode` wrote."""
    return values.decode(text, _CODECS)


def _pack_reference(value: Reference, depth: int, pack: Pack) -> Any:
    return {TAG: "exception", "v": value.index}


def _is_path(cls: type) -> bool:
    return cls.__module__.startswith("pathlib") and issubclass(cls, pathlib.PurePath)


def _pack_path(value: pathlib.PurePath, depth: int, pack: Pack) -> Any:
    return {TAG: "path", "of": type(value).__name__, "v": pack(str(value), depth)}


def _unpack_path(node: dict[str, Any]) -> Any:
    cls = getattr(pathlib, node["of"])
    if not issubclass(cls, pathlib.PurePath):
        raise TypeError(f"{cls} is no path")
    return cls(node["v"])


def _is_class(cls: type) -> bool:
    return issubclass(cls, type)


def _pack_class(value: type, depth: int, pack: Pack) -> Any:
    try:
        return {TAG: "class", "of": class_name(value)}
    except LookupError as error:
        raise Refused(value, f"{error}.") from None


def _in_its_order(codec: Codec) -> Codec:
    """The codec for sets that keeps their order: it shows in the message of an exception."""
    return replace(codec, pack=pack_set_in_its_order)


_SETS = (SET, FROZENSET, READ_SET, READ_FROZENSET)
_CODECS = Codecs(
    [
        *(codec for codec in OF_RESULTS.all if codec is not instances.MODEL and codec not in _SETS),
        *map(_in_its_order, _SETS),
        Codec(Reference, _pack_reference, ("exception",), lambda node: Reference(node["v"])),
        Codec(_is_path, _pack_path, ("path",), _unpack_path),
        Codec(_is_class, _pack_class, ("class",), lambda node: find_class(node["of"])),
    ]
)
