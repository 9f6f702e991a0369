"""Child runs: beginning them, and looking at them. (What their end means for their parents, and canceling them, is in
`cascades.py`; how a map over them ends in `mapped.py`.)

A child *counts* as long as `parent_item` is set; it is *open* (`open_parent_id`) until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import CAUSED_BY_PARENT, FINISHED, Status
from ..errors import InvalidState
from . import controls, database, dialect, inserts, notify, records
from .inserts import NewRun
from .records import Outcome, StepWrite
from .tables import ENDED, RUN, STEP

CHUNK = 500  # children that are inserted at a time
RETRIED_AT_ONCE = 50  # each by several statements, and locked until all are


class Found(NamedTuple):
    """A child as its parent looks at it; `output` and `error` are recorded texts. `is_open`: its end is looked for."""

    run_id: UUID
    workflow: str
    status: str
    output: str | None
    error: str | None
    cancel_cause: str
    is_open: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether it has an outcome."""
        return self.status in FINISHED


# -- Looking -----------------------------------------------------------------------------------------


def find(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> Found | None:
    """The child that a step has invoked; None if it is gone."""
    rows = database.fetch_all(
        connection,
        f"SELECT id, workflow, status, output, error, cancel_cause, open_parent_id FROM {RUN}"
        " WHERE parent_id = %s AND parent_step = %s AND parent_item = ''",
        [dialect.key(connection, parent), step],
    )
    if not rows:
        return None
    run_id, *columns, open_parent = rows[0]
    return Found(dialect.run_id(run_id), *columns)._replace(is_open=open_parent is not None)


def counts(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> tuple[dict[str, int], int]:
    """How many children of a map there are, by status; and how many of them are open."""
    rows = database.fetch_all(
        connection,
        f"SELECT status, COUNT(*), COUNT(open_parent_id) FROM {RUN} WHERE parent_id = %s AND parent_step = %s"
        " AND parent_item IS NOT NULL GROUP BY status",
        [dialect.key(connection, parent), step],
    )
    return {status: int(number) for status, number, _ in rows}, sum(int(row[2]) for row in rows)


def items(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> dict[str, str]:
    """The status of each child of a map, by its item."""
    return dict(
        database.fetch_all(
            connection,
            f"SELECT parent_item, status FROM {RUN} WHERE parent_id = %s AND parent_step = %s AND parent_item IS NOT NULL",
            [dialect.key(connection, parent), step],
        )
    )


def to_retry(connection: BaseDatabaseWrapper, parent: UUID, step: str, limit: int = CHUNK) -> list[UUID]:
    """Children of a step or map that have to go on for their parent: canceled only because it had stopped or ended, or failed
    before it was retried."""
    condition, parameters = _to_retry(connection, parent, step)
    rows = database.fetch_all(connection, f"SELECT c.id {condition} ORDER BY c.id LIMIT {limit}", parameters)
    return [dialect.run_id(row[0]) for row in rows]


def count_to_retry(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> int:
    """How many `to_retry()` would find without a limit."""
    condition, parameters = _to_retry(connection, parent, step)
    return int(database.fetch_all(connection, f"SELECT COUNT(*) {condition}", parameters)[0][0])


def _to_retry(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> tuple[str, list[Any]]:
    name = dialect.joined(connection, "c.parent_step", "'#'", "c.parent_item")
    return (
        f"FROM {RUN} c WHERE c.parent_id = %s AND c.parent_step = %s AND c.parent_item IS NOT NULL"
        f" AND c.status IN ('failed', 'canceled') AND (c.cancel_cause IN ({dialect.marks(CAUSED_BY_PARENT)}) OR EXISTS"
        f" (SELECT 1 FROM {STEP} s WHERE s.run_id = c.parent_id AND s.name = {name} AND s.status = 'retrying'))"
    ), [dialect.key(connection, parent), step, *CAUSED_BY_PARENT]


# -- Beginning ---------------------------------------------------------------------------------------


def insert(connection: BaseDatabaseWrapper, children: Sequence[NewRun]) -> bool:
    """Insert children that are not there yet, in the transaction of a record of their parent."""
    inserts.insert_many(connection, children, where_new=True)
    notify.workers(connection)
    return True


def insert_more(connection: BaseDatabaseWrapper, parent: UUID, token: int, children: Sequence[NewRun]) -> Outcome:
    """Insert further children of a map that is recorded; fenced by the parent's claim."""

    def statements() -> Outcome:
        with database.writing(connection):
            outcome = held(connection, parent, token)
            if outcome is Outcome.WRITTEN:
                insert(connection, children)
        return outcome

    outcome: Outcome = database.retrying(connection, statements)
    return outcome


def held(connection: BaseDatabaseWrapper, run_id: UUID, token: int) -> Outcome:
    """Hold a run until the transaction ends; WRITTEN if it is running."""
    status = records.hold(connection, run_id, token)
    if status is None:
        return Outcome.LOST
    return Outcome.WRITTEN if status == Status.RUNNING else Outcome.NOT_RUNNING


def retry(connection: BaseDatabaseWrapper, parent: UUID, token: int, step: str, children: Sequence[UUID]) -> Outcome:
    """Retry children for their parent, whose record waits for them by now; fenced by the parent's claim."""

    def statements() -> Outcome:
        with database.writing(connection):
            outcome = held(connection, parent, token)
            if outcome is Outcome.WRITTEN:
                for run_id in children:
                    with suppress(InvalidState):  # it goes on already; or it can't, so that its end stands
                        controls.retry(connection, run_id)
                open_again(connection, parent, step, children)
                _forget_tried(connection, parent, step, children)
                notify.workers(connection)
        return outcome

    outcome: Outcome = database.retrying(connection, statements)
    return outcome


def open_again(
    connection: BaseDatabaseWrapper, parent: UUID, step: str, children: Sequence[UUID] | None = None
) -> None:
    """Let the ends of these children (default: of all) be looked for that have not ended: the step or map waits for them.
    Whoever retried one while the parent did not wait for it has left it alone."""
    ids = [] if children is None else [dialect.key(connection, run_id) for run_id in children]
    only = "" if children is None else f" AND id IN ({dialect.marks(ids)})"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET open_parent_id = parent_id WHERE parent_id = %s AND parent_step = %s"
            f" AND parent_item IS NOT NULL AND open_parent_id IS NULL AND phase <> {ENDED}{only}",
            [dialect.key(connection, parent), step, *ids],
        )


def _forget_tried(connection: BaseDatabaseWrapper, parent: UUID, step: str, children: Sequence[UUID]) -> None:
    """Delete what a map's parent has of children that go on: those records were reset, and new ones are written at the end."""
    ids = [dialect.key(connection, run_id) for run_id in children]
    rows = database.fetch_all(connection, f"SELECT parent_item FROM {RUN} WHERE id IN ({dialect.marks(ids)})", ids)
    names = [f"{step}#{item}" for (item,) in rows]
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {STEP} WHERE run_id = %s AND name IN ({dialect.marks(names)}) AND status = 'retrying'",
            [dialect.key(connection, parent), *names],
        )


def start(
    connection: BaseDatabaseWrapper, write: StepWrite, new: NewRun, before_record: Callable[[UUID], None]
) -> Outcome | None:
    """Start an independent run and record that. `before_record` is called with the id of the run, new or the one that has its
    key: it puts that into `write`."""

    def begin() -> None:
        is_new = inserts.insert(connection, new)
        if is_new:
            notify.workers(connection)
        before_record(new.id if is_new else inserts.id_in_place(connection, new))

    return records.record_with(connection, write, first=begin)


def oldest_open(connection: BaseDatabaseWrapper, parent: UUID, step: str) -> int | None:
    """When the first of those children of a map was started that have not ended, in microseconds, by the clock of its host."""
    rows = database.fetch_all(
        connection,
        f"SELECT created_at FROM {RUN} WHERE open_parent_id = %s AND parent_step = %s ORDER BY created_at LIMIT 1",
        [dialect.key(connection, parent), step],
    )
    return dialect.read_date(connection, rows[0][0]) if rows else None


def first_open(connection: BaseDatabaseWrapper, parent: UUID, steps: Collection[str] | None = None) -> str | None:
    """One of these steps and maps (or of all) of which a child has not ended; None: all have."""
    condition = "" if steps is None else f" AND parent_step IN ({dialect.marks(steps)})"
    rows = database.fetch_all(
        connection,
        f"SELECT parent_step FROM {RUN} WHERE open_parent_id = %s{condition} LIMIT 1",
        [dialect.key(connection, parent), *(steps or ())],
    )
    return rows[0][0] if rows else None
