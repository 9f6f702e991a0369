"""The raw limit: how many rows of the shape of a step record one connection can insert and commit in a second.

Everything is divided by this, since machines differ, and the same machine from one minute to the next.
"""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from .mariadb import Connection

_TABLE = "django_steps_steprecord"
_COLUMNS = "run_id, name, kind, position, status, attempts, output, attempt_log, started_at, finished_at, claim_token, write_id"
_INSERT = f"INSERT INTO {_TABLE} ({_COLUMNS}) VALUES ({{marks}})"
_OUTPUT = '{"number": 1, "ok": true}'


def postgresql(connection: psycopg.Connection[Any], seconds: float) -> float:
    """Rows a second through psycopg, each by a statement of its own in autocommit mode: INSERT and COMMIT in one trip,
    prepared by psycopg after a few times. The table is this project's own, as its migration makes it."""
    connection.execute(f"TRUNCATE {_TABLE}")
    statement = _INSERT.format(marks=", ".join(["%s"] * 12))
    run_id, now = uuid4(), datetime.now(UTC)
    with connection.cursor() as cursor:

        def insert(number: int) -> None:
            cursor.execute(
                statement,
                (run_id, f"step-{number}", "step", number, "succeeded", 1, _OUTPUT, "", now, now, 1, number),
            )

        return _rate(insert, seconds)


def sqlite(path: Path, synchronous: str, seconds: float) -> float:
    """The same on a migrated SQLite file in WAL mode."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"DELETE FROM {_TABLE}")
        statement = _INSERT.format(marks=", ".join(["?"] * 12))
        run_id, now = uuid4().hex, "2026-01-01 00:00:00.000000"

        def insert(number: int) -> None:
            connection.execute(
                statement,
                (run_id, f"step-{number}", "step", number, "succeeded", 1, _OUTPUT, "", now, now, 1, number),
            )

        return _rate(insert, seconds)
    finally:
        connection.close()


def mysql(connection: Connection, seconds: float) -> float:
    """The same on MariaDB: one statement of mysqlclient in autocommit mode."""
    connection.execute(f"DELETE FROM {_TABLE}")
    statement = _INSERT.format(marks=", ".join(["%s"] * 12))
    run_id, now = str(uuid4()), "2026-01-01 00:00:00.000000"

    def insert(number: int) -> None:
        connection.execute(
            statement,
            (run_id, f"step-{number}", "step", number, "succeeded", 1, _OUTPUT, "", now, now, 1, number),
        )

    return _rate(insert, seconds)


def _rate(insert: Any, seconds: float) -> float:
    for number in range(20):
        insert(number)
    began, number = time.perf_counter(), 20
    while (elapsed := time.perf_counter() - began) < seconds:
        insert(number)
        number += 1
    return (number - 20) / elapsed
