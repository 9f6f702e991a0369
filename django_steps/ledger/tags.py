"""The tags of runs, each a row of its table, which is what runs are found by. The row of the run has them all as a text, so
that reading them costs nothing; both are written together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core import tags
from ..core.tags import Changes, Tags
from ..errors import InvalidState
from . import database, dialect
from .tables import RUN, TAG


def insert(connection: BaseDatabaseWrapper, runs: Iterable[tuple[UUID, Tags]]) -> None:
    """The rows of runs that have just been inserted; those of them that were left out, since they are there, keep theirs. One
    INSERT for all that have the same tags."""
    ids: dict[str, list[Any]] = {}
    for run_id, given in runs:
        if given:
            ids.setdefault(tags.as_text(given), []).append(dialect.key(connection, run_id))
    for shown, some in ids.items():
        given = tags.read(shown)
        text = dialect.typed(connection, "text")
        listed = " UNION ALL ".join([f"SELECT {text} AS name, {text} AS value"] * len(given))
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {TAG} (run_id, name, value) SELECT r.id, t.name, t.value FROM {RUN} r"
                f" CROSS JOIN ({listed}) t WHERE r.id IN ({dialect.marks(some)})",
                [*(part for pair in given.items() for part in pair), *some],
            )


def change(connection: BaseDatabaseWrapper, run_id: UUID, stored: str, changes: Changes) -> None:
    """Change some of a run's tags; its row is locked by the caller, who has read `stored` from it."""
    before = tags.read(stored)
    changes = {name: value for name, value in changes.items() if before.get(name) != value}
    if not changes:
        return
    key = dialect.key(connection, run_id)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET tags = %s WHERE id = %s", [tags.as_text(tags.changed(before, changes)), key])
        if gone := [name for name in changes if name in before]:
            cursor.execute(f"DELETE FROM {TAG} WHERE run_id = %s AND name IN ({dialect.marks(gone)})", [key, *gone])
        if new := {name: value for name, value in changes.items() if value is not None}:
            rows = ", ".join(["(%s, %s, %s)"] * len(new))
            parameters = [part for name, value in new.items() for part in (key, name, value)]
            cursor.execute(f"INSERT INTO {TAG} (run_id, name, value) VALUES {rows}", parameters)


def set_tags(connection: BaseDatabaseWrapper, run_id: UUID, changes: Changes) -> None:
    """Change some of a run's tags, in the transaction of the caller. Raises `ValueError` if it would have too many, and
    `InvalidState` if it is gone."""

    def statements() -> None:
        with database.writing(connection):
            stored = locked(connection, "id = %s", [dialect.key(connection, run_id)])
            if stored is None:
                raise InvalidState(f"Run {run_id} is gone: it was deleted.")
            tags.check_number(tags.changed(tags.read(stored), changes))
            change(connection, run_id, stored, changes)

    database.retrying(connection, statements)


def delete(connection: BaseDatabaseWrapper, keys: Collection[Any]) -> None:
    """Delete the rows of these runs, which are given as the statements of this database name them."""
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {TAG} WHERE run_id IN ({dialect.marks(keys)})", list(keys))


def locked(connection: BaseDatabaseWrapper, condition: str, parameters: Sequence[Any]) -> str | None:
    """What the row of a run keeps of its tags, and lock it; None if there is no such row."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tags FROM {RUN} WHERE {condition}{dialect.keeping(connection)}", parameters)
        row = cursor.fetchone()
    return None if row is None else row[0]
