"""The MariaDB or MySQL that is there already, with a database of our own for the time of a run: nothing else in it is touched.

Where the server is, the variables say that the test project knows, too: MYSQL_HOST, MYSQL_PORT, MYSQL_USER, MYSQL_PASSWORD.
Its durability is its own affair; the report says what it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Any

try:
    import MySQLdb  # type: ignore[import-untyped]
except ImportError:  # the others are measured all the same
    MySQLdb = None

_DURABILITY = ("innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin")
_PREFIX = "django_steps_"


class NoMariaDB(Exception):
    """Why there is no MariaDB to be measured on."""


class MariaDB:
    """`with MariaDB() as mariadb: mariadb.connect()`. The database is made empty, without tables."""

    def __init__(self) -> None:
        if MySQLdb is None:
            raise NoMariaDB("mysqlclient is not installed.")
        self._server = {
            "host": os.environ.get("MYSQL_HOST", "127.0.0.1"),
            "port": os.environ.get("MYSQL_PORT", "3306"),
            "user": os.environ.get("MYSQL_USER", "root"),
            "password": os.environ.get("MYSQL_PASSWORD", ""),
        }
        self._name = f"django_steps_benchmarks_{os.getpid()}"

    def __enter__(self) -> MariaDB:
        try:
            with closing(self._connect("")) as server:
                server.execute(f"CREATE DATABASE {self._name} CHARACTER SET utf8mb4")
        except MySQLdb.Error as error:
            raise NoMariaDB(f"{error.args[-1] if error.args else error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with closing(self._connect("")) as server:
                server.execute(f"DROP DATABASE IF EXISTS {self._name}")
        except MySQLdb.Error as gone:  # the results are worth more than a clean server
            print(f"The database {self._name} is left on the MariaDB server: {gone}", file=sys.stderr)

    def place(self) -> dict[str, str]:
        """Where the database is, as drivers are told."""
        return {"vendor": "mysql", **self._server, "name": self._name}

    def connect(self) -> Connection:
        """A connection to the database, in autocommit mode and UTC."""
        return self._connect(self._name)

    def empty(self) -> None:
        """Empty the tables of this project; quicker than to migrate again, and there are no template databases here."""
        with closing(self.connect()) as connection:
            connection.execute("SET foreign_key_checks = 0")
            for (table,) in connection.execute("SHOW TABLES").fetchall():
                if str(table).startswith(_PREFIX):
                    connection.execute(f"TRUNCATE TABLE {table}")

    def version(self) -> str:
        """With what it says of durability."""
        with closing(self.connect()) as connection:
            version = str(connection.execute("SELECT VERSION()").fetchone()[0])
            rows = connection.execute(
                f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({', '.join(['%s'] * len(_DURABILITY))})", _DURABILITY
            ).fetchall()
        values = dict(rows)
        said = ", ".join(f"{name}={values[name]}" for name in _DURABILITY if name in values)
        number, _, rest = version.partition("-")
        return f"{'MariaDB' if 'MariaDB' in rest else 'MySQL'} {number} ({said})"

    def _connect(self, database: str) -> Connection:
        options = {**self._server, "port": int(self._server["port"]), "connect_timeout": 10}
        if database:
            options["database"] = database
        return Connection(MySQLdb.connect(**options, charset="utf8mb4", autocommit=True))


class Connection:
    """What is used of a psycopg connection, over one of mysqlclient."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.execute("SET time_zone = '+00:00'")

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> Any:
        """The cursor, which has read its rows."""
        cursor = self._connection.cursor()
        cursor.execute(statement, parameters)
        return cursor

    def close(self) -> None:
        self._connection.close()
