"""The statuses of runs and records, and the phases of runs, as plain strings and numbers: the only place that lists them.

What each means together with the other columns of a run is the table in `ledger/__init__.py`. The labels that people see
are in `models`.
"""

from __future__ import annotations

from typing import Final


class Status:
    """The status of a run: what people see."""

    PENDING: Final = "pending"
    RUNNING: Final = "running"
    SLEEPING: Final = "sleeping"
    WAITING: Final = "waiting"  # suspended, and not only time can wake it: an event, the end of a child
    PAUSED: Final = "paused"  # nobody holds it, and only somebody's resume or cancel lets it go on
    CANCELING: Final = "canceling"
    SUCCEEDED: Final = "succeeded"
    FAILED: Final = "failed"
    CANCELED: Final = "canceled"


# Ended: nothing happens any more, unless somebody retries.
FINISHED: Final = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)
ACTIVE: Final = (
    Status.PENDING,
    Status.RUNNING,
    Status.SLEEPING,
    Status.WAITING,
    Status.PAUSED,
    Status.CANCELING,
)
RETRYABLE: Final = (Status.FAILED, Status.CANCELED)
# What a cancel ends or will end. A run that is canceling is canceled already.
CANCELABLE: Final = (Status.PENDING, Status.RUNNING, Status.SLEEPING, Status.WAITING, Status.PAUSED)
# What a pause pauses, or will pause. A run that is paused is so already.
PAUSABLE: Final = (Status.PENDING, Status.RUNNING, Status.SLEEPING, Status.WAITING)


class Phase:
    """Where a claim looks for a run: machine state, apart from the status."""

    READY: Final = 0  # to be claimed
    TIMED: Final = 1  # `available_at_us` says until when: a delay, a sleep, a back-off, a lease
    ENDED: Final = 2
    UNKNOWN: Final = 3  # set aside: no live worker knows its workflow
    PARKED: Final = 4  # nobody takes it until somebody resumes it, or the queue or workflow that is paused
    IN_LINE: Final = 5  # ready but for a limit, which has no room
    HELD: Final = 6  # until an earlier run of its schedule has ended


class Undo:
    """How far a cancel with undo is, in the column `undoing` of a run; NULL where nobody has asked for it."""

    WANTED: Final = 1  # whoever holds the run releases it, and its children end first
    UNDERWAY: Final = 2  # a pass has begun to undo; of a run that has ended: it has done so, or has failed


class StepStatus:
    """The status of a step's record."""

    SUCCEEDED: Final = "succeeded"
    FAILED: Final = "failed"
    RETRYING: Final = "retrying"  # an attempt has failed, and another one is to come
    BEGUN: Final = "begun"  # an attempt of an `at_most_once` step began, and its end is not recorded
    # Reached, and not seen to be over: a sleep, a poll between its checks, a wait for an event, a child that has not ended.
    WAITING: Final = "waiting"
    CANCELED: Final = "canceled"  # an async body has canceled it before it had an outcome


# The kind of the record that says which way a run goes: `step.patched()`.
PATCH: Final = "patch"
# The kind of the record of an undo.
UNDO: Final = "undo"
# The kinds of records that start other runs and wait for them.
WITH_CHILDREN: Final = ("invoke", "map")
# The records that never change again, unless a retry resets them.
FINAL: Final = (StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.CANCELED)


class Cause:
    """Why the engine itself has canceled a run: recorded apart from the reason, which people may type as they like."""

    MAP_STOPPED: Final = "map stopped"  # its group is decided
    PARENT_CANCELED: Final = "parent canceled"
    PARENT_ENDED: Final = "parent ended"
    TIMED_OUT: Final = "timed out"  # its parent waits no longer
    EXPIRED: Final = "expired"  # it had not begun within its `start_within`
    SUPERSEDED: Final = "superseded"  # a later slot of its schedule has taken its place


# Nobody asked for the end of these runs: a retry of their parent lets them go on.
CAUSED_BY_PARENT: Final = (Cause.MAP_STOPPED, Cause.PARENT_CANCELED, Cause.PARENT_ENDED)
