"""Recording the outcome of a step: one fenced statement, one commit.

Every write checks the claim token *and locks the run's row*, so that a takeover in flight can't slip in between.
A write carries a `write_id` of its own: if the answer to it is lost, writing it again finds it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..core import clock
from ..core.ids import random_token
from . import database, dialect
from .postgresql import prepared
from .postgresql.prepared import Statement
from .tables import RUN, STEP, TIMED


class Outcome(Enum):
    """What became of a fenced write."""

    WRITTEN = "written"
    # The run was canceled meanwhile: its pass has to let go. The record of a step is written all the same, nothing else.
    NOT_RUNNING = "not running"
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
    wakes_at_us: int | None = None
    replaces: bool = False  # the row exists already (an earlier attempt failed) and is brought up to date
    write_id: int = field(default_factory=random_token)


# The columns of a record, and their types in PostgreSQL.
TYPES = {
    "name": "text",
    "kind": "text",
    "position": "int",
    "status": "text",
    "attempts": "int",
    "output": "text",
    "error": "text",
    "error_type": "text",
    "attempt_log": "text",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    "wakes_at_us": "bigint",
    "claim_token": "bigint",
    "write_id": "bigint",
}
COLUMNS = ", ".join(TYPES)
_CHANGING = [column for column in TYPES if column not in ("name", "kind", "position")]
FENCE = "id = %s AND claim_token = %s AND status = 'running'"
# A canceled run's pass may still record the step it was in the middle of; not so once the run waits for a retry, which
# may have forgotten what came before that step.
_HELD = f"id = %s AND claim_token = %s AND phase = {TIMED} AND status IN ('running', 'canceled')"


def record(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Write one record, in one transaction."""
    if write.replaces:
        return database.retrying(connection, lambda: _replace(connection, write))
    return Outcome.WRITTEN if insert(connection, write) else explain(connection, write)


def insert(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Write a new record, waiting for whoever has locked the run; whether it is written."""
    return bool(database.retrying(connection, lambda: _insert(connection, write, FENCE)))


def insert_unlocked(connection: BaseDatabaseWrapper, write: StepWrite) -> bool:
    """Write a new record unless somebody has locked the run; whether it is written."""
    return _insert(connection, write, FENCE, skip=True)


def insert_all(connection: BaseDatabaseWrapper, writes: Sequence[StepWrite]) -> int:
    """SQLite, whose client counts over all of them: write new records of several runs by one call; how many are written."""
    statement = _insertion_of_one(FENCE, "", False)
    with connection.cursor() as cursor:
        cursor.executemany(statement.text, [_fenced_parameters(connection, write) for write in writes])
        return int(cursor.rowcount)


# PostgreSQL: new records of several runs, given as one JSON text, which costs it and us less than that many parameters.
INSERTION = Statement(
    f"INSERT INTO {STEP} (run_id, {COLUMNS}) SELECT r.id, {', '.join(f'v.{column}' for column in TYPES)}"
    f" FROM json_to_recordset(%s) AS v (run_id uuid, {', '.join(map(' '.join, TYPES.items()))})"
    f" JOIN {RUN} r ON r.id = v.run_id AND r.claim_token = v.claim_token AND r.status = 'running'"
    " FOR SHARE OF r SKIP LOCKED ON CONFLICT DO NOTHING RETURNING write_id",
    ["json"],
)


def insertion(writes: Sequence[StepWrite]) -> str:
    """The parameter of `INSERTION`, which returns the `write_id`s that it has written.

    Runs whose row is locked by somebody are passed over, so that one of them can't hold up the others.
    """
    # In the order of the ids, as every statement that locks several runs takes them.
    ordered = sorted(writes, key=lambda write: write.run_id)
    return json.dumps(
        [{"run_id": write.run_id.hex, **dict(zip(TYPES, _values(write), strict=True))} for write in ordered]
    )


def explain(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Why a record was refused; a run that was canceled while its step executed still gets the record."""
    # The INSERT said only that it wrote nothing. The reasons look alike and call for opposite things, so the order in
    # which they are asked for matters:
    #
    # 1. The run is gone, its token is another one, or no worker holds it: the claim is lost. Whatever is recorded under
    #    this name is the business of the worker that has the run now. That comes first: with another token even our own
    #    `write_id` says nothing about what this pass may do.
    # 2. The record has our `write_id`: an earlier attempt of this very write was committed, and its answer got lost with
    #    the connection. To call that TAKEN would end the pass, and to write again is what must not happen.
    # 3. The record has another `write_id`: this pass looked the name up and did not find it, so its history is not what
    #    is in the database. The pass must end, and be replayed over the true one.
    # 4. There is no record: the run was canceled while the step executed. The effect of the step has happened, so it is
    #    recorded all the same; otherwise a retry of the canceled run would repeat it. The fence of this second INSERT is
    #    wider by that one status and no more: once the run waits for a retry, records before this one may be reset.
    #
    # Nothing is locked between the two statements. If the run changes again in between, the second INSERT is refused too,
    # and the claim is lost.
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT s.write_id, r.claim_token, r.status, r.phase FROM {RUN} r"
            f" LEFT JOIN {STEP} s ON s.run_id = r.id AND s.name = %s WHERE r.id = %s",
            [write.name, dialect.key(connection, write.run_id)],
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
    with database.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            # A shared lock would not wait: the transaction in question holds one itself.
            f"SELECT id FROM {RUN} WHERE id = %s{dialect.locking(connection, wait=True)}",
            [dialect.key(connection, write.run_id)],
        )
        cursor.execute(
            f"SELECT 1 FROM {STEP} WHERE run_id = %s AND name = %s AND write_id = %s",
            [dialect.key(connection, write.run_id), write.name, write.write_id],
        )
        return cursor.fetchone() is not None


