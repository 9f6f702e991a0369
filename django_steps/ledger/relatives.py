"""What is around a run, for people: its children by status, what has been sent to it, which run continues as it.

Every statement here goes by an index of the run's id or key; what may be many is counted up to a limit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import ACTIVE
from . import dialect
from .tables import EVENT, RUN

COUNTED = 1_000  # events of a run


@dataclass
class Around:
    """What there is around a run. `events`, and those that no wait has taken, are counted to one more than `COUNTED`."""

    children: dict[str, int] = field(default_factory=dict)  # by status; without those that were replaced
    replaced: int = 0
    events: int = 0
    untaken: int = 0
    continues: UUID | None = None

    @property
    def open_children(self) -> int:
        """How many of the children have not ended."""
        return sum(self.children.get(status, 0) for status in ACTIVE)


@dataclass(frozen=True)
class Owner:
    """A run as the owner of events: what was sent by key belongs to whichever run has the key.

    But not what was taken before that run was created: then another one had the key.
    """

    run_id: UUID
    workflow: str
    key: str | None
    created_at: datetime
    active_key: str | None = None


def around(connection: BaseDatabaseWrapper, owner: Owner) -> Around:
    """What there is around a run: one statement, whether there is anything or not."""
    pk = dialect.key(connection, owner.run_id)
    untaken, in_untaken = _events(connection, owner, "id", is_untaken=True)
    events, in_events = _events(connection, owner, "id")
    status = "CASE WHEN parent_item IS NULL THEN 'replaced' ELSE status END"
    statement = (
        f"SELECT 'child', {status}, COUNT(*) FROM {RUN} WHERE parent_id = %s GROUP BY {status}"
        f" UNION ALL SELECT 'untaken', '', COUNT(*) FROM ({untaken} LIMIT {COUNTED + 1}) u"
        f" UNION ALL SELECT 'event', '', COUNT(*) FROM ({events} LIMIT {COUNTED + 1}) e"
        f" UNION ALL SELECT 'continues', CAST(id AS CHAR(36)), 1 FROM {RUN} WHERE continued_as_id = %s"
    )
    found = Around()
    with connection.cursor() as cursor:
        cursor.execute(statement, [pk, *in_untaken, *in_events, pk])
        for kind, what, count in cursor.fetchall():
            if kind == "child" and what == "replaced":
                found.replaced = count
            elif kind == "child":
                found.children[what] = count
            elif kind == "continues":
                found.continues = dialect.run_id(what)
            elif kind == "event":
                found.events = count
            else:
                found.untaken = count
    return found


def events(
    connection: BaseDatabaseWrapper, owner: Owner, start: int, count: int, *, only: int | None = None
) -> list[int]:
    """The numbers of a run's events, some from the one at `start` on: those first that no wait has taken, the newest of each.

    `only`: that one, if it is the run's.
    """
    statement, parameters = _events(connection, owner, "id, consumed_at")
    condition = "" if only is None else f" WHERE id = {int(only)}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM ({statement}) e{condition}"
            f" ORDER BY CASE WHEN consumed_at IS NULL THEN 0 ELSE 1 END, id DESC LIMIT {int(count)} OFFSET {int(start)}",
            parameters,
        )
        return [int(row[0]) for row in cursor.fetchall()]


def _events(
    connection: BaseDatabaseWrapper, owner: Owner, columns: str, *, is_untaken: bool = False
) -> tuple[str, list[Any]]:
    """The statement for all events of a run, or for the untaken ones. Of an OR SQLite would read the whole table."""
    untaken = " AND consumed_at IS NULL" if is_untaken else ""
    statement = f"SELECT {columns} FROM {EVENT} WHERE run_id = %s{untaken}"
    parameters: list[Any] = [dialect.key(connection, owner.run_id)]
    created_at = connection.ops.adapt_datetimefield_value(owner.created_at)
    keyed = (
        f" UNION ALL SELECT {columns} FROM {EVENT} WHERE workflow = %s AND {connection.ops.quote_name('key')} = %s"
        f" AND run_id IS NULL AND (consumed_at IS NULL OR consumed_at >= %s){untaken}"
    )
    for key in {key for key in (owner.key, owner.active_key) if key is not None}:
        statement += keyed
        parameters += [owner.workflow, key, created_at]
    return statement, parameters


def count_open_children(connection: BaseDatabaseWrapper, ids: Collection[UUID], cap: int) -> dict[UUID, int]:
    """How many children of each of these runs have not ended, each counted up to `cap`."""
    if not ids:
        return {}
    counting = (
        f"SELECT %s, COUNT(*) FROM (SELECT 1 AS one FROM {RUN} WHERE open_parent_id = %s LIMIT {{cap}}) c".format(
            cap=int(cap)
        )
    )
    parameters: list[Any] = []
    for run_id in ids:
        parameters += [run_id.hex, dialect.key(connection, run_id)]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([counting] * len(ids)), parameters)
        return {UUID(pk): count for pk, count in cursor.fetchall() if count}


def count_children(connection: BaseDatabaseWrapper, run_id: UUID, steps: Sequence[str]) -> dict[str, dict[str, int]]:
    """The children that a run has of these steps, by step and status; without those that were replaced."""
    found: dict[str, dict[str, int]] = {}
    if not steps:
        return found
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT parent_step, status, COUNT(*) FROM {RUN} WHERE parent_id = %s AND parent_step IN"
            f" ({dialect.marks(steps)}) AND parent_item IS NOT NULL GROUP BY parent_step, status",
            [dialect.key(connection, run_id), *steps],
        )
        for step, status, count in cursor.fetchall():
            found.setdefault(step, {})[status] = count
    return found


def count_children_of(connection: BaseDatabaseWrapper, ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    """The children that each of these runs has, by status; those that were replaced count nothing, but are there."""
    found: dict[UUID, dict[str, int]] = {}
    if not ids:
        return found
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT parent_id, status, SUM(CASE WHEN parent_item IS NULL THEN 0 ELSE 1 END) FROM {RUN}"
            f" WHERE parent_id IN ({dialect.marks(ids)}) GROUP BY parent_id, status",
            [dialect.key(connection, run_id) for run_id in ids],
        )
        for run_id, status, count in cursor.fetchall():
            found.setdefault(dialect.run_id(run_id), {})[status] = int(count)
    return found
