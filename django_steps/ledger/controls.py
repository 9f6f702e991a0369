"""What operators ask of runs: retry, cancel, pause (`resuming` is its way back). Each is one conditional UPDATE first, so that
of ten at once one wins.

A run that is canceled while a worker executes it is *canceling* until that worker has released it: it may be retried
only then. So there are never two bodies at once. One that is paused meanwhile is *pausing* until then: still `running`, and
`paused_at` says that a pause is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.names import MAX_LENGTH
from ..core.states import CANCELABLE, PAUSABLE, RETRYABLE, Status
from ..errors import FailureWasHandled, InvalidState
from ..failures import FailureRecord
from . import contexts, database, dialect, lines, moves, notify, order, undoing, undone
from .order import Place
from .resets import reset_end, reset_from
from .tables import ENDED, RUN, STEP, WORKER

# How often a cancel looks again at a run that moves between one UPDATE and the next.
_LOOKS = 10
_MOST_CHECKED = 500  # children that are looked at before their parent is retried
_MOST_NAMED = 200  # steps in a condition; of a run where more failed all records are looked at
# The statuses of active runs that no worker holds; and without those that are paused already.
_FREE = "('pending', 'sleeping', 'waiting', 'paused')"
_FREE_TO_PAUSE = "('pending', 'sleeping', 'waiting')"
_NO_ERROR = "error = NULL, error_type = '', failed_step = ''"


def retry(connection: BaseDatabaseWrapper, run_id: UUID, from_step: str | Sequence[str] | None = None) -> None:
    """Let a failed or canceled run go on; one of which something could not be undone goes on undoing.

    Raises `InvalidState` in any other status, `FailureWasHandled` where going on would redo what was compensated,
    `UnknownStep` for a `from_step` that is not recorded.
    """

    def statements() -> None:
        with transaction.atomic(using=connection.alias):
            if undoing.go_on(connection, run_id, from_step):
                return
            _make_pending(connection, run_id)
            _open_again(connection, run_id)
            if from_step is not None:
                reset_from(connection, run_id, [from_step] if isinstance(from_step, str) else from_step)
            else:
                reset_end(connection, run_id, failures_to_reset(connection, run_id))
            with connection.cursor() as cursor:
                # From a step means from its beginning, and that of all later ones.
                columns = _NO_ERROR if from_step is None else f"{_NO_ERROR}, {moves.NO_CHECKPOINT}"
                cursor.execute(f"UPDATE {RUN} SET {columns} WHERE id = %s", [dialect.key(connection, run_id)])
            lines.promote_after_commit(connection, lines.of_runs(connection, [run_id]))

    for _ in range(_LOOKS):
        try:
            database.retrying(connection, statements)
        except IntegrityError:  # its place under its active key is another's
            _refuse_taken(connection, run_id)
        else:
            return
    raise InvalidState(f"Run {run_id} can't be retried: others take its active key again and again.")


def _refuse_taken(connection: BaseDatabaseWrapper, run_id: UUID) -> None:
    """Raise `InvalidState` that names the run in whose place this one would go on, unless that has ended meanwhile."""
    rows = database.fetch_all(
        connection,
        f"SELECT o.id, o.active_key FROM {RUN} r JOIN {RUN} o ON o.workflow = r.workflow AND o.active_key = r.own_active_key"
        " WHERE r.id = %s",
        [dialect.key(connection, run_id)],
    )
    if rows:
        raise InvalidState(
            f"Run {run_id} can't be retried: its active key {rows[0][1]!r} is taken by run {dialect.run_id(rows[0][0])}, which"
            " has not ended."
        )


def cancel(
    connection: BaseDatabaseWrapper,
    run_id: UUID,
    reason: str = "",
    by: str = "",
    cause: str = "",
    *,
    undo: bool = False,
) -> bool:
    """Cancel a run that has not ended; whether this call did it. Canceling what is canceled or canceling is quiet.

    `cause`: the reason again, where it is the engine that cancels. `undo`: undo what it has done, also where it has failed; see
    `undoing.py`. One that never began is just canceled.

    A run that a worker executes is canceling from now on, and canceled once the worker has released it. One that is to be
    undone, and that no live worker knows how to, is canceled without that; see `undoing.give_up()`. Raises `InvalidState` for a
    run that succeeded or failed.
    """
    status, do = "", _cancel_and_undo if undo else _cancel
    for _ in range(_LOOKS):
        if database.retrying(connection, lambda: do(connection, run_id, reason, by, cause)):
            return True
        status = _status(connection, run_id)
        if status in (Status.CANCELING, Status.CANCELED) and not undo:
            return False
        if status not in CANCELABLE:
            break
    if undo and (refusal := undoing.refusal(connection, run_id)) is not None:
        raise InvalidState(refusal)
    if undo:
        return False
    raise InvalidState(f"Run {run_id} can't be canceled: it has {status}.")


def _cancel_and_undo(connection: BaseDatabaseWrapper, run_id: UUID, reason: str, by: str, cause: str) -> bool:
    with transaction.atomic(using=connection.alias):
        if undoing.go_on_if_failed(connection, run_id):
            return True
        if undoing.ask(connection, run_id, *_why(reason, by, cause)):
            _open_again(connection, run_id)
            return True
    return _cancel(connection, run_id, reason, by, cause, undoing.NEVER_BEGUN)


def pause(connection: BaseDatabaseWrapper, run_id: UUID, reason: str = "", by: str = "") -> bool:
    """Pause a run that has not ended; whether this call did it. Pausing what is paused or pausing is quiet.

    One that a worker executes is running still, and paused once the worker has released it. Raises `InvalidState` for a run
    that has ended or is canceling.
    """
    status = ""
    for _ in range(_LOOKS):
        if database.retrying(connection, lambda: _pause(connection, run_id, reason, by)):
            return True
        status = standing(connection, run_id)
        if status in (Status.PAUSED, moves.IS_PAUSING):
            return False
        if status not in PAUSABLE:
            break
    raise InvalidState(f"Run {run_id} can't be paused: it {is_now(status)}.")


def _pause(connection: BaseDatabaseWrapper, run_id: UUID, reason: str, by: str) -> bool:
    key = dialect.key(connection, run_id)
    rows = database.fetch_all(
        connection, f"SELECT {dialect.now(connection)}, {lines.COLUMNS} FROM {RUN} WHERE id = %s", [key]
    )
    if not rows:
        return False
    now, *limits = rows[0]
    why = "pause_reason = %s, paused_by = %s, paused_at = %s"
    values = [reason, by[:MAX_LENGTH], dialect.date_value(connection, int(now))]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.paused()}, {why} WHERE id = %s AND status IN {_FREE_TO_PAUSE}", [*values, key]
        )
        if cursor.rowcount:
            lines.promote_after_commit(connection, lines.names(*limits))
            return True
        cursor.execute(
            f"UPDATE {RUN} SET {why} WHERE id = %s AND status = 'running' AND paused_at IS NULL", [*values, key]
        )
        return bool(cursor.rowcount)


def _why(reason: str, by: str, cause: str) -> tuple[str, list[Any]]:
    """What says in the row of a run who has canceled it, and why."""
    # The error, if any, is that of an attempt of the whole run before: it is not why the run ended, so that a retry must
    # not look for it.
    columns = f"{_NO_ERROR}, {moves.NO_PAUSE}, cancel_reason = %s, canceled_by = %s, cancel_cause = %s"
    return columns, [reason, by[:MAX_LENGTH], cause]


def _cancel(
    connection: BaseDatabaseWrapper, run_id: UUID, reason: str, by: str, cause: str, condition: str = ""
) -> bool:
    """`condition`: SQL for which runs only."""
    key = dialect.key(connection, run_id)
    now = dialect.date_value(connection, database.read_clock(connection))
    why, values = _why(reason, by, cause)
    without_children, its_key = moves.has_no_open_children(connection, run_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.finishing()}, {why} WHERE id = %s AND status IN {_FREE}{condition} AND"
            f" {without_children}",
            [Status.CANCELED, now, *values, key, *its_key],
        )
        if cursor.rowcount:
            return True
        cursor.execute(
            f"UPDATE {RUN} SET status = 'canceling', {why} WHERE id = %s AND status = 'running'{condition}",
            [*values, key],
        )
        if cursor.rowcount:
            return True
        # Its children are canceled once this is committed, and the last of them finishes it.
        cursor.execute(
            f"UPDATE {RUN} SET {moves.canceling(dialect.now(connection))}, {why} WHERE id = %s AND status IN"
            f" {_FREE}{condition}",
            [*values, key],
        )
        if cursor.rowcount:
            return True
    # Only who asks for it gives up an undo: neither the end of a parent does, nor who wants it undone.
    return not cause and not condition and undoing.give_up(connection, run_id, why, values)


def cancel_if_possible(connection: BaseDatabaseWrapper, run_id: UUID, cause: str) -> bool:
    """Cancel a run for its parent; whether this call did it. One that has ended stays as it is."""
    try:
        return cancel(connection, run_id, cause, cause=cause)
    except InvalidState:
        return False


def end_canceling(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    """End a canceling run that nobody holds, whose children have ended; whether this call did it. One that is to be undone may
    be claimed from now on."""

    def finish() -> bool:
        if undoing.begin(connection, run_id):
            notify.workers(connection)
            return False
        now = dialect.date_value(connection, database.read_clock(connection))
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {RUN} SET {moves.finishing()} WHERE id = %s AND status = 'canceling' AND worker_id IS NULL"
                " AND undoing IS NULL",
                [Status.CANCELED, now, dialect.key(connection, run_id)],
            )
            return bool(cursor.rowcount)

    return database.retrying(connection, finish)


def cancel_free(connection: BaseDatabaseWrapper, ids: Sequence[Any], cause: str) -> None:
    """Cancel those of these runs that nobody holds, by one statement; they have no children."""
    now = dialect.date_value(connection, database.read_clock(connection))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.finishing()}, {_NO_ERROR}, {moves.NO_PAUSE}, cancel_reason = %s, cancel_cause = %s,"
            " canceled_by = ''"
            f" WHERE id IN ({dialect.marks(ids)}) AND status IN {_FREE}",
            [Status.CANCELED, now, cause, cause, *ids],
        )


def failures_to_reset(connection: BaseDatabaseWrapper, run_id: UUID) -> list[str]:
    """The steps whose failures ended a run, or `FailureWasHandled` if others are later than the first of them."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT error FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        text = cursor.fetchone()[0]
        error = FailureRecord.read(text) if text else None
        steps = error.steps if error else ()
        if not steps:
            undone.refuse_own_error(connection, run_id, error, ())
            return []
        if len(steps) > _MOST_NAMED:
            condition, parameters = "", []
        else:
            condition = (
                f" AND (name IN ({dialect.marks(steps)}) OR after >="
                f" (SELECT MIN(position) FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(steps)})))"
            )
            parameters = [*steps, dialect.key(connection, run_id), *steps]
        cursor.execute(
            f"SELECT name, position, after, context, kind FROM {STEP} WHERE run_id = %s{condition}",
            [dialect.key(connection, run_id), *parameters],
        )
        rows = cursor.fetchall()
    places = [Place.read(*row[:4]) for row in rows]
    try:
        found = order.failures(places, steps)
    except FailureWasHandled as handled:
        raise FailureWasHandled(handled.step, handled.later, undone.steps(connection, run_id)) from None
    names = set(found)
    undone.refuse_own_error(connection, run_id, error, [place for place in places if place.name in names])
    invoked = [row[0] for row in rows if row[4] == "invoke" and row[0] in names and contexts.read(row[3]).get("child")]
    if invoked:
        _check_children(connection, run_id, invoked)
    return found


