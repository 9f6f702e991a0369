"""Resetting what a run has recorded, so that it executes again.

A failed step keeps its row, with its attempts moved to the log: whoever looks at the run sees them later, too. The outcomes
of branches and maps are deleted: what they say is in the records of their steps and items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import StepStatus
from ..errors import UnknownStep
from ..failures import FailureRecord, append_attempt
from . import contexts, database, dialect, order
from .order import Place
from .tables import STEP

_NAMES_AT_ONCE = 500
_OUTCOMES = ("branch", "map")  # the kinds whose records say how others ended


def reset_failures(connection: BaseDatabaseWrapper, run_id: UUID, steps: Sequence[str]) -> None:
    """Let failed steps be executed again, with all their attempts ahead of them.

    A map that is named is decided again, also one that has taken the failure and succeeded.
    """
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        for name in steps:
            rows = database.fetch_all(
                connection,
                f"SELECT attempts, attempt_log, error, started_at, finished_at, kind, context FROM {STEP}"
                " WHERE run_id = %s AND name = %s AND (status = 'failed' OR kind = 'map')",
                [key, name],
            )
            if not rows:
                continue
            attempts, log, error, started_at, finished_at, kind, context = rows[0]
            if kind in _OUTCOMES:
                cursor.execute(f"DELETE FROM {STEP} WHERE run_id = %s AND name = %s", [key, name])
                continue
            times = dialect.read_date(connection, started_at), dialect.read_date(connection, finished_at)
            cursor.execute(
                f"UPDATE {STEP} SET status = 'retrying', attempts = 0, attempt_log = %s, error = NULL,"
                " error_type = '', finished_at = NULL, wakes_at_us = NULL, context = %s WHERE run_id = %s AND name = %s",
                [append_attempt(log, attempts, *times, error), contexts.after_reset(context), key, name],
            )


def reset_from(connection: BaseDatabaseWrapper, run_id: UUID, paths: Collection[str]) -> None:
    """Delete the records of these steps, branches or maps and all that are later, and reset the failures beside them.

    Raises `UnknownStep` for a path at which nothing is recorded.
    """
    names, failed = found_from(connection, run_id, paths)
    reset_failures(connection, run_id, [name for name in failed if name not in names])
    delete(connection, run_id, names)


def found_from(connection: BaseDatabaseWrapper, run_id: UUID, paths: Collection[str]) -> tuple[set[str], list[str]]:
    """What a run that goes on from these paths has to execute again: the names of the records to delete, and of the failures
    to reset. Raises `UnknownStep` for a path at which nothing is recorded."""
    rows = database.fetch_all(
        connection,
        f"SELECT name, position, after, context, status FROM {STEP} WHERE run_id = %s ORDER BY position",
        [dialect.key(connection, run_id)],
    )
    places = [Place.read(*row[:4]) for row in rows]
    failed = [place for place, row in zip(places, rows, strict=True) if row[4] == StepStatus.FAILED]
    names: set[str] = set()
    groups: set[str] = set()
    for path in paths:
        found = order.reset_with(places, path)
        if found is None:
            recorded = ", ".join(repr(place.name) for place in places[:50]) or "none"
            raise UnknownStep(f"Run {run_id} has recorded no step {path!r}. Recorded are: {recorded}.")
        names |= found[0]
        groups |= found[1]
    members = [place.name for place in failed if place.group in groups]
    return names & {place.name for place in places}, _with_causes(connection, run_id, members)


def _with_causes(connection: BaseDatabaseWrapper, run_id: UUID, members: Sequence[str]) -> list[str]:
    """Failed members of groups, and the steps in them whose failures theirs are."""
    found: dict[str, None] = {}
    for names in _chunks(members):
        rows = database.fetch_all(
            connection,
            f"SELECT name, error FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(names)})",
            [dialect.key(connection, run_id), *names],
        )
        for name, error in rows:
            found |= dict.fromkeys([*FailureRecord.read(error or "").steps, name])
    return list(found)


def delete(connection: BaseDatabaseWrapper, run_id: UUID, names: Iterable[str]) -> None:
    """Delete these records of a run."""
    with connection.cursor() as cursor:
        for chunk in _chunks(sorted(names)):
            cursor.execute(
                f"DELETE FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(chunk)})",
                [dialect.key(connection, run_id), *chunk],
            )


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _NAMES_AT_ONCE] for start in range(0, len(names), _NAMES_AT_ONCE))
