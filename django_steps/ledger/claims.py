"""Taking runs that are ready. A claim never walks over sleeping or finished ones: an index leads to the first ready ones.

By priority, then in the order of their ids, so that runs that were resumed come before a newer backlog.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import clock
from ..core.ids import random_token
from ..core.states import Status, Undo
from . import database, dialect, pauses, timers
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
    parent: tuple[UUID, str] | None  # the run that waits for this one, and the record there
    depth: int  # how many ancestors the run has
    details: str  # what the body has said of itself
    timeout: int | None  # how long the run may last, microseconds
    expires_at: int | None  # when that is over
    is_undoing: bool  # it is canceled, and undoes what it has done
    begin_by: int | None  # until when the run was to be claimed, if it had not begun
    is_new_attempt: bool  # no worker had begun the run since it was started, or retried by hand
    schedule: str | None = None  # which has started the run
    limits: tuple[str, ...] = ()  # each with its rule
    trace: str | None = None  # what the run carries of the trace that it was started in
    new_trace: str | None = None  # what it is to carry once its pass has suspended or released it; None: the same
    tags: str = ""  # as its row keeps them
    claimed_at: int  # the database's time, microseconds
    claimed_on: float  # the same moment on this process's monotonic clock, seconds
    held_until: float  # on that clock: how long the claim stands for certain
    claimed_ahead: int = field(default_factory=lambda: clock.offset_us)  # how far ahead a test's clock was

    def now(self) -> int:
        """The database's time in microseconds, without asking it: no host's clock decides anything."""
        passed = int((time.monotonic() - self.claimed_on) * 1_000_000)
        return self.claimed_at + passed + clock.offset_us - self.claimed_ahead

    def wait_until(self, due_at: int) -> int:
        """In how many microseconds something is to be done for the run, once it is suspended until a time."""
        return (due_at if self.expires_at is None else min(due_at, self.expires_at)) - self.now()


class Claimed(NamedTuple):
    """What a claim brought: the runs taken, those that ended because their worker died, and those that are canceling and wait
    for their children; and the limits that runs are in line for by now, or that have room."""

    runs: list[Claim]
    ended: list[UUID]
    canceling: list[UUID]
    lines: set[str]


# The columns of a claim, as `from_rows()` wants them, with the time behind them.
READ = (
    "id, workflow, version, queue, input, attempts, recoveries, generation, has_history, started_at, attempting_since_us,"
    " checkpoint, parent_id, parent_step, depth, details, timeout_us, expires_at_us, open_schedule, limit_1, limit_2,"
    " limit_queue, trace, tags, undoing"
)
_NOW = len(READ.split(", "))  # where the time stands in a row: behind these


def claim(connection: BaseDatabaseWrapper, terms: Terms, limit: int, *, wakes: bool = True) -> Claimed:
    """Claim up to `limit` runs for a worker: at most four statements and one commit for all of them.

    `wakes`: first make ready what is due. Without it the claim is quicker.
    """
    found = None
    if connection.vendor == "sqlite":
        is_ready, found = timers.look(connection)
        if not is_ready and not found:
            return Claimed(
                [], [], [], set()
            )  # a claim takes the write lock, and an idle worker has no business holding it
    token = random_token()
    claimed = Claimed([], [], [], set())

    def attempt() -> None:
        claimed.runs.clear()
        claimed.ended.clear()
        claimed.canceling.clear()
        claimed.lines.clear()
        if connection.vendor == "postgresql" and not wakes:
            claimed.runs.extend(_take(connection, terms, limit, token))
            return
        with database.writing(connection):
            if wakes:
                woken = timers.wake(connection, terms, found)
                claimed.ended.extend(woken.ended)
                claimed.canceling.extend(woken.canceling)
                claimed.lines.update(woken.lines)
            claimed.runs.extend(_take(connection, terms, limit, token))

    try:
        database.retrying(connection, attempt)
    except Exception:
        adopted = _adopt(connection, terms, token)
        if not adopted:
            raise
        return Claimed(adopted, claimed.ended, claimed.canceling, claimed.lines)
    return claimed


def _take(connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int) -> list[Claim]:
    """Take the first ready runs. A queue more is a statement more."""
    taken: list[Claim] = []
    queues: Sequence[str | None] = terms.queues or [None]
    for queue in queues:
        if len(taken) >= limit:
            break
        condition, parameters = _condition(connection, terms, queue)
        take = _take_at_once if connection.vendor == "postgresql" else _take_selected
        taken += take(connection, terms, limit - len(taken), token, condition, parameters)
    return taken


def first_ready(connection: BaseDatabaseWrapper, terms: Terms) -> list[Any]:
    """The keys of the runs that a claim would take first, one of each queue of these terms. It locks nothing, and is another
    list when something is ready that was not."""
    queues: Sequence[str | None] = terms.queues or [None]
    found: list[Any] = []
    for queue in queues:
        condition, parameters = _condition(connection, terms, queue)
        found += database.fetch_all(connection, _first(1, condition, "id"), parameters)
    return found


def _condition(connection: BaseDatabaseWrapper, terms: Terms, queue: str | None) -> tuple[str, list[Any]]:
    """SQL for which of the ready runs a worker of these terms may claim, with its parameters."""
    condition: str
    parameters: list[Any]
    condition, parameters = kinds_condition(terms.kinds)
    # What has expired is ended, by whoever looks next: see `expiry.py`.
    condition += f" AND (expires_at_us IS NULL OR expires_at_us > {dialect.now(connection)})"
    if queue is not None:
        condition, parameters = f"queue = %s AND {condition}", [queue, *parameters]
    if terms.paused:
        allowed, names = pauses.not_held(connection, terms.paused)
        condition, parameters = f"{condition} AND {allowed}", [*parameters, *names]
    if terms.run_id is not None:
        condition, parameters = f"id = %s AND {condition}", [dialect.key(connection, terms.run_id), *parameters]
    return condition, parameters


def _first(limit: int, condition: str, columns: str) -> str:
    return f"SELECT {columns} FROM {RUN} WHERE phase = {READY} AND {condition} ORDER BY priority DESC, id LIMIT {int(limit)}"


def _selection(connection: BaseDatabaseWrapper, limit: int, condition: str, columns: str) -> str:
    return f"{_first(limit, condition, columns)}{dialect.locking(connection)}"


def _take_at_once(
    connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int, condition: str, parameters: Sequence[Any]
) -> list[Claim]:
    """PostgreSQL: select and take by one statement."""
    now, asked_on = dialect.now(connection), time.monotonic()
    returned = ", ".join(f"ready.{column}" for column in READ.split(", "))
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH ready AS MATERIALIZED ({_selection(connection, limit, condition, f'{READ}, priority')})"
            f" UPDATE {RUN} r SET {_taken('r.')}, phase = {TIMED}, available_at_us = {now} + %s, claim_token = %s,"
            " worker_id = %s, suspect_since_us = NULL, has_history = true,"
            f" expires_at_us = {_expires('r.', now)},"
            f" started_at = COALESCE(r.started_at, to_timestamp({now} / 1000000.0)),"
            f" attempting_since_us = COALESCE(r.attempting_since_us, {now})"
            f" FROM ready WHERE {dialect.looked_up('r.id', 'ready.id')} RETURNING {returned}, {now}, ready.priority",
            [*parameters, terms.lease_us, token, terms.worker_id],
        )
        rows = cursor.fetchall()
    rows.sort(key=lambda row: (-row[_NOW + 1], row[0]))
    return from_rows(connection, rows, terms, token, asked_on)


def _take_selected(
    connection: BaseDatabaseWrapper, terms: Terms, limit: int, token: int, condition: str, parameters: Sequence[Any]
) -> list[Claim]:
    now, asked_on = dialect.now(connection), time.monotonic()
    rows = database.fetch_all(connection, _selection(connection, limit, condition, f"{READ}, {now}"), parameters)
    if not rows:
        return []
    ids = [row[0] for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {_taken()}, phase = {TIMED}, available_at_us = {now} + %s, claim_token = %s,"
            " worker_id = %s, suspect_since_us = NULL, has_history = %s,"
            # Before the column that it looks at: MySQL reads what is set already.
            f" expires_at_us = {_expires('', now)}, started_at = COALESCE(started_at, %s),"
            f" attempting_since_us = COALESCE(attempting_since_us, {now}) WHERE id IN ({dialect.marks(ids)})",
            [terms.lease_us, token, terms.worker_id, True, dialect.date_value(connection, int(rows[0][_NOW])), *ids],
        )
    return from_rows(connection, rows, terms, token, asked_on)


def _taken(of: str = "") -> str:
    """SQL for what a claim makes of the status of a run."""
    return (
        f"status = CASE WHEN {of}undoing IS NULL THEN '{Status.RUNNING}' ELSE '{Status.CANCELING}' END,"
        f" undoing = CASE WHEN {of}undoing IS NULL THEN NULL ELSE {Undo.UNDERWAY} END"
    )


def _expires(of: str, now: str) -> str:
    """SQL for when a run that is claimed expires: its timeout counts from the first claim since the start or the last retry by
    hand."""
    return f"CASE WHEN {of}attempting_since_us IS NULL THEN {now} + {of}timeout_us ELSE {of}expires_at_us END"


def _expiry(row: Sequence[Any]) -> tuple[int | None, int | None]:
    """When a run that was claimed expires, and until when it was to begin, from its row as it was before the claim."""
    timeout, expires_at = row[16], row[17]
    if row[10] is not None:
        return expires_at, None
    return None if timeout is None else int(row[_NOW]) + timeout, expires_at


def from_rows(
    connection: BaseDatabaseWrapper, rows: Sequence[Sequence[Any]], terms: Terms, token: int, asked_on: float | None
) -> list[Claim]:
    """The claims in what was read of runs that were taken; `asked_on`: when, by `time.monotonic()`, None if that is unknown."""
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
            started_at=dialect.read_date(connection, row[9]) or int(row[_NOW]),
            attempting_since=int(row[10] or row[_NOW]),
            checkpoint=row[11],
            parent=None if row[12] is None else (dialect.run_id(row[12]), row[13]),
            depth=row[14],
            details=row[15],
            timeout=row[16],
            expires_at=_expiry(row)[0],
            begin_by=_expiry(row)[1],
            is_new_attempt=row[10] is None,
            is_undoing=row[24] is not None,
            schedule=row[18],
            limits=tuple(filter(None, row[19:22])) if row[19] is not None or row[21] is not None else (),
            trace=row[22],
            tags=row[23],
            claimed_at=int(row[_NOW]),
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
        f"SELECT {READ}, {dialect.now(connection)} FROM {RUN}"
        f" WHERE phase = {TIMED} AND worker_id = %s AND claim_token = %s ORDER BY priority DESC, id",
        [terms.worker_id, token],
    )
    return from_rows(connection, rows, terms, token, asked_on=None)
