"""Steps that are undone: no retry goes on as if they were not.

The body calls `step.undo()` again on every pass, as long as it gets the same outcomes. A retry lets it get others: those of the
steps that it resets, and where the body or a branch has failed by an error that no step had, whatever it does instead of that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.names import undone_by
from ..core.states import UNDO
from ..errors import FailureWasHandled, RunTimedOut, WorkerDied
from ..failures import FailureRecord
from ..values.classes import shown_name
from . import database, dialect
from .order import Place
from .tables import STEP

# How a run ends that its body has not ended: a retry goes on with the same outcomes.
_NOT_OF_THE_BODY = tuple(map(shown_name, (RunTimedOut, WorkerDied)))


def read(connection: BaseDatabaseWrapper, run_id: UUID) -> list[Place]:
    """Where the undos of a run stand that have succeeded, in order."""
    rows = database.fetch_all(
        connection,
        f"SELECT name, position, after, context FROM {STEP} WHERE run_id = %s AND kind = '{UNDO}' AND status = 'succeeded'"
        " ORDER BY position",
        [dialect.key(connection, run_id)],
    )
    return [Place.read(*row) for row in rows]


def steps(connection: BaseDatabaseWrapper, run_id: UUID, undos: Iterable[Place] | None = None) -> list[str]:
    """The steps that are undone, by these undos or all of the run, in order."""
    names = {undone_by(undo.name) for undo in (read(connection, run_id) if undos is None else undos)}
    if not names:
        return []
    rows = database.fetch_all(
        connection,
        f"SELECT name FROM {STEP} WHERE run_id = %s AND kind <> '{UNDO}' ORDER BY position",
        [dialect.key(connection, run_id)],
    )
    return [row[0] for row in rows if row[0] in names]


def refuse_own_error(
    connection: BaseDatabaseWrapper, run_id: UUID, error: FailureRecord | None, failed: Collection[Place]
) -> None:
    """Raise `FailureWasHandled` if a run has undone something, and then its body or a branch failed by an error of its own.
    `failed`: the records whose failures the error is."""
    if error is None or (not failed and error.type in _NOT_OF_THE_BODY):
        return
    undos = read(connection, run_id)
    if later := before_own_error(undos, failed):
        raise FailureWasHandled("", later, steps(connection, run_id, undos))


def before_own_error(undos: Sequence[Place], failed: Collection[Place]) -> list[str]:
    """Those of these undos that were called by the body or a branch that has failed by an error of its own: no record in it is
    `failed`."""
    if not failed:
        return [undo.name for undo in undos]
    around = {path for place in failed for path in place.paths() if path != place.name}
    own = {place.name for place in failed} - around
    return [undo.name for undo in undos if not own.isdisjoint(undo.paths())]
