"""Ending runs that nobody holds and whose time is over: by their timeout they fail, by their `start_within` they are canceled.

What a worker holds is ended by its pass, which knows its time. Whoever looks does so for all runs, whatever their queue or
workflow: the look is one read of an index in which only such runs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..core.states import CANCELABLE, Cause, Status
from ..errors import RunTimedOut
from . import database, dialect, lines, moves
from .tables import RUN

_AT_MOST = 100

# Those that nobody holds, as the partial index says it.
EXPIRING = "expires_at_us IS NOT NULL AND worker_id IS NULL"


def by_time(connection: BaseDatabaseWrapper) -> str:
    """The table of runs, to be read by the index of what expires."""
    return RUN + dialect.by_index(connection, "django_steps_expiring")


def end_expired(connection: BaseDatabaseWrapper) -> list[UUID]:
    """End some of the runs whose time is over; returns them. Those that somebody has locked are left out."""
    over = f"{EXPIRING} AND expires_at_us <= {dialect.now(connection)}"
    # Without a lock first: rows that are locked by way of an index would lock others out.
    rows = database.fetch_all(
        connection, f"SELECT id FROM {by_time(connection)} WHERE {over} ORDER BY expires_at_us LIMIT {_AT_MOST}", []
    )
    ids = sorted(row[0] for row in rows)
    if not ids:
        return []

    def statements() -> list[UUID]:
        limits.clear()
        with database.writing(connection):
            found = database.fetch_all(
                connection,
                f"SELECT id, attempting_since_us, timeout_us, {lines.COLUMNS} FROM {RUN}"
                f" WHERE id IN ({dialect.marks(ids)}) AND {over} AND status IN ({dialect.marks(CANCELABLE)})"
                f" ORDER BY id{dialect.locking(connection)}",
                [*ids, *CANCELABLE],
            )
            _end(connection, [row[:3] for row in found])
        limits.update(name for row in found for name in lines.names(*row[3:]))
        return [dialect.run_id(row[0]) for row in found]

    limits: set[str] = set()
    ended: list[UUID] = database.retrying(connection, statements)
    lines.promote_after_commit(connection, limits)
    return ended


def error_text(run_id: UUID, timeout_us: int | None) -> str:
    """The recorded failure of a run whose timeout is over. No step has failed, so that a retry resets none."""
    return failures.with_steps(failures.record(RunTimedOut(run_id, timedelta(microseconds=timeout_us or 0))), [])


def _end(connection: BaseDatabaseWrapper, found: Sequence[Sequence[Any]]) -> None:
    now = dialect.date_value(connection, database.read_clock(connection))
    ended = f"UPDATE {RUN} SET {moves.finishing()}, {moves.NO_PAUSE}"
    never_begun = [row[0] for row in found if row[1] is None]
    with connection.cursor() as cursor:
        if never_begun:
            cursor.execute(
                f"{ended}, cancel_reason = %s, cancel_cause = %s, canceled_by = ''"
                f" WHERE id IN ({dialect.marks(never_begun)})",
                [Status.CANCELED, now, Cause.EXPIRED, Cause.EXPIRED, *never_begun],
            )
        for key, since, timeout_us in found:
            if since is not None:
                text = error_text(dialect.run_id(key), timeout_us)
                cursor.execute(
                    f"{ended}, error = %s, error_type = %s, failed_step = %s WHERE id = %s",
                    [Status.FAILED, now, text, *failures.columns(text), key],
                )
