"""Taking runs that are ready. A claim never walks over sleeping or finished ones: an index leads to the first ready ones.

By priority, then in the order of their ids, so that runs that were resumed come before a newer backlog.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.ids import random_token
from . import database, dialect, timers
from .tables import READY, RUN, TIMED
from .terms import Terms, kinds_condition


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
    is_first: bool  # no worker had begun the run
    worker_id: int
    started_at: int  # when the run was claimed for the first time, microseconds
    attempting_since: int  # when it was, since its start or the last retry by hand
    checkpoint: str  # what steps had said of how far they were when their worker died
    claimed_at: int  # the database's time, microseconds
    claimed_on: float  # the same moment on this process's monotonic clock, seconds
    held_until: float  # on that clock: how long the claim stands for certain

    def now(self) -> int:
        """The database's time in microseconds, without asking it: no host's clock decides anything."""
        return self.claimed_at + int((time.monotonic() - self.claimed_on) * 1_000_000)


class Claimed(NamedTuple):
    """What a claim brought: the runs taken, and those that ended because their worker died."""

    runs: list[Claim]
    ended: list[UUID]


_READ = (
    "id, workflow, version, queue, input, attempts, recoveries, generation, has_history, started_at, attempting_since_us,"
    " checkpoint"
)


def claim(connection: BaseDatabaseWrapper, terms: Terms, limit: int, *, wakes: bool = True) -> Claimed:
    """Claim up to `limit` runs for a worker: at most four statements and one commit for all of them.

    `wakes`: first make ready what is due. Without it the claim is quicker.
    """
    found = None
    if connection.vendor == "sqlite":
        is_ready, found = timers.look(connection)
        if not is_ready and not found:
            return Claimed([], [])  # a claim takes the write lock, and an idle worker has no business holding it
    token = random_token()
    claimed = Claimed([], [])

    def attempt() -> None:
        claimed.runs.clear()
        claimed.ended.clear()
        if connection.vendor == "postgresql" and not wakes:
            claimed.runs.extend(_take(connection, terms, limit, token))
            return
        with database.writing(connection):
            if wakes:
                claimed.ended.extend(timers.wake(connection, terms, found))
            claimed.runs.extend(_take(connection, terms, limit, token))

    try:
        database.retrying(connection, attempt)
    except Exception:
        adopted = _adopt(connection, terms, token)
        if not adopted:
            raise
        return Claimed(adopted, claimed.ended)
    return claimed


def _take(connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int) -> list[Claim]:
    """Take the first ready runs. A queue more is a statement more."""
    taken: list[Claim] = []
    queues: Sequence[str | None] = terms.queues or [None]
    for queue in queues:
        if len(taken) >= limit:
            break
        condition: str
        parameters: list[Any]
        condition, parameters = kinds_condition(terms.kinds)
        if queue is not None:
            condition, parameters = f"queue = %s AND {condition}", [queue, *parameters]
        if terms.run_id is not None:
            condition, parameters = f"id = %s AND {condition}", [dialect.key(connection, terms.run_id), *parameters]
        take = _take_at_once if connection.vendor == "postgresql" else _take_selected
        taken += take(connection, terms, limit - len(taken), token, condition, parameters)
    return taken


def _selection(connection: BaseDatabaseWrapper, limit: int, condition: str, columns: str) -> str:
    return (
        f"SELECT {columns} FROM {RUN} WHERE phase = {READY} AND {condition}"
        f" ORDER BY priority DESC, id LIMIT {int(limit)}{dialect.locking(connection)}"
    )


def _take_at_once(
    connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int, condition: str, parameters: Sequence[Any]
) -> list[Claim]:
    """PostgreSQL: select and take by one statement."""
    now, asked_on = dialect.now(connection), time.monotonic()
    returned = ", ".join(f"ready.{column}" for column in _READ.split(", "))
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH ready AS MATERIALIZED ({_selection(connection, limit, condition, f'{_READ}, priority')})"
            f" UPDATE {RUN} r SET status = 'running', phase = {TIMED}, available_at_us = {now} + %s, claim_token = %s,"
            " worker_id = %s, suspect_since_us = NULL, has_history = true,"
            f" started_at = COALESCE(r.started_at, to_timestamp({now} / 1000000.0)),"
            f" attempting_since_us = COALESCE(r.attempting_since_us, {now})"
            f" FROM ready WHERE r.id = ready.id RETURNING {returned}, {now}, ready.priority",
            [*parameters, terms.lease_us, token, terms.worker_id],
        )
        rows = cursor.fetchall()
    rows.sort(key=lambda row: (-row[13], row[0]))
    return _claims(connection, rows, terms, token, asked_on)


def _take_selected(
    connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int, condition: str, parameters: Sequence[Any]
) -> list[Claim]:
    now, asked_on = dialect.now(connection), time.monotonic()
    rows = database.fetch_all(connection, _selection(connection, limit, condition, f"{_READ}, {now}"), parameters)
    if not rows:
        return []
    ids = [row[0] for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET status = 'running', phase = {TIMED}, available_at_us = {now} + %s, claim_token = %s,"
            " worker_id = %s, suspect_since_us = NULL, has_history = %s, started_at = COALESCE(started_at, %s),"
            f" attempting_since_us = COALESCE(attempting_since_us, {now}) WHERE id IN ({dialect.marks(ids)})",
            [terms.lease_us, token, terms.worker_id, True, dialect.date_value(connection, int(rows[0][12])), *ids],
        )
    return _claims(connection, rows, terms, token, asked_on)


def _claims(
    connection: BaseDatabaseWrapper, rows: Sequence[Sequence[Any]], terms: Terms, token: int, asked_on: float | None
) -> list[Claim]:
    claimed_on = time.monotonic()
    held_until = 0.0 if asked_on is None else asked_on + terms.lease_us / 1_000_000
    return [
        Claim(
            run_id=dialect.run_id(row[0]),
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
            is_first=row[9] is None,
            started_at=dialect.read_date(connection, row[9]) or int(row[12]),
            attempting_since=int(row[10] or row[12]),
            checkpoint=row[11],
            claimed_at=int(row[12]),
            claimed_on=claimed_on,
            held_until=held_until,
        )
        for row in rows
    ]


def _adopt(connection: BaseDatabaseWrapper, terms: Terms, token: int) -> list[Claim]:
    """The claims that were committed although the answer was lost."""
    if connection.in_atomic_block:
        return []
    database.drop(connection)
    rows = database.fetch_all(
        connection,
        f"SELECT {_READ}, {dialect.now(connection)} FROM {RUN}"
        f" WHERE phase = {TIMED} AND worker_id = %s AND claim_token = %s ORDER BY priority DESC, id",
        [terms.worker_id, token],
    )
    return _claims(connection, rows, terms, token, asked_on=None)
