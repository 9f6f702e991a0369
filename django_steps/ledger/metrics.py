"""What is counted for monitoring: by indexes, and up to a number, so that neither a million finished runs nor a long backlog
makes it slow."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import FINISHED
from . import database, dialect
from .tables import HELD, IN_LINE, PARKED, READY, RUN, SCHEDULE, TIMED, UNKNOWN

MOST = 10_000  # runs that are counted in one place
_QUEUES = 200  # that are told apart

# Where the runs are that have not ended, each through an index. What is running has its lease at the front of the timed ones.
_PLACES = {
    "ready": f"phase = {READY}",
    "timed": f"phase = {TIMED} ORDER BY available_at_us",
    "unknown": f"phase = {UNKNOWN}",
    "parked": f"phase = {PARKED}",
    "line": f"line_key IS NOT NULL AND phase = {IN_LINE}",
    "held": f"open_schedule IS NOT NULL AND phase = {HELD}",
}


class Ready(NamedTuple):
    """How many runs of a queue are ready, and since when the first of them is: machine time."""

    name: str
    runs: int
    oldest_us: int


def unfinished(connection: BaseDatabaseWrapper) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """How many runs have not ended, by workflow and status; and how many of each workflow no live worker knows."""
    statements = [
        f"SELECT '{place}', workflow, status, COUNT(*) FROM (SELECT workflow, status FROM {RUN} WHERE {where}"
        f" LIMIT {MOST}) {place}_runs GROUP BY workflow, status"
        for place, where in _PLACES.items()
    ]
    found: Counter[tuple[str, str]] = Counter()
    unknown: Counter[str] = Counter()
    for place, workflow, status, count in database.fetch_all(connection, " UNION ALL ".join(statements), []):
        found[workflow, status] += count
        if place == "unknown":
            unknown[workflow] += count
    return dict(found), dict(unknown)


def ready(connection: BaseDatabaseWrapper) -> list[Ready]:
    """The queues that have ready runs."""
    names = database.fetch_all(
        connection,
        # One jump through the index for each queue.
        f"WITH RECURSIVE found (name) AS (SELECT MIN(queue) FROM {RUN} WHERE phase = {READY} UNION ALL"
        f" SELECT (SELECT MIN(queue) FROM {RUN} WHERE phase = {READY} AND queue > found.name) FROM found"
        f" WHERE found.name IS NOT NULL) SELECT name FROM found WHERE name IS NOT NULL LIMIT {_QUEUES}",
        [],
    )
    if not names:
        return []
    name = dialect.typed(connection, "text")
    one = (
        # A run that was ready from the start has no other time.
        f"SELECT {name}, COUNT(*), MIN(CASE WHEN available_at_us = 0 THEN created_at END),"
        f" MIN(CASE WHEN available_at_us > 0 THEN available_at_us END) FROM (SELECT created_at, available_at_us FROM {RUN}"
        f" WHERE phase = {READY} AND queue = %s ORDER BY priority DESC, id LIMIT {MOST}) q"
    )
    rows = database.fetch_all(
        connection, " UNION ALL ".join([one] * len(names)), [name for row in names for name in (row[0], row[0])]
    )
    found = []
    for queue, count, created_at, available_us in rows:
        times = [time for time in (dialect.read_date(connection, created_at), available_us) if time is not None]
        if times:  # it may have been emptied between the two statements
            found.append(Ready(queue, int(count), min(times)))
    return found


def overdue(connection: BaseDatabaseWrapper, before: int) -> int:
    """How many timed runs were due before this machine time."""
    rows = database.fetch_all(
        connection,
        f"SELECT COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE phase = {TIMED} AND available_at_us < %s LIMIT {MOST}) o",
        [before],
    )
    return int(rows[0][0])


def finished(connection: BaseDatabaseWrapper, since: int) -> dict[tuple[str, str], int]:
    """How many runs have ended since this machine time, by workflow and status."""
    statements = [
        f"SELECT workflow, '{status}', COUNT(*) FROM (SELECT workflow FROM {RUN} WHERE status = '{status}'"
        f" AND finished_at >= %s ORDER BY finished_at DESC LIMIT {MOST}) {status}_runs GROUP BY workflow"
        for status in FINISHED
    ]
    moment = dialect.date_value(connection, since)
    rows = database.fetch_all(connection, " UNION ALL ".join(statements), [moment] * len(statements))
    return {(workflow, status): int(count) for workflow, status, count in rows}


def late_schedules(connection: BaseDatabaseWrapper, before: int) -> tuple[int, int | None]:
    """How many schedules should have fired before this machine time, and the first of those times."""
    rows = database.fetch_all(
        connection, f"SELECT COUNT(*), MIN(next_at_us) FROM {SCHEDULE} WHERE next_at_us < %s", [before]
    )
    return int(rows[0][0]), rows[0][1]
