"""What an UPDATE sets when a run moves: it finishes, becomes ready, or is suspended. Each is spelled here, and only here.

Every way in which a run finishes uses `finishing()`: its body's return or failure, a cancel, a worker that died too often.
Every way in which it becomes ready uses `ready()`: a release, a recovery, a time that has come, a retry, a workflow that is
known again. (A run that is started is ready by the defaults of its columns.) Which columns go together in which state is
the table in `ledger/__init__.py`.

The word is *finish*, not end: a run finishes, a pass ends.
"""

from __future__ import annotations

from ..core.states import Status
from .tables import ENDED, READY, TIMED

# No suspicion against a worker, and no step in execution.
_CALM = "suspect_since_us = NULL, current_step = ''"
# A recovery leaves the checkpoints: whoever executes the steps next goes on from them.
NO_CHECKPOINT = "checkpoint = ''"
# A run that no worker holds.
_RELEASED = f"worker_id = NULL, claim_token = NULL, {_CALM}"


def finishing(status: str = "%s", finished_at: str = "%s") -> str:
    """The run has ended. `status` and `finished_at` are SQL: by default two parameters, in this order.

    Its worker and its token stay, so that whoever asks again can tell a lost answer from a lost claim.
    """
    return f"status = {status}, phase = {ENDED}, finished_at = {finished_at}, {_CALM}"


def ready(since: str) -> str:
    """The run may be claimed. `since` is SQL for the machine time from which on it waits for that."""
    return f"status = '{Status.PENDING}', phase = {READY}, available_at_us = {since}, {_RELEASED}"


def suspended(until: str = "%s") -> str:
    """The run sleeps. `until` is SQL for the machine time at which it is due: by default a parameter.

    No step is in execution, so the checkpoints are in the records.
    """
    return f"status = '{Status.SLEEPING}', phase = {TIMED}, available_at_us = {until}, {_RELEASED}, {NO_CHECKPOINT}"
