"""Taking runs: waking those that are due, taking over those whose worker died, claiming those that are ready.

A claim never walks over sleeping or finished runs: ready runs and timed ones are found through an index each.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..ids import random_token
from . import sql, takeovers
from .sql import PARKED, READY, RUN, TIMED

Kind = tuple[str, str]  # the name and the version of a workflow

_WAKE_AT_MOST = 100


@dataclass(slots=True, kw_only=True)
class Claim:
    """A run in the hands of this worker until its lease runs out."""

    run_id: UUID
    token: int
    workflow: str
    version: str
    queue: str
    input: str
    attempts: int
    recoveries: int
    generation: int
    has_history: bool
    worker_id: int
    claimed_at: int  # the database's time, microseconds
    claimed_on: float  # the same moment on this process's monotonic clock, seconds

    def now(self) -> int:
        """The database's time in microseconds, without asking it: no host's clock decides anything."""
        return self.claimed_at + int((time.monotonic() - self.claimed_on) * 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a worker claims, and how: times in microseconds; no `queues` means all of them."""

    worker_id: int
    kinds: Collection[Kind]
    queues: Sequence[str] = ()
    lease: int
    max_recoveries: int


class Claimed(NamedTuple):
    """What a claim brought: the runs taken, and those that failed because their workers kept dying."""

    runs: list[Claim]
    died: list[UUID]


def claim(connection: BaseDatabaseWrapper, terms: Terms, limit: int) -> Claimed:
    """Claim up to `limit` runs for a worker: at most four statements and one commit for all of them."""
    if connection.vendor == "sqlite" and not _anything_due(connection):
        return Claimed([], [])  # a claim takes the write lock, and an idle worker has no business holding it
    token = random_token()
    taken: list[Claim] = []
    died: list[UUID] = []

    def transaction() -> None:
        taken.clear()
        with sql.writing(connection):
            died[:] = wake_due(connection, terms)
            taken.extend(_select_ready(connection, terms, limit, token))
            if taken:
                _take(connection, terms, taken, token)

    try:
        sql.retrying(connection, transaction)
    except Exception:
        adopted = _adopt(connection, taken, token)
        if not adopted:
            raise
        return Claimed(adopted, died)
    return Claimed(taken, died)


def next_due(connection: BaseDatabaseWrapper) -> int | None:
    """In how many microseconds the next timed run is due (0: it is overdue); None if nothing is timed."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT available_at - {sql.now(connection)} FROM {RUN} WHERE phase = {TIMED}"
            " ORDER BY available_at LIMIT 1",
            [],
        )
        row = cursor.fetchone()
    return max(0, int(row[0])) if row else None


def wake_due(connection: BaseDatabaseWrapper, terms: Terms) -> list[UUID]:
    """Make the timed runs that are due ready; those held under an expired lease are suspected, then taken over.

    Returns the runs that failed because their workers kept dying.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, worker_id, suspect_since FROM {RUN} WHERE phase = {TIMED} AND available_at <= {sql.now(connection)}"
            f" ORDER BY available_at LIMIT {_WAKE_AT_MOST}{sql.locking(connection)}",
            [],
        )
        due = cursor.fetchall()
        if not due:
            return []
        asleep = [row[0] for row in due if row[1] is None]
        if asleep:
            cursor.execute(
                f"UPDATE {RUN} SET phase = {READY},"
                " status = CASE WHEN status = 'sleeping' THEN 'pending' ELSE status END"
                f" WHERE id IN ({sql.marks(asleep)})",
                asleep,
            )
    takeovers.suspect(connection, [row[0] for row in due if row[1] is not None and row[2] is None], terms.lease)
    return takeovers.take_over(connection, [row[0] for row in due if row[1] is not None and row[2] is not None], terms)


def park_unknown(connection: BaseDatabaseWrapper, known: Collection[Kind]) -> int:
    """Take ready runs that no live worker knows out of the way of the others; how many.

    Their status stays `pending`, and `unpark` brings them back when somebody knows them.
    """
    with sql.writing(connection), connection.cursor() as cursor:
        condition, parameters = kinds_condition(known)
        cursor.execute(
            f"SELECT id FROM {RUN} WHERE phase = {READY} AND NOT {condition} LIMIT 500{sql.locking(connection)}",
            parameters,
        )
        ids = [row[0] for row in cursor.fetchall()]
        if ids:
            cursor.execute(f"UPDATE {RUN} SET phase = {PARKED} WHERE id IN ({sql.marks(ids)})", ids)
    return len(ids)


