"""What operators ask of runs: retry and cancel. Each is one conditional UPDATE first, so that of ten at once one wins.

A run that is canceled while a worker executes it stays in that worker's hands until the pass lets go; a retry in
the meantime waits for that. So there are never two bodies at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import FailureWasHandled, InvalidState, UnknownStep
from ..failures import FailureRecord
from . import database, dialect
from .resets import reset_failures, reset_from
from .tables import ENDED, READY, RUN, STEP, TIMED

_NO_ERROR = "error = NULL, error_type = '', failed_step = ''"
_HELD = f"phase = {TIMED} AND worker_id IS NOT NULL"


def retry(connection: BaseDatabaseWrapper, run_id: UUID, from_step: str | None = None) -> None:
    """Let a failed or canceled run go on.

    Raises `InvalidState` in any other status, `FailureWasHandled` where going on would redo what was compensated,
    `UnknownStep` for a `from_step` that is not recorded.
    """

    def statements() -> None:
        with transaction.atomic(using=connection.alias):
            _make_pending(connection, run_id)
            if from_step is not None:
                reset_from(connection, run_id, position_of(connection, run_id, from_step))
            else:
                reset_failures(connection, run_id, failures_to_reset(connection, run_id))
            with connection.cursor() as cursor:
                cursor.execute(f"UPDATE {RUN} SET {_NO_ERROR} WHERE id = %s", [dialect.key(connection, run_id)])

    database.retrying(connection, statements)


def cancel(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    """Cancel a run that has not ended; whether this call did it. Canceling a canceled run is quiet.

    Raises `InvalidState` for a run that succeeded or failed.
    """

    def statement() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                # The error, if any, is that of an attempt of the whole run before: it is not why the run ended, so that
                # a retry must not look for it.
                f"UPDATE {RUN} SET phase = CASE WHEN {_HELD} THEN phase ELSE {ENDED} END, status = 'canceled',"
                f" {_NO_ERROR}, finished_at = %s WHERE id = %s AND status IN ('pending', 'running', 'sleeping')",
                [_now_value(connection), dialect.key(connection, run_id)],
            )
            return int(cursor.rowcount)

    if database.retrying(connection, statement):
        return True
    status = _status(connection, run_id)
    if status != "canceled":
        raise InvalidState(f"Run {run_id} can't be canceled: it has {status}.")
    return False


def position_of(connection: BaseDatabaseWrapper, run_id: UUID, name: str) -> int:
    """The position of a recorded step, or `UnknownStep` that lists the recorded ones."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT name, position FROM {STEP} WHERE run_id = %s ORDER BY position", [dialect.key(connection, run_id)]
        )
        positions: dict[str, int] = dict(cursor.fetchall())
    if name not in positions:
        recorded = ", ".join(repr(step) for step in list(positions)[:50]) or "none"
        raise UnknownStep(f"Run {run_id} has recorded no step {name!r}. Recorded are: {recorded}.")
    return positions[name]


def failures_to_reset(connection: BaseDatabaseWrapper, run_id: UUID) -> list[str]:
    """The steps whose failures ended a run, or `FailureWasHandled` if steps were recorded after the first of them."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT error FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        error = cursor.fetchone()[0]
        steps = FailureRecord.read(error).steps if error else ()
        if not steps:
            return []
        cursor.execute(
            f"SELECT name, position FROM {STEP} WHERE run_id = %s AND position >="
            f" (SELECT MIN(position) FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(steps)})) ORDER BY position",
            [dialect.key(connection, run_id), dialect.key(connection, run_id), *steps],
        )
        recorded = [name for name, _ in cursor.fetchall()]
    check_unhandled(recorded, steps)
    return [name for name in recorded if name in steps]


def check_unhandled(recorded: Sequence[str], steps: Sequence[str]) -> None:
    """Raise `FailureWasHandled` if others than the failed `steps` were recorded since the first of them failed."""
    later = [name for name in recorded if name not in steps]
    if later:
        raise FailureWasHandled(recorded[0], later)


# Making a run pending again comes first in the transaction of a retry: the UPDATE locks the row, so that no claim takes the
# run before its records are reset, and of several retries at once only one finds the status that it asks for.
#
# - The token goes: a pass that lost this run long ago may still be alive. With its token in the row, its late record would
#   pass the fence.
# - The generation grows: workers keep copies of long histories, and the records that are about to be reset are in them. A
#   copy of an earlier generation is not used.
# - Attempts and recoveries are counted anew, or the first failure after the retry would be the last.
# - The error stays for now: it names the steps to reset, and `retry()` removes it after that.
def _make_pending(connection: BaseDatabaseWrapper, run_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            # MySQL evaluates assignments from left to right: what the conditions read has to change last.
            f"UPDATE {RUN} SET claim_token = CASE WHEN {_HELD} THEN claim_token END,"
            # Since when it is ready, for whoever looks for what is overdue.
            f" available_at_us = CASE WHEN {_HELD} THEN available_at_us ELSE {dialect.now(connection)} END,"
            f" phase = CASE WHEN {_HELD} THEN phase ELSE {READY} END,"
            f" worker_id = CASE WHEN phase = {TIMED} THEN worker_id END,"
            " status = 'pending', attempts = 1, recoveries = 0, recovery_mark = 0, generation = generation + 1,"
            " finished_at = NULL, output = NULL WHERE id = %s AND status IN ('failed', 'canceled')",
            [dialect.key(connection, run_id)],
        )
        if cursor.rowcount:
            return
    status = _status(connection, run_id)
    raise InvalidState(f"Run {run_id} can't be retried: it is {status}. Only failed and canceled runs can.")


def _status(connection: BaseDatabaseWrapper, run_id: UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT status FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        row = cursor.fetchone()
    return str(row[0]) if row else "gone"


def _now_value(connection: BaseDatabaseWrapper) -> Any:
    return dialect.date_value(connection, database.read_clock(connection))
