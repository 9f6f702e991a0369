"""How a pass leaves its run: ended, put down until a time, due for another attempt, or given back.

Each is fenced by the claim token, and each may be written twice: the second time finds the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import clock
from . import database, dialect, records
from .postgresql import prepared
from .postgresql.prepared import Statement
from .records import Outcome, StepWrite
from .resets import reset_failures
from .tables import ENDED, READY, RUN, STEP, TIMED

# A run that nobody holds: no worker, no token, no mark of suspicion, no step it is in.
_RELEASED = "worker_id = NULL, claim_token = NULL, suspect_since_us = NULL, current_step = ''"
_SUSPENDED = f"status = 'sleeping', phase = {TIMED}, available_at_us = %s, {_RELEASED}"


@dataclass(slots=True, kw_only=True)
class Finish:
    """The end of a run: `status` succeeded or failed, the encoded output or error, the time in microseconds."""

    run_id: UUID
    token: int
    status: str
    output: str | None = None
    error: str | None = None
    finished_at: int


def finish(connection: BaseDatabaseWrapper, end: Finish) -> Outcome:
    """End a run, by one statement. The token stays, so that a lost answer can be told from a lost claim."""
    return Outcome.WRITTEN if close(connection, end) else _explain(connection, end)


def close(connection: BaseDatabaseWrapper, end: Finish) -> bool:
    """End a run, waiting for whoever has locked it; whether it is ended."""
    return bool(database.retrying(connection, lambda: _finish(connection, end)))


def close_unlocked(connection: BaseDatabaseWrapper, end: Finish) -> bool:
    """End a run unless somebody has locked it, in the caller's transaction; whether it is ended."""
    return _is_lockable(connection, end) and _finish(connection, end)


def close_all(connection: BaseDatabaseWrapper, ends: Sequence[Finish]) -> int:
    """SQLite, whose client counts over all of them: end several runs by one call; how many are ended."""
    with connection.cursor() as cursor:
        cursor.executemany(_CLOSING_OF_ONE, [_parameters(connection, end) for end in ends])
        return int(cursor.rowcount)


# PostgreSQL: the ends of several runs, given as one JSON text.
CLOSING = Statement(
    "WITH v AS (SELECT * FROM json_to_recordset(%s) AS v (id uuid, token bigint, status text, output text, error text,"
    f" finished_at timestamptz)), held AS (SELECT r.id FROM {RUN} r JOIN v ON r.id = v.id AND r.claim_token = v.token"
    " AND r.status = 'running' FOR UPDATE OF r SKIP LOCKED)"
    f" UPDATE {RUN} r SET status = v.status, phase = {ENDED}, output = v.output, error = v.error,"
    " finished_at = v.finished_at, suspect_since_us = NULL, current_step = ''"
    " FROM v, held WHERE r.id = held.id AND v.id = held.id RETURNING r.id",
    ["json"],
)


def closing(ends: Sequence[Finish]) -> str:
    """The parameter of `CLOSING`, which passes over runs that are locked and returns the ids of the ended ones."""
    return json.dumps(
        [
            {
                "id": end.run_id.hex,
                "token": end.token,
                "status": end.status,
                "output": end.output,
                "error": end.error,
                "finished_at": clock.to_datetime(end.finished_at).isoformat(),
            }
            for end in sorted(ends, key=lambda end: end.run_id)
        ]
    )


def suspend(connection: BaseDatabaseWrapper, run_id: UUID, token: int, wakes_at_us: int, write: StepWrite) -> Outcome:
    """Record why a run waits (a sleep, a failed attempt) and put it down until `wakes_at_us`, in one transaction."""
    if connection.vendor == "postgresql" and not write.replaces and _suspend_at_once(connection, wakes_at_us, write):
        return Outcome.WRITTEN
    # By several statements, which also tell a lost claim, a cancel and a lost answer apart.

    def transaction() -> Outcome:
        with database.writing(connection):
            outcome = records.record(connection, write)
            if outcome is Outcome.WRITTEN:
                _mark_suspended(connection, run_id, token, wakes_at_us)
        return outcome

    outcome: Outcome = database.retrying(connection, transaction)
    if outcome is Outcome.LOST and records.is_recorded(connection, write):
        return Outcome.WRITTEN  # by the first time it was asked, which let go of the run as well
    return outcome


# PostgreSQL: a new record and the end of the claim, by one statement.
_SUSPENSION = Statement(
    f"WITH held AS (SELECT id FROM {RUN} WHERE {records.FENCE} FOR UPDATE),"
    f" written AS (INSERT INTO {STEP} (run_id, {', '.join(records.ALL)}) SELECT id, {dialect.marks(records.TYPES)} FROM held"
    f" ON CONFLICT DO NOTHING RETURNING run_id) UPDATE {RUN} r SET {_SUSPENDED} FROM written WHERE r.id = written.run_id",
    ["uuid", "bigint", *records.TYPES.values(), "bigint"],
)


