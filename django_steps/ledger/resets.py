"""Resetting what a run has recorded, so that it executes again.

A failed step keeps its row, with its attempts moved to the log: whoever looks at the run sees them later, too. The outcomes
of branches and maps are deleted: what they say is in the records of their steps and items.

What an async body had canceled is deleted where nothing is later than it: the siblings of a step that failed in a task
group, or what a timeout that ended the run broke off. What the body went on from, such as with a plan B, stays canceled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.names import undo_of, undone_by
from ..core.states import UNDO, StepStatus
from ..errors import InvalidState, UnknownStep
from ..failures import FailureRecord, append_attempt
from . import contexts, database, dialect, order, replacing, taking
from .order import Place
from .tables import STEP

_NAMES_AT_ONCE = 500
_OUTCOMES = ("branch", "map")  # the kinds whose records say how others ended


def reset_end(connection: BaseDatabaseWrapper, run_id: UUID, steps: Sequence[str]) -> list[str]:
    """Let a run go on from where it ended: reset these failures, and forget what was canceled and not noticed.

    Returns the names of the second, whose records are no longer canceled.
    """
    forgotten = unnoticed(connection, run_id)  # before the outcomes of branches and maps go, which may be later
    forget_canceled(connection, run_id, forgotten)
    reset_failures(connection, run_id, steps)
    return forgotten


def forget_canceled(connection: BaseDatabaseWrapper, run_id: UUID, names: Sequence[str]) -> None:
    """Forget that these were canceled: they are executed again. But for those whose function had returned before the body
    canceled them: they have succeeded then, since what they did is done. (Of an atomic step it is committed.)"""
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        for chunk in _chunks(names):
            cursor.execute(
                f"UPDATE {STEP} SET status = 'succeeded' WHERE run_id = %s AND name IN ({dialect.marks(chunk)})"
                " AND status = 'canceled' AND output IS NOT NULL",
                [key, *chunk],
            )
            # Its run goes on where it is, as after a failure.
            cursor.execute(
                f"UPDATE {STEP} SET status = 'retrying', attempts = 0, finished_at = NULL WHERE run_id = %s"
                f" AND name IN ({dialect.marks(chunk)}) AND status = 'canceled' AND kind = 'invoke'",
                [key, *chunk],
            )
            cursor.execute(
                f"DELETE FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(chunk)}) AND status = 'canceled'",
                [key, *chunk],
            )


def unnoticed(connection: BaseDatabaseWrapper, run_id: UUID) -> list[str]:
    """The steps, branches and maps that an async body had canceled, and that nothing is later than, in order."""
    key = dialect.key(connection, run_id)
    # What was known in the branches around a record is no more than its `after`. Where nothing was canceled no row is found.
    rows = database.fetch_all(
        connection,
        f"SELECT name, position, after, context, status FROM {STEP} WHERE run_id = %s AND (status = 'canceled' OR after >="
        f" (SELECT MIN(position) FROM {STEP} WHERE run_id = %s AND status = 'canceled'))",
        [key, key],
    )
    return order.unnoticed([Place.read(*row[:4]) for row in rows], _canceled(rows))


def _canceled(rows: Iterable[Sequence[Any]]) -> set[str]:
    return {row[0] for row in rows if row[4] == StepStatus.CANCELED}


def reset_failures(connection: BaseDatabaseWrapper, run_id: UUID, steps: Sequence[str]) -> None:
    """Let failed steps be executed again, with all their attempts ahead of them.

    A map that is named is decided again, also one that has taken the failure and succeeded.
    """
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        for name in steps:
            rows = database.fetch_all(
                connection,
                f"SELECT attempts, attempt_log, error, started_at, finished_at, kind, context FROM {STEP}"
                " WHERE run_id = %s AND name = %s AND (status = 'failed' OR kind = 'map')",
                [key, name],
            )
            if not rows:
                continue
            attempts, log, error, started_at, finished_at, kind, context = rows[0]
            if kind in _OUTCOMES:
                cursor.execute(f"DELETE FROM {STEP} WHERE run_id = %s AND name = %s", [key, name])
                continue
            times = dialect.read_date(connection, started_at), dialect.read_date(connection, finished_at)
            said = contexts.after_reset(context)
            # It may be called with others now; but a run that it has started goes on with its input.
            arguments = "arguments" if "child" in contexts.read(said) else "NULL"
            cursor.execute(
                f"UPDATE {STEP} SET status = 'retrying', attempts = 0, attempt_log = %s, error = NULL,"
                f" error_type = '', finished_at = NULL, wakes_at_us = NULL, context = %s, arguments = {arguments}"
                " WHERE run_id = %s AND name = %s",
                [append_attempt(log, attempts, *times, error), said, key, name],
            )


def reset_from(connection: BaseDatabaseWrapper, run_id: UUID, paths: Collection[str]) -> None:
    """Delete the records of these steps, branches or maps and all that are later, reset the failures beside them, and forget
    what was canceled and is noticed by nothing that is left. The events of waits among them can be taken again.

    Raises `UnknownStep` for a path at which nothing is recorded, and `InvalidState` where a step is undone that is not among
    them.
    """
    found = _found_from(connection, run_id, paths)
    reset_failures(connection, run_id, [name for name in found.failed if name not in found.names])
    forget_canceled(connection, run_id, sorted(found.forgotten - found.names))
    delete(connection, run_id, found.names)
    if waits := sorted(found.waits & found.names):
        taking.release(connection, run_id, waits)
    if found.has_children:
        replacing.replace(connection, run_id, found.names - found.around)


def found_from(connection: BaseDatabaseWrapper, run_id: UUID, paths: Collection[str]) -> tuple[set[str], list[str]]:
    """What a run that goes on from these paths has to execute again: the names of the records to delete, and of the failures
    to reset. Raises as `reset_from()`."""
    found = _found_from(connection, run_id, paths)
    return found.names | found.forgotten, found.failed


class _Found(NamedTuple):
    """What is at some paths or later; what was canceled and is noticed by nothing that is left; the failures to reset; and all
    waits for events that the run has recorded; whether it has recorded children; and the groups of which only members go."""

    names: set[str]
    forgotten: set[str]
    failed: list[str]
    waits: set[str]
    has_children: bool
    around: set[str]


def _found_from(connection: BaseDatabaseWrapper, run_id: UUID, paths: Collection[str]) -> _Found:
    rows = database.fetch_all(
        connection,
        f"SELECT name, position, after, context, status, kind FROM {STEP} WHERE run_id = %s ORDER BY position",
        [dialect.key(connection, run_id)],
    )
    places = [Place.read(*row[:4]) for row in rows]
    failed = [place for place, row in zip(places, rows, strict=True) if row[4] == StepStatus.FAILED]
    names: set[str] = set()
    later: set[str] = set()
    groups: set[str] = set()
    whole: set[str] = set()
    for path in paths:
        found = order.reset_with(places, path)
        if found is None:
            recorded = ", ".join(repr(place.name) for place in places[:50]) or "none"
            raise UnknownStep(f"Run {run_id} has recorded no step {path!r}. Recorded are: {recorded}.")
        names |= found.names
        later |= found.later
        groups |= found.groups
        whole |= found.names - found.groups | found.later
    names |= {undo_of(name) for name in names}
    _refuse_to_keep([undone_by(row[0]) for row in rows if row[5] == UNDO and row[4] == StepStatus.SUCCEEDED], names)
    members = [place.name for place in failed if place.group in groups]
    # What it goes on from counts here, though its record goes: from a plan B on, plan A stays canceled.
    forgotten = set(order.unnoticed([place for place in places if place.name not in later], _canceled(rows)))
    waits = {row[0] for row in rows if row[5] == "event"}
    # A map that waits for children may have recorded none of them.
    has_children = any(row[5] == "invoke" or (row[5] == "map" and row[4] == StepStatus.WAITING) for row in rows)
    return _Found(
        names & {place.name for place in places},
        forgotten,
        _with_causes(connection, run_id, members),
        waits,
        has_children,
        groups - whole,
    )


def _refuse_to_keep(undone: Sequence[str], names: Collection[str]) -> None:
    """Raise `InvalidState` if one of the steps that are undone is not among those of which the records are deleted: it would
    count as done."""
    kept = [step for step in reversed(undone) if step not in names]  # the newest was undone first
    if kept:
        steps = ", ".join(map(repr, kept)) + (" is" if len(kept) == 1 else " are")
        raise InvalidState(
            f"The run can't go on from there: {steps} undone, and would not be executed again. Use"
            f" retry(from_step={kept[0]!r}) to begin there, or restart()."
        )


def _with_causes(connection: BaseDatabaseWrapper, run_id: UUID, members: Sequence[str]) -> list[str]:
    """Failed members of groups, and the steps in them whose failures theirs are."""
    found: dict[str, None] = {}
    for names in _chunks(members):
        rows = database.fetch_all(
            connection,
            f"SELECT name, error FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(names)})",
            [dialect.key(connection, run_id), *names],
        )
        for name, error in rows:
            found |= dict.fromkeys([*FailureRecord.read(error or "").steps, name])
    return list(found)


def delete(connection: BaseDatabaseWrapper, run_id: UUID, names: Iterable[str]) -> None:
    """Delete these records of a run."""
    with connection.cursor() as cursor:
        for chunk in _chunks(sorted(names)):
            cursor.execute(
                f"DELETE FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(chunk)})",
                [dialect.key(connection, run_id), *chunk],
            )


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _NAMES_AT_ONCE] for start in range(0, len(names), _NAMES_AT_ONCE))
