"""What a run says of itself, on its way into its row: with a record, or with the write that suspends or ends the run."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.tags import Changes
from . import dialect, tags
from .tables import RUN


class Details(Protocol):
    """What a body has said of its run by `update_details()` and `set_tags()`, and what a record carries into the run's row."""

    @property
    def size(self) -> int:
        """About how many characters the text has."""
        ...

    def text(self) -> str | None:
        """What the row has to hold, None: what it holds. Asked for while it is locked, so that of two records the later one
        says more."""
        ...

    def tags(self) -> Changes:
        """The tags that were said with it; asked for after that."""
        ...

    def is_written(self) -> None:
        """It is committed, so that no other record has to carry it."""
        ...


def write_said(connection: BaseDatabaseWrapper, run_id: UUID, said: Details, stored_tags: str) -> None:
    """Write what a record carries; the row is locked by the caller, who has read `stored_tags` from it."""
    if (text := said.text()) is not None:
        write(connection, run_id, text)
    if changes := said.tags():
        tags.change(connection, run_id, stored_tags, changes)


def write(connection: BaseDatabaseWrapper, run_id: UUID, text: str) -> None:
    """Write it; the row is locked by the caller, who has found that the claim stands."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET details = %s WHERE id = %s", [text, dialect.key(connection, run_id)])
