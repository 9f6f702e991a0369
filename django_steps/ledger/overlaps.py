"""Runs of one schedule that would overlap: holding the new one until the old one has ended, and canceling the old one.

Both sides commit first and then look: whoever has inserted a held run looks for one that is active, and whoever has ended a
run looks for one that is held. What gets lost in between is found by a later look at all that are held (`held()`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import CANCELABLE, Cause, Status
from ..errors import InvalidState
from . import controls, database, dialect, lines, moves, notify
from .tables import ENDED, HELD, RUN, SCHEDULE

logger = logging.getLogger("django_steps")


def supersede(connection: BaseDatabaseWrapper, names: Collection[str]) -> list[UUID]:
    """Cancel the held runs of these schedules, in the caller's transaction, since newer ones take their places; which they
    were."""
    if not names:
        return []
    rows = database.fetch_all(
        connection,
        f"SELECT id FROM {RUN} WHERE open_schedule IN ({dialect.marks(names)}) AND phase = {HELD}",
        [*names],
    )
    if rows:  # read without a lock, then locked by their ids
        ids = [row[0] for row in rows]
        rows = database.fetch_all(
            connection,
            f"SELECT id FROM {RUN} WHERE id IN ({dialect.marks(ids)}) AND phase = {HELD} ORDER BY id"
            f"{dialect.locking(connection, wait=True)}",
            ids,
        )
    if rows:
        controls.cancel_free(connection, [row[0] for row in rows], Cause.SUPERSEDED)
    return [dialect.run_id(row[0]) for row in rows]


def look(connection: BaseDatabaseWrapper, name: str) -> None:
    """A run of this schedule has ended, or a held one was inserted, and that is committed: let the held one go on if no other
    is active, and pause the schedule if too many have failed."""
    of_schedule = "open_schedule = %s AND phase"
    held, *limits, is_active, pause_after, counts_from = database.fetch_all(
        connection,
        f"SELECT h.id, {', '.join(f'h.{column}' for column in lines.COLUMNS.split(', '))},"
        f" EXISTS (SELECT 1 FROM {RUN} WHERE {of_schedule} <> {HELD}),"
        f" (SELECT pause_after FROM {SCHEDULE} WHERE name = %s AND paused_at IS NULL),"
        f" (SELECT counts_from_us FROM {SCHEDULE} WHERE name = %s) FROM (SELECT 1) one"
        f" LEFT JOIN {RUN} h ON h.id = (SELECT id FROM {RUN} WHERE {of_schedule} = {HELD} ORDER BY id LIMIT 1)",
        [name] * 4,
    )[0]
    if pause_after is not None:
        _pause_if_failing(connection, name, int(pause_after), int(counts_from))
    if held is not None and not is_active:
        database.retrying(connection, lambda: _release(connection, held))
        lines.promote_after_commit(connection, lines.names(*limits))
        notify.workers(connection)


def _release(connection: BaseDatabaseWrapper, run_id: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET {moves.ready(dialect.now(connection))} WHERE id = %s AND phase = {HELD}", [run_id]
        )


def _pause_if_failing(connection: BaseDatabaseWrapper, name: str, number: int, counts_from: int) -> None:
    rows = database.fetch_all(
        connection,
        f"SELECT status FROM {RUN} WHERE schedule = %s AND phase = {ENDED} AND status <> '{Status.CANCELED}'"
        f" AND created_at >= %s ORDER BY scheduled_for DESC, id DESC LIMIT {number}",
        [name, dialect.date_value(connection, counts_from)],
    )
    if len(rows) < number or any(status != Status.FAILED for (status,) in rows):
        return
    reason = "its last run has failed" if number == 1 else f"its last {number} runs have failed"
    at = dialect.date_value(connection, database.read_clock(connection))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {SCHEDULE} SET paused_at = %s, pause_reason = %s, paused_by = '', next_at_us = NULL"
            " WHERE name = %s AND paused_at IS NULL",
            [at, reason, name],
        )
        if cursor.rowcount:
            logger.warning("Schedule %r is paused: %s.", name, reason)


def cancel_active(connection: BaseDatabaseWrapper, name: str) -> list[UUID]:
    """Cancel the active runs of a schedule for which a held one waits; those that were canceled by this call."""
    rows = database.fetch_all(
        connection,
        f"SELECT id, status FROM {RUN} WHERE open_schedule = %s AND phase <> {HELD}",
        [name],
    )
    canceled = []
    for run_id in [dialect.run_id(key) for key, status in rows if status in CANCELABLE]:
        try:
            if controls.cancel(connection, run_id, Cause.SUPERSEDED, f"schedule {name}", Cause.SUPERSEDED):
                canceled.append(run_id)
        except InvalidState:  # it has ended
            continue
    return canceled


def to_be_held(connection: BaseDatabaseWrapper) -> str:
    """SQL for the schedule for which a paused run `r` is to be held once it is resumed, since it has not begun and another run
    of it is active; NULL for others. Runs without a key are those that somebody has asked for, whatever is active."""
    return (
        f"CASE WHEN r.status = 'paused' AND r.started_at IS NULL AND r.{connection.ops.quote_name('key')} IS NOT NULL"
        f" AND EXISTS (SELECT 1 FROM {SCHEDULE} s WHERE s.name = r.open_schedule AND s.overlap IN ('wait', 'cancel'))"
        f" AND EXISTS (SELECT 1 FROM {RUN} o WHERE o.open_schedule = r.open_schedule AND o.id <> r.id AND o.phase <> {HELD})"
        " THEN r.open_schedule END"
    )


def held(connection: BaseDatabaseWrapper) -> list[tuple[str, bool]]:
    """The schedules of which a run is held, and whether it waits for others that are to be canceled."""
    rows = database.fetch_all(
        connection,
        f"SELECT DISTINCT r.open_schedule, s.overlap FROM {RUN} r LEFT JOIN {SCHEDULE} s ON s.name = r.open_schedule"
        f" WHERE r.open_schedule IS NOT NULL AND r.phase = {HELD}",
        [],
    )
    return [(name, overlap == "cancel") for name, overlap in rows]