def _check_children(connection: BaseDatabaseWrapper, run_id: UUID, names: Sequence[str]) -> None:
    """Raise `InvalidState` if one of the children that failed for these records can't be retried: they are retried with it."""
    names = names[:_MOST_CHECKED]
    item = dialect.joined(connection, "parent_step", "'#'", "parent_item")
    name = f"CASE WHEN parent_item = '' THEN parent_step ELSE {item} END"
    rows = database.fetch_all(
        connection,
        f"SELECT {name}, id, status, undoing FROM {RUN} WHERE parent_id = %s AND parent_item IS NOT NULL AND {name} IN"
        f" ({dialect.marks(names)})",
        [dialect.key(connection, run_id), *names],
    )
    refusals = [f"the run of {name!r} is gone" for name in names if name not in {row[0] for row in rows}]
    for step, value, status, undo in rows:
        child = dialect.run_id(value)
        if undo is not None and status in RETRYABLE:
            refusals.append(f"{step!r}: {undoing.is_undone(child)}")
            continue
        if status == Status.CANCELING:
            refusals.append(f"{step!r}: {_why_canceling(connection, child)}")
        elif status in RETRYABLE:
            try:
                failures_to_reset(connection, child)
            except InvalidState as error:
                refusals.append(f"{step!r}: run {child}: {error}")
    if refusals:
        raise InvalidState(
            f"Run {run_id} can't be retried, since runs that it has invoked can't be: {'; '.join(refusals)}. "
            "retry(from_step=…) lets the step invoke another run."
        )


