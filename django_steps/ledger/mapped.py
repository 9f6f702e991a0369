"""How a map over runs ends: the outcomes of its children become records of the parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import Cause
from . import bulk_records, database, dialect, records
from .children import CHUNK, Found
from .records import Outcome, StepWrite
from .tables import ENDED, RUN, STEP

_HAS_FAILED = "(status = 'failed' OR (status = 'canceled' AND cancel_cause <> %s))"


def record_results(
    connection: BaseDatabaseWrapper, write: StepWrite, failures: Sequence[StepWrite], context: str | None, number: int
) -> Outcome | None:
    """Record how a map over runs ended, in one transaction with a copy of each child's outcome: what an operator does to a
    child later doesn't change what the parent has seen.

    `failures` are the records of those that failed, made by the caller; `context` is that of the others. None: there are not
    `number` children that have succeeded or failed (any more).
    """

    key = dialect.key(connection, write.run_id)

    # No statement here joins children and records: a planner that takes a table for small looks at all pairs of them.
    def copy() -> bool:
        _forget_reset(connection, key, write.name)
        bulk_records.insert_within(connection, failures)
        name = dialect.joined(connection, "c.parent_step", "'#'", "c.parent_item")
        columns = (
            "run_id, name, kind, branch, position, after, status, output, started_at, finished_at, context, claim_token,"
            " write_id"
        )
        skipping, conflict = "", " ON CONFLICT DO NOTHING"
        if connection.vendor == "mysql":
            skipping = f" AND NOT EXISTS (SELECT 1 FROM {STEP} s WHERE s.run_id = c.parent_id AND s.name = {name})"
            conflict = ""
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {STEP} ({columns}) SELECT c.parent_id, {name}, 'invoke', %s, %s, %s, 'succeeded', c.output,"
                f" COALESCE(c.started_at, c.created_at), c.finished_at, %s, %s, %s FROM {RUN} c"
                " WHERE c.parent_id = %s AND c.parent_step = %s AND c.parent_item IS NOT NULL AND c.status = 'succeeded'"
                f"{skipping} ORDER BY c.id{conflict}",  # as they were started: in the order of the items
                [write.branch, write.position, write.after, context, write.token, write.write_id, key, write.name],
            )
            cursor.execute(
                f"SELECT COUNT(*) FROM {RUN} WHERE parent_id = %s AND parent_step = %s AND parent_item IS NOT NULL"
                f" AND phase = {ENDED} AND (status = 'succeeded' OR {_HAS_FAILED})",
                [key, write.name, Cause.MAP_STOPPED],
            )
            return int(cursor.fetchone()[0]) == number

    return records.record_with(connection, write, copy)


def _forget_reset(connection: BaseDatabaseWrapper, key: Any, step: str) -> None:
    """What was reset for children that have another outcome now: somebody retried them, or they could not be."""
    rows = database.fetch_all(connection, f"SELECT name FROM {STEP} WHERE run_id = %s AND status = 'retrying'", [key])
    names = [name for (name,) in rows if name.startswith(f"{step}#")]
    for start in range(0, len(names), CHUNK):
        some = names[start : start + CHUNK]
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {STEP} WHERE run_id = %s AND status = 'retrying' AND name IN ({dialect.marks(some)})",
                [key, *some],
            )


def failed(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> list[tuple[str, Found]]:
    """The children of a map that failed, or were canceled otherwise than by its stop, with their items."""
    rows = database.fetch_all(
        connection,
        f"SELECT parent_item, id, workflow, status, output, error, cancel_cause FROM {RUN} WHERE parent_id = %s"
        f" AND parent_step = %s AND parent_item IS NOT NULL AND {_HAS_FAILED} ORDER BY id",
        [dialect.key(connection, parent), step, Cause.MAP_STOPPED],
    )
    return [(row[0], Found(dialect.run_id(row[1]), *row[2:])) for row in rows]
