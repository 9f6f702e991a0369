"""Timed runs whose time has come: sleeps and delays that are over, attempts that are due, leases that ran out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import Status, Undo
from . import dialect, lines, moves, recovery, schedules, waits
from .expiry import EXPIRING, by_time
from .tables import LIMIT, READY, RUN, TIMED
from .terms import Terms

_AT_MOST = 100


class Due(NamedTuple):
    """A timed run whose time has come; held by a worker, or by none."""

    id: Any
    worker_id: int | None
    suspect_since_us: int | None
    status: str
    undo: int | None
    limit_1: str | None
    limit_2: str | None
    limit_queue: str | None


class Next(NamedTuple):
    """In how many microseconds the next run is due, the next one expires, the next schedule fires, the next run in line may
    begin by a rate (0: it is overdue), and lines are looked at because runs are in them; None if there is none."""

    due: int | None
    expires: int | None
    schedule: int | None = None
    rate: int | None = None
    lines: int | None = None

    @property
    def first(self) -> int | None:
        """The earliest of them."""
        return min((wait for wait in self if wait is not None), default=None)


def next_due(connection: BaseDatabaseWrapper, workflows: Collection[str] = ()) -> Next:
    """When something happens by time, schedules of these workflows included: one statement, which reads the first entries of
    five indexes."""
    timed = f"SELECT available_at_us FROM {RUN} WHERE phase = {TIMED} ORDER BY available_at_us LIMIT 1"
    return _next(connection, timed, workflows)


def _next(connection: BaseDatabaseWrapper, timed: str, workflows: Collection[str] = ()) -> Next:
    expiring = f"SELECT expires_at_us FROM {by_time(connection)} WHERE {EXPIRING} ORDER BY expires_at_us LIMIT 1"
    schedule = schedules.next_due(connection, workflows) if workflows else "NULL"
    rate = f"SELECT due_us FROM {LIMIT} WHERE due_us IS NOT NULL ORDER BY due_us LIMIT 1"
    now = dialect.now(connection)
    in_line = f"SELECT {lines.LOOK_EACH_US} FROM {RUN} WHERE line_key IS NOT NULL LIMIT 1"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT ({timed}) - {now}, ({expiring}) - {now}, {schedule}, ({rate}) - {now}, ({in_line})", [*workflows]
        )
        row = cursor.fetchone()
    return Next(*(None if wait is None else max(0, int(wait)) for wait in row))


class Woken(NamedTuple):
    """What looking after what is due has come to: the runs that ended because their worker died, and those that are canceling
    and held by none, whose children are to be looked after once this is committed; and the limits that runs may be in line for
    by now, or that may have room."""

    ended: Sequence[UUID] = ()
    canceling: Sequence[UUID] = ()
    lines: Collection[str] = ()


def next_due_by_time(connection: BaseDatabaseWrapper) -> Next:
    """As `next_due()`, for tests, where no worker dies between two statements: a run that waits for others is due only when
    one of its waits is over, and neither it nor lines are looked at for such a case."""
    due = "CASE WHEN status = 'waiting' AND worker_id IS NULL THEN waits_until_us ELSE available_at_us END"
    return _next(connection, f"SELECT MIN({due}) FROM {RUN} WHERE phase = {TIMED}")._replace(lines=None)


def wake(connection: BaseDatabaseWrapper, terms: Terms, found: Sequence[Due] | None = None) -> Woken:
    """Make the timed runs that are due ready; those held under an expired lease are suspected, then recovered.

    Happens in the caller's transaction; `found` is what a look without a lock has just shown.
    """
    due = _lock_due(connection) if found is None else found
    free = [run for run in due if run.worker_id is None]
    waiting = [run.id for run in free if run.status == Status.WAITING]
    canceling = [run.id for run in free if run.status == Status.CANCELING and run.undo != Undo.UNDERWAY]
    others = {*waiting, *canceling}
    asleep = [run.id for run in free if run.id not in others]
    if canceling:
        _look_again_later(connection, canceling)
    if waiting:
        waits.check(connection, waiting)
    if asleep:
        with connection.cursor() as cursor:
            cursor.execute(
                # Since when it was due, so that it shows if no worker looked for a while.
                f"UPDATE {RUN} SET {moves.ready('available_at_us')}"
                f" WHERE id IN ({dialect.marks(asleep)}) AND phase = {TIMED} AND worker_id IS NULL"
                f" AND available_at_us <= {dialect.now(connection)}",
                asleep,
            )
    limits = {name for run in due for name in lines.names(run.limit_1, run.limit_2, run.limit_queue)}
    woken = Woken(canceling=[dialect.run_id(run_id) for run_id in canceling], lines=limits)
    if len(free) == len(due):
        return woken
    if found is not None:
        due = _lock_due(connection)  # a lease that was looked at without a lock may be renewed by now
    held = [run for run in due if run.worker_id is not None]
    recovery.suspect(connection, [run.id for run in held if run.suspect_since_us is None], terms.lease_us)
    ended = recovery.recover(connection, [run.id for run in held if run.suspect_since_us is not None], terms)
    return woken._replace(ended=ended)


def _look_again_later(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> None:
    """Whoever looks after these runs has some time for it; should it die, another one looks."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET available_at_us = {dialect.now(connection)} + {waits.NET_US}"
            f" WHERE id IN ({dialect.marks(ids)}) AND status = 'canceling' AND worker_id IS NULL",
            ids,
        )


def look(connection: BaseDatabaseWrapper) -> tuple[bool, list[Due]]:
    """Whether any run is ready, and what is due, without locking anything: one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {RUN} WHERE phase = {READY}), d.id, d.worker_id, d.suspect_since_us, d.status,"
            f" d.undoing, {', '.join(f'd.{column}' for column in lines.COLUMNS.split(', '))}"
            f" FROM (SELECT 1) LEFT JOIN ({_due(connection)}) d ON TRUE",
            [],
        )
        rows = cursor.fetchall()
    return bool(rows[0][0]), [Due(*row[1:]) for row in rows if row[1] is not None]


def _lock_due(connection: BaseDatabaseWrapper) -> list[Due]:
    with connection.cursor() as cursor:
        cursor.execute(_due(connection) + dialect.locking(connection), [])
        return [Due(*row) for row in cursor.fetchall()]


def _due(connection: BaseDatabaseWrapper) -> str:
    return (
        f"SELECT id, worker_id, suspect_since_us, status, undoing, {lines.COLUMNS} FROM {RUN}"
        f" WHERE phase = {TIMED} AND available_at_us <= {dialect.now(connection)} ORDER BY available_at_us LIMIT {_AT_MOST}"
    )
