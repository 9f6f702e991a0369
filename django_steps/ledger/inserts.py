"""Bringing runs into being: one INSERT on the caller's connection, inside the caller's transaction.

A key makes the INSERT a question: either the row is new, or the first run with that key is the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from ..core.ids import uuid7
from . import database, dialect, records
from .postgresql import prepared
from .postgresql.literals import execute_as_literals, literals
from .postgresql.prepared import Statement
from .resets import delete, found_from
from .tables import READY, RUN, STEP, TIMED

M = TypeVar("M", bound=Model)


@dataclass(slots=True, kw_only=True)
class NewRun:
    """A run to be inserted. `delay` (microseconds from now) or `due_at` (machine time) make it wait."""

    id: UUID = field(default_factory=uuid7)
    workflow: str
    version: str
    queue: str
    priority: int
    input: str
    input_search: str | None
    key: str | None = None
    created_at: int
    delay: int | None = None
    due_at: int | None = None
    restart_of: UUID | None = None

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
    "phase": "int",
    "input": "text",
    "input_search": "jsonb",
    "created_at": "timestamptz",
    "restart_of_id": "uuid",
}
# What a column holds where nothing is set, as in `models/columns.py`.
_DEFAULTS = {
    "version": "",
    "queue": "default",
    "priority": 0,
    "phase": READY,
    "key": None,
    "input_search": None,
    "restart_of_id": None,
}


def insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    """Insert one run; False if its key is another run's already."""
    if connection.vendor != "mysql":
        return _insert(connection, run)
    is_inserted: bool = database.retrying(connection, lambda: _insert_in_mysql(connection, run))
    return is_inserted


def _insert_in_mysql(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    if run.key is None:
        return _insert(connection, run)
    try:
        with transaction.atomic(using=connection.alias):
            return _insert(connection, run)
    except IntegrityError:
        return False


def insert_many(connection: BaseDatabaseWrapper, runs: Sequence[NewRun]) -> None:
    """Insert runs without keys, with as few statements as the database takes: all or none of them."""
    if not runs:
        return
    rows = [_values(connection, run) for run in runs]
    columns = [column for column in _TYPES if any(column in row for row in rows)]
    limit = connection.features.max_query_params
    size = min(500, limit // len(columns) if limit else 500)

    def statements() -> None:
        with transaction.atomic(using=connection.alias) if len(runs) > size else nullcontext():
            for start in range(0, len(runs), size):
                _insert_rows(connection, columns, runs[start : start + size], rows[start : start + size])

    if connection.vendor == "mysql":  # where an INSERT may be one of two that lock each other out
        database.retrying(connection, statements)
    else:
        statements()


def _insert_rows(
    connection: BaseDatabaseWrapper, columns: Sequence[str], runs: Sequence[NewRun], rows: Sequence[dict[str, Any]]
) -> None:
    times = [_due_at(connection, run) for run in runs] if any(run.waits for run in runs) else None
    insertion = f"INSERT INTO {RUN} ({_listed(connection, columns, times is not None)}) VALUES "
    marks = [f"({dialect.marks(columns)}{f', {time}' if time else ''})" for time in times or [""] * len(runs)]
    values = [[row.get(column, _DEFAULTS.get(column)) for column in columns] for row in rows]
    text = insertion + ", ".join(marks)
    parameters = [value for row in values for value in row]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            literal_rows = [mark % tuple(literals(connection, row)) for mark, row in zip(marks, values, strict=True)]
            execute_as_literals(cursor, text, parameters, insertion + ", ".join(literal_rows))
        else:
            cursor.execute(text, parameters)


def find_by_key(connection: BaseDatabaseWrapper, model: type[M], workflow: str, key: str) -> M | None:
    """The run that holds a key, as an instance of `model`. Reads past the snapshot of the caller's transaction where
    there is one: nothing but this very statement sees the row then."""
    lock = dialect.sharing(connection) if connection.vendor == "mysql" else ""
    statement = f"SELECT * FROM {RUN} WHERE workflow = %s AND {_quoted_key(connection)} = %s{lock}"
    return next(iter(model._base_manager.using(connection.alias).raw(statement, [workflow, key])), None)


def copy_steps(connection: BaseDatabaseWrapper, source: UUID, target: UUID, from_step: str) -> None:
    """Give a new run what another one has recorded, but for what a retry from `from_step` executes again.

    Raises `UnknownStep`.
    """
    columns = (*records.TYPES, "arguments")
    names, failed = found_from(connection, source, [from_step])
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {STEP} (run_id, {', '.join(columns)}) SELECT t.id, {', '.join(f's.{c}' for c in columns)}"
            f" FROM {STEP} s, {RUN} t WHERE t.id = %s AND s.run_id = %s",
            [dialect.key(connection, target), dialect.key(connection, source)],
        )
        delete(connection, target, names.union(failed))
        cursor.execute(f"UPDATE {RUN} SET has_history = %s WHERE id = %s", [True, dialect.key(connection, target)])


def _insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    conflict = "" if run.key is None or connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
    values = _values(connection, run)
    with connection.cursor() as cursor:
        if run.waits:
            text = (
                f"INSERT INTO {RUN} ({_listed(connection, values, True)})"
                f" VALUES ({dialect.marks(values)}, {_due_at(connection, run)}){conflict}"
            )
            cursor.execute(text, list(values.values()))
        else:
            columns = _listed(connection, values, False)
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
        "phase": TIMED if run.waits else READY,
        "input": run.input,
        "input_search": run.input_search,
        "created_at": dialect.date_value(connection, run.created_at),
        "restart_of_id": dialect.key(connection, run.restart_of) if run.restart_of else None,
    }
    return {column: value for column, value in values.items() if column not in _DEFAULTS or value != _DEFAULTS[column]}


def _due_at(connection: BaseDatabaseWrapper, run: NewRun) -> str:
    """The expression for when a run is due; 0: at once."""
    return f"{dialect.now(connection)} + {int(run.delay)}" if run.delay is not None else str(int(run.due_at or 0))


def _listed(connection: BaseDatabaseWrapper, columns: Iterable[str], has_time: bool) -> str:
    names = [_quoted_key(connection) if column == "key" else column for column in columns]
    return ", ".join([*names, "available_at_us"] if has_time else names)


def _quoted_key(connection: BaseDatabaseWrapper) -> str:
    return connection.ops.quote_name("key")  # a reserved word in MySQL
