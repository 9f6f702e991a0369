"""Recording the outcome of a step: one fenced statement, one commit.

Every write checks the claim token *and locks the run's row*, so that a takeover in flight can't slip in between.
A write carries a `write_id` of its own: if the answer to it is lost, writing it again finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..ids import random_token
from . import sql
from .sql import RUN, STEP, TIMED


class Outcome(Enum):
    """What became of a fenced write."""

    WRITTEN = "written"
    NOT_RUNNING = "not running"  # written, but the run was canceled meanwhile: its pass has to let go
    LOST = "lost"  # nothing written: the claim is another's by now, or the run is gone
    TAKEN = "taken"  # nothing written: that name holds another record already


@dataclass(slots=True, kw_only=True)
class StepWrite:
    """One row of StepRecord as a pass wants it to be; times in microseconds, values as encoded text."""

    run_id: UUID
    token: int
    name: str
    kind: str
    position: int
    status: str
    attempts: int = 1
    output: str | None = None
    error: str | None = None
    attempt_log: str = ""
    started_at: int
    finished_at: int | None = None
    wake_at: int | None = None
    replaces: bool = False  # the row exists already (an earlier attempt failed) and is brought up to date
    write_id: int = field(default_factory=random_token)


_COLUMNS = (
    "name, kind, position, status, attempts, output, error, attempt_log, started_at, finished_at, wake_at, claim_token,"
    " write_id"
)
_CHANGING = "status, attempts, output, error, attempt_log, started_at, finished_at, wake_at, claim_token, write_id"
_VALUES = ", ".join(["%s"] * 13)
# How PostgreSQL is to read the columns of a VALUES list, which has no types of its own.
_CASTS = (
    "v.name, v.kind, v.position::int, v.status, v.attempts::int, v.output, v.error, v.attempt_log,"
    " v.started_at::timestamptz, v.finished_at::timestamptz, v.wake_at::bigint, v.claim_token::bigint,"
    " v.write_id::bigint"
)
_FENCE = "id = %s AND claim_token = %s AND status = 'running'"
# A canceled run's pass may still record the step it was in the middle of; not so once the run waits for a retry, which
# may have forgotten what came before that step.
_HELD = f"id = %s AND claim_token = %s AND phase = {TIMED} AND status IN ('running', 'canceled')"


def record(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Write one record, by one statement (two, in one transaction, for a step that was tried before)."""
    if write.replaces:
        return sql.retrying(connection, lambda: _replace(connection, write))
    return Outcome.WRITTEN if insert(connection, write) else explain(connection, write)


