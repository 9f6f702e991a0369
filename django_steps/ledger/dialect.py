"""What differs between SQLite, PostgreSQL and MySQL/MariaDB in the words of a statement.

Machine times are whole microseconds since 1970 in UTC, always from the database's clock: `now()` gives the SQL
expression. Where a database needs other statements altogether, and not only other words, the module of those statements
decides that by vendor.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ..core import clock

# `statement_timestamp()` and not `clock_timestamp()`: a volatile function can't be compared through an index.
_NOW = {
    "postgresql": "(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000)::bigint",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "sqlite": (
        "(CAST(strftime('%%s', 'now') AS INTEGER) * 1000000"
        " + CAST(substr(strftime('%%f', 'now'), 4) AS INTEGER) * 1000)"
    ),
}


def now(connection: BaseDatabaseWrapper) -> str:
    """The SQL expression for the present time in microseconds."""
    expression = _NOW[connection.vendor]
    return f"({expression} + {clock.offset_us})" if clock.offset_us else expression


def date_value(connection: BaseDatabaseWrapper, microseconds: int | None) -> Any:
    """A machine time as the parameter of a DateTimeField's column."""
    if microseconds is None:
        return None
    return connection.ops.adapt_datetimefield_value(clock.to_datetime(microseconds))


def read_date(connection: BaseDatabaseWrapper, value: Any) -> int | None:
    """The machine time of what a statement returned for a DateTimeField's column."""
    if isinstance(value, str):
        try:
            value = parse_datetime(value)
        except ValueError:  # damaged
            return None
    if value is not None and timezone.is_naive(value) and settings.USE_TZ:
        value = timezone.make_aware(value, connection.timezone)
    return None if value is None else clock.to_microseconds(value)


def key(connection: BaseDatabaseWrapper, run_id: UUID) -> Any:
    """A run's id as the parameter of a statement."""
    if connection.vendor == "postgresql":
        return run_id
    return str(run_id) if connection.features.has_native_uuid_field else run_id.hex


def run_id(value: Any) -> UUID:
    """A run's id as a statement returned it."""
    return value if isinstance(value, UUID) else UUID(value)


def marks(values: Collection[Any]) -> str:
    """Placeholders for a list of values: `%s, %s, %s`."""
    return ", ".join(["%s"] * len(values))


def locking(connection: BaseDatabaseWrapper, *, wait: bool = False) -> str:
    """Lock the rows that can be locked and leave out the others; `wait`: or wait for them. SQLite locks the whole file
    instead."""
    if not connection.features.has_select_for_update:
        return ""
    return " FOR UPDATE" if wait else " FOR UPDATE SKIP LOCKED"


def sharing(connection: BaseDatabaseWrapper, *, skip: bool = False) -> str:
    """Hold the run's row against a recovery until this transaction ends; `skip`: or leave it out."""
    return _sharing(connection.vendor, getattr(connection, "mysql_is_mariadb", False), skip)


@cache
def _sharing(vendor: str, mariadb: bool, skip: bool) -> str:
    if vendor == "sqlite":
        return ""
    clause = " LOCK IN SHARE MODE" if mariadb else " FOR SHARE"
    return clause + (" SKIP LOCKED" if skip else "")
