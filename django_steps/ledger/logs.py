"""The lines of the log that are kept with runs. They are written apart from everything else, and a run has but so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from . import database, dialect
from .tables import LOG, RUN

MOST_LINES, MOST_BYTES = 1000, 64 * 1024  # of a run
AT_ONCE = 100  # lines in a statement

_WARNING = 30
_NO_MORE = f"Further lines are not kept: a run has at most {MOST_LINES:,} lines or {MOST_BYTES // 1024} KiB."


class NewLine(NamedTuple):
    """A line to be kept. `at`: machine time; `step`: the path of the step it was written in, empty in the body."""

    run_id: UUID
    at: int
    step: str
    level: int
    logger: str
    text: str


def write(connection: BaseDatabaseWrapper, lines: Sequence[NewLine]) -> None:
    """Keep lines, at most `AT_ONCE`: those of runs that are still there and have room. Two statements."""
    ids = {line.run_id: dialect.key(connection, line.run_id) for line in lines}
    last = f"FROM {LOG} l WHERE l.run_id = r.id ORDER BY l.number DESC LIMIT 1"
    rows = database.fetch_all(
        connection,
        f"SELECT r.id, (SELECT l.number {last}), (SELECT l.total {last}) FROM {RUN} r"
        f" WHERE r.id IN ({dialect.marks(ids)})",
        list(ids.values()),
    )
    standing = {dialect.run_id(row[0]): (int(row[1] or 0), int(row[2] or 0)) for row in rows}
    values: list[Any] = []
    for line in lines:
        number, total = standing.get(line.run_id, (MOST_LINES, MOST_BYTES + 1))
        if number > MOST_LINES or total > MOST_BYTES:
            continue
        number, total = number + 1, total + len(line.text.encode())
        if number > MOST_LINES or total > MOST_BYTES:
            line, total = line._replace(step="", level=_WARNING, logger="django_steps", text=_NO_MORE), MOST_BYTES + 1
        standing[line.run_id] = (number, total)
        moment = dialect.date_value(connection, line.at)
        values += [ids[line.run_id], number, total, moment, line.step, line.level, line.logger, line.text]
    if values:
        row = "(%s, %s, %s, %s, %s, %s, %s, %s)"
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {LOG} (run_id, number, total, at, step, level, logger, text)"
                f" VALUES {', '.join([row] * (len(values) // 8))}",
                values,
            )
