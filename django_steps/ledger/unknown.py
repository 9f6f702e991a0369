"""Setting ready runs aside that no live worker knows, so that claims need not walk over them, and bringing them back.

Their status stays `pending`.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, lines, moves
from .tables import IN_LINE, READY, RUN, UNKNOWN
from .terms import Kind, kinds_condition

_AT_MOST = 500


def set_aside(connection: BaseDatabaseWrapper, known: Collection[Kind]) -> int:
    """Set aside some of the runs of other kinds than these that are ready, or in line for a limit; how many."""
    condition, parameters = kinds_condition(known)
    others = f"NOT {condition}"
    return _move(connection, f"phase = {READY}", moves.unknown(), others, parameters) or _move(
        connection, f"line_key IS NOT NULL AND phase = {IN_LINE}", moves.unknown(), others, parameters
    )


def bring_back(connection: BaseDatabaseWrapper, kinds: Collection[Kind]) -> int:
    """Make some of the runs that were set aside of these kinds ready again; how many."""
    condition, parameters = kinds_condition(kinds)
    return _move(connection, f"phase = {UNKNOWN}", moves.ready("available_at_us"), condition, parameters)


def _move(connection: BaseDatabaseWrapper, source: str, move: str, condition: str, parameters: list[str]) -> int:
    rows = database.fetch_all(
        connection, f"SELECT id FROM {RUN} WHERE {source} AND {condition} LIMIT {_AT_MOST}", parameters
    )
    return lines.move(connection, sorted(row[0] for row in rows), f"{source} AND {condition}", move, parameters)
