"""What differs between SQLite, PostgreSQL and MySQL/MariaDB, and the names of the tables.

Machine times are whole microseconds since 1970 in UTC, always from the database's clock: `now()` gives the SQL
expression. Where a database needs other statements altogether, and not only other words, the module of those statements
decides that by vendor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ..errors import ValueTooLarge

T = TypeVar("T")

RUN = "django_steps_workflowrun"
STEP = "django_steps_steprecord"
WORKER = "django_steps_worker"

# The phases of a run, apart from its status: they alone decide where a claim looks for it.
READY, TIMED, ENDED, PARKED = 0, 1, 2, 3

LONG_VALUE = 64 * 1024  # characters; no database closes a connection because of a shorter one

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# `statement_timestamp()` and not `clock_timestamp()`: a volatile function can't be compared through an index.
_NOW = {
    "postgresql": "(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000)::bigint",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "sqlite": (
        "(CAST(strftime('%%s', 'now') AS INTEGER) * 1000000"
        " + CAST(substr(strftime('%%f', 'now'), 4) AS INTEGER) * 1000)"
    ),
}


class _Clock:
    """How far the engine's clock is ahead of the database's, in microseconds; not 0 in tests only."""

    offset = 0


clock = _Clock()


def now(connection: BaseDatabaseWrapper) -> str:
    """The SQL expression for the present time in microseconds."""
    expression = _NOW[connection.vendor]
    return f"({expression} + {clock.offset})" if clock.offset else expression


def read_clock(connection: BaseDatabaseWrapper) -> int:
    """The database's time in microseconds."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now(connection)}", [])
        return int(cursor.fetchone()[0])


def host_time() -> int:
    """This host's time in microseconds, for what people read and nothing is decided by."""
    return time.time_ns() // 1000 + clock.offset


def to_datetime(microseconds: int) -> datetime:
    """A machine time as people read it: aware where `USE_TZ` is on, naive local where it is off."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def to_microseconds(moment: datetime) -> int:
    """The machine time of a datetime that fits `USE_TZ`."""
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return (moment - _EPOCH) // timedelta(microseconds=1)


def date_value(connection: BaseDatabaseWrapper, microseconds: int | None) -> Any:
    """A machine time as the parameter of a DateTimeField's column."""
    if microseconds is None:
        return None
    return connection.ops.adapt_datetimefield_value(to_datetime(microseconds))


def read_date(connection: BaseDatabaseWrapper, value: Any) -> int | None:
    """The machine time of what a statement returned for a DateTimeField's column."""
    if isinstance(value, str):
        value = parse_datetime(value)
    if value is not None and timezone.is_naive(value) and settings.USE_TZ:
        value = timezone.make_aware(value, connection.timezone)
    return None if value is None else to_microseconds(value)


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
    """Lock the rows that can be locked and pass over the others; `wait`: or wait for them. SQLite locks the whole file
    instead."""
    if not connection.features.has_select_for_update:
        return ""
    return " FOR UPDATE" if wait else " FOR UPDATE SKIP LOCKED"


def sharing(connection: BaseDatabaseWrapper, *, skip: bool = False) -> str:
    """Hold the run's row against a takeover until this transaction ends; `skip`: or pass over it."""
    return _sharing(connection.vendor, getattr(connection, "mysql_is_mariadb", False), skip)


@cache
def _sharing(vendor: str, mariadb: bool, skip: bool) -> str:
    if vendor == "sqlite":
        return ""
    clause = " LOCK IN SHARE MODE" if mariadb else " FOR SHARE"
    return clause + (" SKIP LOCKED" if skip else "")


@contextmanager
def writing(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """A transaction that writes.

    On SQLite it takes the write lock at once: one that reads first and writes later fails with "database is
    locked" as soon as another process wrote in between, however long the timeout.
    """
    with transaction.atomic(using=connection.alias):
        if connection.vendor == "sqlite":
            lock_file(connection)
        yield


def lock_file(connection: BaseDatabaseWrapper) -> None:
    """Make the open SQLite transaction a writer, where its mode has not done so already."""
    if getattr(connection, "transaction_mode", None) not in ("IMMEDIATE", "EXCLUSIVE"):
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {RUN} SET phase = phase WHERE id = ''")


# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available. MySQL: lock wait timeout, deadlock.
_TRANSIENT_SQLSTATES = {"40001", "40P01", "55P03"}
_TRANSIENT_ERRNOS = {1205, 1213}


def is_transient(error: BaseException) -> bool:
    """Whether the database refused a statement for a reason that passes, so that asking again is right."""
    if not isinstance(error, OperationalError):
        return False
    if getattr(error.__cause__, "sqlstate", None) in _TRANSIENT_SQLSTATES:
        return True
    if error.args and error.args[0] in _TRANSIENT_ERRNOS:
        return True
    return "database is locked" in str(error) or "database table is locked" in str(error)


def retrying(connection: BaseDatabaseWrapper, statement: Callable[[], T], attempts: int = 5) -> T:
    """Run a short transaction again when the database refused it for a reason that passes.

    Inside a transaction of the caller there is nothing to do but to pass the error on.
    """
    for _ in range(attempts - 1):
        try:
            return statement()
        except OperationalError as error:
            if connection.in_atomic_block or not is_transient(error):
                raise
    return statement()


class Closings:
    """Counts how often the database closed its connection on one long value: twice, and it doesn't take the value."""

    def __init__(self) -> None:
        self._times = 0

    def count(self, size: int, error: BaseException) -> None:
        """The connection was closed on a value of `size` characters; `ValueTooLarge` if it was not for the first time.

        A short value is never the reason, however often it happens.
        """
        if size <= LONG_VALUE:
            return
        self._times += 1
        if self._times > 1:
            raise ValueTooLarge(f"The database closed the connection on this value twice: {error}") from error


def drop(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that may be broken, so that the next use of it connects anew."""
    with suppress(DatabaseError, InterfaceError):
        connection.close()


def connection_for(alias: str) -> BaseDatabaseWrapper:
    """The calling thread's connection to a database."""
    connection: BaseDatabaseWrapper = connections[alias]
    return connection