def _suspend_at_once(connection: BaseDatabaseWrapper, wakes_at_us: int, write: StepWrite) -> bool:
    parameters = [write.run_id, write.token, *records.parameters(connection, write), wakes_at_us]

    def statement() -> bool:
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, _SUSPENSION, parameters)
            return bool(cursor.rowcount)

    return database.retrying(connection, statement)


def wait_again(connection: BaseDatabaseWrapper, run_id: UUID, token: int, wakes_at_us: int) -> Outcome:
    """Put a run down until `wakes_at_us` for something that is recorded already."""
    if database.retrying(connection, lambda: _mark_suspended(connection, run_id, token, wakes_at_us)):
        return Outcome.WRITTEN
    return _why_not(connection, run_id, token)


def attempt_again(
    connection: BaseDatabaseWrapper, run_id: UUID, token: int, due_at: int, error: str, steps: Sequence[str]
) -> Outcome:
    """Let the run policy have its way: forget the failures that ended the run, and come back at `due_at`."""

    def transaction() -> Outcome:
        with database.writing(connection), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {_SUSPENDED}, attempts = attempts + 1, generation = generation + 1, error = %s"
                f" WHERE {records.FENCE}",
                [due_at, error, dialect.key(connection, run_id), token],
            )
            if not cursor.rowcount:
                return _why_not(connection, run_id, token)
            reset_failures(connection, run_id, steps)
        return Outcome.WRITTEN

    outcome: Outcome = database.retrying(connection, transaction)
    return outcome


def release(connection: BaseDatabaseWrapper, run_id: UUID, token: int, *, is_untouched: bool = False) -> bool:
    """Let go of a run: a running one is ready for others at once, a canceled one has ended, and a retry that waited
    for this goes ahead. Returns whether it has ended.

    `is_untouched`: it was claimed for the first time, and its body was not called.
    """
    never_started = ", started_at = NULL" if is_untouched else ""
    key = dialect.key(connection, run_id)

    def statement() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                # MySQL evaluates assignments from left to right: `phase` reads the status before it changes.
                f"UPDATE {RUN} SET phase = CASE WHEN status = 'canceled' THEN {ENDED} ELSE {READY} END,"
                " claim_token = CASE WHEN status = 'canceled' THEN claim_token END,"
                " status = CASE WHEN status = 'running' THEN 'pending' ELSE status END,"
                f" worker_id = NULL, suspect_since_us = NULL, current_step = ''{never_started}"
                f" WHERE id = %s AND claim_token = %s AND phase = {TIMED}",
                [key, token],
            )
            if not cursor.rowcount:
                return False
            # Only a canceled run keeps the token.
            cursor.execute(f"SELECT 1 FROM {RUN} WHERE id = %s AND claim_token = %s", [key, token])
            return cursor.fetchone() is not None

    return database.retrying(connection, statement)


_CLOSING_OF_ONE = (
    f"UPDATE {RUN} SET status = %s, phase = {ENDED}, output = %s, error = %s, finished_at = %s,"
    f" suspect_since_us = NULL, current_step = '' WHERE {records.FENCE}"
)


def _finish(connection: BaseDatabaseWrapper, end: Finish) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_CLOSING_OF_ONE, _parameters(connection, end))
        return bool(cursor.rowcount)


def _parameters(connection: BaseDatabaseWrapper, end: Finish) -> list[Any]:
    return [
        end.status,
        end.output,
        end.error,
        dialect.date_value(connection, end.finished_at),
        dialect.key(connection, end.run_id),
        end.token,
    ]


def _is_lockable(connection: BaseDatabaseWrapper, end: Finish) -> bool:
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {RUN} WHERE id = %s{dialect.locking(connection)}", [dialect.key(connection, end.run_id)]
        )
        return cursor.fetchone() is not None


def _explain(connection: BaseDatabaseWrapper, end: Finish) -> Outcome:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT claim_token, status, phase FROM {RUN} WHERE id = %s", [dialect.key(connection, end.run_id)]
        )
        row = cursor.fetchone()
    if row is None or row[0] != end.token:
        return Outcome.LOST
    if row[1] == end.status and row[2] == ENDED:
        return Outcome.WRITTEN
    return Outcome.NOT_RUNNING


def _why_not(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> Outcome:
    """Why a run that is to be let go of is not running: canceled meanwhile, or another's by now."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {RUN} WHERE id = %s AND claim_token = %s AND phase = {TIMED}",
            [dialect.key(connection, run_id), token],
        )
        return Outcome.LOST if cursor.fetchone() is None else Outcome.NOT_RUNNING


def _mark_suspended(connection: BaseDatabaseWrapper, run_id: UUID, token: int, wakes_at_us: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {_SUSPENDED} WHERE {records.FENCE}",
            [wakes_at_us, dialect.key(connection, run_id), token],
        )
        return bool(cursor.rowcount)
