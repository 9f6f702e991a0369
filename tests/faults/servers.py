"""A PostgreSQL cluster of its own, from the installed binaries, so that killing it hurts nobody."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class Cluster:
    """Starts, stops and kills the server. Its WAL writer sleeps: what no COMMIT has flushed is gone after a crash."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.port = free_port()
        self._log, self._server_log = directory / "programs.log", directory / "server.log"
        self._bin = Path(
            subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
        )
        self._user = _ordinary_user(directory)

    def create(self) -> None:
        self._run("initdb", "--pgdata", str(self.data), "--username", "postgres", "--auth", "trust", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n"
                "max_connections = 100\nwal_writer_delay = '10s'\nfsync = on\nsynchronous_commit = on\n"
            )
        self.start()

    def start(self) -> None:
        """Start the server; right after a kill the memory of the old one may still be in use for a moment."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self._run("pg_ctl", "start", "--wait", "--pgdata", str(self.data), "--log", str(self._server_log))
                return
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise AssertionError(self._server_log.read_text()) from None
                time.sleep(0.2)

    def stop(self, mode: str) -> None:
        """`fast` and `immediate` as pg_ctl knows them; `kill`: the postmaster by SIGKILL, then all that it has left."""
        if mode == "kill":
            self.kill()
        else:
            self._run("pg_ctl", "stop", "--mode", mode, "--pgdata", str(self.data))

    def kill(self) -> None:
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for each in (pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def remove(self) -> None:
        """Stop the server if it runs. The directory is whoever's who made it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")

    def settings(self) -> dict[str, str]:
        """What leads Django to this server."""
        return {"HOST": "127.0.0.1", "PORT": str(self.port), "NAME": "postgres", "USER": "postgres", "PASSWORD": ""}

    def environment(self) -> dict[str, str]:
        """The same for a worker process."""
        return {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(self.port), "POSTGRES_USER": "postgres"}

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file: the server that pg_ctl starts keeps what it was given open.
        with self._log.open("ab") as log:
            subprocess.run(
                [str(self._bin / program), *arguments],
                user=self._user,
                group=self._user and pwd.getpwuid(self._user).pw_gid,
                cwd=self._log.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=60,
            )


@contextlib.contextmanager
def private_cluster() -> Iterator[Cluster]:
    """A running cluster, stopped and removed afterwards."""
    # Not below pytest's directories, which are closed to the server's user.
    directory = Path(tempfile.mkdtemp(prefix="django-steps-postgresql-"))
    cluster = Cluster(directory)
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _ordinary_user(directory: Path) -> int | None:
    """PostgreSQL refuses to run as root; whoever isn't root runs it as themselves."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("postgres")
    os.chown(directory, user.pw_uid, user.pw_gid)
    return user.pw_uid


def free_port() -> int:
    """A port of this machine that nobody listens on at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