def unpark(connection: BaseDatabaseWrapper, kinds: Collection[Kind]) -> int:
    """Make parked runs of these kinds ready again; how many."""
    condition, parameters = kinds_condition(kinds)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {RUN} WHERE phase = {PARKED} AND {condition} LIMIT 1", parameters)
        if cursor.fetchone() is None:
            return 0
        cursor.execute(f"UPDATE {RUN} SET phase = {READY} WHERE phase = {PARKED} AND {condition}", parameters)
        return int(cursor.rowcount)


def _anything_due(connection: BaseDatabaseWrapper) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {RUN} WHERE phase = {READY})"
            f" OR EXISTS (SELECT 1 FROM {RUN} WHERE phase = {TIMED} AND available_at <= {sql.now(connection)})",
            [],
        )
        return bool(cursor.fetchone()[0])


def kinds_condition(kinds: Collection[Kind]) -> tuple[str, list[str]]:
    """SQL for: `(workflow, version)` is one of these, written so that every database can test it against an index."""
    names: dict[str, list[str]] = {}
    for workflow, version in sorted(kinds):
        names.setdefault(version, []).append(workflow)
    conditions = [f"(version = %s AND workflow IN ({sql.marks(workflows)}))" for workflows in names.values()]
    parameters = [value for version, workflows in names.items() for value in (version, *workflows)]
    return f"({' OR '.join(conditions)})" if conditions else "(1 = 0)", parameters


def _select_ready(connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int) -> list[Claim]:
    """The first ready runs: by priority, then in the order of their ids. A queue more is a statement more."""
    found: list[Claim] = []
    for queue in terms.queues or [None]:
        if len(found) < limit:
            found += _select_queue(connection, terms, queue, limit - len(found), token)
    return found


def _select_queue(
    connection: BaseDatabaseWrapper, terms: Terms, queue: str | None, limit: int, token: int
) -> list[Claim]:
    condition, parameters = kinds_condition(terms.kinds)
    if queue is not None:
        condition, parameters = f"queue = %s AND {condition}", [queue, *parameters]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, workflow, version, queue, input, attempts, recoveries, generation, has_history,"
            f" {sql.now(connection)} FROM {RUN} WHERE phase = {READY} AND {condition}"
            f" ORDER BY priority DESC, id LIMIT {int(limit)}{sql.locking(connection)}",
            parameters,
        )
        rows = cursor.fetchall()
    claimed_on = time.monotonic()
    return [
        Claim(
            run_id=sql.run_id(row[0]),
            token=token,
            workflow=row[1],
            version=row[2],
            queue=row[3],
            input=row[4],
            attempts=row[5],
            recoveries=row[6],
            generation=row[7],
            has_history=bool(row[8]),
            worker_id=terms.worker_id,
            claimed_at=int(row[9]),
            claimed_on=claimed_on,
        )
        for row in rows
    ]


def _take(connection: BaseDatabaseWrapper, terms: Terms, taken: Sequence[Claim], token: int) -> None:
    ids = [sql.key(connection, claim.run_id) for claim in taken]
    moment = sql.date_value(connection, taken[0].claimed_at)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET status = 'running', phase = {TIMED}, available_at = {sql.now(connection)} + %s,"
            " claim_token = %s, worker_id = %s, suspect_since = NULL, has_history = %s,"
            f" started_at = COALESCE(started_at, %s) WHERE id IN ({sql.marks(ids)})",
            [terms.lease, token, terms.worker_id, True, moment, *ids],
        )


def _adopt(connection: BaseDatabaseWrapper, taken: Sequence[Claim], token: int) -> list[Claim]:
    """The claims that were committed although the answer to the COMMIT was lost."""
    if not taken or connection.in_atomic_block:
        return []
    connection.close()
    ids = [sql.key(connection, claim.run_id) for claim in taken]
    with sql.writing(connection), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {RUN} WHERE id IN ({sql.marks(ids)}) AND claim_token = %s{sql.locking(connection)}",
            [*ids, token],
        )
        ours = {sql.run_id(row[0]) for row in cursor.fetchall()}
    return [claim for claim in taken if claim.run_id in ours]
