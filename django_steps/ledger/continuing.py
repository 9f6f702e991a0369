"""A run that goes on as another one: it succeeds, and its successor takes over, in one transaction."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import tags
from ..core.states import Status
from . import database, dialect, inserts, moves, notify, records, waits
from . import details as said
from .inserts import Child, NewRun, Slot
from .records import Outcome
from .tables import EVENT, RUN


def continue_as(
    connection: BaseDatabaseWrapper, run_id: UUID, token: int, finished_at: int, new: NewRun, details: str | None = None
) -> Outcome:
    """Finish a run, and let `new` take over its key, its tags, its place among the children of its parent, and the events that
    it has not taken; fenced by its claim. `details` as of a `Finish`."""

    def statements() -> Outcome:
        with database.writing(connection):
            outcome = _continue(connection, run_id, token, finished_at, new)
            if outcome is Outcome.WRITTEN and details is not None:
                said.write(connection, run_id, details)
            return outcome

    outcome: Outcome = database.retrying(connection, statements)
    return outcome


def _continue(connection: BaseDatabaseWrapper, run_id: UUID, token: int, finished_at: int, new: NewRun) -> Outcome:
    key_column, run_key = connection.ops.quote_name("key"), dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {moves.standing()}, queue, priority, {key_column}, own_active_key, parent_id, parent_step, parent_item,"
            f" depth, continued_as_id, timeout_us, schedule, scheduled_for, tags FROM {RUN} WHERE id = %s AND claim_token = %s"
            f"{dialect.locking(connection, wait=True)}",
            [run_key, token],
        )
        row = cursor.fetchone()
        if row is None:
            return Outcome.LOST
        (
            status,
            queue,
            priority,
            key,
            active_key,
            parent,
            step,
            item,
            depth,
            successor,
            timeout,
            schedule,
            slot,
            has_tags,
        ) = row
        if status != Status.RUNNING:
            is_done = successor is not None and dialect.run_id(successor) == new.id
            return Outcome.WRITTEN if is_done else Outcome.NOT_RUNNING
        cursor.execute(
            f"UPDATE {RUN} SET {moves.finishing()}, {key_column} = NULL, parent_item = NULL, continued_as_id = %s,"
            f" {moves.NO_CHECKPOINT} WHERE {records.FENCE}",
            [
                Status.SUCCEEDED,
                dialect.date_value(connection, finished_at),
                dialect.key(connection, new.id),
                run_key,
                token,
            ],
        )
        child = None if parent is None or item is None else Child(dialect.run_id(parent), step, item, depth)
        takes_slot = None if schedule is None else Slot(schedule, dialect.read_date(connection, slot) or 0)
        its_own = replace(
            new, queue=queue, priority=priority, key=key, active_key=active_key, child=child, slot=takes_slot
        )
        its_own.tags = tags.read(has_tags)
        # Its clock begins anew. It has begun in a way, so that nothing bounds how long it waits for that.
        inserts.insert(connection, replace(its_own, timeout=timeout, start_within=None))
        cursor.execute(
            f"UPDATE {EVENT} SET run_id = %s WHERE run_id = %s AND consumed_at IS NULL",
            [dialect.key(connection, new.id), run_key],
        )
    notify.workers(connection)
    return Outcome.WRITTEN


def pass_on_events(connection: BaseDatabaseWrapper, run_id: UUID, successor: UUID) -> None:
    """After the commit of a continuation: let the successor have the events that were committed meanwhile."""

    def statements() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {EVENT} SET run_id = %s WHERE run_id = %s AND consumed_at IS NULL",
                [dialect.key(connection, successor), dialect.key(connection, run_id)],
            )
            return bool(cursor.rowcount > 0)

    try:
        has_any = database.retrying(connection, statements)
    except IntegrityError:  # one of them was sent to the successor as well: whoever sent it passes on what it has sent
        return
    if has_any:
        waits.look_again(connection, successor)
        notify.workers(connection)
