"""A number that says whether a call has the same arguments as another one, in whatever process: 64 bits of a hash.

What is hashed is what a record would keep of the arguments; only the order of the keys of dicts does not count. It must stay
the same from one version to the next: the arguments of every call in flight would look like others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from json import JSONEncoder, dumps
from typing import Any

from .codec import CODECS, SCALARS
from .types import MAX_DEPTH, TAG, Pack, Refused

MAX_BYTES = 4096  # of the encoded arguments: longer ones have no fingerprint
_LEAST = 2  # bytes of an item: a digit and a comma
_LENGTH_IS_KNOWN = frozenset({str, bytes, list, tuple, dict, set, frozenset})

_dump = JSONEncoder(separators=(",", ":"), check_circular=False, sort_keys=True).encode


class _TooLong(Exception):
    """What is to be encoded is longer than `MAX_BYTES`."""


def fingerprint(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """The fingerprint of the arguments of a call, a signed number of 64 bits, which is the same in every process.

    None where there are no arguments, or such as can't be encoded within 4 KiB. Raises nothing.

    >>> fingerprint((7,), {}) == fingerprint((7,), {}) != fingerprint((8,), {})
    True
    """
    if not args and not kwargs:
        return None
    try:
        text = _text(args, kwargs)
    except Exception:  # too long, or a value that can't be recorded: code of users is called here
        return None
    if len(text) > MAX_BYTES:
        return None
    return int.from_bytes(blake2b(text.encode("ascii"), digest_size=8).digest(), "big", signed=True)


def _text(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What is hashed, by the cheapest of three ways: most calls have only numbers and short texts, or what JSON can hold."""
    if _are_scalars(args) and (not kwargs or _are_scalars(kwargs.values())):
        return ascii((args, sorted(kwargs.items())) if kwargs else args)
    call = [list(args), dict(kwargs)]
    if _left(call, MAX_BYTES) is None:
        call = _bounded()(call, MAX_DEPTH)
    return _dump(call)


def _are_scalars(values: Iterable[Any]) -> bool:
    for value in values:
        kind = type(value)
        if kind not in SCALARS or (kind is str and len(value) > MAX_BYTES):
            return False
    return True


def _left(values: Collection[Any], left: int) -> int | None:
    """How many bytes at most are left of so many; None if there is something that JSON can't hold as it is.

    Raises `_TooLong`, at once also for a long list.
    """
    left -= _LEAST * len(values)
    for value in values:
        if left < 0:
            raise _TooLong
        kind = type(value)
        if kind is str:
            left -= len(value)
        elif kind is list or kind is dict:
            rest = _left(value, left) if kind is list else _left_of_dict(value, left)
            if rest is None:
                return None
            left = rest
        elif kind not in SCALARS:
            return None
    return left


def _left_of_dict(value: dict[Any, Any], left: int) -> int | None:
    if TAG in value:
        return None
    left -= _LEAST * len(value)
    for key in value:
        if left < 0:
            raise _TooLong
        if type(key) is not str:
            return None
        left -= len(key)
    return _left(value.values(), left)


def _bounded() -> Pack:
    """Packs values as they are recorded, and gives up as soon as they must be too long: large ones cost no more than small
    ones."""
    left = MAX_BYTES

    def pack(value: Any, depth: int) -> Any:
        nonlocal left
        kind = type(value)
        left -= _LEAST + (len(value) if kind in _LENGTH_IS_KNOWN else 0)
        if left < 0:
            raise _TooLong
        packer = CODECS.packer_of(kind)
        if packer is None:
            raise Refused(value)
        node = packer(value, depth, pack)
        if (
            kind is dict and node.get(TAG) == "dict"
        ):  # its keys are no names for JSON: pairs, which `_dump` leaves as they are
            node["v"].sort(key=dumps)
        return node

    return pack
