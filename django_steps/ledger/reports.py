"""What the pages for operators ask of the whole table, written so that a million finished runs cost nothing.

Every statement here stops at a limit or jumps through an index; none walks over all runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import ACTIVE, FINISHED
from . import database, dialect, moves
from .tables import PARKED, READY, RUN, TIMED, UNKNOWN

_READY_LOOKED_AT = 100_000


# The names of the workflows in the table: one jump through an index for each.
_NAMES = (
    f"WITH RECURSIVE found (name) AS (SELECT MIN(workflow) FROM {RUN} UNION ALL"
    f" SELECT (SELECT MIN(workflow) FROM {RUN} WHERE workflow > found.name) FROM found WHERE found.name IS NOT NULL)"
)


def workflow_names(connection: BaseDatabaseWrapper, limit: int = 200) -> list[str]:
    """The first names of workflows in the table."""
    statement = f"{_NAMES} SELECT name FROM found WHERE name IS NOT NULL LIMIT {int(limit)}"
    if connection.vendor == "mysql":  # which jumps by itself
        statement = f"SELECT DISTINCT workflow FROM {RUN} ORDER BY workflow LIMIT {int(limit)}"
    with connection.cursor() as cursor:
        cursor.execute(statement)
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


class FailureKind(NamedTuple):
    """How many runs have failed in the same way: of one workflow, by errors of one class, in the same step (its path without
    keys; an empty text for none); and when the last of them did, as machine time."""

    workflow: str
    error_type: str
    failed_step: str
    runs: int
    last: int


def failure_kinds(
    connection: BaseDatabaseWrapper, *, newest: int | None = None, workflow: str = "", since: int | None = None
) -> list[FailureKind]:
    """The failed runs by kind, the kinds of most runs first. `newest`: only of so many that failed last; `workflow`: only of
    this one; `since`: only what failed since this machine time."""
    condition, parameters = "status = 'failed' AND finished_at IS NOT NULL", list[Any]()
    if workflow:
        condition, parameters = f"{condition} AND workflow = %s", [workflow]
    if since is not None:
        condition, parameters = (
            f"{condition} AND finished_at >= %s",
            [*parameters, dialect.date_value(connection, since)],
        )
    limit = "" if newest is None else f" ORDER BY finished_at DESC LIMIT {int(newest)}"
    rows = database.fetch_all(
        connection,
        "SELECT workflow, error_type, failed_step, COUNT(*), MAX(finished_at) FROM (SELECT workflow, error_type, failed_step,"
        f" finished_at FROM {RUN} WHERE {condition}{limit}) f GROUP BY workflow, error_type, failed_step",
        parameters,
    )
    found = [
        FailureKind(workflow, error_type, step, runs, dialect.read_date(connection, last) or 0)
        for workflow, error_type, step, runs, last in rows
    ]
    return sorted(found, key=lambda kind: (-kind.runs, -kind.last, kind[:3]))


def error_types(connection: BaseDatabaseWrapper, limit: int = 500) -> list[str]:
    """The first types of the errors in the table: one jump through the index for each."""
    failed = f"SELECT error_type FROM {RUN} WHERE error IS NOT NULL"
    statement = (
        f"WITH RECURSIVE found (name) AS (SELECT ({failed} AND error_type > '' ORDER BY error_type LIMIT 1) UNION ALL"
        f" SELECT ({failed} AND error_type > found.name ORDER BY error_type LIMIT 1) FROM found"
        f" WHERE found.name IS NOT NULL) SELECT name FROM found WHERE name IS NOT NULL LIMIT {int(limit)}"
    )
    if connection.vendor == "mysql":  # which jumps by itself, but not to what another row says
        statement = (
            f"SELECT DISTINCT error_type FROM {RUN} WHERE error_type > '' ORDER BY error_type LIMIT {int(limit)}"
        )
    return [row[0] for row in database.fetch_all(connection, statement, [])]


def count_by_status(connection: BaseDatabaseWrapper, cap: int) -> dict[str, int]:
    """How many runs have each status, and how many are `unknown`; each counted up to `cap`.

    Unknown runs count as pending, too.
    """
    statements = [
        f"SELECT 'ready', 'pending', COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE phase = {READY} LIMIT {int(cap)}) a",
        f"SELECT 'line', 'pending', COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE line_key IS NOT NULL LIMIT {int(cap)}) l",
        f"SELECT 'unknown', 'unknown', COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE phase = {UNKNOWN} LIMIT {int(cap)}) b",
        f"SELECT 'parked', status, COUNT(*) FROM (SELECT status FROM {RUN} WHERE phase = {PARKED} LIMIT {int(cap)}) e"
        " GROUP BY status",
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
    if sum(count for place, _status, count in rows if place == "timed") >= cap:
        found["waiting"] = max(found["waiting"], _waiting_last(connection, cap))
    return found


def _waiting_last(connection: BaseDatabaseWrapper, cap: int) -> int:
    """How many of the timed runs that are due last are waiting: those without a deadline are behind all sleepers."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT COUNT(*) FROM (SELECT status FROM {RUN} WHERE phase = {TIMED} ORDER BY available_at_us DESC"
            f" LIMIT {int(cap)}) c WHERE status = 'waiting'"
        )
        return int(cursor.fetchone()[0])


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


def events_waited_for(connection: BaseDatabaseWrapper, looked_at: int = 1000) -> dict[str, int]:
    """The names of the events that runs wait for, and how many runs wait for each; "" for those that wait for none.

    Of all timed runs those are looked at that are due first, and those that are due last: that is where waits are.
    """
    statements = [
        f"SELECT id, waits_for FROM (SELECT id, status, waits_for FROM {RUN} WHERE phase = {TIMED}"
        f" ORDER BY available_at_us{order} LIMIT {int(looked_at)}) {name} WHERE status = 'waiting'"
        for order, name in (("", "a"), (" DESC", "b"))
    ]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ".join(statements))
        found = Counter(name for _id, names in cursor.fetchall() for name in _events(names) or {""})
    return dict(found)


def _events(waits_for: str) -> set[str]:
    return {name for name in waits_for.split("\n") if name and not name.startswith(moves.CHILDREN)}


def has_children(connection: BaseDatabaseWrapper) -> bool:
    """Whether any run is a child of another."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {RUN} WHERE parent_id IS NOT NULL LIMIT 1")
        return cursor.fetchone() is not None


def oldest_ready(connection: BaseDatabaseWrapper) -> UUID | None:
    """The ready run that was started first."""
    with connection.cursor() as cursor:
        cursor.execute(
            # The inner limit keeps the database from looking for it among the finished ones, in the order of the ids.
            f"SELECT id FROM (SELECT id FROM {RUN} WHERE phase = {READY} LIMIT {_READY_LOOKED_AT}) r ORDER BY id LIMIT 1"
        )
        row: Any = cursor.fetchone()
    return dialect.run_id(row[0]) if row else None
