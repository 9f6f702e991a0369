"""How a pass leaves its run: finished, suspended until a time, due for another attempt, or released.

Each is fenced by the claim token, and each may be written twice: the second time finds the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..core import clock
from ..core.states import Status
from . import database, dialect, moves, records
from .postgresql import prepared
from .postgresql.prepared import Statement
from .records import Outcome, StepWrite
from .resets import reset_failures
from .tables import ENDED, RUN, STEP


@dataclass(slots=True, kw_only=True)
class Finish:
    """The end of a run as its pass wants it: `status` succeeded or failed, the encoded output or error, the time in
    microseconds."""

    run_id: UUID
    token: int
    status: str
    output: str | None = None
    error: str | None = None
    finished_at: int


def finish(connection: BaseDatabaseWrapper, write: Finish) -> Outcome:
    """Finish a run, by one statement."""
    return Outcome.WRITTEN if finish_waiting(connection, write) else _explain(connection, write)


def finish_waiting(connection: BaseDatabaseWrapper, write: Finish) -> bool:
    """Finish a run, waiting for whoever has locked it; whether it is finished."""
    return bool(database.retrying(connection, lambda: _finish(connection, write)))


def finish_unlocked(connection: BaseDatabaseWrapper, write: Finish) -> bool:
    """Finish a run unless somebody has locked it, in the caller's transaction; whether it is finished."""
    return _is_lockable(connection, write) and _finish(connection, write)


def finish_all(connection: BaseDatabaseWrapper, writes: Sequence[Finish]) -> int:
    """SQLite, whose client counts over all of them: finish several runs by one call; how many are finished."""
    with connection.cursor() as cursor:
        cursor.executemany(_FINISHING_ONE, [_parameters(connection, write) for write in writes])
        return int(cursor.rowcount)


def finish_suspended(connection: BaseDatabaseWrapper, write: Finish) -> bool:
    """Finish a run that its pass has suspended already, and that no other pass has claimed since; whether it is finished."""
    statement = f"UPDATE {RUN} SET {_FINISHED_WITH} WHERE id = %s AND status = 'sleeping' AND worker_id IS NULL"

    def finish() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(statement, _parameters(connection, write)[:-1])  # the token went with the suspension
            return bool(cursor.rowcount)

    return database.retrying(connection, finish)


# PostgreSQL: the ends of several runs, given as one JSON text. Runs that are locked are left out; it returns the ids of
# the finished ones.
FINISHING = Statement(
    "WITH v AS (SELECT * FROM json_to_recordset(%s) AS v (id uuid, token bigint, status text, output text, error text,"
    " error_type text, failed_step text, finished_at timestamptz)), held AS (SELECT r.id FROM"
    f" {RUN} r JOIN v ON r.id = v.id AND r.claim_token = v.token"
    " AND r.status = 'running' FOR UPDATE OF r SKIP LOCKED)"
    f" UPDATE {RUN} r SET {moves.finishing('v.status', 'v.finished_at')}, output = v.output, error = v.error,"
    f" error_type = v.error_type, failed_step = v.failed_step, {moves.NO_CHECKPOINT}"
    " FROM v, held WHERE r.id = held.id AND v.id = held.id RETURNING r.id",
    ["json"],
)


def as_json(writes: Sequence[Finish]) -> str:
    """The parameter of `FINISHING`."""
    return json.dumps([_row(write) for write in sorted(writes, key=lambda write: write.run_id)])


def _row(write: Finish) -> dict[str, Any]:
    error_type, failed_step = failures.columns(write.error)
    return {
        "id": write.run_id.hex,
        "token": write.token,
        "status": write.status,
        "output": write.output,
        "error": write.error,
        "error_type": error_type,
        "failed_step": failed_step,
        "finished_at": clock.to_datetime(write.finished_at).isoformat(),
    }


def suspend(connection: BaseDatabaseWrapper, run_id: UUID, token: int, wakes_at_us: int, write: StepWrite) -> Outcome:
    """Record why a run waits (a sleep, a failed attempt) and suspend it until `wakes_at_us`, in one transaction."""
    if connection.vendor == "postgresql" and not write.replaces and _suspend_at_once(connection, wakes_at_us, write):
        return Outcome.WRITTEN
    # By several statements, which also tell a lost claim, a cancel and a lost answer apart.

    def transaction() -> Outcome:
        with database.writing(connection):
            within = records.replace_within if write.replaces else records.record
            outcome = within(connection, write)
            if outcome is Outcome.WRITTEN:
                _mark_suspended(connection, run_id, token, wakes_at_us)
        return outcome

    outcome: Outcome = database.retrying(connection, transaction)
    if outcome is Outcome.LOST and records.is_recorded(connection, write):
        return Outcome.WRITTEN  # by the first time it was asked, which released the run as well
    return outcome


# PostgreSQL: a new record and the end of the claim, by one statement.
_SUSPENSION = Statement(
    f"WITH held AS (SELECT id FROM {RUN} WHERE {records.FENCE} FOR UPDATE),"
    f" written AS (INSERT INTO {STEP} (run_id, {', '.join(records.ALL)}) SELECT id, {dialect.marks(records.TYPES)} FROM held"
    f" ON CONFLICT DO NOTHING RETURNING run_id)"
    f" UPDATE {RUN} r SET {moves.suspended()} FROM written WHERE r.id = written.run_id",
    ["uuid", "bigint", *records.TYPES.values(), "bigint"],
)


