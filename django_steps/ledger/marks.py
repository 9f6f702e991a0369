"""What is noted of a record after it was made, for people who look at it. It changes nothing of what the record says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect
from .tables import STEP


class Mark(NamedTuple):
    """The context of a record as it was, and as it is to be."""

    name: str
    before: str | None
    after: str | None


def write(connection: BaseDatabaseWrapper, run_id: UUID, marks: Iterable[Mark]) -> None:
    """Note this, where nobody has changed the record meanwhile: the run may be another worker's by now."""
    key = dialect.key(connection, run_id)

    def statements() -> None:
        with database.writing(connection), connection.cursor() as cursor:
            for mark in marks:
                is_same, before = (
                    ("context = %s", [mark.before]) if mark.before is not None else ("context IS NULL", [])
                )
                cursor.execute(
                    f"UPDATE {STEP} SET context = %s WHERE run_id = %s AND name = %s AND {is_same}",
                    [mark.after, key, mark.name, *before],
                )

    database.retrying(connection, statements)