def insert(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Write a new record, waiting for whoever has locked the run; whether it is written."""
    return bool(sql.retrying(connection, lambda: _insert(connection, write, _FENCE)))


def insert_unlocked(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Write a new record unless somebody has locked the run; whether it is written."""
    return _insert(connection, write, _FENCE, skip=True)


def insertion(connection: BaseDatabaseWrapper, writes: Sequence[StepWrite]) -> tuple[str, list[Any]]:
    """PostgreSQL: one statement for new records of several runs, which returns the `write_id`s that it has written.

    Runs whose row is locked by somebody are passed over, so that one of them can't hold up the others.
    """
    # In the order of the ids, as every statement that locks several runs takes them.
    ordered = sorted(writes, key=lambda write: write.run_id)
    rows = ", ".join([f"(%s, {_VALUES})"] * len(ordered))
    return (
        f"WITH v (run_id, {_COLUMNS}) AS (VALUES {rows}) INSERT INTO {STEP} (run_id, {_COLUMNS})"
        f" SELECT r.id, {_CASTS} FROM v JOIN {RUN} r ON r.id = v.run_id::uuid AND r.claim_token = v.claim_token::bigint"
        " AND r.status = 'running' FOR SHARE OF r SKIP LOCKED ON CONFLICT DO NOTHING RETURNING write_id",
        [value for write in ordered for value in (write.run_id, *_parameters(connection, write))],
    )


def explain(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Why a record was refused; a run that was canceled while its step executed still gets the record."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT s.write_id, r.claim_token, r.status, r.phase FROM {RUN} r"
            f" LEFT JOIN {STEP} s ON s.run_id = r.id AND s.name = %s WHERE r.id = %s",
            [write.name, sql.key(connection, write.run_id)],
        )
        row = cursor.fetchone()
    if row is None:
        return Outcome.LOST
    write_id, token, status, phase = row
    if token != write.token or phase != TIMED:
        return Outcome.LOST
    if write_id == write.write_id:
        return Outcome.WRITTEN if status == "running" else Outcome.NOT_RUNNING
    if write_id is not None:
        return Outcome.TAKEN
    return Outcome.NOT_RUNNING if _insert(connection, write, _HELD) else Outcome.LOST


def is_recorded(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Whether this very write is in the database. Waits for whoever holds the run's row, so that a COMMIT whose
    answer was lost is over before one concludes that it failed."""
    with sql.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            # A shared lock would not wait: the transaction in question holds one itself.
            f"SELECT id FROM {RUN} WHERE id = %s{sql.locking(connection, wait=True)}",
            [sql.key(connection, write.run_id)],
        )
        cursor.execute(
            f"SELECT 1 FROM {STEP} WHERE run_id = %s AND name = %s AND write_id = %s",
            [sql.key(connection, write.run_id), write.name, write.write_id],
        )
        return cursor.fetchone() is not None


def hold(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> str | None:
    """Lock the run against a takeover until this transaction ends; its status, or None if the claim is lost.

    SQLite locks by writing, which also makes the transaction a writer from its first statement on.
    """
    key = sql.key(connection, run_id)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"UPDATE {RUN} SET claim_token = claim_token WHERE {_HELD}", [key, token])
        cursor.execute(f"SELECT status FROM {RUN} WHERE {_HELD}{sql.sharing(connection)}", [key, token])
        row = cursor.fetchone()
    return row[0] if row else None


def _parameters(connection: BaseDatabaseWrapper, write: StepWrite) -> list[Any]:
    return [write.name, write.kind, write.position, *_changing_parameters(connection, write)]


def _changing_parameters(connection: BaseDatabaseWrapper, write: StepWrite) -> list[Any]:
    return [
        write.status,
        write.attempts,
        write.output,
        write.error,
        write.attempt_log,
        sql.date_value(connection, write.started_at),
        sql.date_value(connection, write.finished_at),
        write.wake_at,
        write.token,
        write.write_id,
    ]


def _insert(connection: BaseDatabaseWrapper, write: StepWrite, fence: str, *, skip: bool = False) -> bool:
    conflict = "" if connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
    with connection.cursor() as cursor:
        try:
            cursor.execute(
                f"INSERT INTO {STEP} (run_id, {_COLUMNS}) SELECT id, {_VALUES} FROM {RUN}"
                f" WHERE {fence}{sql.sharing(connection, skip=skip)}{conflict}",
                [*_parameters(connection, write), sql.key(connection, write.run_id), write.token],
            )
        except IntegrityError:  # MySQL has no other way to say that the name is taken
            if connection.vendor != "mysql":
                raise
            return False
        return bool(cursor.rowcount > 0)


def _replace(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    with sql.writing(connection):
        status = hold(connection, write.run_id, write.token)
        if status is None:
            return Outcome.LOST
        replace_held(connection, write)
    return Outcome.WRITTEN if status == "running" else Outcome.NOT_RUNNING


def replace_held(connection: BaseDatabaseWrapper, write: StepWrite) -> None:
    """Bring the row of a step that was tried before up to date; the caller holds the run."""
    assignments = ", ".join(f"{column} = %s" for column in _CHANGING.split(", "))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {STEP} SET {assignments} WHERE run_id = %s AND name = %s",
            [*_changing_parameters(connection, write), sql.key(connection, write.run_id), write.name],
        )