def _suspend_at_once(connection: BaseDatabaseWrapper, wakes_at_us: int, write: StepWrite) -> bool:
    parameters = [write.run_id, write.token, *records.parameters(connection, write), wakes_at_us]

    def statement() -> bool:
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, _SUSPENSION, parameters)
            return bool(cursor.rowcount)

    return database.retrying(connection, statement)


def suspend_again(connection: BaseDatabaseWrapper, run_id: UUID, token: int, wakes_at_us: int) -> Outcome:
    """Suspend a run until `wakes_at_us` for something that is recorded already."""
    if database.retrying(connection, lambda: _mark_suspended(connection, run_id, token, wakes_at_us)):
        return Outcome.WRITTEN
    return _why_not(connection, run_id, token)


def attempt_again(
    connection: BaseDatabaseWrapper, run_id: UUID, token: int, due_at: int, error: str, steps: Sequence[str]
) -> Outcome:
    """As the run's policy says: reset the failures that ended the run, and come back at `due_at`."""

    def transaction() -> Outcome:
        with database.writing(connection), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {moves.suspended()}, attempts = attempts + 1, generation = generation + 1,"
                f" error = %s, error_type = %s, failed_step = %s WHERE {records.FENCE}",
                [due_at, error, *failures.columns(error), dialect.key(connection, run_id), token],
            )
            if not cursor.rowcount:
                return _why_not(connection, run_id, token)
            reset_failures(connection, run_id, steps)
        return Outcome.WRITTEN

    outcome: Outcome = database.retrying(connection, transaction)
    return outcome


def release(connection: BaseDatabaseWrapper, run_id: UUID, token: int, *, is_untouched: bool = False) -> bool:
    """Release a run: a running one is ready for others at once, a canceling one is canceled. Returns whether it is canceled.

    `is_untouched`: it was claimed for the first time, and its body was not called.
    """
    never_started = ", started_at = NULL, attempting_since_us = NULL" if is_untouched else ""
    key = dialect.key(connection, run_id)

    def statements() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {moves.ready(dialect.now(connection))}{never_started} WHERE {records.FENCE}",
                [key, token],
            )
            if cursor.rowcount:
                return False
            now = dialect.date_value(connection, database.read_clock(connection))
            cursor.execute(
                f"UPDATE {RUN} SET {moves.finishing()} WHERE id = %s AND claim_token = %s AND status = 'canceling'",
                [Status.CANCELED, now, key, token],
            )
            if cursor.rowcount:
                return True
            # Only a run that finished keeps the token: by the first time that this was asked.
            cursor.execute(
                f"SELECT 1 FROM {RUN} WHERE id = %s AND claim_token = %s AND status = 'canceled'", [key, token]
            )
            return cursor.fetchone() is not None

    return database.retrying(connection, statements)


_FINISHED_WITH = (
    f"{moves.finishing()}, output = %s, error = %s, error_type = %s, failed_step = %s, {moves.NO_CHECKPOINT}"
)
_FINISHING_ONE = f"UPDATE {RUN} SET {_FINISHED_WITH} WHERE {records.FENCE}"


def _finish(connection: BaseDatabaseWrapper, write: Finish) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_FINISHING_ONE, _parameters(connection, write))
        return bool(cursor.rowcount)


def _parameters(connection: BaseDatabaseWrapper, write: Finish) -> list[Any]:
    return [
        write.status,
        dialect.date_value(connection, write.finished_at),
        write.output,
        write.error,
        *failures.columns(write.error),
        dialect.key(connection, write.run_id),
        write.token,
    ]


def _is_lockable(connection: BaseDatabaseWrapper, write: Finish) -> bool:
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {RUN} WHERE id = %s{dialect.locking(connection)}", [dialect.key(connection, write.run_id)]
        )
        return cursor.fetchone() is not None


def _explain(connection: BaseDatabaseWrapper, write: Finish) -> Outcome:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT claim_token, status, phase FROM {RUN} WHERE id = %s", [dialect.key(connection, write.run_id)]
        )
        row = cursor.fetchone()
    if row is None or row[0] != write.token:
        return Outcome.LOST
    if row[1] == write.status and row[2] == ENDED:
        return Outcome.WRITTEN
    return Outcome.NOT_RUNNING


def _why_not(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> Outcome:
    """Why a run that is to be suspended is not running: canceled meanwhile, or another's by now."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {RUN} WHERE {records.HELD}",
            [dialect.key(connection, run_id), token],
        )
        return Outcome.LOST if cursor.fetchone() is None else Outcome.NOT_RUNNING


def _mark_suspended(connection: BaseDatabaseWrapper, run_id: UUID, token: int, wakes_at_us: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.suspended()} WHERE {records.FENCE}",
            [wakes_at_us, dialect.key(connection, run_id), token],
        )
        return bool(cursor.rowcount)