# Making a run pending again comes first in the transaction of a retry: the UPDATE locks the row, so that no claim takes the
# run before its records are reset, and of several retries at once only one finds the status that it asks for.
#
# - The token goes: a pass that lost this run long ago may still be alive. With its token in the row, its late record would
#   pass the fence.
# - The generation grows: workers keep copies of long histories, and the records that are about to be reset are in them. A
#   copy of an earlier generation is not used.
# - Attempts and recoveries are counted anew, or the first failure after the retry would be the last.
# - The error stays for now: it names the steps to reset, and `retry()` removes it after that.
def _make_pending(connection: BaseDatabaseWrapper, run_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.ready(dialect.now(connection), is_new=True)}, active_key = own_active_key,"
            " attempts = 1, attempting_since_us = NULL, recoveries = 0, recovery_mark = 0, generation = generation + 1,"
            " finished_at = NULL, output = NULL,"
            " cancel_reason = '', cancel_cause = '', canceled_by = '', open_schedule = schedule, pause_exempt = %s,"
            # The clocks begin anew: that of the timeout with the next claim, the other one only where there was none.
            f" expires_at_us = CASE WHEN started_at IS NULL THEN {dialect.now(connection)} + start_within_us END"
            f" WHERE id = %s AND status IN ({dialect.marks(RETRYABLE)}) AND undoing IS NULL",
            [False, dialect.key(connection, run_id), *RETRYABLE],
        )
        if cursor.rowcount:
            return
    status = _status(connection, run_id)
    if status == Status.CANCELING:
        raise InvalidState(_why_canceling(connection, run_id))
    if status == Status.PAUSED:
        raise InvalidState(f"Run {run_id} can't be retried: it is paused. Resume it.")
    raise InvalidState(f"Run {run_id} can't be retried: it is {status}. Only failed and canceled runs can.")


