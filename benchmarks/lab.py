"""Where measurements take place: fresh databases for every one of them, and the peers' commands and workers on those.

What is measured is in `workloads.py`.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from . import probes
from .install import Runtime
from .mariadb import MariaDB
from .peers import OURS, PEERS, Peer, Setting
from .postgres import SUPERUSER, Cluster
from .processes import ROOT, PeerFailed, WorkerProcess, call

DRIVERS = Path(__file__).parent / "drivers"


_CONNECTIONS = {
    # The harness has a user of its own.
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = CURRENT_DATABASE() AND usename <> CURRENT_USER",
    "mysql": "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


class Finished(NamedTuple):
    """A finished run, by its peer's own timestamps: seconds since 1970."""

    id: str
    started: float
    finished: float


class Lab:
    """Scratch files, a PostgreSQL cluster and a MariaDB (or none), the environments of the peers, and which packages of theirs
    are there."""

    def __init__(
        self,
        scratch: Path,
        cluster: Cluster | None,
        runtimes: dict[str, Runtime],
        mariadb: MariaDB | None = None,
        packages: Collection[str] = (),
    ) -> None:
        self.scratch, self.cluster, self.runtimes = scratch, cluster, runtimes
        self.mariadb, self.packages = mariadb, packages
        self.notes_file = scratch / "notes"
        self._migrated: set[str] = set()

    # -- Databases ------------------------------------------------------------------------------

    def reset(self, peer: Peer, suffix: str = "") -> None:
        """Give the peer empty tables, and forget its notes. `suffix` keeps a second database beside the usual one."""
        self._prepare(peer)
        self.drop(peer, suffix)
        if peer.database == "postgresql":
            with self._admin() as connection:
                connection.execute(f'CREATE DATABASE "{peer.key}{suffix}" TEMPLATE "{peer.key}-template"')
                connection.execute("CHECKPOINT")
        elif peer.database == "mysql":
            self._mariadb.empty()
        else:
            shutil.copyfile(self._file(peer, "-template"), self._file(peer, suffix))
        self.notes_file.write_text("")
        self.notes_file.with_name("notes.failed").unlink(missing_ok=True)

    def drop(self, peer: Peer, suffix: str) -> None:
        """Remove a second database."""
        if peer.database == "postgresql":
            with self._admin() as connection:
                connection.execute(f'DROP DATABASE IF EXISTS "{peer.key}{suffix}" WITH (FORCE)')
        elif peer.database == "sqlite":
            _remove(self._file(peer, suffix))

    def _prepare(self, peer: Peer) -> None:
        """Have the peer's empty tables as a template."""
        if peer.key not in self._migrated:
            self._migrate(peer)
            self._migrated.add(peer.key)

    def _migrate(self, peer: Peer) -> None:
        if peer.database == "sqlite":
            self.call(peer, peer.default, "migrate", suffix="-template")
            with sqlite3.connect(self._file(peer, "-template")) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            return
        if peer.database == "mysql":
            self.call(peer, peer.default, "migrate")
            return
        template = f"{peer.key}-template"
        with self._admin() as connection:
            connection.execute(f'CREATE DATABASE "{template}"')
            self.call(peer, peer.default, "migrate", suffix="-template")
            deadline = time.monotonic() + 10
            # A database that somebody is connected to can't be a template.
            while connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (template,)).fetchone():
                if time.monotonic() > deadline:
                    raise PeerFailed(f"{peer.title} stays connected after its migration.")
                time.sleep(0.05)

    def _place(self, peer: Peer, suffix: str) -> dict[str, str]:
        """Where a database of the peer is, as drivers are told."""
        if peer.database == "sqlite":
            return {"path": str(self._file(peer, suffix))}
        if peer.database == "mysql":
            return self._mariadb.place()
        return self._cluster.place(f"{peer.key}{suffix}")

    def _file(self, peer: Peer, suffix: str) -> Path:
        return self.scratch / f"{peer.key}{suffix}.sqlite3"

    def _admin(self) -> Any:
        return self._cluster.connect("postgres", SUPERUSER)

    @property
    def _cluster(self) -> Cluster:
        assert self.cluster is not None
        return self.cluster

    @property
    def _mariadb(self) -> MariaDB:
        assert self.mariadb is not None
        return self.mariadb

    # -- Peers ----------------------------------------------------------------------------------

    def call(
        self,
        peer: Peer,
        setting: Setting,
        command: str,
        *,
        suffix: str = "",
        beside: str = "",
        environment: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> Any:
        """Execute a command of the peer's driver to its end; its answer. `beside`: the suffix of a second database;
        `environment`: what its process needs besides."""
        words = self.driver(peer, command, **arguments)
        its = {**self._environment(peer, setting, suffix), **(environment or {})}
        if beside:
            its["BENCHMARK_CROWDED"] = json.dumps(self._place(peer, beside))
        return call(words, its)

    def driver(self, peer: Peer, command: str, **arguments: Any) -> list[str]:
        """The command line of a command of the peer's driver."""
        return [*self.runtimes[peer.runtime].command, str(DRIVERS / peer.driver), command, json.dumps(arguments)]

    @contextmanager
    def workers(
        self, peer: Peer, setting: Setting, count: int = 1, environment: Mapping[str, str] | None = None
    ) -> Iterator[list[WorkerProcess]]:
        """Worker processes that are killed in the end. `environment`: what they need besides."""
        with ExitStack() as stack:
            command = self._worker_command(peer, setting)
            yield [
                stack.enter_context(
                    self.process(peer, setting, command, {**(environment or {}), "BENCHMARK_WORKER": str(number + 1)})
                )
                for number in range(count)
            ]

    @contextmanager
    def process(
        self, peer: Peer, setting: Setting, command: Sequence[str], environment: Mapping[str, str]
    ) -> Iterator[WorkerProcess]:
        """A process on the peer's database that is killed in the end."""
        log = self.scratch / f"worker-{peer.key}.log"
        started = WorkerProcess(command, {**self._environment(peer, setting), **environment}, log)
        try:
            yield started
        finally:
            started.kill()

    def _worker_command(self, peer: Peer, setting: Setting) -> Sequence[str]:
        if peer.name == "ours":
            options = [f"--{name}={value}" for name, value in setting.options.items()]
            return [sys.executable, str(ROOT / "manage.py"), "runworkflows", "-v", "0", *options]
        return self.driver(peer, "work", **setting.options)

    def _environment(self, peer: Peer, setting: Setting, suffix: str = "") -> dict[str, str]:
        return {
            "BENCHMARK_DATABASE": json.dumps(self._place(peer, suffix)),
            "BENCHMARK_NOTES": str(self.notes_file),
            "BENCHMARK_SYNCHRONOUS": setting.synchronous,
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "PYTHONPATH": str(ROOT) if peer.runtime == "here" else "",
            **self.runtimes[peer.runtime].environment,
        }

    # -- Looking --------------------------------------------------------------------------------

    @contextmanager
    def observer(self, peer: Peer) -> Iterator[Observer]:
        """Somebody who reads the peer's tables, without being counted."""
        connection: Any
        if peer.database == "postgresql":
            connection = self._cluster.connect(peer.key)
        elif peer.database == "mysql":
            connection = self._mariadb.connect()
        else:
            connection = sqlite3.connect(self._file(peer, ""), timeout=30, isolation_level=None)
        try:
            yield Observer(peer, connection)
        finally:
            connection.close()

    def notes(self) -> list[tuple[str, float]]:
        """What bodies have noted: events, and when."""
        return [tuple(json.loads(line)) for line in self.notes_file.read_text().splitlines()]

    def raw(self, seconds: float) -> float | None:
        """The raw limit of PostgreSQL now; None where there is none."""
        if self.cluster is None:
            return None
        if "raw" not in self._migrated:
            self._prepare(OURS)
            with self._admin() as connection:
                connection.execute(f'CREATE DATABASE raw TEMPLATE "{OURS.key}-template"')
            self._migrated.add("raw")
        with self._cluster.connect("raw") as connection:
            return probes.postgresql(connection, seconds)

    def raw_sqlite(self, synchronous: str, seconds: float) -> float:
        """The raw limit of a SQLite file now."""
        ours = next(peer for peer in PEERS if peer.key == "ours-sqlite")
        path = self._file(ours, "-raw")
        if not path.exists():
            self._prepare(ours)
            shutil.copyfile(self._file(ours, "-template"), path)
        return probes.sqlite(path, synchronous, seconds)

    def raw_mysql(self, seconds: float) -> float:
        """The raw limit of MariaDB now, which empties the table of the steps."""
        self._prepare(next(peer for peer in PEERS if peer.key == "ours-mysql"))
        with closing(self._mariadb.connect()) as connection:
            return probes.mysql(connection, seconds)


class Observer:
    """Reads which runs are finished; counts its own transactions, so that they can be taken off."""

    def __init__(self, peer: Peer, connection: Any) -> None:
        self._peer, self._connection = peer, connection
        self.transactions = 0

    def finished(self) -> list[Finished]:
        """The runs that are finished."""
        rows = self._read(self._peer.finished)
        return [Finished(str(row[0]), _seconds(row[1]), _seconds(row[2])) for row in rows]

    def count(self) -> int:
        """How many runs are finished: cheaper for the machine that is being measured."""
        rows = self._read(f"SELECT COUNT(*) FROM ({self._peer.finished}) AS finished")
        return int(rows[0][0]) if rows else 0

    def connections(self) -> float:
        """How many connections the peer has to its database now; none to SQLite."""
        query = _CONNECTIONS.get(self._peer.database)
        return float(self._read(query)[0][0]) if query else 0.0

    def workers(self) -> int:
        """How many workers of ours have begun to work, and perhaps ended."""
        rows = self._read("SELECT COUNT(*) FROM django_steps_worker")
        return int(rows[0][0]) if rows else 0

    def wait(
        self,
        count: int,
        timeout: float,
        workers: Sequence[WorkerProcess] = (),
        pause: float = 0.1,
        look: Callable[[], object] = lambda: None,
    ) -> list[Finished]:
        """Wait until so many runs are finished; them. `look` is called now and then meanwhile."""
        deadline = time.monotonic() + timeout
        while (done := self.count()) < count:
            look()
            if time.monotonic() > deadline:
                raise PeerFailed(f"Only {done} of {count} runs were finished after {timeout:.0f} s.")
            for worker in workers:
                if not worker.is_alive:
                    raise PeerFailed(f"The worker died: {worker.tail()}")
            time.sleep(pause)
        return self.finished()

    def _read(self, query: str) -> list[Any]:
        self.transactions += 1
        with suppress(sqlite3.OperationalError):  # locked just now
            return list(self._connection.execute(query).fetchall())
        return []


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        return float(value or 0)
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
