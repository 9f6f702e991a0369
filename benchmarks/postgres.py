"""A PostgreSQL of our own for the time of a run: durable as it comes, on this machine only, and gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

# fsync, synchronous_commit and full_page_writes are on, as they are by default. What is set here keeps checkpoints out
# of a measurement, and counts statements where the extension is installed.
_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
shared_buffers = 512MB
max_wal_size = 4GB
max_connections = {connections}
shared_preload_libraries = '{libraries}'
"""
_STATEMENTS = "pg_stat_statements"
# A role for the harness, so that what it asks isn't counted.
OBSERVER = "observer"
SUPERUSER = "postgres"


class NoPostgres(Exception):
    """Why there is no PostgreSQL to be measured on."""


class Cluster:
    """`with Cluster() as cluster: cluster.connect("postgres")`. `connections`: how many it allows."""

    def __init__(self, connections: int = 250) -> None:
        self._connections = connections
        self._binaries = _find_binaries()
        self._server: subprocess.Popen[bytes] | None = None
        self.counts_statements = False

    def __enter__(self) -> Cluster:
        self._folder = Path(tempfile.mkdtemp(prefix="django-steps-benchmarks-"))
        try:
            self._make()
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)  # a fast shutdown: it disconnects its clients
            try:
                self._server.wait(30)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)
                self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def place(self, database: str) -> dict[str, str]:
        """Where a database is, as drivers are told."""
        return {"host": "127.0.0.1", "port": str(self._port), "user": SUPERUSER, "name": database}

    def connect(self, database: str, user: str = OBSERVER) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1", port=self._port, user=user, dbname=database, autocommit=True, connect_timeout=10
        )

    @property
    def pid(self) -> int:
        """The process of the server, whose children serve the connections."""
        assert self._server is not None
        return self._server.pid

    def version(self) -> str:
        with self.connect("postgres") as connection:
            return str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]

    def _make(self) -> None:
        identity = _identity(self._folder)
        data = self._folder / "data"
        subprocess.run(
            [self._binaries / "initdb", "-D", data, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"],
            check=True,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            **identity,
        )
        self._port = _free_port()
        libraries = _STATEMENTS if self._has_statements() else ""
        with (data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(port=self._port, connections=self._connections, libraries=libraries))
        self.counts_statements = bool(libraries)

    def _start(self) -> None:
        log = (self._folder / "log").open("ab")
        with log:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data"],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the harness, which shuts the server down last
                **_identity(self._folder),
            )
        self._wait()
        with self.connect("postgres", SUPERUSER) as connection:
            connection.execute(f"CREATE ROLE {OBSERVER} SUPERUSER LOGIN")
            if self.counts_statements:
                connection.execute(f"CREATE EXTENSION {_STATEMENTS}")

    def _wait(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._server.poll() is None:
            with suppress(psycopg.OperationalError):
                self.connect("postgres", SUPERUSER).close()
                return
            time.sleep(0.05)
        raise NoPostgres("PostgreSQL did not start:\n" + (self._folder / "log").read_text()[-2000:])

    def _has_statements(self) -> bool:
        folder = subprocess.run(
            [self._binaries / "pg_config", "--sharedir"], capture_output=True, text=True, check=False
        ).stdout.strip()
        return bool(folder) and (Path(folder) / "extension" / f"{_STATEMENTS}.control").exists()


def _find_binaries() -> Path:
    """The folder of `initdb` and `postgres`: the one that pg_config names, one on PATH, or the newest of Debian's."""
    candidates = []
    if config := shutil.which("pg_config"):
        named = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        candidates.append(Path(named))
    if initdb := shutil.which("initdb"):
        candidates.append(Path(initdb).parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoPostgres("No PostgreSQL server is installed here: neither pg_config nor PATH leads to initdb and postgres.")


def _identity(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: whom to run it as then, and the folder made theirs."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise NoPostgres("PostgreSQL doesn't run as root, and there is no user `postgres` to run it as.") from None
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
