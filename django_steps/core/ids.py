"""Identifiers: time-ordered UUIDs for runs, random numbers for claims and writes.

Python has `uuid.uuid7` from 3.14 on; until that is the oldest supported version it is made here.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from random import Random

_DIGITS = re.compile(r"[0-9a-f]{1,32}")


def uuid7() -> uuid.UUID:
    """A UUID version 7: 48 bits of Unix milliseconds, 12 of the fraction below, 62 random ones."""
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    randomness = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return uuid.UUID(int=(milliseconds << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | randomness)


def beginning_with(text: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """The first and the last id that begin with these digits, with hyphens or without; None where no id does.

    >>> beginning_with("0198C2A4-7d")[0]
    UUID('0198c2a4-7d00-0000-0000-000000000000')
    """
    digits = text.lower().replace("-", "")
    if not _DIGITS.fullmatch(digits):
        return None
    return uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))


def random_token() -> int:
    """A positive random number that fits a 64-bit column; never 0."""
    # Not from the system each time: a thread that asks it gives way to the others, which costs more than all the rest.
    return _random.getrandbits(63) | 1


# One of its own: `random.seed()` in a user's code must not make numbers come again. A forked process begins anew.
_random = Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