def hold(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> str | None:
    """Lock the run against a takeover until this transaction ends; its status, or None if the claim is lost.

    SQLite locks by writing, which also makes the transaction a writer from its first statement on.
    """
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"UPDATE {RUN} SET claim_token = claim_token WHERE {_HELD}", [key, token])
        cursor.execute(f"SELECT status FROM {RUN} WHERE {_HELD}{dialect.sharing(connection)}", [key, token])
        row = cursor.fetchone()
    return row[0] if row else None


def _values(write: StepWrite) -> list[Any]:
    """The values of the columns, in their order; times as text."""
    return [
        write.name,
        write.kind,
        write.position,
        write.status,
        write.attempts,
        write.output,
        write.error,
        failures.columns(write.error)[0],
        write.attempt_log,
        clock.to_datetime(write.started_at).isoformat(),
        None if write.finished_at is None else clock.to_datetime(write.finished_at).isoformat(),
        write.wakes_at_us,
        write.token,
        write.write_id,
    ]


def parameters(connection: BaseDatabaseWrapper, write: StepWrite) -> list[Any]:
    """The values of `COLUMNS`."""
    return [write.name, write.kind, write.position, *_changing_parameters(connection, write)]


def _fenced_parameters(connection: BaseDatabaseWrapper, write: StepWrite) -> list[Any]:
    return [*parameters(connection, write), dialect.key(connection, write.run_id), write.token]


def _changing_parameters(connection: BaseDatabaseWrapper, write: StepWrite) -> list[Any]:
    return [
        write.status,
        write.attempts,
        write.output,
        write.error,
        failures.columns(write.error)[0],
        write.attempt_log,
        dialect.date_value(connection, write.started_at),
        dialect.date_value(connection, write.finished_at),
        write.wakes_at_us,
        write.token,
        write.write_id,
    ]


def _insert(connection: BaseDatabaseWrapper, write: StepWrite, fence: str, *, skip: bool = False) -> bool:
    statement = _insertion_of_one(fence, dialect.sharing(connection, skip=skip), connection.vendor == "mysql")
    with connection.cursor() as cursor:
        try:
            prepared.execute(connection, cursor, statement, _fenced_parameters(connection, write))
        except IntegrityError:  # MySQL has no other way to say that the name is taken
            if connection.vendor != "mysql":
                raise
            return False
        return bool(cursor.rowcount > 0)


@cache
def _insertion_of_one(fence: str, lock: str, raises_on_conflict: bool) -> Statement:
    values = ", ".join(["%s"] * len(TYPES))
    conflict = "" if raises_on_conflict else " ON CONFLICT DO NOTHING"
    return Statement(
        f"INSERT INTO {STEP} (run_id, {COLUMNS}) SELECT id, {values} FROM {RUN} WHERE {fence}{lock}{conflict}",
        [*TYPES.values(), "uuid", "bigint"],
    )


# PostgreSQL: the row of a step that was tried before, by one statement.
_REPLACEMENT = Statement(
    f"WITH held AS (SELECT id, status FROM {RUN} WHERE {_HELD} FOR SHARE)"
    f" UPDATE {STEP} s SET {', '.join(f'{column} = %s' for column in _CHANGING)}"
    " FROM held WHERE s.run_id = held.id AND s.name = %s RETURNING held.status",
    ["uuid", "bigint", *[TYPES[column] for column in _CHANGING], "text"],
)


def _replace(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    if connection.vendor == "postgresql":
        values = [write.run_id, write.token, *_changing_parameters(connection, write), write.name]
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, _REPLACEMENT, values)
            row = cursor.fetchone()
        if row is None:
            return Outcome.LOST
        return Outcome.WRITTEN if row[0] == "running" else Outcome.NOT_RUNNING
    with database.writing(connection):
        status = hold(connection, write.run_id, write.token)
        if status is None:
            return Outcome.LOST
        _replace_held(connection, write)
    return Outcome.WRITTEN if status == "running" else Outcome.NOT_RUNNING


def _replace_held(connection: BaseDatabaseWrapper, write: StepWrite) -> None:
    """Bring the row of a step that was tried before up to date; the caller holds the run."""
    assignments = ", ".join(f"{column} = %s" for column in _CHANGING)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {STEP} SET {assignments} WHERE run_id = %s AND name = %s",
            [*_changing_parameters(connection, write), dialect.key(connection, write.run_id), write.name],
        )
