"""What operators ask of runs: retry and cancel. Each is one conditional UPDATE first, so that of ten at once one wins.

A run that is canceled while a worker executes it is *canceling* until that worker has released it: it may be retried
only then. So there are never two bodies at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.names import MAX_LENGTH
from ..core.states import CANCELABLE, RETRYABLE, Status
from ..errors import InvalidState
from ..failures import FailureRecord
from . import database, dialect, moves, order
from .order import Place
from .resets import reset_failures, reset_from
from .tables import RUN, STEP, WORKER

# How often a cancel looks again at a run that moves between one UPDATE and the next.
_LOOKS = 10
_MOST_NAMED = 200  # steps in a condition; of a run where more failed all records are looked at
_NO_ERROR = "error = NULL, error_type = '', failed_step = ''"


def retry(connection: BaseDatabaseWrapper, run_id: UUID, from_step: str | Sequence[str] | None = None) -> None:
    """Let a failed or canceled run go on.

    Raises `InvalidState` in any other status, `FailureWasHandled` where going on would redo what was compensated,
    `UnknownStep` for a `from_step` that is not recorded.
    """

    def statements() -> None:
        with transaction.atomic(using=connection.alias):
            _make_pending(connection, run_id)
            if from_step is not None:
                reset_from(connection, run_id, [from_step] if isinstance(from_step, str) else from_step)
            else:
                reset_failures(connection, run_id, failures_to_reset(connection, run_id))
            with connection.cursor() as cursor:
                # From a step means from its beginning, and that of all later ones.
                columns = _NO_ERROR if from_step is None else f"{_NO_ERROR}, {moves.NO_CHECKPOINT}"
                cursor.execute(f"UPDATE {RUN} SET {columns} WHERE id = %s", [dialect.key(connection, run_id)])

    database.retrying(connection, statements)


def cancel(connection: BaseDatabaseWrapper, run_id: UUID, reason: str = "", by: str = "") -> bool:
    """Cancel a run that has not ended; whether this call did it. Canceling what is canceled or canceling is quiet.

    A run that a worker executes is canceling from now on, and canceled once the worker has released it. Raises
    `InvalidState` for a run that succeeded or failed.
    """
    status = ""
    for _ in range(_LOOKS):
        if database.retrying(connection, lambda: _cancel(connection, run_id, reason, by)):
            return True
        status = _status(connection, run_id)
        if status in (Status.CANCELING, Status.CANCELED):
            return False
        if status not in CANCELABLE:
            break
    raise InvalidState(f"Run {run_id} can't be canceled: it has {status}.")


def _cancel(connection: BaseDatabaseWrapper, run_id: UUID, reason: str, by: str) -> bool:
    key = dialect.key(connection, run_id)
    now = dialect.date_value(connection, database.read_clock(connection))
    # The error, if any, is that of an attempt of the whole run before: it is not why the run ended, so that a retry must
    # not look for it.
    why, values = (
        f"{_NO_ERROR}, cancel_reason = %s, canceled_by = %s",
        [reason, by[:MAX_LENGTH]],
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.finishing()}, {why} WHERE id = %s AND status IN ('pending', 'sleeping')",
            [Status.CANCELED, now, *values, key],
        )
        if cursor.rowcount:
            return True
        cursor.execute(
            f"UPDATE {RUN} SET status = 'canceling', {why} WHERE id = %s AND status = 'running'", [*values, key]
        )
        return bool(cursor.rowcount)


def failures_to_reset(connection: BaseDatabaseWrapper, run_id: UUID) -> list[str]:
    """The steps whose failures ended a run, or `FailureWasHandled` if others are later than the first of them."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT error FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        error = cursor.fetchone()[0]
        steps = FailureRecord.read(error).steps if error else ()
        if not steps:
            return []
        if len(steps) > _MOST_NAMED:
            condition, parameters = "", []
        else:
            condition = (
                f" AND (name IN ({dialect.marks(steps)}) OR after >="
                f" (SELECT MIN(position) FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(steps)})))"
            )
            parameters = [*steps, dialect.key(connection, run_id), *steps]
        cursor.execute(
            f"SELECT name, position, after, context FROM {STEP} WHERE run_id = %s{condition}",
            [dialect.key(connection, run_id), *parameters],
        )
        return order.failures([Place.read(*row) for row in cursor.fetchall()], steps)


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
            f"UPDATE {RUN} SET {moves.ready(dialect.now(connection))}, attempts = 1, attempting_since_us = NULL,"
            " recoveries = 0, recovery_mark = 0, generation = generation + 1, finished_at = NULL, output = NULL,"
            " cancel_reason = '', canceled_by = ''"
            f" WHERE id = %s AND status IN ({dialect.marks(RETRYABLE)})",
            [dialect.key(connection, run_id), *RETRYABLE],
        )
        if cursor.rowcount:
            return
    status = _status(connection, run_id)
    if status == Status.CANCELING:
        raise InvalidState(_why_canceling(connection, run_id))
    raise InvalidState(f"Run {run_id} can't be retried: it is {status}. Only failed and canceled runs can.")


def _why_canceling(connection: BaseDatabaseWrapper, run_id: UUID) -> str:
    """What keeps a canceled run from being retried: a step of it that a worker still executes."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT r.current_step, w.host, w.pid FROM {RUN} r LEFT JOIN {WORKER} w ON w.id = r.worker_id WHERE r.id = %s",
            [dialect.key(connection, run_id)],
        )
        step, host, pid = cursor.fetchone() or ("", None, None)
    worker = f"worker {host}:{pid}" if host else "a worker"
    what = f"step {step!r}" if step else "it"
    return f"Run {run_id} can't be retried yet: it is canceling, and {worker} still executes {what}."


def _status(connection: BaseDatabaseWrapper, run_id: UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT status FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        row = cursor.fetchone()
    return str(row[0]) if row else "gone"
