"""Setting ready runs aside that no live worker knows, so that claims need not walk over them, and bringing them back.

Their status stays `pending`.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect, moves
from .tables import READY, RUN, UNKNOWN
from .terms import Kind, kinds_condition

_AT_MOST = 500


def set_aside(connection: BaseDatabaseWrapper, known: Collection[Kind]) -> int:
    """Set aside some of the ready runs of other kinds than these; how many."""
    condition, parameters = kinds_condition(known)
    return _move(connection, READY, f"phase = {UNKNOWN}", f"NOT {condition}", parameters)


def bring_back(connection: BaseDatabaseWrapper, kinds: Collection[Kind]) -> int:
    """Make some of the runs that were set aside of these kinds ready again; how many."""
    condition, parameters = kinds_condition(kinds)
    return _move(connection, UNKNOWN, moves.ready("available_at_us"), condition, parameters)


def _move(connection: BaseDatabaseWrapper, source: int, move: str, condition: str, parameters: list[str]) -> int:
    """Leaves out what somebody has locked, and takes SQLite's write lock only if there is something to do."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {RUN} WHERE phase = {source} AND {condition} LIMIT 1", parameters)
        if cursor.fetchone() is None:
            return 0
    with database.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {RUN} WHERE phase = {source} AND {condition} LIMIT {_AT_MOST}{dialect.locking(connection)}",
            parameters,
        )
        ids = [row[0] for row in cursor.fetchall()]
        if ids:
            cursor.execute(f"UPDATE {RUN} SET {move} WHERE id IN ({dialect.marks(ids)})", ids)
    return len(ids)
