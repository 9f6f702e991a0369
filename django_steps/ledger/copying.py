"""Giving a run what another one has recorded: a restart from a step."""

from __future__ import annotations

from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import WITH_CHILDREN
from . import dialect, records, undone
from .resets import delete, found_from
from .tables import RUN, STEP


def copy_steps(connection: BaseDatabaseWrapper, source: UUID, target: UUID, from_step: str) -> None:
    """Give a new run what another one has recorded, but for what a retry from `from_step` and from all that is undone executes
    again; and what it says of itself, since a pass that replays says nothing again.

    Raises `UnknownStep`.
    """
    columns = tuple(records.TYPES)
    names, failed = found_from(connection, source, [from_step, *undone.steps(connection, source)])
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {STEP} (run_id, {', '.join(columns)}) SELECT t.id, {', '.join(f's.{c}' for c in columns)}"
            f" FROM {STEP} s, {RUN} t WHERE t.id = %s AND s.run_id = %s",
            [dialect.key(connection, target), dialect.key(connection, source)],
        )
        delete(connection, target, names.union(failed))
        # What waits for runs of the other one: this one starts its own. And waits for events: this one has its own deadlines.
        kinds = (*WITH_CHILDREN, "event")
        cursor.execute(
            f"DELETE FROM {STEP} WHERE run_id = %s AND kind IN ({dialect.marks(kinds)})"
            " AND status IN ('waiting', 'retrying')",
            [dialect.key(connection, target), *kinds],
        )
        cursor.execute(f"SELECT details FROM {RUN} WHERE id = %s", [dialect.key(connection, source)])
        (details,) = cursor.fetchone() or ("",)
        cursor.execute(
            f"UPDATE {RUN} SET has_history = %s, details = %s WHERE id = %s",
            [True, details, dialect.key(connection, target)],
        )
