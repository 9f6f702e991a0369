"""Rows of the tables as JSON, and back, whatever columns there are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.color import no_style
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model

from django_steps.models import StepRecord, Worker, WorkflowEvent, WorkflowLimit, WorkflowRun, WorkflowSchedule

Rows = dict[str, list[dict[str, Any]]]

MODELS: dict[str, type[Model]] = {
    model._meta.db_table: model
    for model in (Worker, WorkflowRun, StepRecord, WorkflowEvent, WorkflowSchedule, WorkflowLimit)
}
# Columns of earlier versions that have another name by now, by table, as the migrations rename them; None: it is gone.
RENAMED: Mapping[str, Mapping[str, str | None]] = {}


def dump() -> Rows:
    """All rows of the tables."""
    return {
        table: [_row(instance) for instance in model._base_manager.order_by("pk")] for table, model in MODELS.items()
    }


def load(connection: BaseDatabaseWrapper, rows: Rows) -> None:
    """Insert rows. What they don't name has the default of the database, as it has in rows that a migration finds."""
    for table, model in MODELS.items():
        fields = {field.column: field for field in model._meta.concrete_fields}
        for row in rows[table]:
            named = [(_present(table, column), value) for column, value in row.items()]
            values = {column: _parameter(connection, fields[column], value) for column, value in named if column}
            _insert(connection, table, values)
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(MODELS.values())):
            cursor.execute(statement)


def _row(instance: Model) -> dict[str, Any]:
    fields = instance._meta.concrete_fields
    return {field.column: _as_json(getattr(instance, field.attname)) for field in fields}


def _as_json(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    return value.isoformat() if isinstance(value, datetime) else value


def _present(table: str, column: str) -> str | None:
    return RENAMED.get(table, {}).get(column, column)


def _parameter(connection: BaseDatabaseWrapper, field: Field[Any, Any], value: Any) -> Any:
    return field.get_db_prep_save(None if value is None else field.to_python(value), connection)


def _insert(connection: BaseDatabaseWrapper, table: str, values: dict[str, Any]) -> None:
    columns = ", ".join(map(connection.ops.quote_name, values))
    marks = ", ".join(["%s"] * len(values))
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values()))
