"""Pauses of queues and workflows: which there are, and setting the runs aside that they hold and that are ready, or in line.

Those runs are *parked*, so that claims need not walk over them; their status stays `pending`. They hold no slot of a limit, and
get in line again where they are limited. No statement that makes a run ready knows of pauses: whoever claims leaves out what is
paused, and parks it soon. A run that somebody has resumed is exempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect, lines, moves
from .tables import IN_LINE, PARKED, PAUSE, READY, RUN

# The kinds of what can be paused.
QUEUE: Final = "queue"
WORKFLOW: Final = "workflow"

_AT_ONCE = 500  # runs that are moved by one transaction
_MOST_READ = 20_000  # ids that are read at a time
_FRONT = 5_000  # so many of the ready runs are looked at that are first in line: those that claims would walk over

# Whether a run `r` is in line, as the index of lines shows it.
_IN_LINE = f"r.line_key IS NOT NULL AND r.phase = {IN_LINE}"


@dataclass(frozen=True, slots=True)
class Paused:
    """The queues and the workflows that are paused. It is false where there are none."""

    queues: frozenset[str] = frozenset()
    workflows: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.queues or self.workflows)

    def holds(self, queue: str, workflow: str) -> bool:
        """Whether runs of this workflow in this queue are held, but for those that are exempt."""
        return queue in self.queues or workflow in self.workflows


NONE: Final = Paused()


def hold(connection: BaseDatabaseWrapper, run_id: UUID, also: str = "NULL") -> tuple[bool, list[str], Any]:
    """Whether the queue or the workflow of a run `r` is paused, and nobody has let the run through; the names of its limits;
    and what else is asked, as SQL."""
    rows = database.fetch_all(
        connection,
        f"SELECT CASE WHEN {moves.held_by_pause(connection)} THEN 1 ELSE 0 END, {also}, {lines.COLUMNS}"
        f" FROM {RUN} r WHERE r.id = %s",
        [dialect.key(connection, run_id)],
    )
    return (bool(rows[0][0]), lines.names(*rows[0][2:]), rows[0][1]) if rows else (False, [], None)


def read(connection: BaseDatabaseWrapper) -> Paused:
    """What is paused: one statement."""
    rows = database.fetch_all(connection, f"SELECT kind, name FROM {PAUSE}", [])
    names = {kind: frozenset(name for of, name in rows if of == kind) for kind in (QUEUE, WORKFLOW)}
    return Paused(names[QUEUE], names[WORKFLOW])


def not_held(connection: BaseDatabaseWrapper, paused: Paused) -> tuple[str, list[str]]:
    """SQL for: these pauses don't hold the run, as one table row shows it; with its parameters."""
    of = {"queue": sorted(paused.queues), "workflow": sorted(paused.workflows)}
    conditions = [f"{column} NOT IN ({dialect.marks(names)})" for column, names in of.items() if names]
    exempt = f"NOT ({dialect.is_false(connection, 'pause_exempt')})"
    return f"({' AND '.join(conditions)} OR {exempt})", [name for names in of.values() for name in names]


def park_front(connection: BaseDatabaseWrapper) -> int:
    """Park those of the first ready runs that a pause holds; how many."""
    front = (
        f"(SELECT id, queue, workflow, pause_exempt FROM {RUN} WHERE phase = {READY}"
        f" ORDER BY priority DESC, id LIMIT {_FRONT})"
    )
    return _park(connection, front)


def park_all(connection: BaseDatabaseWrapper) -> int:
    """Park the runs that a pause holds, of those that are ready or in line; how many."""
    # Those in line first: they would take the slots of the ready ones.
    in_line = _park(connection, RUN, f"{_IN_LINE} AND ", IN_LINE)
    return in_line + _park(connection, RUN, f"r.phase = {READY} AND ")


def _park(connection: BaseDatabaseWrapper, source: str, condition: str = "", phase: int = READY) -> int:
    condition += moves.held_by_pause(connection)
    parked = _move_all(connection, phase, moves.parked(), source, condition)
    # Both sides commit first, and then look: a pause that ended meanwhile has not brought these back.
    if parked:
        unpark_all(connection)
    return parked


def unpark_all(connection: BaseDatabaseWrapper) -> int:
    """Make the parked runs ready, or let them get in line, that no pause holds any more; how many."""
    condition = f"r.phase = {PARKED} AND r.status <> 'paused' AND NOT {moves.held_by_pause(connection)}"
    return _move_all(connection, PARKED, moves.ready("available_at_us"), RUN, condition)


def _move_all(connection: BaseDatabaseWrapper, phase: int, move: str, source: str, condition: str) -> int:
    """Leaves out what somebody has locked, and takes SQLite's write lock only if there is something to do."""
    moved = 0
    while True:
        rows = database.fetch_all(connection, f"SELECT r.id FROM {source} r WHERE {condition} LIMIT {_MOST_READ}", [])
        ids = sorted(row[0] for row in rows)
        before = moved
        for start in range(0, len(ids), _AT_ONCE):
            chunk = ids[start : start + _AT_ONCE]
            held = f"r.phase = {phase} AND {condition}"
            moved += database.retrying(connection, partial(lines.move, connection, chunk, held, move))
        if len(rows) < _MOST_READ or moved == before:
            return moved
