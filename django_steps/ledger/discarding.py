"""Discarding an event that no wait has taken, so that none will."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect
from .tables import EVENT


def discard(connection: BaseDatabaseWrapper, number: int) -> bool:
    """Discard an event; False where a wait has taken it, or somebody has discarded it, before.

    A wait takes an event by the same condition, so that only one of both has it.
    """
    now = dialect.date_value(connection, database.read_clock(connection))
    with database.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {EVENT} SET consumed_at = %s, told = %s WHERE id = %s AND consumed_at IS NULL", [now, True, number]
        )
        return bool(cursor.rowcount)
