"""Timed runs whose time has come: sleeps and delays that are over, attempts that are due, leases that ran out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import dialect, moves, recovery
from .tables import READY, RUN, TIMED
from .terms import Terms

_AT_MOST = 100


class Due(NamedTuple):
    """A timed run whose time has come; held by a worker, or by none."""

    id: Any
    worker_id: int | None
    suspect_since_us: int | None


def next_due(connection: BaseDatabaseWrapper) -> int | None:
    """In how many microseconds the next timed run is due (0: it is overdue); None if nothing is timed."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT available_at_us - {dialect.now(connection)} FROM {RUN} WHERE phase = {TIMED}"
            " ORDER BY available_at_us LIMIT 1",
            [],
        )
        row = cursor.fetchone()
    return max(0, int(row[0])) if row else None


def wake(connection: BaseDatabaseWrapper, terms: Terms, found: Sequence[Due] | None = None) -> list[UUID]:
    """Make the timed runs that are due ready; those held under an expired lease are suspected, then recovered.

    Happens in the caller's transaction; `found` is what a look without a lock has just shown. Returns the runs that
    ended because their worker died.
    """
    due = _lock_due(connection) if found is None else found
    asleep = [run.id for run in due if run.worker_id is None]
    if asleep:
        with connection.cursor() as cursor:
            cursor.execute(
                # Since when it was due, so that it shows if no worker looked for a while.
                f"UPDATE {RUN} SET {moves.ready('available_at_us')}"
                f" WHERE id IN ({dialect.marks(asleep)}) AND phase = {TIMED} AND worker_id IS NULL"
                f" AND available_at_us <= {dialect.now(connection)}",
                asleep,
            )
    if len(asleep) == len(due):
        return []
    if found is not None:
        due = _lock_due(connection)  # a lease that was looked at without a lock may be renewed by now
    held = [run for run in due if run.worker_id is not None]
    recovery.suspect(connection, [run.id for run in held if run.suspect_since_us is None], terms.lease_us)
    return recovery.recover(connection, [run.id for run in held if run.suspect_since_us is not None], terms)


def look(connection: BaseDatabaseWrapper) -> tuple[bool, list[Due]]:
    """Whether any run is ready, and what is due, without locking anything: one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {RUN} WHERE phase = {READY}), d.id, d.worker_id, d.suspect_since_us"
            f" FROM (SELECT 1) LEFT JOIN ({_due(connection)}) d ON TRUE",
            [],
        )
        rows = cursor.fetchall()
    return bool(rows[0][0]), [Due(*row[1:]) for row in rows if row[1] is not None]


def _lock_due(connection: BaseDatabaseWrapper) -> list[Due]:
    with connection.cursor() as cursor:
        cursor.execute(_due(connection) + dialect.locking(connection), [])
        return [Due(*row) for row in cursor.fetchall()]


def _due(connection: BaseDatabaseWrapper) -> str:
    return (
        f"SELECT id, worker_id, suspect_since_us FROM {RUN}"
        f" WHERE phase = {TIMED} AND available_at_us <= {dialect.now(connection)} ORDER BY available_at_us LIMIT {_AT_MOST}"
    )
