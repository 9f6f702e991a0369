"""Resetting what a run has recorded, so that it executes again.

A failed step keeps its row, with its attempts moved to the log: whoever looks at the run sees them later, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..failures import append_attempt
from . import database, dialect
from .order import IS_LATER
from .tables import STEP


def reset_failures(connection: BaseDatabaseWrapper, run_id: UUID, steps: Sequence[str]) -> None:
    """Let failed steps be executed again, with all their attempts ahead of them."""
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        for name in steps:
            rows = database.fetch_all(
                connection,
                f"SELECT attempts, attempt_log, error, started_at, finished_at FROM {STEP}"
                " WHERE run_id = %s AND name = %s AND status = 'failed'",
                [key, name],
            )
            if not rows:
                continue
            attempts, log, error, started_at, finished_at = rows[0]
            times = dialect.read_date(connection, started_at), dialect.read_date(connection, finished_at)
            cursor.execute(
                f"UPDATE {STEP} SET status = 'retrying', attempts = 0, attempt_log = %s, error = NULL,"
                " error_type = '', finished_at = NULL, wakes_at_us = NULL, context = NULL WHERE run_id = %s AND name = %s",
                [append_attempt(log, attempts, *times, error), key, name],
            )


def reset_from(connection: BaseDatabaseWrapper, run_id: UUID, name: str, position: int) -> None:
    """Delete the record of a step, which is at `position`, and all that are later."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {STEP} WHERE run_id = %s AND (name = %s OR {IS_LATER})",
            [dialect.key(connection, run_id), name, position],
        )
