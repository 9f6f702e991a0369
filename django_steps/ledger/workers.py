"""The rows of the workers: who is there, since when, and what they know."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect
from .tables import READY, RUN, TIMED, WORKER
from .terms import Kind, kinds_condition

# How long a live worker may not be heard of: so many of its leases, and so many microseconds.
_QUIET_LEASES, _QUIET_FOR = 3, 60_000_000
_LONGEST_SUSPICION = 3600 * 1_000_000
_KEPT_FOR = 7 * 24 * 3600 * 1_000_000  # microseconds that the row of a dead worker is kept


def known_kinds(connection: BaseDatabaseWrapper) -> set[Kind]:
    """The workflows of live workers that claim runs. One that was quiet for a while still counts: to set its runs aside for
    nothing costs more than to walk over them."""
    return {kind for workflows in _said_by_live(connection, "workflows") for kind in read_kinds(workflows)}


def known_schedules(connection: BaseDatabaseWrapper) -> set[str]:
    """The names of the schedules that are in the code of live workers that claim runs, and fire schedules."""
    names: set[str] = set()
    for said in _said_by_live(connection, "schedules"):
        names.update(name for name in _listed(said) or () if isinstance(name, str))
    return names


def count_alike(connection: BaseDatabaseWrapper, queues: Collection[str]) -> int:
    """How many live workers claim runs of just these queues."""
    listed = map(_listed, _said_by_live(connection, "queues"))
    return sum(names is not None and set(map(str, names)) == set(queues) for names in listed)


def _said_by_live(connection: BaseDatabaseWrapper, column: str) -> list[Any]:
    rows = database.fetch_all(
        connection,
        f"SELECT {column} FROM {WORKER} WHERE stopped_at IS NULL AND claims"
        f" AND last_seen_us > {dialect.now(connection)} - {_QUIET_LEASES} * lease_us - {_QUIET_FOR}",
        [],
    )
    return [row[0] for row in rows]


def read_kinds(workflows: Any) -> set[Kind]:
    """The kinds in what the row of a worker says that it knows: JSON text, or what was read of it. None of what is damaged:
    the worker itself doesn't read its row."""
    kinds = _listed(workflows) or ()
    return {(kind[0], kind[1]) for kind in kinds if isinstance(kind, list) and list(map(type, kind)) == [str, str]}


def _listed(said: Any) -> list[Any] | None:
    """The list in a column of a worker's row, JSON text or what was read of it; None if it is damaged."""
    try:
        listed = json.loads(said) if isinstance(said, str) else said
    except (ValueError, RecursionError):
        return None
    return listed if isinstance(listed, list) else None


def note_blocked(connection: BaseDatabaseWrapper, worker_id: int, what: str) -> None:
    """Write what has just blocked the event loop of a worker."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {WORKER} SET blocked_by = %s, blocked_us = {dialect.now(connection)} WHERE id = %s",
            [what, worker_id],
        )


def say_stopped(connection: BaseDatabaseWrapper, worker_id: int) -> None:
    """A worker has stopped in good order."""
    moment = dialect.date_value(connection, database.read_clock(connection))
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {WORKER} SET stopped_at = %s WHERE id = %s", [moment, worker_id])


def forget(connection: BaseDatabaseWrapper, worker_id: int) -> None:
    """Delete the row of a process that held nothing when it ended; such processes may come and go with every run."""
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {WORKER} WHERE id = %s", [worker_id])


def delete_old(connection: BaseDatabaseWrapper) -> None:
    """Delete the rows of workers that were not heard of for a week; what they held is recovered without them, too."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {WORKER} WHERE last_seen_us < {dialect.now(connection)} - %s",
            [_KEPT_FOR],
        )


def is_anything_left(
    connection: BaseDatabaseWrapper,
    kinds: Collection[Kind],
    queues: Sequence[str],
    horizon: int,
    *,
    also_held: bool = False,
) -> bool:
    """Whether there is, or will be within `horizon` microseconds, a run that a worker of these terms could claim: ready,
    due, or to be recovered from a worker that is gone; `also_held`: or one that any worker holds."""
    condition, parameters = kinds_condition(kinds)
    if queues:
        condition, parameters = f"queue IN ({dialect.marks(queues)}) AND {condition}", [*queues, *parameters]
    now = dialect.now(connection)
    abandoned = "" if also_held else f" AND (suspect_since_us IS NOT NULL OR available_at_us <= {now})"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {RUN} WHERE phase = {READY} AND {condition}) OR EXISTS (SELECT 1 FROM {RUN}"
            f" WHERE phase = {TIMED} AND available_at_us <= {now} + %s AND worker_id IS NULL AND {condition})"
            # A suspect is due again within half of its holder's lease; the bound keeps the look from walking all sleepers.
            f" OR EXISTS (SELECT 1 FROM {RUN} WHERE phase = {TIMED} AND worker_id IS NOT NULL AND {condition}"
            f" AND available_at_us <= {now} + %s{abandoned})",
            [*parameters, horizon, *parameters, *parameters, _LONGEST_SUSPICION],
        )
        return bool(cursor.fetchone()[0])
