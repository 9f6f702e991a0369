"""What differs between SQLite, PostgreSQL and MySQL/MariaDB in the words of a statement.

Machine times are whole microseconds since 1970 in UTC, always from the database's clock: `now()` gives the SQL
expression. Where a database needs other statements altogether, and not only other words, the module of those statements
decides that by vendor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC
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


def one_of(connection: BaseDatabaseWrapper, ids: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """SQL for: it is one of these ids, of which there may be a thousand; and its parameters."""
    if connection.vendor == "postgresql":  # whose client would look through as many marks
        return "= ANY(%s)", [list(ids)]
    return f"IN ({marks(ids)})", ids


def date_value(connection: BaseDatabaseWrapper, microseconds: int | None) -> Any:
    """A machine time as the parameter of a DateTimeField's column."""
    if microseconds is None:
        return None
    if connection.vendor == "sqlite" and connection.timezone is UTC:  # as Django does it, in a tenth of the time
        return clock.utc_text(microseconds)
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


def locking(connection: BaseDatabaseWrapper, *, wait: bool = False, of: str = "") -> str:
    """Lock the rows that can be locked and leave out the others; `wait`: or wait for them. SQLite locks the whole file
    instead. `of`: the table whose rows are meant, where PostgreSQL would lock those of subqueries as well."""
    if not connection.features.has_select_for_update:
        return ""
    table = f" OF {of}" if of and connection.vendor == "postgresql" else ""
    return f" FOR UPDATE{table}" if wait else f" FOR UPDATE{table} SKIP LOCKED"


def keeping(connection: BaseDatabaseWrapper) -> str:
    """Lock a row that is about to be changed, and wait for it. PostgreSQL lets rows that refer to it be written meanwhile."""
    if not connection.features.has_select_for_update:
        return ""
    return " FOR NO KEY UPDATE" if connection.vendor == "postgresql" else " FOR UPDATE"


def sharing(connection: BaseDatabaseWrapper, *, skip: bool = False) -> str:
    """Hold the run's row against a recovery until this transaction ends; `skip`: or leave it out."""
    return _sharing(connection.vendor, getattr(connection, "mysql_is_mariadb", False), skip)


@cache
def _sharing(vendor: str, mariadb: bool, skip: bool) -> str:
    if vendor == "sqlite":
        return ""
    clause = " LOCK IN SHARE MODE" if mariadb else " FOR SHARE"
    return clause + (" SKIP LOCKED" if skip else "")


def typed(connection: BaseDatabaseWrapper, type_: str) -> str:
    """A placeholder for a value of this type of PostgreSQL's, where a statement doesn't say it otherwise."""
    return f"%s::{type_}" if connection.vendor == "postgresql" else "%s"


def contains(connection: BaseDatabaseWrapper, text: str, part: str) -> str:
    """SQL for: `part` is in `text`, character by character; both are SQL."""
    if connection.vendor == "postgresql":
        return f"strpos({text}, {part}) > 0"
    return f"instr({text}, {part}) > 0"


def by_index(connection: BaseDatabaseWrapper, index: str) -> str:
    """After the name of a table: read it through this index. PostgreSQL chooses well by itself; the others know too little of
    what is in a table, and would rather sort much, or walk over it in the order that is asked for."""
    return {"sqlite": f" INDEXED BY {index}", "mysql": f" FORCE INDEX ({index})"}.get(connection.vendor, "")


def looked_up(column: str, value: str) -> str:
    """PostgreSQL: SQL for `column = value`, where the value is of another row of the same statement, which comes first.

    An equality lets the planner turn the join around: walk over the whole index of the column, and compare each of its rows
    with the few others. It does that while it takes the table for a single row; and for that it takes the table of the runs
    until it is first analyzed, however many there are, since their columns together may be wider than a page. Then each claim
    of the first minute after a deploy would walk over all runs. What is compared with an array can't be turned around.
    """
    return f"{column} = ANY(ARRAY[{value}])"


def are_few(number: str) -> str:
    """PostgreSQL: SQL that is always true, and lets the planner expect that the rows of a JSON text are few; `number` is a
    column of them. By itself it expects a hundred, and for so many rather reads a table of thousands of runs as a whole, at
    each commit."""
    return f"{number} + 0 = {number}"


def is_false(connection: BaseDatabaseWrapper, column: str) -> str:
    """SQL for: it is false. As the condition of a partial index says it, which SQLite compares by its form: `NOT x` by Django
    up to 6.0, `x = 0` since 6.1."""
    if connection.vendor == "sqlite":
        return f"(NOT {column} AND {column} = 0)"
    return f"{column} = 0" if connection.vendor == "mysql" else f"NOT {column}"


def between_line_feeds(connection: BaseDatabaseWrapper, text: str) -> str:
    """SQL for a text between two line feeds."""
    if connection.vendor == "mysql":
        return f"CONCAT('\n', {text}, '\n')"
    line_feed = "chr(10)" if connection.vendor == "postgresql" else "char(10)"
    return f"{line_feed} || {text} || {line_feed}"


def least(connection: BaseDatabaseWrapper, first: str, second: str) -> str:
    """SQL for the smaller of two values."""
    return f"{'MIN' if connection.vendor == 'sqlite' else 'LEAST'}({first}, {second})"


def joined(connection: BaseDatabaseWrapper, *texts: str) -> str:
    """SQL for these texts, which are SQL, one after the other."""
    return f"CONCAT({', '.join(texts)})" if connection.vendor == "mysql" else f"({' || '.join(texts)})"
