"""A PgBouncer of its own, in front of the test database's server: in transaction mode, where each transaction of a client may
be executed on another connection to the server.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.staging import eventually

from .proxies import new_connections_to
from .servers import free_port

# Debian keeps it where only root looks.
PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
POOL_SIZE = 3


def prepared_limits() -> list[int]:
    """The values of `max_prepared_statements` to try: off, and the default of later versions. 1.21 is the first to have it."""
    assert PROGRAM is not None
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found, said
    return [0, 200] if (int(found[1]), int(found[2])) >= (1, 21) else [0]


class Bouncer:
    """A running PgBouncer; see `bouncing()`."""

    def __init__(self, directory: Path, max_prepared_statements: int) -> None:
        self.port = free_port()
        self._directory, self._log = directory, directory / "pgbouncer.log"
        self._database = settings.DATABASES["default"]
        self._write_configuration(max_prepared_statements)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), str(directory / "pgbouncer.ini")],
                stdout=log,
                stderr=subprocess.STDOUT,
                **_ordinary_user(directory),
            )

    def wait_until_ready(self) -> None:
        """Wait until it takes connections."""
        eventually(self._is_ready)

    def stop(self) -> None:
        """End it. What it has said goes to the output of the test."""
        self._process.kill()
        self._process.wait(10)
        print(self._log.read_text()[-3000:])

    def environment(self) -> dict[str, str]:
        """What makes a worker process connect through here."""
        return {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(self.port)}

    def used_by_new_connections(self) -> contextlib.AbstractContextManager[None]:
        """Other threads of this process connect through here; the connection of this one stays what it is."""
        return new_connections_to(self.port)

    @contextlib.contextmanager
    def client(self) -> Iterator[BaseDatabaseWrapper]:
        """One more connection to the test database, through here, to be used on this thread."""
        other = connections["default"].copy()
        other.settings_dict.update(HOST="127.0.0.1", PORT=str(self.port))
        try:
            yield other
        finally:
            other.close()

    def ask_every_server(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows that each of its connections to the server gives, once nobody else uses one."""
        rows = []
        with contextlib.ExitStack() as held:
            for _ in range(POOL_SIZE):
                client = held.enter_context(self.client())
                client.set_autocommit(False)  # so that the next one gets another connection to the server
                held.callback(client.rollback)  # one in a transaction would be closed with the client
                with client.cursor() as cursor:
                    cursor.execute(statement)
                    rows += cursor.fetchall()
        return rows

    def show(self, what: str) -> list[dict[str, Any]]:
        """What its console says of the test database: `show("SERVERS")`."""
        import psycopg
        from psycopg.rows import dict_row

        user, name = self._database["USER"], connections["default"].settings_dict["NAME"]
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, dbname="pgbouncer", autocommit=True, row_factory=dict_row
        ) as console:
            return [row for row in console.execute(f"SHOW {what}") if row["database"] == name]  # type: ignore[call-overload]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _write_configuration(self, max_prepared_statements: int) -> None:
        user, password = (str(self._database[name]).replace('"', '""') for name in ("USER", "PASSWORD"))
        users = self._directory / "users.txt"
        users.write_text(f'"{user}" "{password}"\n')
        lines = [
            "[databases]",
            f"* = host={self._database['HOST']} port={self._database['PORT']}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {users}",
            f"admin_users = {self._database['USER']}",
            "pool_mode = transaction",
            f"default_pool_size = {POOL_SIZE}",
        ]
        if max_prepared_statements:
            lines.append(f"max_prepared_statements = {max_prepared_statements}")
        elif len(prepared_limits()) > 1:
            lines.append("max_prepared_statements = 0")
        (self._directory / "pgbouncer.ini").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def bouncing(max_prepared_statements: int = 0) -> Iterator[Bouncer]:
    """A PgBouncer that takes connections, ended afterwards."""
    # Not below pytest's directories, which are closed to another user.
    directory = Path(tempfile.mkdtemp(prefix="django-steps-pgbouncer-"))
    try:
        bouncer = Bouncer(directory, max_prepared_statements)
        try:
            bouncer.wait_until_ready()
            yield bouncer
        finally:
            bouncer.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ordinary_user(directory: Path) -> dict[str, Any]:
    """PgBouncer refuses to run as root; whoever isn't root runs it as themselves."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    for path in (directory, *directory.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
