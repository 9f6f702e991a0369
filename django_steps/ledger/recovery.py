"""What happens to a run whose lease ran out: first a suspicion, then the takeover.

An expired lease is no proof: a long SQLite transaction or a restarted database stops every renewal. So a run is marked
first, and taken only if the mark still stands after more than a renewal interval; a renewal wipes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import WorkerDied
from ..failures import FailureRecord
from ..values.classes import shown_name
from . import dialect
from .tables import ENDED, READY, RUN, STEP, TIMED, WORKER
from .terms import Terms

# A holder renews three times in a lease; half a lease leaves it more than one renewal to answer the suspicion.
RENEWALS_PER_LEASE = 3
KEPT = 20  # entries of the log of recoveries


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
    """Take runs from workers that did not object: ready again, or failed where that happened too often.

    Returns those that ended: failed, or canceled while that worker held them.
    """
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT r.id, r.status, r.recoveries, r.recovery_mark, r.current_step, r.recovery_log, w.host, w.pid,"
            f" (SELECT COUNT(*) + COALESCE(SUM(s.attempts), 0) FROM {STEP} s WHERE s.run_id = r.id), {dialect.now(connection)}"
            f" FROM {RUN} r LEFT JOIN {WORKER} w ON w.id = r.worker_id WHERE r.id IN ({dialect.marks(ids)})",
            ids,
        )
        rows = cursor.fetchall()
    return [dialect.run_id(row[0]) for row in rows if not _recover_one(connection, row, terms)]


def _recover_one(connection: BaseDatabaseWrapper, row: Sequence[Any], terms: Terms) -> bool:
    """Whether the run may go on."""
    run_id, status, recoveries, mark, current_step, recovery_log, host, pid, progress, now = row
    if status != "running":  # canceled, or to be retried, and its worker died before it let go
        _release(connection, run_id, status)
        return bool(status != "canceled")
    # Only a run whose history stands still counts its recoveries: one that gets on may be taken over any number of times.
    recoveries = recoveries + 1 if mark == int(progress) else 1
    worker = f"{host}:{pid}" if host else "a worker"
    log = json.loads(recovery_log) if recovery_log else []
    log = [*log, {"at": int(now), "worker": worker, "step": current_step}][-KEPT:]
    values = [recoveries, int(progress), json.dumps(log)]
    if recoveries > terms.max_recoveries:
        error = _died_error(recoveries, current_step, worker)
        _fail(connection, run_id, values, error, int(now))
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET status = 'pending', phase = {READY}, recoveries = %s, recovery_mark = %s, recovery_log = %s,"
            " worker_id = NULL, claim_token = NULL, suspect_since_us = NULL, current_step = '' WHERE id = %s",
            [*values, run_id],
        )
    return True


def _release(connection: BaseDatabaseWrapper, run_id: Any, status: str) -> None:
    phase = ENDED if status == "canceled" else READY
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET phase = {phase}, worker_id = NULL, claim_token = NULL, suspect_since_us = NULL,"
            f" current_step = '' WHERE id = %s AND phase = {TIMED}",
            [run_id],
        )


def _fail(connection: BaseDatabaseWrapper, run_id: Any, values: list[Any], error: FailureRecord, now: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET status = 'failed', phase = {ENDED}, recoveries = %s, recovery_mark = %s, recovery_log = %s,"
            " error = %s, error_type = %s, failed_step = %s, finished_at = %s, claim_token = NULL, suspect_since_us = NULL,"
            " current_step = '' WHERE id = %s",
            [*values, error.text, *error.columns, dialect.date_value(connection, now), run_id],
        )


def _died_error(times: int, step: str, worker: str) -> FailureRecord:
    # After a first crash a pass says which step comes before it executes it; of the first one that may be unknown.
    elsewhere = "outside its steps" if times > 1 else "at a step that is not known"
    where = f"while executing step {step!r}" if step else elsewhere
    message = (
        f"The worker died {times} times {where}, the last one being {worker}, and the run got no further. "
        "Look for what ends the process (memory, a crash in C code, os._exit), then retry the run."
    )
    # None of its steps has failed: there is no failure to reset.
    return FailureRecord(shown_name(WorkerDied), message, step=step or None)
