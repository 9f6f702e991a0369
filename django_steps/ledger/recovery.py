"""What happens to a run whose lease ran out: first a suspicion, then the recovery.

An expired lease is no proof: a long SQLite transaction or a restarted database stops every renewal. So a run is marked
first, and recovered only if the mark still stands after more than a renewal interval; a renewal wipes it.

Which step a run is in is written by the renewals and costs no write of its own. So it may be old news (the step is recorded
by now), or missing before the first renewal. Then the records say after which step the worker died.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import FINAL, Status
from ..errors import WorkerDied
from ..failures import FailureRecord
from ..values.classes import shown_name
from . import database, dialect, moves
from .tables import RUN, STEP, WORKER
from .terms import Terms

# A holder renews three times in a lease; half a lease leaves it more than one renewal to answer the suspicion.
RENEWALS_PER_LEASE = 3
KEPT = 20

_FINAL = ", ".join(f"'{status}'" for status in FINAL)
# The step that was recorded last.
_LAST = (
    f"(SELECT s.name FROM {STEP} s WHERE s.run_id = r.id AND s.status IN ({_FINAL})"
    " ORDER BY s.finished_at DESC, s.position DESC LIMIT 1)"
)
# The step that the run is in, as far as is known: not one that is recorded.
_CURRENT = (
    f"CASE WHEN EXISTS (SELECT 1 FROM {STEP} s WHERE s.run_id = r.id AND s.name = r.current_step AND s.status IN ({_FINAL}))"
    " THEN '' ELSE r.current_step END"
)


def suspect(connection: BaseDatabaseWrapper, ids: Sequence[Any], lease_us: int) -> None:
    """Mark runs under an expired lease, and give their holders time to object: half of a holder's own lease, or of
    `lease_us` where the holder is unknown."""
    if not ids:
        return
    now = dialect.now(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET suspect_since_us = {now}, available_at_us = {now} + COALESCE("
            f"(SELECT w.lease_us FROM {WORKER} w WHERE w.id = worker_id), %s) / 2 WHERE id IN ({dialect.marks(ids)})",
            [lease_us, *ids],
        )


def recover(connection: BaseDatabaseWrapper, ids: Sequence[Any], terms: Terms) -> list[UUID]:
    """Take runs from workers that did not object: ready again, failed where that happened too often, canceled or paused
    where somebody has asked for that. Returns those that ended.
    """
    if not ids:
        return []
    rows = database.fetch_all(
        connection,
        f"SELECT r.id, {moves.standing('r.')}, r.recoveries, r.recovery_mark, {_CURRENT}, r.recovery_log, w.host, w.pid,"
        f" (SELECT COUNT(*) + COALESCE(SUM(s.attempts), 0) FROM {STEP} s WHERE s.run_id = r.id),"
        f" {_LAST}, {dialect.now(connection)}, EXISTS (SELECT 1 FROM {RUN} c WHERE c.open_parent_id = r.id),"
        " r.undoing, w.executor, w.claims"
        f" FROM {RUN} r LEFT JOIN {WORKER} w ON w.id = r.worker_id WHERE r.id IN ({dialect.marks(ids)})",
        ids,
    )
    return [dialect.run_id(row[0]) for row in rows if not _recover_one(connection, row, terms)]


def _recover_one(connection: BaseDatabaseWrapper, row: Sequence[Any], terms: Terms) -> bool:
    """Whether the run may go on."""
    (
        run_id,
        status,
        recoveries,
        mark,
        current_step,
        recovery_log,
        host,
        pid,
        progress,
        last,
        now,
        has_children,
        undo,
        *holder,
    ) = row
    worker = f"{host}:{pid}" if host else "a worker"
    log = _entries(recovery_log)
    if not _is_dispatcher(*holder):  # which has executed nothing: the run has no part in its death
        # Only a run whose history stands still counts its recoveries: one that gets on may be recovered any number of times.
        recoveries = recoveries + 1 if mark == int(progress) else 1
        entry = {"at": int(now), "worker": worker, "step": current_step}
        log = [*log, entry if current_step else entry | {"after": last or ""}][-KEPT:]
    counts = [recoveries, int(progress), json.dumps(log)]
    finished_at = dialect.date_value(connection, int(now))
    if status == Status.CANCELING and has_children:  # as whoever cancels a run that nobody holds leaves it
        _move(connection, run_id, moves.canceling(dialect.now(connection)), [], counts)
        return True
    if status == Status.CANCELING and undo is not None:
        _move(connection, run_id, moves.to_undo(dialect.now(connection)), [], counts)
        return True
    if status == Status.CANCELING:  # its body is not called again
        _move(connection, run_id, _FINISHED, [Status.CANCELED, finished_at], counts)
        return False
    if recoveries > terms.max_recoveries:
        error = _died_error(recoveries, current_step, last or "", worker)
        _move(connection, run_id, _FAILED, [Status.FAILED, finished_at, error.text, *error.columns], counts)
        return False
    move = moves.ready_again(dialect.now(connection)) if status == Status.RUNNING else moves.paused()
    _move(connection, run_id, move, [], counts)
    return True


def _is_dispatcher(executor: str | None, claims: bool | None) -> bool:
    return bool(claims) and executor != "threads"


def _entries(text: str) -> list[dict[str, Any]]:
    """The entries of a recovery log, `{"at": microseconds, "worker", "step"}` each, but for what is damaged: that a run is
    recovered doesn't depend on them."""
    try:
        entries = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return []
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("at"), int)]


# The token goes: what the worker that was lost still asks for is refused.
_FINISHED = f"{moves.finishing()}, claim_token = NULL"
_FAILED = f"{_FINISHED}, {moves.NO_PAUSE}, error = %s, error_type = %s, failed_step = %s"


def _move(connection: BaseDatabaseWrapper, run_id: Any, move: str, values: list[Any], counts: list[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {move}, recoveries = %s, recovery_mark = %s, recovery_log = %s WHERE id = %s",
            [*values, *counts, run_id],
        )


def _died_error(times: int, step: str, last: str, worker: str) -> FailureRecord:
    count = "once" if times == 1 else f"{times} times"
    message = (
        f"The worker died {count} {_where(times, step, last)}, the last one being {worker}, and the run got no further. "
        "Look for what ends the process (memory, a crash in C code, os._exit), then retry the run."
    )
    # None of its steps has failed: there is no failure to reset.
    return FailureRecord(shown_name(WorkerDied), message, step=step or None)


def _where(times: int, step: str, last: str) -> str:
    if step:
        return f"while executing step {step!r}"
    after = f"after step {last!r}" if last else "before any step was recorded"
    # After a first crash a pass says which step comes before it executes it.
    return f"outside its steps, {after}" if times > 1 else f"{after}, in the next step or in the body"