def _open_again(connection: BaseDatabaseWrapper, run_id: UUID) -> None:
    """Let the parent of a run that goes on wait for it once more, where it still waits and has not ended. (A parent that goes
    on later opens what it waits for itself.)"""
    key = dialect.key(connection, run_id)
    rows = database.fetch_all(
        connection,
        f"SELECT 1 FROM {RUN} c JOIN {RUN} p ON p.id = c.parent_id JOIN {STEP} s ON s.run_id = p.id AND s.name ="
        f" c.parent_step WHERE c.id = %s AND c.parent_item IS NOT NULL AND p.phase <> {ENDED} AND s.status = 'waiting'",
        [key],
    )
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {RUN} SET open_parent_id = parent_id WHERE id = %s", [key])


def _why_canceling(connection: BaseDatabaseWrapper, run_id: UUID) -> str:
    """What keeps a canceled run from being retried: a step of it that a worker still executes, or runs that it has invoked."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT r.current_step, w.host, w.pid, r.claim_token, r.undoing FROM {RUN} r LEFT JOIN {WORKER} w ON w.id ="
            " r.worker_id WHERE r.id = %s",
            [dialect.key(connection, run_id)],
        )
        step, host, pid, token, undo = cursor.fetchone() or ("", None, None, None, None)
        if undo is not None:
            return f"Run {run_id} can't be retried: it is canceling until what its steps have done is undone."
        if token is None:
            return f"Run {run_id} can't be retried yet: it is canceling until the runs that it has invoked have ended."
    worker = f"worker {host}:{pid}" if host else "a worker"
    what = f"step {step!r}" if step else "it"
    return f"Run {run_id} can't be retried yet: it is canceling, and {worker} still executes {what}."


def is_now(status: str) -> str:
    """How a message says that a run is in a status."""
    return f"has {status}" if status in (Status.SUCCEEDED, Status.FAILED) else f"is {status}"


def _status(connection: BaseDatabaseWrapper, run_id: UUID) -> str:
    return _read(connection, run_id, "status")


def standing(connection: BaseDatabaseWrapper, run_id: UUID) -> str:
    """The status of a run, or that it is pausing."""
    status = moves.standing()
    return _read(connection, run_id, f"CASE WHEN {moves.is_undoing()} THEN status ELSE {status} END")


def _read(connection: BaseDatabaseWrapper, run_id: UUID, what: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {what} FROM {RUN} WHERE id = %s", [dialect.key(connection, run_id)])
        row = cursor.fetchone()
    return str(row[0]) if row else "gone"
