"""What a run says of itself, on its way into its row: with a record, or with the write that suspends or ends the run."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import dialect
from .tables import RUN


class Details(Protocol):
    """What a body has said of itself by `update_details()`, and what a record carries into the row of its run."""

    @property
    def size(self) -> int:
        """About how many characters the text has."""
        ...

    def text(self) -> str:
        """What the row has to hold: asked for while the row is locked, so that of two records the later one says more."""
        ...

    def is_written(self) -> None:
        """It is committed, so that no other record has to carry it."""
        ...


def write(connection: BaseDatabaseWrapper, run_id: UUID, text: str) -> None:
    """Write it; the row is locked by the caller, who has found that the claim stands."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RUN} SET details = %s WHERE id = %s", [text, dialect.key(connection, run_id)])
