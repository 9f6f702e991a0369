"""The ways in which a pass can end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from ..ledger.transitions import Finish
from ..ledger.waits import Suspension


class Ended(Enum):
    """How a pass ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUSPENDED = "suspended"  # it sleeps, or waits for an attempt of a step or of the whole run
    CANCELED = "canceled"
    RELEASED = "released"  # its worker is stopping, or somebody has paused it
    LOST = "lost"  # the claim is another's by now
    TIMED_OUT = "timed out"  # by the timeout of the run: so a pass is interrupted, and its run has failed


@dataclass(slots=True)
class Ending:
    """How a pass ended; when its run is due again (machine time), or how it was finished.

    `suspension`: how it is suspended, but for an attempt of the whole run. `reset`: the run is to be attempted again, for which
    these steps were reset; `error`: the record of the failure for which it is. `successor`: the run that goes on for this one.
    """

    how: Ended
    wakes_at_us: int | None = None
    finish: Finish | None = None
    reset: Sequence[str] | None = None
    suspension: Suspension | None = None
    successor: UUID | None = None
    error: str | None = None
