"""What the pages for operators ask of the whole table, written so that a million finished runs cost nothing.

Every statement here stops at a limit or jumps through an index; none walks over all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import ACTIVE, FINISHED
from . import dialect
from .tables import READY, RUN, TIMED, UNKNOWN

_READY_LOOKED_AT = 100_000


# The names of the workflows in the table: one jump through an index for each.
_NAMES = (
    f"WITH RECURSIVE found (name) AS (SELECT MIN(workflow) FROM {RUN} UNION ALL"
    f" SELECT (SELECT MIN(workflow) FROM {RUN} WHERE workflow > found.name) FROM found WHERE found.name IS NOT NULL)"
)


def workflow_names(connection: BaseDatabaseWrapper, limit: int = 200) -> list[str]:
    """The first names of workflows in the table."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_NAMES} SELECT name FROM found WHERE name IS NOT NULL LIMIT {int(limit)}")
        return [row[0] for row in cursor.fetchall()]


def find_by_key(connection: BaseDatabaseWrapper, key: str, limit: int = 200) -> list[UUID]:
    """The runs that have a key, whatever their workflow: looked up for one workflow after the other."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_NAMES} SELECT r.id FROM found CROSS JOIN {RUN} r WHERE r.workflow = found.name"
            f" AND r.{connection.ops.quote_name('key')} = %s LIMIT {int(limit)}",
            [key],
        )
        return [dialect.run_id(row[0]) for row in cursor.fetchall()]


def count_by_status(connection: BaseDatabaseWrapper, cap: int) -> dict[str, int]:
    """How many runs have each status, and how many are `unknown`; each counted up to `cap`.

    Unknown runs count as pending, too.
    """
    statements = [
        f"SELECT 'ready', 'pending', COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE phase = {READY} LIMIT {int(cap)}) a",
        f"SELECT 'unknown', 'unknown', COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE phase = {UNKNOWN} LIMIT {int(cap)}) b",
        # What is running has its lease at the front of the timed ones, so that it is counted before the sleepers.
        f"SELECT 'timed', status, COUNT(*) FROM (SELECT status FROM {RUN} WHERE phase = {TIMED}"
        f" ORDER BY available_at_us LIMIT {int(cap)}) c GROUP BY status",
    ]
    for status in FINISHED:
        statements.append(
            f"SELECT 'finished', '{status}', COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE status = '{status}'"
            f" AND finished_at IS NOT NULL LIMIT {int(cap)}) d"
        )
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(statements))
        rows = cursor.fetchall()
    found = dict.fromkeys((*ACTIVE, "unknown", *FINISHED), 0)
    for _place, status, count in rows:
        if status in found:  # not where it is damaged
            found[status] += count
    found["pending"] += found["unknown"]
    return found


def count_finished(connection: BaseDatabaseWrapper, bounds: Sequence[int], cap: int) -> dict[str, list[int]]:
    """How many runs ended in each status between one machine time and the next; each counted up to `cap`."""
    limits = [dialect.date_value(connection, bound) for bound in bounds]
    statements, parameters = [], []
    for status in FINISHED:
        for number in range(len(limits) - 1):
            statements.append(
                f"SELECT '{status}', {number}, (SELECT COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE status = '{status}'"
                f" AND finished_at >= %s AND finished_at < %s LIMIT {int(cap)}) c)"
            )
            parameters += limits[number : number + 2]
    found = {status: [0] * (len(limits) - 1) for status in FINISHED}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(statements), parameters)
        for status, number, count in cursor.fetchall():
            found[status][number] = count
    return found


def oldest_ready(connection: BaseDatabaseWrapper) -> UUID | None:
    """The ready run that was started first."""
    with connection.cursor() as cursor:
        cursor.execute(
            # The inner limit keeps the database from looking for it among the finished ones, in the order of the ids.
            f"SELECT id FROM (SELECT id FROM {RUN} WHERE phase = {READY} LIMIT {_READY_LOOKED_AT}) r ORDER BY id LIMIT 1"
        )
        row: Any = cursor.fetchone()
    return dialect.run_id(row[0]) if row else None
