"""The table of limits: writing what the code of a worker says. Who counts and promotes is `lines.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.limit import Stage, definition_of
from . import database, dialect, lines
from .tables import IN_LINE, LIMIT, READY, RUN

_AT_ONCE = 100  # rows, or runs, of a statement
_QUEUES = f"{Stage.QUEUE}:#"


class Numbers(NamedTuple):
    """How many runs execute at once (None: any number), and the microseconds between two that begin (None: none)."""

    at_once: int | None
    interval_us: int | None
    burst: int = 1


_NONE = Numbers(None, None)


def write(connection: BaseDatabaseWrapper, known: Mapping[str, Numbers], removed: Collection[str]) -> bool:
    """Write the limits that a worker knows, and that others are none any more: those `removed`, and of queues those that it
    does not know. Whether anything has changed."""
    written = _written(connection, [*known, *removed])
    others = {*written, *_awaited(connection, removed)} - known.keys()
    wanted = dict.fromkeys(others, _NONE) | dict(known)
    # Sorted, so that two workers that start at once wait for each other instead of deadlocking.
    changed = sorted((name, numbers) for name, numbers in wanted.items() if written.get(name) != numbers)
    for start in range(0, len(changed), _AT_ONCE):
        some = changed[start : start + _AT_ONCE]
        database.retrying(connection, lambda some=some: _write(connection, some))  # type: ignore[misc]
    return bool(changed)


def _awaited(connection: BaseDatabaseWrapper, removed: Collection[str]) -> set[str]:
    """Those of the limits that are none any more, and of queues, for which runs are in line: no worker may ever have written
    them."""
    rows = database.fetch_all(connection, f"SELECT DISTINCT line_key FROM {RUN} WHERE line_key IS NOT NULL", [])
    names = {definition_of(row[0]) for row in rows}
    return {name for name in names if name in removed or name.startswith(_QUEUES)}


def _written(connection: BaseDatabaseWrapper, names: Collection[str]) -> dict[str, Numbers]:
    queues = dialect.joined(connection, "%s", "'%%'")
    own = f" OR name IN ({dialect.marks(names)})" if names else ""
    rows = database.fetch_all(
        connection,
        f"SELECT name, at_once, interval_us, burst FROM {LIMIT} WHERE name LIKE {queues}{own}",
        [_QUEUES, *names],
    )
    return {row[0]: Numbers(*row[1:]) for row in rows}


def _write(connection: BaseDatabaseWrapper, changed: Sequence[tuple[str, Numbers]]) -> None:
    columns = ("at_once", "interval_us", "burst")
    if connection.vendor == "mysql":
        conflict = "DUPLICATE KEY UPDATE " + ", ".join(f"{column} = VALUES({column})" for column in columns)
    else:
        conflict = "CONFLICT (name) DO UPDATE SET " + ", ".join(f"{column} = excluded.{column}" for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {LIMIT} (name, definition, {', '.join(columns)})"
            f" VALUES {', '.join(['(%s, %s, %s, %s, %s)'] * len(changed))} ON {conflict}",
            [value for name, numbers in changed for value in (name, name, *numbers)],
        )


def take_in(connection: BaseDatabaseWrapper, queue: str, limit: str) -> int:
    """Let ready runs of a queue get in line that were started when it was not limited; how many, of some at a time. `limit` is
    as in a run's row. Those that are executed, or sleep, are limited once they are ready again."""
    untaken = f"phase = {READY} AND queue = %s AND limit_queue IS NULL"

    def statements() -> int:
        with database.writing(connection), connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id FROM {RUN} WHERE {untaken} LIMIT {_AT_ONCE}{dialect.locking(connection)}", [queue]
            )
            ids = [row[0] for row in cursor.fetchall()]
            if ids:
                cursor.execute(
                    f"UPDATE {RUN} SET limit_queue = %s, line_key = %s, phase = {IN_LINE} WHERE id IN ({dialect.marks(ids)})",
                    [limit, *lines.names(limit), *ids],
                )
            return len(ids)

    if not database.fetch_all(connection, f"SELECT 1 FROM {RUN} WHERE {untaken} LIMIT 1", [queue]):
        return 0
    return int(database.retrying(connection, statements))


