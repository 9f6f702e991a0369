"""The ways in which a pass can end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ..ledger.transitions import Finish


class Ended(Enum):
    """How a pass ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUSPENDED = "suspended"  # it sleeps, or waits for an attempt of a step or of the whole run
    CANCELED = "canceled"
    RELEASED = "released"  # its worker is stopping
    LOST = "lost"  # the claim is another's by now


@dataclass(slots=True)
class Ending:
    """How a pass ended; when its run is due again (machine time), or how it was finished.

    `reset`: the run is to be attempted again, for which these steps were reset.
    """

    how: Ended
    wakes_at_us: int | None = None
    finish: Finish | None = None
    reset: Sequence[str] | None = None
