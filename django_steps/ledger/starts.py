"""Bringing runs into being: one INSERT on the caller's connection, inside the caller's transaction.

A key makes the INSERT a question: either the row is new, or the first run with that key is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from ..ids import uuid7
from . import sql
from .sql import READY, RUN, STEP, TIMED

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
    "id, workflow, version, queue, priority, status, phase, key, input, input_search, created_at, available_at,"
    " restart_of_id, attempts, recoveries, recovery_mark, generation, has_history, current_step, takeovers"
)
_VALUES = "(%s, %s, %s, %s, %s, 'pending', %s, %s, %s, %s, %s, {available_at}, %s, 1, 0, 0, 0, %s, '', '')"


def insert(connection: BaseDatabaseWrapper, run: NewRun) -> bool:
    """Insert one run; False if its key is another run's already."""
    statement = f"INSERT INTO {RUN} ({_columns(connection)}) VALUES {_values(connection, run)}"
    parameters = _parameters(connection, run)
    if run.key is None:
        _execute(connection, statement, parameters)
        return True
    if connection.vendor != "mysql":
        return bool(_execute(connection, f"{statement} ON CONFLICT DO NOTHING", parameters))
    try:
        with transaction.atomic(using=connection.alias):
            return bool(_execute(connection, statement, parameters))
    except IntegrityError:
        return False


def insert_many(connection: BaseDatabaseWrapper, runs: Sequence[NewRun]) -> None:
    """Insert runs without keys, with as few statements as the database takes, in one transaction."""
    per_row = len(_parameters(connection, runs[0])) if runs else 1
    limit = connection.features.max_query_params
    size = min(500, limit // per_row if limit else 500)
    with transaction.atomic(using=connection.alias):
        for start in range(0, len(runs), size):
            batch = runs[start : start + size]
            values = ", ".join(_values(connection, run) for run in batch)
            parameters = [value for run in batch for value in _parameters(connection, run)]
            _execute(connection, f"INSERT INTO {RUN} ({_columns(connection)}) VALUES {values}", parameters)


def find_by_key(connection: BaseDatabaseWrapper, model: type[M], workflow: str, key: str) -> M | None:
    """The run that holds a key, as an instance of `model`. Reads past the snapshot of the caller's transaction where
    there is one: nothing but this very statement sees the row then."""
    lock = sql.sharing(connection) if connection.vendor == "mysql" else ""
    statement = f"SELECT * FROM {RUN} WHERE workflow = %s AND {_quoted_key(connection)} = %s{lock}"
    return next(iter(model._base_manager.using(connection.alias).raw(statement, [workflow, key])), None)


def copy_steps(connection: BaseDatabaseWrapper, source: UUID, target: UUID, before: int) -> None:
    """Give a new run what another one had recorded before a position."""
    columns = (
        "name, kind, position, status, attempts, output, error, attempt_log, started_at, finished_at, wake_at,"
        " claim_token, write_id"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {STEP} (run_id, {columns}) SELECT t.id, {', '.join('s.' + c.strip() for c in columns.split(','))}"
            f" FROM {STEP} s, {RUN} t WHERE t.id = %s AND s.run_id = %s AND s.position < %s",
            [sql.key(connection, target), sql.key(connection, source), before],
        )
        cursor.execute(f"UPDATE {RUN} SET has_history = %s WHERE id = %s", [True, sql.key(connection, target)])


def _quoted_key(connection: BaseDatabaseWrapper) -> str:
    return connection.ops.quote_name("key")  # a reserved word in MySQL


def _columns(connection: BaseDatabaseWrapper) -> str:
    return _COLUMNS.replace(" key,", f" {_quoted_key(connection)},")


def _values(connection: BaseDatabaseWrapper, run: NewRun) -> str:
    if run.delay is not None:
        return _VALUES.format(available_at=f"{sql.now(connection)} + {int(run.delay)}")
    return _VALUES.format(available_at=int(run.due_at or 0))


def _parameters(connection: BaseDatabaseWrapper, run: NewRun) -> list[Any]:
    return [
        sql.key(connection, run.id),
        run.workflow,
        run.version,
        run.queue,
        run.priority,
        TIMED if run.waits else READY,
        run.key,
        run.input,
        run.input_search,
        sql.date_value(connection, run.created_at),
        sql.key(connection, run.restart_of) if run.restart_of else None,
        False,
    ]


def _execute(connection: BaseDatabaseWrapper, statement: str, parameters: Sequence[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
