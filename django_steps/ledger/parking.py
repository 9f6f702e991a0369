"""Putting ready runs aside that no live worker knows, so that claims need not walk over them, and bringing them back.

Their status stays `pending`.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.backends.base.base import BaseDatabaseWrapper

from . import sql
from .sql import PARKED, READY, RUN
from .terms import Kind, kinds_condition

_AT_MOST = 500


def park_unknown(connection: BaseDatabaseWrapper, known: Collection[Kind]) -> int:
    """Put aside some of the ready runs of other kinds than these; how many."""
    condition, parameters = kinds_condition(known)
    with sql.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {RUN} WHERE phase = {READY} AND NOT {condition} LIMIT {_AT_MOST}{sql.locking(connection)}",
            parameters,
        )
        ids = [row[0] for row in cursor.fetchall()]
        if ids:
            cursor.execute(f"UPDATE {RUN} SET phase = {PARKED} WHERE id IN ({sql.marks(ids)})", ids)
    return len(ids)


def unpark(connection: BaseDatabaseWrapper, kinds: Collection[Kind]) -> int:
    """Make the parked runs of these kinds ready again; how many."""
    condition, parameters = kinds_condition(kinds)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {RUN} WHERE phase = {PARKED} AND {condition} LIMIT 1", parameters)
        if cursor.fetchone() is None:
            return 0
        cursor.execute(f"UPDATE {RUN} SET phase = {READY} WHERE phase = {PARKED} AND {condition}", parameters)
        return int(cursor.rowcount)
