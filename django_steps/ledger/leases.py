"""Keeping what a worker holds: renewing its leases, and learning of what it lost.

Rows that somebody else has locked are left out: one user's open transaction must not cost the others their lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect, moves
from .tables import RUN, TIMED, WORKER

_LONGEST_LOCK_WAIT = 0.25  # seconds; MySQL and MariaDB know whole ones only


@dataclass(frozen=True, slots=True)
class Holding:
    """What a worker knows of a run that it holds; `progress` is (done, total) or None.

    `checkpoint`: the text of its checkpoints where the row has another one, else None.
    """

    token: int
    current_step: str = ""
    progress: tuple[int, int] | None = None
    checkpoint: str | None = None


@dataclass(slots=True)
class Renewal:
    """What a renewal found: these leases are good again, these claims are another's, and in these runs nothing further is to
    begin: they are canceled, or to be paused."""

    renewed: set[UUID] = field(default_factory=set)
    lost: set[UUID] = field(default_factory=set)
    halted: set[UUID] = field(default_factory=set)


def renew(connection: BaseDatabaseWrapper, holdings: Mapping[UUID, Holding], lease_us: int) -> Renewal:
    """Renew the leases of all of a worker's runs: two statements, one commit.

    What is in none of the sets was locked by somebody, and is to be renewed soon again.
    """
    found = Renewal()
    if not holdings:
        return found

    def transaction() -> None:
        found.renewed, found.lost, found.halted = set(), set(), set()
        with database.writing(connection):
            _look(connection, holdings, found)
            if found.renewed:
                _extend(connection, {run_id: holdings[run_id] for run_id in found.renewed}, lease_us)

    database.retrying(connection, transaction)
    return found


def renew_waiting(connection: BaseDatabaseWrapper, run_id: UUID, holding: Holding, lease_us: int) -> Renewal:
    """Renew the lease of one run, waiting a moment for whoever has locked it; alone, so that no other one waits as well.

    A run with many writes in succession is always locked by one of them: `renew()`, which leaves it out, would never find it
    free.
    """
    found, holdings = Renewal(), {run_id: holding}
    try:
        with database.writing(connection):
            database.limit_lock_waits(connection, _LONGEST_LOCK_WAIT)
            _look(connection, holdings, found, wait=True)
            if found.renewed:
                _extend(connection, holdings, lease_us)
    except OperationalError as error:
        if not database.is_transient(error):
            raise
        return Renewal()
    return found


def check(connection: BaseDatabaseWrapper, holdings: Mapping[UUID, Holding]) -> Renewal:
    """Look, without locking anything, for runs that were lost, canceled or paused: one statement."""
    found = Renewal()
    if holdings:
        _look(connection, holdings, found, lock=False)
    return found


def enter_step(connection: BaseDatabaseWrapper, run_id: UUID, token: int, name: str) -> bool:
    """Write which step a run is about to execute; whether it may begin."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET current_step = %s WHERE id = %s AND claim_token = %s AND {moves.goes_on()}",
            [name, dialect.key(connection, run_id), token],
        )
        return bool(cursor.rowcount)


def note_overdue(connection: BaseDatabaseWrapper, run_id: UUID, token: int, text: str) -> None:
    """Write which step of a held run is overdue; an empty text: none is any more."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET overdue = %s WHERE id = %s AND claim_token = %s",
            [text, dialect.key(connection, run_id), token],
        )


def beat(connection: BaseDatabaseWrapper, worker_id: int) -> None:
    """Say that a worker is alive."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {WORKER} SET last_seen_us = {dialect.now(connection)} WHERE id = %s", [worker_id])


def _look(
    connection: BaseDatabaseWrapper,
    holdings: Mapping[UUID, Holding],
    found: Renewal,
    *,
    lock: bool = True,
    wait: bool = False,
) -> None:
    ids = [dialect.key(connection, run_id) for run_id in sorted(holdings)]
    one_of, parameters = dialect.one_of(connection, ids)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, claim_token, CASE WHEN {moves.goes_on()} THEN 1 ELSE 0 END, phase FROM {RUN} WHERE id {one_of}"
            " ORDER BY id"
            f"{dialect.locking(connection, wait=wait) if lock else ''}",
            parameters,
        )
        rows = cursor.fetchall()
    if not lock:  # what a lock leaves out is missing, too
        found.lost |= holdings.keys() - {dialect.run_id(row[0]) for row in rows}
    for value, token, goes_on, phase in rows:
        run_id = dialect.run_id(value)
        if token != holdings[run_id].token or phase != TIMED:
            found.lost.add(run_id)
            continue
        found.renewed.add(run_id)
        if not goes_on:
            found.halted.add(run_id)


def _extend(connection: BaseDatabaseWrapper, holdings: Mapping[UUID, Holding], lease_us: int) -> None:
    ids = [dialect.key(connection, run_id) for run_id in sorted(holdings)]
    assignments, parameters = _assignments(connection, holdings)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET available_at_us = {dialect.now(connection)} + %s, suspect_since_us = NULL, {assignments}"
            f" WHERE id IN ({dialect.marks(ids)})",
            [lease_us, *parameters, *ids],
        )


def _assignments(connection: BaseDatabaseWrapper, holdings: Mapping[UUID, Holding]) -> tuple[str, list[Any]]:
    """Which step each run is in, and how far its body and its steps say they are: carried by the renewal, so that they
    cost no write."""
    steps = {run_id: holding.current_step for run_id, holding in holdings.items()}
    done = {run_id: holding.progress[0] for run_id, holding in holdings.items() if holding.progress}
    total = {run_id: holding.progress[1] for run_id, holding in holdings.items() if holding.progress}
    kept = {run_id: holding.checkpoint for run_id, holding in holdings.items() if holding.checkpoint is not None}
    clauses, parameters = [], []
    columns: dict[str, dict[UUID, Any]] = {
        "current_step": steps,
        "progress_done": done,
        "progress_total": total,
        "checkpoint": kept,
    }
    for column, values in columns.items():
        if values:
            clauses.append(f"{column} = CASE id {'WHEN %s THEN %s ' * len(values)}ELSE {column} END")
            parameters += [
                part for run_id, value in values.items() for part in (dialect.key(connection, run_id), value)
            ]
    return ", ".join(clauses), parameters
