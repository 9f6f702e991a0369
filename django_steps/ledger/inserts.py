"""Bringing runs into being: one INSERT on the caller's connection, inside the caller's transaction.

A key makes the INSERT a question: either the row is new, or the first run with that key is the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from django.db import DatabaseError, IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from ..core import tags as run_tags
from ..core import traces
from ..core.ids import uuid7
from ..core.states import Status
from ..core.tags import Tags
from ..errors import InvalidState
from . import database, dialect, lines, notify, tags
from .postgresql import prepared
from .postgresql.literals import execute_as_literals, literals
from .postgresql.prepared import Statement
from .tables import HELD, IN_LINE, READY, RUN, TIMED

M = TypeVar("M", bound=Model)


class Child(NamedTuple):
    """Whose child a run is: the parent, the record of the step or map there, and the item of that map (else an empty text);
    and how many ancestors it has."""

    parent: UUID
    step: str
    item: str
    depth: int


class Slot(NamedTuple):
    """Of which schedule a run is, and for which time (microseconds); `is_held`: until no other run of that is left."""

    schedule: str
    at: int
    is_held: bool = False


@dataclass(slots=True, kw_only=True)
class NewRun:
    """A run to be inserted. `delay` (microseconds from now) or `due_at` (machine time) make it wait.

    `timeout`: how long it may last; `start_within`: how long it may wait once it may begin; microseconds.
    """

    id: UUID = field(default_factory=uuid7)
    workflow: str
    version: str
    queue: str
    priority: int
    input: str
    input_search: str | None
    key: str | None = None
    active_key: str | None = None
    created_at: int
    delay: int | None = None
    due_at: int | None = None
    restart_of: UUID | None = None
    child: Child | None = None
    timeout: int | None = None
    start_within: int | None = None
    slot: Slot | None = None
    # Its limits, each with its rule; the first is that of its workflow, if there is one.
    limit_1: str | None = None
    limit_2: str | None = None
    limit_queue: str | None = None
    # What it carries of the trace that the calling code is in: NULL where nothing traces.
    trace: str | None = field(default_factory=traces.carried)
    tags: Tags = field(default_factory=dict)

    @property
    def line(self) -> str | None:
        """The limit that the run is in line for when it is inserted."""
        limits = lines.names(self.limit_1, self.limit_2, self.limit_queue)
        return limits[0] if limits and not self.waits and not self.is_held else None

    @property
    def phase(self) -> int:
        """Where a claim looks for the run."""
        if self.is_held:
            return HELD
        if self.waits:
            return TIMED
        return READY if self.line is None else IN_LINE

    @property
    def is_held(self) -> bool:
        """Whether it waits until an earlier run of its schedule has ended."""
        return self.slot is not None and self.slot.is_held

    @property
    def has_key(self) -> bool:
        """Whether another run may be in its place."""
        return self.key is not None or self.active_key is not None

    @property
    def waits(self) -> bool:
        return self.delay is not None or self.due_at is not None


# The columns that an INSERT may name, and their types in PostgreSQL. It names those only that it sets: the others hold
# what the database has for them, as do the columns of later versions.
_TYPES = {
    "id": "uuid",
    "workflow": "text",
    "version": "text",
    "queue": "text",
    "priority": "int",
    "key": "text",
    "active_key": "text",
    "own_active_key": "text",
    "phase": "int",
    "input": "text",
    "input_search": "jsonb",
    "created_at": "timestamptz",
    "restart_of_id": "uuid",
    "parent_id": "uuid",
    "parent_step": "text",
    "parent_item": "text",
    "open_parent_id": "uuid",
    "depth": "int",
    "timeout_us": "bigint",
    "start_within_us": "bigint",
    "schedule": "text",
    "scheduled_for": "timestamptz",
    "open_schedule": "text",
    "limit_1": "text",
    "limit_2": "text",
    "limit_queue": "text",
    "line_key": "text",
    "trace": "text",
    "tags": "text",
}
# What a column holds where nothing is set, as in `models/columns.py`.
_DEFAULTS = {
    "version": "",
    "queue": "default",
    "priority": 0,
    "phase": READY,
    "key": None,
    "active_key": None,
    "own_active_key": None,
    "input_search": None,
    "restart_of_id": None,
    "parent_id": None,
    "parent_step": None,
    "parent_item": None,
    "open_parent_id": None,
    "depth": 0,
    "timeout_us": None,
    "start_within_us": None,
    "schedule": None,
    "scheduled_for": None,
    "open_schedule": None,
    "limit_1": None,
    "limit_2": None,
    "limit_queue": None,
    "line_key": None,
    "trace": None,
    "tags": "",
}


def insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    """Insert one run; False if its key, or its active key, is another run's already."""
    line = run.line
    if line is not None:
        notify.ensure_possible(connection)
    is_inserted = _insert_with_tags(connection, run) if run.tags else _insert_plain(connection, run)
    if is_inserted and line is not None:
        lines.promote_after_commit(connection, [line])
    return is_inserted


