"""How a pass leaves its run: finished, suspended until a time, due for another attempt, or released.

Each is fenced by the claim token, and each may be written twice: the second time finds the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..core import clock
from ..core.states import Status
from ..core.tags import Changes
from . import database, dialect, moves, records, tags
from .postgresql import prepared
from .postgresql.prepared import Statement
from .records import Outcome, StepWrite
from .resets import reset_end
from .tables import ENDED, RUN
from .waits import Suspension


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
    details: str | None = None  # what the row holds then of what the run has said of itself; None: what it holds now


def finish(connection: BaseDatabaseWrapper, write: Finish) -> Outcome:
    """Finish a run, by one statement."""
    return Outcome.WRITTEN if finish_waiting(connection, write) else _finish_or_explain(connection, write)


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
    statement = (
        f"UPDATE {RUN} SET {_FINISHED_WITH} WHERE id = %s AND status IN ('sleeping', 'waiting') AND worker_id IS NULL"
    )

    def finish() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(statement, _parameters(connection, write)[:-1])  # the token went with the suspension
            return bool(cursor.rowcount)

    return database.retrying(connection, finish)


# PostgreSQL: the ends of several runs, given as one JSON text. Runs that are locked are left out; it returns the ids of
# the finished ones.
FINISHING = Statement(
    "WITH v AS (SELECT * FROM json_to_recordset(%s) AS v (id uuid, token bigint, status text, output text, error text,"
    " error_type text, failed_step text, finished_at timestamptz)"
    f" WHERE {dialect.are_few('v.token')}), held AS (SELECT r.id FROM"
    f" {RUN} r JOIN v ON {dialect.looked_up('r.id', 'v.id')} AND r.claim_token = v.token"
    f" AND {moves.goes_on('r.')} FOR UPDATE OF r SKIP LOCKED)"
    f" UPDATE {RUN} r SET {moves.finishing('v.status', 'v.finished_at')}, output = v.output, error = v.error,"
    f" error_type = v.error_type, failed_step = v.failed_step, {moves.NO_CHECKPOINT}"
    f" FROM v, held WHERE {dialect.looked_up('r.id', 'held.id')} AND v.id = held.id RETURNING r.id",
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


def suspend(
    connection: BaseDatabaseWrapper,
    run_id: UUID,
    token: int,
    suspension: Suspension,
    write: StepWrite,
    also: Callable[[], object] | None = None,
) -> Outcome:
    """Record why a run waits (a sleep, a failed attempt, an event) and suspend it, in one transaction; `also`: together with
    something else, such as the start of a child."""
    is_simple = also is None and not write.is_alone
    if connection.vendor == "postgresql" and is_simple and _suspend_at_once(connection, suspension, write):
        return Outcome.WRITTEN
    # By several statements, which also tell a lost claim, a cancel and a lost answer apart.

    def transaction() -> Outcome:
        with database.writing(connection):
            outcome = records.write_within(connection, write)
            if outcome is Outcome.WRITTEN:
                if also is not None:
                    also()
                _mark_suspended(connection, run_id, token, suspension)
            elif also is not None:  # a canceled or paused one gets neither: the record would say that a child is there
                connection.set_rollback(True)
        return outcome

    outcome: Outcome = database.retrying(connection, transaction)
    if outcome is Outcome.LOST and records.is_recorded(connection, write):
        return Outcome.WRITTEN  # by the first time it was asked, which released the run as well
    return outcome


@cache
def _suspension(is_waiting: bool, has_trace: bool) -> Statement:
    """PostgreSQL: a new record and the end of the claim, by one statement."""
    move, types = (moves.waiting(), ["bigint", "text", "bigint"]) if is_waiting else (moves.suspended(), ["bigint"])
    if has_trace:
        move, types = f"{move}, trace = %s", [*types, "text"]
    return Statement(
        f"WITH held AS (SELECT id FROM {RUN} WHERE {records.FENCE} FOR UPDATE),"
        f" written AS ({records.INSERTING} RETURNING run_id)"
        f" UPDATE {RUN} r SET {move} FROM written WHERE {dialect.looked_up('r.id', 'written.run_id')}",
        ["uuid", "bigint", *records.TYPES.values(), *types],
    )


def _suspend_at_once(connection: BaseDatabaseWrapper, suspension: Suspension, write: StepWrite) -> bool:
    _, said = _saying(None, suspension.trace)
    parameters = [write.run_id, write.token, *records.parameters(connection, write), *suspension.parameters, *said]

    def statement() -> bool:
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, _suspension(suspension.is_waiting, bool(said)), parameters)
            return bool(cursor.rowcount)

    return database.retrying(connection, statement)


def suspend_again(
    connection: BaseDatabaseWrapper, run_id: UUID, token: int, suspension: Suspension, details: str | None = None
) -> Outcome:
    """Suspend a run for something that is recorded already; `details` as of a `Finish`."""
    if database.retrying(connection, lambda: _mark_suspended(connection, run_id, token, suspension, details)):
        return Outcome.WRITTEN
    return _why_not(connection, run_id, token)


def say_tags(connection: BaseDatabaseWrapper, run_id: UUID, token: int, changes: Changes) -> Outcome:
    """Write the tags that a body has said and that no record has carried, before its run is left. Written twice, they are the
    same."""

    def transaction() -> Outcome:
        with database.writing(connection):
            stored = tags.locked(connection, records.HELD, [dialect.key(connection, run_id), token])
            if stored is None:
                return Outcome.LOST
            tags.change(connection, run_id, stored, changes)
        return Outcome.WRITTEN

    outcome: Outcome = database.retrying(connection, transaction)
    return outcome


def attempt_again(
    connection: BaseDatabaseWrapper,
    run_id: UUID,
    token: int,
    due_at: int,
    error: str,
    steps: Sequence[str],
    details: str | None = None,
    trace: str | None = None,
) -> Outcome:
    """As the run's policy says: reset the failures that ended the run and what it had canceled, and come back at `due_at`;
    `details` as of a `Finish`, `trace` as of a `Suspension`."""
    key = dialect.key(connection, run_id)
    also, said = _saying(details, trace)

    counted = "attempts = attempts + 1, generation = generation + 1, error = %s, error_type = %s, failed_step = %s"
    values = [error, *failures.columns(error), *said, key, token]

    def transaction() -> Outcome:
        with database.writing(connection), connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {moves.suspended()}, {counted}{also} WHERE {records.FENCE}", [due_at, *values]
            )
            if not cursor.rowcount:
                cursor.execute(f"UPDATE {RUN} SET {moves.paused()}, {counted}{also} WHERE {records.PAUSING}", values)
            if not cursor.rowcount:
                return _why_not(connection, run_id, token)
            if reset_end(connection, run_id, steps):
                # The worker keeps a copy of the history for the next generation, without the failures that were reset.
                # Of what was canceled it doesn't know, so that its copy must not be used.
                cursor.execute(f"UPDATE {RUN} SET generation = generation + 1 WHERE id = %s", [key])
        return Outcome.WRITTEN

    outcome: Outcome = database.retrying(connection, transaction)
    return outcome


def release(
    connection: BaseDatabaseWrapper,
    run_id: UUID,
    token: int,
    *,
    is_untouched: bool = False,
    begin_by: int | None = None,
    trace: str | None = None,
) -> bool:
    """Release a run: a running one is ready for others at once, or paused where somebody has asked for that; a canceling one
    is canceled. Returns whether it is canceled.

    `is_untouched`: it was claimed for the first time, and its body was not called, so that there is nothing to undo; `begin_by`
    as of the claim, `trace` as of a `Suspension`.
    """
    saying, said = _saying(None, trace)
    also, its_values = saying, list[Any](said)
    if is_untouched:
        also += ", started_at = NULL, attempting_since_us = NULL, expires_at_us = %s"
        its_values.append(begin_by)
    undoes_nothing, also_canceled = ("", ", undoing = NULL") if is_untouched else (" AND undoing IS NULL", "")
    key = dialect.key(connection, run_id)

    def statements() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {moves.ready_again(dialect.now(connection))}{also} WHERE {records.FENCE}",
                [*its_values, key, token],
            )
            if cursor.rowcount:
                return False
            cursor.execute(
                f"UPDATE {RUN} SET {moves.paused(is_untouched=is_untouched)}{also} WHERE {records.PAUSING}",
                [*its_values, key, token],
            )
            if cursor.rowcount:
                return False
            now = dialect.date_value(connection, database.read_clock(connection))
            canceling = "id = %s AND claim_token = %s AND status = 'canceling'"
            without_children, its_key = moves.has_no_open_children(connection, run_id)
            cursor.execute(
                f"UPDATE {RUN} SET {moves.finishing()}{also_canceled} WHERE {canceling}{undoes_nothing} AND {without_children}",
                [Status.CANCELED, now, key, token, *its_key],
            )
            if cursor.rowcount:
                return True
            cursor.execute(
                f"UPDATE {RUN} SET {moves.to_undo(dialect.now(connection))}{saying} WHERE {canceling} AND undoing IS NOT NULL"
                f" AND {without_children}",
                [*said, key, token, *its_key],
            )
            if cursor.rowcount:
                return False
            cursor.execute(
                f"UPDATE {RUN} SET {moves.canceling(dialect.now(connection))} WHERE {canceling}", [key, token]
            )
            if cursor.rowcount:  # a worker cancels its children, and the last of them finishes it
                return False
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
_FINISHING_WITH_DETAILS = f"UPDATE {RUN} SET details = %s, {_FINISHED_WITH} WHERE {records.FENCE}"


def _finish(connection: BaseDatabaseWrapper, write: Finish) -> bool:
    parameters = _parameters(connection, write)
    with connection.cursor() as cursor:
        if write.details is None:
            cursor.execute(_FINISHING_ONE, parameters)
        else:
            cursor.execute(_FINISHING_WITH_DETAILS, [write.details, *parameters])
        return bool(cursor.rowcount)


def _parameters(connection: BaseDatabaseWrapper, write: Finish, said: Sequence[str] = ()) -> list[Any]:
    return [
        write.status,
        dialect.date_value(connection, write.finished_at),
        write.output,
        write.error,
        *failures.columns(write.error),
        *said,
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


def _finish_or_explain(connection: BaseDatabaseWrapper, write: Finish) -> Outcome:
    """A run that is to be paused is finished all the same: its end came first. Else why it is not."""
    also, said = _saying(write.details)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {_FINISHED_WITH}, {moves.NO_PAUSE}{also} WHERE {records.PAUSING}",
            _parameters(connection, write, said),
        )
        if cursor.rowcount:
            return Outcome.WRITTEN
        cursor.execute(
            f"SELECT claim_token, status, phase FROM {RUN} WHERE id = %s", [dialect.key(connection, write.run_id)]
        )
        row = cursor.fetchone()
    if row is None or row[0] != write.token:
        return Outcome.LOST
    if row[1] == write.status and row[2] == ENDED:
        return Outcome.WRITTEN
    return Outcome.NOT_RUNNING


def _saying(details: str | None, trace: str | None = None) -> tuple[str, list[str]]:
    """What an UPDATE of a run sets besides, where the run says something of itself, or is traced; and its parameters."""
    said = {column: text for column, text in (("details", details), ("trace", trace)) if text is not None}
    return "".join(f", {column} = %s" for column in said), list(said.values())


def _why_not(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> Outcome:
    """Why a run that is to be suspended is not running: canceled or paused meanwhile, or another's by now."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {RUN} WHERE {records.HELD}",
            [dialect.key(connection, run_id), token],
        )
        return Outcome.LOST if cursor.fetchone() is None else Outcome.NOT_RUNNING


def _mark_suspended(
    connection: BaseDatabaseWrapper, run_id: UUID, token: int, suspension: Suspension, details: str | None = None
) -> bool:
    move = moves.waiting() if suspension.is_waiting else moves.suspended()
    also, said = _saying(details, suspension.trace)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {move}{also} WHERE {records.FENCE}",
            [*suspension.parameters, *said, dialect.key(connection, run_id), token],
        )
        return bool(cursor.rowcount)
