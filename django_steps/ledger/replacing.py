"""Children that count no more, since the records of their parent that waited for them are reset. They stay, linked."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import dialect
from .tables import RUN

_NAMES_AT_ONCE = 500


def replace(connection: BaseDatabaseWrapper, parent: UUID, names: Collection[str]) -> None:
    """Let children count no more that were invoked by these steps, were items of these maps, or are these items."""
    ordered = sorted(names)
    own = dialect.joined(connection, "parent_step", "'#'", "parent_item")
    with connection.cursor() as cursor:
        for start in range(0, len(ordered), _NAMES_AT_ONCE):
            chunk = ordered[start : start + _NAMES_AT_ONCE]
            marks = dialect.marks(chunk)
            cursor.execute(
                f"UPDATE {RUN} SET parent_item = NULL, open_parent_id = NULL WHERE parent_id = %s"
                f" AND parent_item IS NOT NULL AND (parent_step IN ({marks}) OR {own} IN ({marks}))",
                [dialect.key(connection, parent), *chunk, *chunk],
            )
