"""What every module of the ledger does with a connection: open a transaction that writes, try again, drop it.

What differs between the databases in words is in `dialect.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import ValueTooLarge
from . import dialect
from .tables import RUN

T = TypeVar("T")

_CHECK = "django_steps_check"  # a savepoint
LONG_VALUE = 64 * 1024  # characters; no database closes a connection because of a shorter one


def read_clock(connection: BaseDatabaseWrapper) -> int:
    """The database's time in microseconds."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {dialect.now(connection)}", [])
        return int(cursor.fetchone()[0])


def fetch_all(connection: BaseDatabaseWrapper, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """All rows of a SELECT. SQLite takes any bytes as text, and its client refuses to read what is no UTF-8: such a text is
    read as one that is no JSON either, so that one row holds up no other."""
    try:
        return _fetch_all(connection, statement, parameters)
    except OperationalError as error:
        if connection.vendor != "sqlite" or "Could not decode" not in str(error):
            raise
    with reading_damaged(connection):
        return _fetch_all(connection, statement, parameters)


@contextmanager
def reading_damaged(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """In this context SQLite's client reads a text that is no UTF-8, too: as one that is no JSON either.

    It makes each text a little slower to read, so it is for what people look at, and for what could not be read otherwise.
    """
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    raw: Any = connection.connection
    before, raw.text_factory = raw.text_factory, _decoded
    try:
        yield
    finally:
        raw.text_factory = before


def _fetch_all(connection: BaseDatabaseWrapper, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}" + text.decode(errors="replace")


@contextmanager
def writing(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """A transaction that writes.

    On SQLite it takes the write lock at once: one that reads first and writes later fails with "database is
    locked" as soon as another process wrote in between, however long the timeout. On MySQL it is READ COMMITTED, whatever the
    level of the session: at a higher one a claim locks the gaps between the rows that it takes, too, so that starts and
    workers lock each other out.
    """
    if connection.vendor == "mysql":
        _read_what_is_committed(connection)
    with _as_own(connection), transaction.atomic(using=connection.alias):
        if connection.vendor == "sqlite":
            lock_file(connection)
        yield


def _read_what_is_committed(connection: Any) -> None:
    """Set the level of the next transaction, where Django has not set it for the whole session."""
    connection.ensure_connection()
    if connection.isolation_level != "read committed" and connection.get_autocommit():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


@contextmanager
def _as_own(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let `atomic()`, which knows names only, find this connection, where it isn't the calling thread's own."""
    own = connections[connection.alias]
    if connection == own:  # by a proxy, too
        yield
        return
    connections[connection.alias] = connection
    try:
        yield
    finally:
        connections[connection.alias] = own


def limit_lock_waits(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Bound how long statements wait for a lock: those of this transaction, in MySQL and MariaDB those of the session."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")
        elif connection.vendor == "mysql":
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {max(1, round(seconds))}")


def statement_limit(connection: Any) -> str | None:
    """PostgreSQL: how long a statement of the open transaction may take, as it is set. None where none can be limited."""
    if connection.vendor != "postgresql":
        return None
    with connection.connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        return str(cursor.fetchone()[0])


def limit_statements(connection: Any, limit: int | str) -> None:
    """PostgreSQL: bound how long each further statement of the open transaction may take, in milliseconds. A transaction that
    has failed stays as it is, and a savepoint that is rolled back brings back what was before it."""
    raw = connection.connection
    if raw is None or raw.closed or raw.info.transaction_status != _IN_TRANSACTION:
        return
    with raw.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(limit)])


_IN_TRANSACTION = 2  # libpq's PQTRANS_INTRANS
_CANCELED_SQLSTATE = "57014"  # query_canceled


def is_statement_timeout(error: BaseException) -> bool:
    """Whether PostgreSQL has broken a statement off."""
    return getattr(error.__cause__, "sqlstate", None) == _CANCELED_SQLSTATE


def check_constraints(connection: Any, tables: Collection[str] | None = None) -> None:
    """Raise `IntegrityError` for a deferred constraint that a commit would find violated; changes nothing.

    `tables`: only those of these tables, where the database can choose (SQLite, which reads them for it).
    """
    if connection.vendor != "postgresql":
        connection.check_constraints(tables)
        return
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(f"SAVEPOINT {_CHECK}")
        try:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        finally:  # and each constraint is checked when it was before
            cursor.execute(f"ROLLBACK TO SAVEPOINT {_CHECK}")
            cursor.execute(f"RELEASE SAVEPOINT {_CHECK}")


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


# PostgreSQL: a read-only transaction (a failover), and the time limits of the server for transactions and sessions.
_ENDING_SQLSTATES = {"25006", "25P03", "25P04", "57P05"}
# MySQL, MariaDB: the server is read-only (a failover).
_READ_ONLY_ERRNOS = {1290, 1836}
_LOCK_REFUSED_SQLSTATE, _LOCK_REFUSED_ERRNO = "55P03", 1205
# PostgreSQL: insufficient resources. MySQL: no space left, the table is full.
_FULL_SQLSTATES, _FULL_ERRNOS = {"53000", "53100"}, {1021, 1114}


def ends_transactions(error: BaseException) -> bool:
    """Whether the server has ended a transaction for a reason that no statement of it can have caused."""
    if not isinstance(error, DatabaseError):
        return False
    if isinstance(error, OperationalError) and error.args[:1] in {(n,) for n in _READ_ONLY_ERRNOS}:
        return True
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return sqlstate is not None and (sqlstate in _ENDING_SQLSTATES or sqlstate.startswith("08"))


def is_read_only_refusal(error: BaseException) -> bool:
    """Whether a write was refused because the session or its transaction is read-only, which a statement can have made it."""
    return getattr(error.__cause__, "sqlstate", None) == "25006" or "readonly database" in str(error)


def is_read_only(connection: BaseDatabaseWrapper) -> bool:
    """Whether a session may not write: after a failover, where the server is no writer any more."""
    asking = {"postgresql": "SHOW transaction_read_only", "sqlite": "PRAGMA query_only"}.get(connection.vendor)
    if asking is None:
        return False
    with connection.cursor() as cursor:
        cursor.execute(asking)
        return cursor.fetchone()[0] in ("on", 1)


def may_be_of_session(error: BaseException | None) -> bool:
    """Whether another session may carry out the statement that failed in this one: for the engine's own statements, which
    are right wherever the session is as it began."""
    if isinstance(error, (DataError, IntegrityError)) or not isinstance(error, (DatabaseError, InterfaceError)):
        return False
    return not is_transient(error)


def is_lock_refused(error: BaseException) -> bool:
    """Whether a lock was not given within the time that the statement or the session allows for it."""
    if getattr(error.__cause__, "sqlstate", None) == _LOCK_REFUSED_SQLSTATE:
        return True
    return isinstance(error, OperationalError) and error.args[:1] == (_LOCK_REFUSED_ERRNO,)


def is_full(error: BaseException) -> bool:
    """Whether the database has no space left."""
    if getattr(error.__cause__, "sqlstate", None) in _FULL_SQLSTATES:
        return True
    return "disk is full" in str(error) or (
        isinstance(error, OperationalError) and error.args[:1] in {(n,) for n in _FULL_ERRNOS}
    )


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
    """Close a connection that may be broken, or whose session is not as it began, so that the next use of it connects
    anew: a pool doesn't get it back."""
    pgconn = getattr(connection.connection, "pgconn", None)
    if pgconn is not None and not connection.in_atomic_block:
        with suppress(Exception):
            pgconn.finish()
    close(connection)


def close(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that is not needed, or return it to its pool."""
    with suppress(DatabaseError, InterfaceError):
        connection.close()


def connection_for(alias: str) -> BaseDatabaseWrapper:
    """The calling thread's connection to a database."""
    connection: BaseDatabaseWrapper = connections[alias]
    return connection
