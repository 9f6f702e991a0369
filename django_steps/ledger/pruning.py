"""Deleting finished runs with their steps, in small batches that hold no lock for long.

Not here: runs at which rows of others point (`models/deleting.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import FINISHED
from . import database, dialect
from .tables import RUN, STEP

BATCH = 200
STEPS_AT_ONCE = 5000  # a batch whose runs have more steps than this is made smaller


class Place(NamedTuple):
    """Where a run is in the order in which runs are pruned; `finished_at` is as the database gave it."""

    run_id: UUID
    status: str
    finished_at: Any


def prune(connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str] = (), limit: int = BATCH) -> int:
    """Delete up to `limit` runs that ended before a machine time; how many. Their keys are free again."""
    with database.writing(connection), connection.cursor() as cursor:
        ids = [row[0] for row in _oldest(connection, before, statuses or FINISHED, limit)]
        ids = _few_enough(connection, ids)
        if ids:
            marks = dialect.marks(ids)
            cursor.execute(f"DELETE FROM {STEP} WHERE run_id IN ({marks})", ids)
            cursor.execute(f"UPDATE {RUN} SET restart_of_id = NULL WHERE restart_of_id IN ({marks})", ids)
            cursor.execute(f"DELETE FROM {RUN} WHERE id IN ({marks})", ids)
    return len(ids)


def oldest(
    connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str] = (), *, after: Mapping[str, Place]
) -> list[Place]:
    """The runs that `prune` would delete next, in order; only those behind the place of their status in `after`."""
    with database.writing(connection):
        rows = _oldest(connection, before, statuses or FINISHED, BATCH, after)
        few = set(_few_enough(connection, [row[0] for row in rows]))
    return [Place(dialect.run_id(row[0]), row[1], row[2]) for row in rows if row[0] in few]


def check_references(connection: BaseDatabaseWrapper) -> None:
    """Raise `IntegrityError` now, within a transaction, where rows point at runs or steps that it has deleted.

    Foreign keys that only the database knows are often deferred to the commit, which in a request with `ATOMIC_REQUESTS`
    comes when nothing can be said any more.
    """
    if not connection.features.can_defer_constraint_checks:
        return
    tables = None
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT m.name FROM sqlite_master m, pragma_foreign_key_list(m.name) f"
                " WHERE m.type = 'table' AND f.\"table\" IN (%s, %s)",
                [RUN, STEP],
            )
            tables = {name for (name,) in cursor.fetchall()} - {RUN, STEP}
    if tables is None or tables:
        database.check_constraints(connection, tables)


def count(connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str] = ()) -> int:
    """How many runs `prune` would delete in the end."""
    condition, parameters = _condition(connection, before, statuses or FINISHED)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {RUN} WHERE {condition}", parameters)
        return int(cursor.fetchone()[0])


def _oldest(
    connection: BaseDatabaseWrapper,
    before: int,
    statuses: Sequence[str],
    limit: int,
    after: Mapping[str, Place] | None = None,
) -> list[Any]:
    """Id, status, time of the end: runs of the first status that has any: one status at a time, as the index has them."""
    for status in statuses:
        condition, parameters = _condition(connection, before, [status])
        order = "finished_at" if after is None else "finished_at, id"
        if after is not None and status in after:
            place = after[status]
            condition += " AND finished_at >= %s AND (finished_at > %s OR id > %s)"
            parameters += [place.finished_at, place.finished_at, dialect.key(connection, place.run_id)]
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, status, finished_at FROM {RUN} WHERE {condition} ORDER BY {order}"
                f" LIMIT {int(limit)}{dialect.locking(connection)}",
                parameters,
            )
            if rows := cursor.fetchall():
                return list(rows)
    return []


def _few_enough(connection: BaseDatabaseWrapper, ids: list[Any]) -> list[Any]:
    """The first of these runs that together have few enough steps; one in any case."""
    if not ids:
        return ids
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT run_id, COUNT(*) FROM {STEP} WHERE run_id IN ({dialect.marks(ids)}) GROUP BY run_id", ids
        )
        steps = dict(cursor.fetchall())
    total, taken = 0, list[Any]()
    for run_id in ids:
        total += steps.get(run_id, 0)
        if taken and total > STEPS_AT_ONCE:
            break
        taken.append(run_id)
    return taken


def _condition(connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str]) -> tuple[str, list[Any]]:
    condition = f"status IN ({dialect.marks(statuses)}) AND finished_at < %s"
    return condition, [*statuses, dialect.date_value(connection, before)]
