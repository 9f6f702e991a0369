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
    CANCELING: Final = "canceling"
    SUCCEEDED: Final = "succeeded"
    FAILED: Final = "failed"
    CANCELED: Final = "canceled"


# Ended: nothing happens any more, unless somebody retries.
FINISHED: Final = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)
ACTIVE: Final = (Status.PENDING, Status.RUNNING, Status.SLEEPING, Status.CANCELING)
RETRYABLE: Final = (Status.FAILED, Status.CANCELED)
# What a cancel ends or will end. A run that is canceling is canceled already.
CANCELABLE: Final = (Status.PENDING, Status.RUNNING, Status.SLEEPING)


class Phase:
    """Where a claim looks for a run: machine state, apart from the status."""

    READY: Final = 0  # to be claimed
    TIMED: Final = 1  # `available_at_us` says until when: a delay, a sleep, a back-off, a lease
    ENDED: Final = 2
    UNKNOWN: Final = 3  # set aside: no live worker knows its workflow


class StepStatus:
    """The status of a step's record."""

    SUCCEEDED: Final = "succeeded"
    FAILED: Final = "failed"
    RETRYING: Final = "retrying"  # an attempt has failed, and another one is to come
    BEGUN: Final = "begun"  # an attempt of an `at_most_once` step began, and its end is not recorded
    WAITING: Final = "waiting"  # reached, and not seen to be over: a sleep, or a poll between its checks


# The records that never change again, unless a retry resets them.
FINAL: Final = (StepStatus.SUCCEEDED, StepStatus.FAILED)
