"""Which way runs go at each patch, for whoever wants to take the line out of the body. It reads all runs but succeeded ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.names import without_keys
from ..core.states import ACTIVE, PATCH, RETRYABLE, Status
from . import database, dialect
from .tables import RUN, STEP


class PatchUse(NamedTuple):
    """A patch of a workflow (its path without keys), and which way runs go there.

    - `new`, `old`: how many of those that have not ended go this way.
    - `open`: how many of them have begun before anybody asked, and have not come to the line since: they may go the old way.
    - `ended`: how many that failed or were canceled went the old way, or may go it after a retry.
    """

    workflow: str
    name: str
    new: int
    old: int
    open: int
    ended: int

    @property
    def is_needed(self) -> bool:
        """Whether a run that has not ended goes the old way, or may go it."""
        return self.old + self.open > 0


class _Asked:
    """Who has asked for one patch."""

    def __init__(self) -> None:
        self.ways: dict[bool, set[UUID]] = {True: set(), False: set()}
        self.ended: set[UUID] = set()
        self.everybody: set[UUID] = set()
        self.since: int | None = None

    def note(self, run_id: UUID, *, is_new: bool, is_active: bool, at: int) -> None:
        self.everybody.add(run_id)
        if is_active:
            self.ways[is_new].add(run_id)
        elif not is_new:
            self.ended.add(run_id)
        self.since = at if self.since is None else min(self.since, at)


def uses(connection: BaseDatabaseWrapper, workflow: str = "") -> list[PatchUse]:
    """The patches for which runs have asked that have not succeeded; `workflow`: only of this one."""
    condition, parameters = ("", list[Any]()) if not workflow else (" AND r.workflow = %s", [workflow])
    rows = database.fetch_all(
        connection,
        f"SELECT r.id, r.workflow, r.status, s.name, s.output, s.started_at FROM {RUN} r JOIN {STEP} s ON s.run_id = r.id"
        f" WHERE r.status <> '{Status.SUCCEEDED}' AND s.kind = '{PATCH}'{condition}",
        parameters,
    )
    found: defaultdict[tuple[str, str], _Asked] = defaultdict(_Asked)
    for key, name, status, path, output, at in rows:
        asked, moment = found[name, without_keys(path)], dialect.read_date(connection, at) or 0
        asked.note(dialect.run_id(key), is_new=output == "true", is_active=status in ACTIVE, at=moment)
    return [
        PatchUse(
            *identity,
            len(asked.ways[True]),
            len(asked.ways[False]),
            _open(connection, identity[0], asked, ACTIVE),
            len(asked.ended) + _open(connection, identity[0], asked, RETRYABLE),
        )
        for identity, asked in sorted(found.items())
    ]


def _open(connection: BaseDatabaseWrapper, workflow: str, asked: _Asked, statuses: Sequence[str]) -> int:
    """How many runs of these statuses began before anybody asked, and have not asked themselves."""
    rows = database.fetch_all(
        connection,
        f"SELECT id FROM {RUN} WHERE workflow = %s AND status IN ({dialect.marks(statuses)}) AND started_at < %s",
        [workflow, *statuses, dialect.date_value(connection, asked.since)],
    )
    return len({dialect.run_id(row[0]) for row in rows} - asked.everybody)
