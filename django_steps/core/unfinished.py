"""`UNFINISHED`: what stands in the list of a map for an item that was not needed any more."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Unfinished(Enum):
    """What stands in the list of a map for an item that never began, or sleeps, when enough others had succeeded.

    An enum of one member, so that type checkers narrow `is UNFINISHED`.
    """

    UNFINISHED = "unfinished"

    def __repr__(self) -> str:
        return "UNFINISHED"

    __str__ = __repr__


UNFINISHED: Final = Unfinished.UNFINISHED
