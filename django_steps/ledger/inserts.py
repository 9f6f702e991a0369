"""Bringing runs into being: one INSERT on the caller's connection, inside the caller's transaction.

A key makes the INSERT a question: either the row is new, or the first run with that key is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from ..core.ids import uuid7
from . import dialect, records
from .postgresql import prepared
from .postgresql.literals import execute_as_literals, literals
from .postgresql.prepared import Statement
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


_COLUMNS = (
    "id, workflow, version, queue, priority, status, phase, key, input, input_search, created_at, available_at_us,"
    " restart_of_id, attempts, recoveries, recovery_mark, generation, has_history, current_step, recovery_log"
)
# The types of the parameters in PostgreSQL.
_TYPES = ("uuid", "text", "text", "text", "int", "int", "text", "text", "jsonb", "timestamptz", "uuid", "boolean")
_VALUES = "(%s, %s, %s, %s, %s, 'pending', %s, %s, %s, %s, %s, {available_at_us}, %s, 1, 0, 0, 0, %s, '', '')"


def insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    """Insert one run; False if its key is another run's already."""
    if run.key is None or connection.vendor != "mysql":
        return _insert(connection, run)
    try:
        with transaction.atomic(using=connection.alias):
            return _insert(connection, run)
    except IntegrityError:
        return False


def insert_many(connection: BaseDatabaseWrapper, runs: Sequence[NewRun]) -> None:
    """Insert runs without keys, with as few statements as the database takes: all or none of them."""
    per_row = len(_parameters(connection, runs[0])) if runs else 1
    limit = connection.features.max_query_params
    size = min(500, limit // per_row if limit else 500)
    with transaction.atomic(using=connection.alias) if len(runs) > size else nullcontext():
        for start in range(0, len(runs), size):
            batch = runs[start : start + size]
            rows = [(_values(connection, run), _parameters(connection, run)) for run in batch]
            insertion = f"INSERT INTO {RUN} ({_columns(connection)}) VALUES "
            text = insertion + ", ".join(marks for marks, _ in rows)
            parameters = [value for _, values in rows for value in values]
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    literal_rows = [marks % tuple(literals(connection, values)) for marks, values in rows]
                    execute_as_literals(cursor, text, parameters, insertion + ", ".join(literal_rows))
                else:
                    cursor.execute(text, parameters)


def find_by_key(connection: BaseDatabaseWrapper, model: type[M], workflow: str, key: str) -> M | None:
    """The run that holds a key, as an instance of `model`. Reads past the snapshot of the caller's transaction where
    there is one: nothing but this very statement sees the row then."""
    lock = dialect.sharing(connection) if connection.vendor == "mysql" else ""
    statement = f"SELECT * FROM {RUN} WHERE workflow = %s AND {_quoted_key(connection)} = %s{lock}"
    return next(iter(model._base_manager.using(connection.alias).raw(statement, [workflow, key])), None)


def copy_steps(connection: BaseDatabaseWrapper, source: UUID, target: UUID, before: int) -> None:
    """Give a new run what another one had recorded before a position."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {STEP} (run_id, {records.COLUMNS}) SELECT t.id, {', '.join(f's.{c}' for c in records.TYPES)}"
            f" FROM {STEP} s, {RUN} t WHERE t.id = %s AND s.run_id = %s AND s.position < %s",
            [dialect.key(connection, target), dialect.key(connection, source), before],
        )
        cursor.execute(f"UPDATE {RUN} SET has_history = %s WHERE id = %s", [True, dialect.key(connection, target)])


def _insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    conflict = "" if run.key is None or connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
    if not run.waits:
        statement = _insertion(_columns(connection), conflict)
        with connection.cursor() as cursor:
            prepared.execute(connection, cursor, statement, _parameters(connection, run))
            return bool(cursor.rowcount)
    values = _values(connection, run)
    text = f"INSERT INTO {RUN} ({_columns(connection)}) VALUES {values}{conflict}"
    return bool(_execute(connection, text, _parameters(connection, run)))


@cache
def _insertion(columns: str, conflict: str) -> Statement:
    """Inserts a run that is ready at once, which most are."""
    return Statement(f"INSERT INTO {RUN} ({columns}) VALUES {_VALUES.format(available_at_us=0)}{conflict}", _TYPES)


def _quoted_key(connection: BaseDatabaseWrapper) -> str:
    return connection.ops.quote_name("key")  # a reserved word in MySQL


def _columns(connection: BaseDatabaseWrapper) -> str:
    return _COLUMNS.replace(" key,", f" {_quoted_key(connection)},")


def _values(connection: BaseDatabaseWrapper, run: NewRun) -> str:
    if run.delay is not None:
        return _VALUES.format(available_at_us=f"{dialect.now(connection)} + {int(run.delay)}")
    return _VALUES.format(available_at_us=int(run.due_at or 0))


def _parameters(connection: BaseDatabaseWrapper, run: NewRun) -> list[Any]:
    return [
        dialect.key(connection, run.id),
        run.workflow,
        run.version,
        run.queue,
        run.priority,
        TIMED if run.waits else READY,
        run.key,
        run.input,
        run.input_search,
        dialect.date_value(connection, run.created_at),
        dialect.key(connection, run.restart_of) if run.restart_of else None,
        False,
    ]


def _execute(connection: BaseDatabaseWrapper, statement: str, parameters: Sequence[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