def _insert_plain(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    if connection.vendor != "mysql":
        return _insert(connection, run)
    return database.retrying(connection, lambda: _insert_in_mysql(connection, run))


def _insert_with_tags(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    """Together, in a transaction of its own where the caller has none."""

    def statements() -> bool:
        with transaction.atomic(using=connection.alias) if not connection.in_atomic_block else nullcontext():
            is_inserted = _insert_plain(connection, run)
            if is_inserted:
                tags.insert(connection, [(run.id, run.tags)])
        return is_inserted

    return database.retrying(connection, statements)


def _insert_in_mysql(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    if not run.has_key:
        return _insert(connection, run)
    try:
        with transaction.atomic(using=connection.alias):
            return _insert(connection, run)
    except IntegrityError:
        return False


def insert_many(connection: BaseDatabaseWrapper, runs: Sequence[NewRun], *, where_new: bool = False) -> None:
    """Insert runs, with as few statements as the database takes: all or none of them.

    `where_new`: leave out those whose key another run has, and children that are there already; else none may be.
    """
    if not runs:
        return
    waiting = {line for run in runs if (line := run.line) is not None}
    if waiting:
        notify.ensure_possible(connection)
    rows = [_values(connection, run) for run in runs]
    columns = [column for column in _TYPES if any(column in row for row in rows)]
    limit = connection.features.max_query_params
    size = min(500, limit // len(columns) if limit else 500)

    is_more = len(runs) > size or (any(run.tags for run in runs) and not connection.in_atomic_block)

    def statements() -> None:
        with transaction.atomic(using=connection.alias) if is_more else nullcontext():
            for start in range(0, len(runs), size):
                some = runs[start : start + size]
                _insert_rows(connection, columns, some, rows[start : start + size], where_new=where_new)
                tags.insert(connection, [(run.id, run.tags) for run in some])

    if connection.vendor == "mysql":  # where an INSERT may be one of two that lock each other out
        database.retrying(connection, statements)
    else:
        statements()
    lines.promote_after_commit(connection, waiting)


def _insert_rows(
    connection: BaseDatabaseWrapper,
    columns: Sequence[str],
    runs: Sequence[NewRun],
    rows: Sequence[dict[str, Any]],
    *,
    where_new: bool,
) -> None:
    times = [_times(connection, run) for run in runs]
    names = sorted({name for row in times for name in row})
    # In MySQL IGNORE would leave out what is wrong in another way, too.
    conflict = ""
    if where_new:
        conflict = " ON DUPLICATE KEY UPDATE id = id" if connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
    insertion = f"INSERT INTO {RUN} ({_listed(connection, [*columns, *names])}) VALUES "
    marks = [
        f"({', '.join([dialect.marks(columns), *(row.get(name, _NO_TIME[name]) for name in names)])})" for row in times
    ]
    values = [[row.get(column, _DEFAULTS.get(column)) for column in columns] for row in rows]
    text = insertion + ", ".join(marks) + conflict
    parameters = [value for row in values for value in row]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            literal_rows = [mark % tuple(literals(connection, row)) for mark, row in zip(marks, values, strict=True)]
            execute_as_literals(cursor, text, parameters, insertion + ", ".join(literal_rows) + conflict)
        else:
            cursor.execute(text, parameters)


def find_by_key(connection: BaseDatabaseWrapper, model: type[M], workflow: str, key: str) -> M | None:
    """The run that holds a key, as an instance of `model`. Reads past the snapshot of the caller's transaction where
    there is one: nothing but this very statement sees the row then."""
    return _find(connection, model, _quoted_key(connection), workflow, key)


def find_active(connection: BaseDatabaseWrapper, model: type[M], workflow: str, active_key: str) -> M | None:
    """The run that is active under an active key, as `find_by_key()`."""
    return _find(connection, model, "active_key", workflow, active_key)


def _find(connection: BaseDatabaseWrapper, model: type[M], column: str, workflow: str, key: str) -> M | None:
    lock = dialect.sharing(connection) if connection.vendor == "mysql" else ""
    statement = f"SELECT * FROM {RUN} WHERE workflow = %s AND {column} = %s{lock}"
    return next(iter(model._base_manager.using(connection.alias).raw(statement, [workflow, key])), None)


def id_in_place(connection: BaseDatabaseWrapper, run: NewRun) -> UUID:
    """The id of the run that has the key of one that was not inserted, or is active under its active key. Raises
    `InvalidState` where that is canceling, and `DatabaseError` where it has gone since."""
    lock = dialect.sharing(connection) if connection.vendor == "mysql" else ""
    for column, key in ((_quoted_key(connection), run.key), ("active_key", run.active_key)):
        if key is None:
            continue
        rows = database.fetch_all(
            connection,
            f"SELECT id, status FROM {RUN} WHERE workflow = %s AND {column} = %s{lock}",
            [run.workflow, key],
        )
        if rows:
            found = dialect.run_id(rows[0][0])
            if column == "active_key":
                refuse_canceling(found, rows[0][1], key)
            return found
    raise DatabaseError(f"The run that had the key of a new one of {run.workflow!r} has gone: start it again.")


def refuse_canceling(run_id: UUID, status: str, active_key: str) -> None:
    """Raise `InvalidState` where the run that is active under a key is canceling: it takes nothing on any more, and holds
    its place until it has ended."""
    if status == Status.CANCELING:
        raise InvalidState(
            f"Run {run_id} is active under {active_key!r} and is canceling: start again when it has ended."
        )


def ids_by_key(connection: BaseDatabaseWrapper, workflow: str, keys: Sequence[str]) -> dict[str, UUID]:
    """The ids of the runs of a workflow that have these keys. Reads past the snapshot of the caller's transaction, as
    `find_by_key()`."""
    lock = dialect.sharing(connection) if connection.vendor == "mysql" else ""
    column, found = _quoted_key(connection), dict[str, UUID]()
    for start in range(0, len(keys), 500):
        chunk = keys[start : start + 500]
        rows = database.fetch_all(
            connection,
            f"SELECT {column}, id FROM {RUN} WHERE workflow = %s AND {column} IN ({dialect.marks(chunk)}){lock}",
            [workflow, *chunk],
        )
        found |= {key: dialect.run_id(value) for key, value in rows}
    return found


def _insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    conflict = "" if not run.has_key or connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
    values = _values(connection, run)
    with connection.cursor() as cursor:
        if times := _times(connection, run):
            text = (
                f"INSERT INTO {RUN} ({_listed(connection, [*values, *times])})"
                f" VALUES ({', '.join([dialect.marks(values), *times.values()])}){conflict}"
            )
            cursor.execute(text, list(values.values()))
        else:
            columns = _listed(connection, values)
            types = tuple(_TYPES[column] for column in values)
            prepared.execute(connection, cursor, _insertion(columns, types, conflict), list(values.values()))
        return bool(cursor.rowcount)


@cache
def _insertion(columns: str, types: tuple[str, ...], conflict: str) -> Statement:
    """Inserts a run that is ready at once, which most are."""
    return Statement(f"INSERT INTO {RUN} ({columns}) VALUES ({dialect.marks(types)}){conflict}", types)


def _values(connection: BaseDatabaseWrapper, run: NewRun) -> dict[str, Any]:
    """What the INSERT of a run has to say, by column: all but what the columns hold by themselves."""
    values = {
        "id": dialect.key(connection, run.id),
        "workflow": run.workflow,
        "version": run.version,
        "queue": run.queue,
        "priority": run.priority,
        "key": run.key,
        "active_key": run.active_key,
        "own_active_key": run.active_key,
        "phase": run.phase,
        "input": run.input,
        "input_search": run.input_search,
        "created_at": dialect.date_value(connection, run.created_at),
        "restart_of_id": dialect.key(connection, run.restart_of) if run.restart_of else None,
        "timeout_us": run.timeout,
        "start_within_us": run.start_within,
        "trace": run.trace,
        "tags": run_tags.as_text(run.tags),
    }
    if run.limit_1 is not None or run.limit_queue is not None:
        values |= {
            "limit_1": run.limit_1,
            "limit_2": run.limit_2,
            "limit_queue": run.limit_queue,
            "line_key": run.line,
        }
    if run.child is not None:
        parent = dialect.key(connection, run.child.parent)
        values |= {
            "parent_id": parent,
            "parent_step": run.child.step,
            "parent_item": run.child.item,
            "open_parent_id": parent,
            "depth": run.child.depth,
        }
    if run.slot is not None:
        values |= {
            "schedule": run.slot.schedule,
            "scheduled_for": dialect.date_value(connection, run.slot.at),
            "open_schedule": run.slot.schedule,
        }
    return {column: value for column, value in values.items() if column not in _DEFAULTS or value != _DEFAULTS[column]}


def _due_at(connection: BaseDatabaseWrapper, run: NewRun) -> str:
    """The expression for when a run is due; 0: at once."""
    return f"{dialect.now(connection)} + {int(run.delay)}" if run.delay is not None else str(int(run.due_at or 0))


def _times(connection: BaseDatabaseWrapper, run: NewRun) -> dict[str, str]:
    """The expressions for the times of a run that has some, by column: they are the database's."""
    times = {}
    if run.waits:
        times["available_at_us"] = _due_at(connection, run)
    if run.start_within is not None:
        since = _due_at(connection, run) if run.waits else dialect.now(connection)
        if run.due_at is not None:  # which may be over
            since = f"CASE WHEN {since} > {dialect.now(connection)} THEN {since} ELSE {dialect.now(connection)} END"
        times["expires_at_us"] = f"{since} + {int(run.start_within)}"
    return times


_NO_TIME = {"available_at_us": "0", "expires_at_us": "NULL"}


def _listed(connection: BaseDatabaseWrapper, columns: Iterable[str]) -> str:
    return ", ".join(_quoted_key(connection) if column == "key" else column for column in columns)


def _quoted_key(connection: BaseDatabaseWrapper) -> str:
    return connection.ops.quote_name("key")  # a reserved word in MySQL
