"""Timed runs whose time has come: sleeps and delays that are over, attempts that are due, leases that ran out."""

from __future__ import annotations

from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import sql, takeovers
from .sql import READY, RUN, TIMED
from .terms import Terms

_AT_MOST = 100


def next_due(connection: BaseDatabaseWrapper) -> int | None:
    """In how many microseconds the next timed run is due (0: it is overdue); None if nothing is timed."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT available_at - {sql.now(connection)} FROM {RUN} WHERE phase = {TIMED}"
            " ORDER BY available_at LIMIT 1",
            [],
        )
        row = cursor.fetchone()
    return max(0, int(row[0])) if row else None


def wake(connection: BaseDatabaseWrapper, terms: Terms) -> list[UUID]:
    """Make the timed runs that are due ready; those held under an expired lease are suspected, then taken over.

    Happens in the caller's transaction. Returns the runs that failed because their workers kept dying.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, worker_id, suspect_since FROM {RUN}"
            f" WHERE phase = {TIMED} AND available_at <= {sql.now(connection)}"
            f" ORDER BY available_at LIMIT {_AT_MOST}{sql.locking(connection)}",
            [],
        )
        due = cursor.fetchall()
        if not due:
            return []
        asleep = [row[0] for row in due if row[1] is None]
        if asleep:
            cursor.execute(
                f"UPDATE {RUN} SET phase = {READY},"
                " status = CASE WHEN status = 'sleeping' THEN 'pending' ELSE status END"
                f" WHERE id IN ({sql.marks(asleep)})",
                asleep,
            )
    takeovers.suspect(connection, [row[0] for row in due if row[1] is not None and row[2] is None], terms.lease)
    return takeovers.take_over(connection, [row[0] for row in due if row[1] is not None and row[2] is not None], terms)
