"""Runs that go on for one another: what a run has continued as, that one, and so on."""

from __future__ import annotations

from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect
from .tables import RUN

_HOPS = 500  # of one statement: MariaDB and MySQL give up at 1,000


def successors(connection: BaseDatabaseWrapper, run_id: UUID) -> list[UUID]:
    """The runs that go on for this one, in order, without those that were deleted; empty where it has not continued.

    A statement for each 500 of them.
    """
    found: list[UUID] = []
    while True:
        some = _next(connection, found[-1] if found else run_id)
        found += some
        if len(some) < _HOPS:
            return found


def _next(connection: BaseDatabaseWrapper, run_id: UUID) -> list[UUID]:
    """The first `_HOPS` of them."""
    rows = database.fetch_all(
        connection,
        f"WITH RECURSIVE chain (id, hops) AS (SELECT r.continued_as_id, 1 FROM {RUN} r WHERE r.id = %s"
        f" UNION ALL SELECT r.continued_as_id, c.hops + 1 FROM chain c JOIN {RUN} r ON r.id = c.id WHERE c.hops < {_HOPS})"
        f" SELECT c.id FROM chain c JOIN {RUN} r ON r.id = c.id ORDER BY c.hops",
        [dialect.key(connection, run_id)],
    )
    return [dialect.run_id(row[0]) for row in rows]
