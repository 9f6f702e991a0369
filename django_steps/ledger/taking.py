"""Taking events: the first one that a wait of a run could take, and its consumption, in one transaction with the record of the
wait. (Sending them is in `events.py`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect, records
from .postgresql import prepared
from .postgresql.prepared import Statement
from .records import Outcome, StepWrite
from .tables import EVENT, RUN


class Found(NamedTuple):
    """An event that is there to be taken; `number` is its place in the order."""

    number: int
    name: str
    payload: str
    event_id: str | None
    by: str
    sent_at: int


def look(connection: BaseDatabaseWrapper, run_id: UUID, names: Sequence[str]) -> Found | None:
    """The first event of these names that a run could take: what was sent to it, or to its key before it had a run."""
    by = connection.ops.quote_name("by")
    columns = f"e.id, e.name, e.payload, e.event_id, e.{by}, e.sent_at"
    first = "e.consumed_at IS NULL ORDER BY e.id LIMIT 1"
    # By UNION, and for each name: the first of each is found in an index at once, where an OR or several names would have all
    # of them read and sorted. A subquery each, since SQLite sorts no member of a UNION.
    own = (
        f"SELECT {columns} FROM {EVENT} e{dialect.by_index(connection, 'django_steps_event_new')}"
        f" WHERE e.run_id = %s AND e.name = %s AND {first}"
    )
    of_run = f"(SELECT r.{{}} FROM {RUN} r WHERE r.id = %s)"
    key_column = connection.ops.quote_name("key")
    keyed = [
        f"SELECT {columns} FROM {EVENT} e{dialect.by_index(connection, 'django_steps_event_keyed')}"
        f" WHERE e.workflow = {of_run.format('workflow')} AND e.{key_column} = {of_run.format(column)} AND e.run_id IS NULL"
        f" AND e.name IN ({dialect.marks(names)}) AND {first}"
        for column in (key_column, "active_key")
    ]
    members = [f"SELECT * FROM ({select}) m{number}" for number, select in enumerate([*[own] * len(names), *keyed])]
    key = dialect.key(connection, run_id)
    parameters = [*(value for name in names for value in (key, name)), *[key, key, *names] * 2]
    rows = database.fetch_all(connection, " UNION ALL ".join(members), parameters)
    if not rows:
        return None
    number, name, payload, event_id, by, sent_at = min(rows, key=lambda row: int(row[0]))
    return Found(int(number), name, payload, event_id, by, dialect.read_date(connection, sent_at) or 0)


def take(connection: BaseDatabaseWrapper, write: StepWrite, event: Found) -> Outcome | None:
    """Record the outcome of a wait and consume its event, in one transaction: both or neither. None: it is taken already."""

    if connection.vendor == "postgresql" and write.details is None and _take_at_once(connection, write, event):
        return Outcome.WRITTEN
    # By several statements, which also tell why not.

    def consume() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {EVENT} SET {_CONSUMED} WHERE id = %s AND consumed_at IS NULL",
                [*_consumption(connection, write), event.number],
            )
            return bool(cursor.rowcount)

    return records.record_with(connection, write, consume)


_CONSUMED = "consumed_by = %s, consumed_at = %s, told = %s"


def _consumption(connection: BaseDatabaseWrapper, write: StepWrite) -> list[Any]:
    return [write.name, dialect.date_value(connection, write.finished_at), True]


@cache
def _taking(replaces: bool) -> Statement:
    """PostgreSQL: the record of a wait and the event that it takes, by one statement. The record is written only where the
    event is still there, which is locked first; and the event is consumed only where the record is written."""
    written, columns = (records.REPLACING, records.CHANGING) if replaces else (records.INSERTING, records.ALL)
    types = [records.TYPES[column] for column in columns]
    return Statement(
        f"WITH event AS (SELECT id FROM {EVENT} WHERE id = %s AND consumed_at IS NULL FOR UPDATE),"
        f" held AS (SELECT r.id FROM {RUN} r, event WHERE r.id = %s AND r.claim_token = %s AND r.status = 'running'"
        " AND r.paused_at IS NULL"
        f" FOR SHARE OF r), written AS ({written} RETURNING 1)"
        f" UPDATE {EVENT} e SET {_CONSUMED} FROM written, event WHERE {dialect.looked_up('e.id', 'event.id')}",
        ["bigint", "uuid", "bigint", *types, *(["text"] if replaces else []), "text", "timestamptz", "boolean"],
    )


def _take_at_once(connection: BaseDatabaseWrapper, write: StepWrite, event: Found) -> bool:
    columns = records.CHANGING if write.replaces else records.ALL
    values = [*records.parameters(connection, write, columns), *([write.name] if write.replaces else [])]
    parameters = [event.number, write.run_id, write.token, *values, *_consumption(connection, write)]

    def statement() -> bool:
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, _taking(write.replaces), parameters)
            return bool(cursor.rowcount)

    return database.retrying(connection, statement)


def record_canceled(connection: BaseDatabaseWrapper, write: StepWrite) -> Outcome:
    """Record that a wait was canceled; the event that it may have taken can be taken again."""

    def give_back() -> bool:
        release(connection, write.run_id, [write.name])
        return True

    outcome = records.record_with(connection, write, give_back)
    assert outcome is not None
    return outcome


def release(connection: BaseDatabaseWrapper, run_id: UUID, waits: Sequence[str]) -> None:
    """Let the events that these waits of a run have taken be taken again."""
    key = dialect.key(connection, run_id)
    marks = dialect.marks(waits)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {EVENT} SET consumed_by = NULL, consumed_at = NULL WHERE run_id = %s AND consumed_by IN ({marks})",
            [key, *waits],
        )
        cursor.execute(
            f"SELECT workflow, {connection.ops.quote_name('key')}, own_active_key, created_at FROM {RUN} WHERE id = %s",
            [key],
        )
        workflow, *keys, created_at = cursor.fetchone() or ("", None)
        for its_key in {its_key for its_key in keys if its_key is not None}:
            # Not what runs have taken that had the key before: it has continued as this one.
            cursor.execute(
                f"UPDATE {EVENT} SET consumed_by = NULL, consumed_at = NULL WHERE run_id IS NULL AND workflow = %s"
                f" AND {connection.ops.quote_name('key')} = %s AND consumed_at >= %s AND consumed_by IN ({marks})",
                [workflow, its_key, created_at, *waits],
            )
