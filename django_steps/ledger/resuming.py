"""Letting paused runs go on: through their limits, and after the run before them of their schedule."""

from __future__ import annotations

from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import ACTIVE
from ..errors import InvalidState
from . import controls, database, dialect, lines, moves, overlaps, pauses
from .tables import PARKED, RUN

# When a queue's pause may matter to a run.
_HELD_BY_PAUSES = (
    "(status IN ('pending', 'running', 'sleeping', 'waiting') OR (status = 'canceling' AND undoing IS NOT NULL))"
)


def resume(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    """Let a paused run go on, and one whose queue or workflow is paused: until it ends no such pause holds it. Whether this
    call did it: nothing changes in a run that is held by neither, or is canceling. Raises `InvalidState` for one that has
    ended."""
    if database.retrying(connection, lambda: _resume(connection, run_id)):
        return True
    status = controls.standing(connection, run_id)
    if status not in ACTIVE and status != moves.IS_PAUSING:
        raise InvalidState(f"Run {run_id} can't be resumed: it {controls.is_now(status)}.")
    return False


def _resume(connection: BaseDatabaseWrapper, run_id: UUID) -> bool:
    key = dialect.key(connection, run_id)
    is_held, limits, schedule = pauses.hold(connection, run_id, overlaps.to_be_held(connection))
    exempt, values = ("pause_exempt = %s", [True]) if is_held else ("", [])
    ready = moves.ready(dialect.now(connection))
    resumed = ready if schedule is None else moves.held(dialect.now(connection))
    moved = [
        (f"{resumed}, {moves.NO_PAUSE}", "status = 'paused'"),
        (moves.NO_PAUSE, "status = 'running' AND paused_at IS NOT NULL"),
    ]
    # A workflow or a queue holds it, and nothing else: parked, or in whichever state it is.
    lets_through = [(ready, f"status <> 'paused' AND phase = {PARKED}"), ("", _HELD_BY_PAUSES)]
    with connection.cursor() as cursor:
        for move, condition in [*moved, *(lets_through if exempt else [])]:
            also = f"{move}, {exempt}" if move and exempt else move or exempt
            cursor.execute(f"UPDATE {RUN} SET {also} WHERE id = %s AND {condition}", [*values, key])
            if cursor.rowcount:
                lines.promote_after_commit(connection, limits)
                if schedule is not None:  # the run before it may have ended meanwhile
                    connection.on_commit(lambda: overlaps.look(connection, schedule), robust=True)
                return True
    return False
