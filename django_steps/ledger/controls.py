"""What operators ask of runs: retry and cancel. Each is one conditional UPDATE first, so that of ten at once one wins.

A run that is canceled while a worker executes it stays in that worker's hands until the pass lets go; a retry in
the meantime waits for that. So there are never two bodies at once.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import InvalidState, UnknownStep
from . import database, dialect, order
from .resets import reset_failures, reset_from
from .tables import ENDED, READY, RUN, STEP, TIMED

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
                reset_from(connection, run_id, from_step, position_of(connection, run_id, from_step))
            else:
                reset_failures(connection, run_id, failures_to_reset(connection, run_id))
            with connection.cursor() as cursor:
                cursor.execute(f"UPDATE {RUN} SET error = NULL WHERE id = %s", [dialect.key(connection, run_id)])

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
                f" error = NULL, finished_at = %s WHERE id = %s AND status IN ('pending', 'running', 'sleeping')",
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
    """The steps whose failures ended a run, or `FailureWasHandled` if others are later than the first of them."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT error FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        steps = _failed_steps(cursor.fetchone()[0])
        if not steps:
            return []
        cursor.execute(
            f"SELECT name, position, after FROM {STEP} WHERE run_id = %s AND (name IN ({dialect.marks(steps)}) OR after >="
            f" (SELECT MIN(position) FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(steps)})))",
            [dialect.key(connection, run_id), *steps, dialect.key(connection, run_id), *steps],
        )
        return order.failures(cursor.fetchall(), steps)


def _failed_steps(error: str | None) -> list[str]:
    """The steps that a run's error names; none where the record of it is damaged."""
    try:
        return list(json.loads(error)["steps"]) if error else []
    except (ValueError, KeyError, TypeError):
        return []


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
