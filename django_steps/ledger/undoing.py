"""Canceling a run with undo: it is canceled, and a pass undoes what its steps have done, before it ends.

Such a run is *canceling* until then, and its column `undoing` says how far that is. It is claimed as a run that is pending,
and goes on as one that is running: `moves.goes_on()`. Its children end first, as in every cancel. Once it has ended, the column
stays: one that is canceled is undone; of one that has failed something could not be undone, and a retry goes on undoing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.names import undo_of
from ..core.states import UNDO, Status, StepStatus, Undo
from ..errors import InvalidState
from . import database, dialect, moves, order
from .order import Place
from .resets import reset_failures
from .tables import RUN, STEP, TIMED, UNKNOWN

# What may be canceled with undo, beside a running one; of these no worker holds any.
_FREE = "('pending', 'sleeping', 'waiting', 'paused', 'failed')"
NEVER_BEGUN = " AND started_at IS NULL"
_AGAIN = "recoveries = 0, recovery_mark = 0, finished_at = NULL, output = NULL"


def ask(connection: BaseDatabaseWrapper, run_id: UUID, why: str, values: Sequence[Any]) -> bool:
    """Have a run undone that has begun; whether this call did it. `why`: SQL that says who has canceled it, and why, with its
    `values`. Within a transaction of the caller."""
    key = dialect.key(connection, run_id)
    wanted = f"undoing = {Undo.WANTED}, {why}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET status = 'canceling', {wanted} WHERE id = %s AND status = 'running'", [*values, key]
        )
        if cursor.rowcount:
            return True
        free = f"WHERE id = %s AND status IN {_FREE} AND undoing IS NULL AND started_at IS NOT NULL"
        now = dialect.now(connection)
        # One that was retried and not claimed since has begun long ago.
        begun = f"attempting_since_us = COALESCE(attempting_since_us, {now})"
        without_children, its_key = moves.has_no_open_children(connection, run_id)
        cursor.execute(
            f"UPDATE {RUN} SET {moves.to_undo(now)}, {begun}, {_AGAIN}, {wanted} {free} AND {without_children}",
            [*values, key, *its_key],
        )
        if cursor.rowcount:
            return True
        # Its children are canceled once this is committed, and the last of them lets it be claimed.
        cursor.execute(f"UPDATE {RUN} SET {moves.canceling(now)}, {begun}, {_AGAIN}, {wanted} {free}", [*values, key])
        return bool(cursor.rowcount)


def begin(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    """The children of a canceling run have ended: let it be claimed, if it is to be undone. Whether this call did it."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.to_undo(dialect.now(connection))} WHERE id = %s AND status = 'canceling'"
            f" AND worker_id IS NULL AND undoing = {Undo.WANTED} AND phase = {TIMED}",
            [dialect.key(connection, run_id)],
        )
        return bool(cursor.rowcount)


def give_up(connection: BaseDatabaseWrapper, run_id: UUID, why: str, values: Sequence[Any]) -> bool:
    """Cancel a run without undo that is to be undone, and was set aside since no live worker knows its workflow; whether this
    call did it. It may be retried, but where something of it is undone. `why`, `values` as of `ask()`."""
    key = dialect.key(connection, run_id)
    now = dialect.date_value(connection, database.read_clock(connection))
    is_undone = f"EXISTS (SELECT 1 FROM {STEP} WHERE run_id = %s AND kind = '{UNDO}' AND status = 'succeeded')"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.finishing()}, undoing = CASE WHEN {is_undone} THEN undoing END, {why} WHERE id = %s"
            f" AND status = 'canceling' AND phase = {UNKNOWN} AND undoing IS NOT NULL",
            [Status.CANCELED, now, key, *values, key],
        )
        return bool(cursor.rowcount)


def go_on(connection: BaseDatabaseWrapper, run_id: UUID, from_step: object = None) -> bool:
    """The retry of a run of which something could not be undone: those undos are tried again. False for a run that nobody has
    canceled with undo. Raises `InvalidState` for one that is undone. Within a transaction of the caller."""
    key = dialect.key(connection, run_id)
    rows = database.fetch_all(connection, f"SELECT status FROM {RUN} WHERE id = %s AND undoing IS NOT NULL", [key])
    if not rows or rows[0][0] not in (Status.FAILED, Status.CANCELED):
        return False
    if rows[0][0] == Status.CANCELED:
        raise InvalidState(is_undone(run_id))
    if from_step is not None:
        raise InvalidState(
            f"Run {run_id} can't be retried from a step: it was canceled, and what its steps have done is being undone."
            " retry() goes on with that, and restart() starts a new run."
        )
    return go_on_if_failed(connection, run_id)


def go_on_if_failed(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    """The same of one of which something could not be undone; False for all others."""
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.to_undo(dialect.now(connection))}, {_AGAIN}, generation = generation + 1,"
            " error = NULL, error_type = '', failed_step = ''"
            f" WHERE id = %s AND status = 'failed' AND undoing = {Undo.UNDERWAY}",
            [key],
        )
        if not cursor.rowcount:
            return False
    reset_failures(connection, run_id, tried_again(connection, run_id))
    return True


def tried_again(connection: BaseDatabaseWrapper, run_id: UUID) -> list[str]:
    """The undos that a retry executes again, of those that have failed.

    Where the body has gone on from the failure of one, and the undo of what it did then has failed, too, that one comes later:
    the body only comes to what it did then as long as it gets the failure.
    """
    rows = database.fetch_all(
        connection,
        f"SELECT name, position, after, context, kind, status FROM {STEP} WHERE run_id = %s ORDER BY position",
        [dialect.key(connection, run_id)],
    )
    failed = {row[0] for row in rows if row[4] == UNDO and row[5] == StepStatus.FAILED}
    steps = [Place.read(*row[:4]) for row in rows if row[4] != UNDO and undo_of(row[0]) in failed]
    undos = [Place.read(*row[:4])._replace(after=-1) for row in rows if row[0] in failed]
    return order.unnoticed([*steps, *undos], failed)


def is_undone(run_id: UUID) -> str:
    """Why a run that was undone can't be retried."""
    return f"Run {run_id} can't be retried: what its steps had done is undone. restart() starts a new run with the same input."


def refusal(connection: BaseDatabaseWrapper, run_id: UUID) -> str | None:
    """Why a run can't be canceled with undo; None where it is undone, or being undone."""
    rows = database.fetch_all(
        connection, f"SELECT status, undoing FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)]
    )
    status, undo = rows[0] if rows else ("gone", None)
    if undo is not None and status in (Status.CANCELING, Status.CANCELED):
        return None
    if status == Status.CANCELING:
        return f"Run {run_id} can't be undone: it is canceling already, without undo."
    if status == Status.CANCELED:
        return f"Run {run_id} can't be undone: it is canceled. Retry it, and cancel it with undo then."
    return f"Run {run_id} can't be canceled: it has {status}."
