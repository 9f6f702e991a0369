"""Deleting finished runs with their steps, tags and events, and old events of keys that no run has, in small batches that hold
no lock for long.

Not here: runs at which rows of others point (`models/deleting.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import FINISHED
from . import database, dialect, tags
from .tables import EVENT, LOG, RUN, STEP

BATCH = 200
STEPS_AT_ONCE = 5000  # a batch whose runs have more steps than this is made smaller
_EVENTS_AT_ONCE = 500


class Place(NamedTuple):
    """Where a run is in the order in which runs are pruned; `finished_at` is as the database gave it."""

    run_id: UUID
    status: str
    finished_at: Any


def prune(
    connection: BaseDatabaseWrapper,
    before: int,
    statuses: Sequence[str] = (),
    limit: int = BATCH,
    *,
    workflows: Sequence[str] | None = None,
) -> int:
    """Delete up to `limit` runs (`workflows`: only of these) that ended before a machine time; how many. Their keys are free
    again."""
    with database.writing(connection), connection.cursor() as cursor:
        ids = [row[0] for row in _oldest(connection, before, statuses or FINISHED, limit, workflows=workflows)]
        ids = _few_enough(connection, ids)
        if ids:
            marks = dialect.marks(ids)
            cursor.execute(f"DELETE FROM {STEP} WHERE run_id IN ({marks})", ids)
            cursor.execute(f"DELETE FROM {LOG} WHERE run_id IN ({marks})", ids)
            _delete_events(connection, ids)
            tags.delete(connection, ids)
            for link in ("restart_of_id", "continued_as_id"):
                cursor.execute(f"UPDATE {RUN} SET {link} = NULL WHERE {link} IN ({marks})", ids)
            cursor.execute(f"DELETE FROM {RUN} WHERE id IN ({marks})", ids)
    return len(ids)


def _delete_events(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> None:
    """Delete what was sent to runs, and by their keys before they existed: the next run with such a key would take that."""
    key, marks = connection.ops.quote_name("key"), dialect.marks(ids)
    sent = database.fetch_all(
        connection,
        f"SELECT e.id FROM {EVENT} e WHERE e.run_id IN ({marks}) UNION ALL SELECT e.id FROM {RUN} r CROSS JOIN {EVENT} e"
        f" WHERE r.id IN ({marks}) AND e.workflow = r.workflow AND e.{key} = r.{key} AND e.run_id IS NULL"
        # By its active key only what it took itself: the rest is for the next run that is active under it.
        f" UNION ALL SELECT e.id FROM {RUN} r CROSS JOIN {EVENT} e WHERE r.id IN ({marks}) AND e.workflow = r.workflow"
        f" AND e.{key} = r.own_active_key AND e.run_id IS NULL AND e.consumed_at BETWEEN r.created_at AND r.finished_at",
        [*ids, *ids, *ids],
    )
    _delete_by_number(connection, [row[0] for row in sent])


def _delete_by_number(connection: BaseDatabaseWrapper, numbers: Sequence[int], condition: str = "") -> int:
    deleted = 0
    with connection.cursor() as cursor:
        for start in range(0, len(numbers), _EVENTS_AT_ONCE):
            some = numbers[start : start + _EVENTS_AT_ONCE]
            cursor.execute(f"DELETE FROM {EVENT} WHERE id IN ({dialect.marks(some)}){condition}", some)
            deleted += cursor.rowcount
    return deleted


class EventPlace(NamedTuple):
    """Where an event is in the order in which old ones are looked at; `sent_at` is as the database gave it."""

    sent_at: Any
    number: int


def prune_events(
    connection: BaseDatabaseWrapper, before: int, after: EventPlace | None = None
) -> tuple[int, EventPlace | None]:
    """Look at a batch of events that were sent before a machine time by a key, while no run had it, and that no wait has taken;
    delete those whose key has no run now. Returns how many, and where to go on; None: that was the last batch."""
    key = connection.ops.quote_name("key")
    condition, parameters = "e.sent_at < %s", [dialect.date_value(connection, before)]
    if after is not None:
        condition += " AND e.sent_at >= %s AND (e.sent_at > %s OR e.id > %s)"
        parameters += [after.sent_at, after.sent_at, after.number]
    rows = database.fetch_all(
        connection,
        f"SELECT e.id, e.sent_at, r.id FROM {EVENT} e{dialect.by_index(connection, 'django_steps_event_old')}"
        f" LEFT JOIN {RUN} r ON r.workflow = e.workflow AND r.{key} = e.{key}"
        f" WHERE e.run_id IS NULL AND e.consumed_at IS NULL AND {condition}"
        f" ORDER BY e.sent_at, e.id LIMIT {_EVENTS_AT_ONCE}",
        parameters,
    )
    deleted = 0
    if unclaimed := [number for number, _, run_id in rows if run_id is None]:
        # Asked again where it is deleted: a run may have been started with the key meanwhile. And not what a run may take that
        # is active under it.
        still = (
            f" AND run_id IS NULL AND consumed_at IS NULL AND NOT EXISTS (SELECT 1 FROM {RUN} r"
            f" WHERE r.workflow = {EVENT}.workflow AND r.{key} = {EVENT}.{key}) AND NOT EXISTS (SELECT 1 FROM {RUN} a"
            f" WHERE a.workflow = {EVENT}.workflow AND a.active_key = {EVENT}.{key})"
        )
        with database.writing(connection):
            deleted = _delete_by_number(connection, unclaimed, still)
    return deleted, EventPlace(rows[-1][1], rows[-1][0]) if len(rows) == _EVENTS_AT_ONCE else None


def oldest(
    connection: BaseDatabaseWrapper,
    before: int,
    statuses: Sequence[str] = (),
    *,
    after: Mapping[str, Place],
    workflows: Sequence[str] | None = None,
) -> list[Place]:
    """The runs that `prune` would delete next, in order; only those behind the place of their status in `after`."""
    with database.writing(connection):
        rows = _oldest(connection, before, statuses or FINISHED, BATCH, after, workflows)
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
    workflows: Sequence[str] | None = None,
) -> list[Any]:
    """Id, status, time of the end: runs of the first status that has any: one status at a time, as the index has them."""
    index, order = "", " ORDER BY finished_at" if after is None else " ORDER BY finished_at, id"
    if workflows is not None:
        # In the order of this index: all that is due would be sorted otherwise, for each batch.
        index, order = dialect.by_index(connection, "django_steps_kept"), "" if after is None else order
    for status in statuses:
        condition, parameters = _condition(connection, before, [status])
        if workflows is not None:
            condition, parameters = (
                f"workflow IN ({dialect.marks(workflows)}) AND {condition}",
                [*workflows, *parameters],
            )
        if after is not None and status in after:
            place = after[status]
            condition += " AND finished_at >= %s AND (finished_at > %s OR id > %s)"
            parameters += [place.finished_at, place.finished_at, dialect.key(connection, place.run_id)]
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, status, finished_at FROM {RUN}{index} WHERE {condition}{order}"
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
    """Runs that may go. A child stays as long as its parent does, which may look at it, and retry it.

    The parent is looked up for each child. Of `NOT EXISTS` PostgreSQL may make a table of all runs.
    """
    condition = (
        f"status IN ({dialect.marks(statuses)}) AND finished_at < %s AND ({RUN}.parent_id IS NULL OR"
        f" (SELECT p.id FROM {RUN} p WHERE p.id = {RUN}.parent_id) IS NULL)"
    )
    return condition, [*statuses, dialect.date_value(connection, before)]
