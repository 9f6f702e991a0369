"""Handing a claimed run to another process: whoever gets the message adopts the claim, by compare-and-set of its token.

The row stays the truth. A message that comes twice, or after the claim had gone on, finds another token and changes nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import claims, database, dialect, moves
from .claims import Claim
from .records import FENCE
from .tables import RUN
from .terms import Kind, Terms, kinds_condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What is said of a claim to whoever is to adopt it. The claim itself has changed the last three in the row."""

    run_id: UUID
    token: int
    has_history: bool
    is_first: bool
    begin_by: int | None = None  # microseconds

    @classmethod
    def of(cls, claim: Claim) -> Handover:
        """What is said of this claim."""
        return cls(
            run_id=claim.run_id,
            token=claim.token,
            has_history=claim.has_history,
            is_first=claim.is_first,
            begin_by=claim.begin_by,
        )


def adopt(connection: BaseDatabaseWrapper, handover: Handover, terms: Terms, token: int) -> Claim | None:
    """Take over a claim, under a `token` and a lease of one's own: one statement on PostgreSQL, two elsewhere.

    None if the claim has gone on, is canceled or to be paused, or is of a workflow that is not among the terms. May be asked
    again with the same token, after an answer that was lost.
    """
    condition, kinds = kinds_condition(terms.kinds)
    condition = f"id = %s AND claim_token IN (%s, %s) AND {moves.goes_on()} AND {condition}"
    parameters: list[Any] = [dialect.key(connection, handover.run_id), handover.token, token, *kinds]
    now, asked_on = dialect.now(connection), time.monotonic()
    move = f"claim_token = %s, worker_id = %s, available_at_us = {now} + %s, suspect_since_us = NULL"
    update = f"UPDATE {RUN} SET {move} WHERE {condition}"
    moved = [token, terms.worker_id, terms.lease_us, *parameters]

    def statements() -> list[tuple[Any, ...]]:
        if connection.vendor == "postgresql":
            return database.fetch_all(connection, f"{update} RETURNING {claims.READ}, {now}", moved)
        # The look also keeps SQLite from locking everybody for a message that has come too late.
        found = database.fetch_all(connection, f"SELECT {claims.READ}, {now} FROM {RUN} WHERE {condition}", parameters)
        if not found:
            return found
        with connection.cursor() as cursor:
            cursor.execute(update, moved)
            return found if cursor.rowcount else []

    rows = database.retrying(connection, statements)
    adopted = claims.from_rows(connection, rows, terms, token, asked_on)
    if not adopted:
        return None
    return replace(adopted[0], has_history=handover.has_history, is_first=handover.is_first, begin_by=handover.begin_by)


def waiting_kind(connection: BaseDatabaseWrapper, handover: Handover) -> Kind | None:
    """The workflow of a claim that still waits to be adopted; None if it has gone on."""
    rows = database.fetch_all(
        connection,
        f"SELECT workflow, version FROM {RUN} WHERE {FENCE}",
        [dialect.key(connection, handover.run_id), handover.token],
    )
    return (rows[0][0], rows[0][1]) if rows else None