# -- For people --------------------------------------------------------------------------------------


class Standing(NamedTuple):
    """How it stands with a limit: its numbers, how many slots are held, how many runs are in line, and the first runs that hold
    one."""

    name: str
    at_once: int | None
    interval_us: int | None
    held: int
    in_line: int = 0
    holders: Sequence[UUID] = ()


def standing(connection: BaseDatabaseWrapper, name: str, holders: int = 3) -> Standing | None:
    """How it stands with the limit that a run is in line for; None if no worker has written it."""
    rows = numbers(connection, [name])
    if not rows:
        return None
    slot = lines.SLOTS[name[0]]
    found = database.fetch_all(
        connection, f"SELECT id FROM {RUN} WHERE {slot} = %s ORDER BY id LIMIT {int(holders)}", [name]
    )
    return rows[0]._replace(holders=[dialect.run_id(row[0]) for row in found])


def longest_lines(connection: BaseDatabaseWrapper, most: int = 20) -> list[Standing]:
    """The limits for which most runs are in line, and after these the limits of workflows and queues."""
    counts = {
        row[0]: int(row[1])
        for row in database.fetch_all(
            connection,
            f"SELECT line_key, COUNT(*) FROM {RUN} WHERE line_key IS NOT NULL GROUP BY line_key"
            f" ORDER BY COUNT(*) DESC, line_key LIMIT {int(most)}",
            [],
        )
    }
    definitions = database.fetch_all(
        connection,
        f"SELECT name FROM {LIMIT} WHERE name = definition AND (at_once IS NOT NULL OR interval_us IS NOT NULL)"
        f" ORDER BY name LIMIT {int(most)}",
        [],
    )
    names = [*counts, *(row[0] for row in definitions if row[0] not in counts)][: int(most)]
    found = {row.name: row for row in numbers(connection, names)} if names else {}
    return [found[name]._replace(in_line=counts.get(name, 0)) for name in names if name in found]


def numbers(connection: BaseDatabaseWrapper, names: Sequence[str]) -> list[Standing]:
    """How it stands with these limits, without who is in line and who holds slots."""
    rows = database.fetch_all(
        connection,
        f"SELECT l.name, d.at_once, d.interval_us, {lines.held('l.name')} FROM {LIMIT} l"
        f" JOIN {LIMIT} d ON d.name = l.definition WHERE l.name IN ({dialect.marks(names)})",
        names,
    )
    return [Standing(name, at_once, interval_us, int(held)) for name, at_once, interval_us, held in rows]


# -- Tidying up --------------------------------------------------------------------------------------


def prune(connection: BaseDatabaseWrapper) -> int:
    """Delete the rows of keys that no run is in line for or holds a slot of, and whose rate has room again; how many. A row
    that is missing is made when it is needed."""
    quiet = (
        f"name <> definition AND tat_us <= {dialect.now(connection)} AND NOT EXISTS (SELECT 1 FROM {RUN} r WHERE r.line_key ="
        f" {LIMIT}.name)"
    )
    for slot in lines.SLOTS.values():
        quiet += f" AND NOT EXISTS (SELECT 1 FROM {RUN} r WHERE r.{slot} = {LIMIT}.name)"
    rows = database.fetch_all(connection, f"SELECT name FROM {LIMIT} WHERE {quiet} LIMIT {_AT_ONCE}", [])
    names: list[Any] = [row[0] for row in rows]

    def delete() -> int:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {LIMIT} WHERE name IN ({dialect.marks(names)}) AND {quiet}", names)
            return int(cursor.rowcount)

    return database.retrying(connection, delete) if names else 0
