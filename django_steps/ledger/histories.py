"""Reading what runs have recorded: one query for all the resumed runs of a claim.

Long outputs are left out and fetched when a body reads them, so that a claim is bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import FINAL
from . import database, dialect
from .tables import STEP

_ROWS_AT_ONCE = 4000


@dataclass(slots=True)
class Recorded:
    """One recorded step, as a pass reads it: texts undecoded, times in microseconds."""

    name: str
    kind: str
    position: int
    after: int
    status: str
    attempts: int
    output: str | None
    error: str | None
    attempt_log: str
    wakes_at_us: int | None
    branch: str = ""
    context: str | None = None
    arguments: int | None = None  # the fingerprint of those that it was called with
    is_long: bool = False  # the output is too long to be kept here; read it with `long_output`

    @property
    def is_final(self) -> bool:
        """Whether the step has an outcome, and never executes again."""
        return self.status in FINAL


def load(connection: BaseDatabaseWrapper, known: Mapping[UUID, int]) -> dict[UUID, list[Recorded]]:
    """The records of runs, each from a position on (exclusive; -1: all), in the order of their positions.

    A run that is missing in the answer has to be asked for on its own: there was too much for one answer.
    """
    if not known:
        return {}
    rows = _select(connection, known, limit=_ROWS_AT_ONCE if len(known) > 1 else None)
    found: dict[UUID, list[Recorded]] = {}
    for row in rows:
        found.setdefault(dialect.run_id(row[0]), []).append(_recorded(row))
    if len(known) > 1 and len(rows) >= _ROWS_AT_ONCE:
        # Of the last run there may be more, and of those that are not among the rows. Their ids tell nothing: not every
        # version of MariaDB orders them as Python does.
        found.popitem()
        return found
    return {run_id: found.get(run_id, []) for run_id in known}


def long_output(connection: BaseDatabaseWrapper, run_id: UUID, name: str) -> str | None:
    """The output of a step that was too long to be loaded with the others; None if its record is gone since."""
    rows = database.fetch_all(
        connection,
        f"SELECT output FROM {STEP} WHERE run_id = %s AND name = %s",
        [dialect.key(connection, run_id), name],
    )
    return rows[0][0] if rows else None


def started_at(connection: BaseDatabaseWrapper, run_id: UUID, name: str) -> int | None:
    """When the last attempt of a step began; None if its record is gone since."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT started_at FROM {STEP} WHERE run_id = %s AND name = %s", [dialect.key(connection, run_id), name]
        )
        row = cursor.fetchone()
    return dialect.read_date(connection, row[0]) if row else None


def _select(connection: BaseDatabaseWrapper, known: Mapping[UUID, int], limit: int | None) -> list[tuple[Any, ...]]:
    conditions, parameters = [], []
    complete = [dialect.key(connection, run_id) for run_id, position in known.items() if position < 0]
    if complete:
        conditions.append(f"run_id IN ({dialect.marks(complete)})")
        parameters += complete
    for run_id, position in known.items():
        if position >= 0:
            conditions.append("(run_id = %s AND position > %s)")
            parameters += [dialect.key(connection, run_id), position]
    return database.fetch_all(
        connection,
        f"SELECT run_id, name, kind, position, after, status, attempts,"
        f" CASE WHEN LENGTH(output) <= {database.LONG_VALUE} THEN output END, error, attempt_log, wakes_at_us, branch, context,"
        f" arguments, LENGTH(output) > {database.LONG_VALUE} FROM {STEP} WHERE {' OR '.join(conditions)}"
        " ORDER BY run_id, position" + (f" LIMIT {limit}" if limit else ""),
        parameters,
    )


def _recorded(row: tuple[Any, ...]) -> Recorded:
    return Recorded(*row[1:14], is_long=bool(row[14]))  # type: ignore[misc]
