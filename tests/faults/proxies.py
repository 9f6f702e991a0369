"""A TCP proxy in front of a database server, which can cut connections, hold them up, or swallow one answer."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connections

VARIABLES = {"postgresql": "POSTGRES", "mysql": "MYSQL"}
# What the ledger writes, as it is on the wire; COMMIT ends what it writes by several statements.
WRITES = re.compile(rb"INSERT INTO .?django_steps_|UPDATE .?django_steps_|DELETE FROM .?django_steps_", re.IGNORECASE)
PREPARATION, EXECUTION = re.compile(rb"PREPARE (django_steps_\w+)"), re.compile(rb"EXECUTE (django_steps_\w+)")
COMMIT = re.compile(rb"COMMIT", re.IGNORECASE)


@contextlib.contextmanager
def new_connections_to(port: int) -> Iterator[None]:
    """Other threads of this process connect to this port of this machine; the connection of this one stays what it is."""
    connections["default"].ensure_connection()
    database = connections.databases["default"]
    before = {name: database[name] for name in ("HOST", "PORT")}
    database.update(HOST="127.0.0.1", PORT=str(port))
    try:
        yield
    finally:
        database.update(before)


class Proxy:
    """Passes on what clients and server say to each other. Use it as a context manager."""

    def __init__(self) -> None:
        database = settings.DATABASES["default"]
        self._server = (database["HOST"], int(database["PORT"]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._silences: tuple[re.Pattern[bytes], ...] = ()
        self.losses = LostAnswer()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        self._listener.close()
        self._flows.set()
        self._close_all()

    def environment(self) -> dict[str, str]:
        """What makes a worker process connect through here."""
        prefix = VARIABLES[settings.DATABASE]
        return {f"{prefix}_HOST": "127.0.0.1", f"{prefix}_PORT": str(self.port), "PGSSLMODE": "disable"}

    @contextlib.contextmanager
    def used_by_new_connections(self) -> Iterator[None]:
        """Other threads of this process connect through here; the connection of this one stays what it is."""
        ssl = os.environ.get("PGSSLMODE")
        os.environ["PGSSLMODE"] = "disable"
        try:
            with new_connections_to(self.port):
                yield
        finally:
            os.environ.pop("PGSSLMODE")
            if ssl is not None:
                os.environ["PGSSLMODE"] = ssl

    def cut(self) -> None:
        """The network is down, and both sides are told: connections are reset, and no new one comes about."""
        self._is_cut = True
        self._close_all()

    def freeze(self) -> None:
        """The network is down, and nobody is told: what is sent doesn't arrive for now."""
        self._flows.clear()

    def silence(self, *patterns: bytes) -> None:
        """The connection that sends these next, one after the other, gets no answer to the last of them, nor later, and is
        not told. The others are well."""
        self._silences = tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)

    def mend(self) -> None:
        """The network is back."""
        self._is_cut = False
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.create_connection(self._server)
            with self._lock:
                self._pairs.append((client, server))
            swallows, is_silent = threading.Event(), threading.Event()
            threading.Thread(target=self._send, args=(client, server, swallows, is_silent), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, swallows, is_silent), daemon=True).start()

    def _send(
        self, client: socket.socket, server: socket.socket, swallows: threading.Event, is_silent: threading.Event
    ) -> None:
        in_transaction, sent = False, 0
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                self._flows.wait()
                if sent < len(self._silences) and self._silences[sent].search(data):
                    sent += 1
                    if sent == len(self._silences):
                        self._silences = ()
                        is_silent.set()
                if self.losses.counts(data, in_transaction):
                    swallows.set()
                in_transaction = _is_in_transaction(data, in_transaction)
                server.sendall(data)
        _close(client, server)

    def _answer(
        self, server: socket.socket, client: socket.socket, swallows: threading.Event, is_silent: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                self._flows.wait()
                if is_silent.is_set():
                    continue
                if swallows.is_set():
                    break
                client.sendall(data)
        _close(client, server)

    def _close_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)


class LostAnswer:
    """Counts the commits that carry writes of the ledger, and says at which one the answer gets lost."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._lost: int | None = None
        self._wrote: dict[int, str] = {}  # by connection, each of which has a thread here
        self._prepared: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._is_counting = False

    def lose(self, number: int) -> None:
        """Begin to count, from 0; the answer to the commit of that number is lost."""
        with self._lock:
            self.seen, self._lost, self._wrote, self._is_counting = [], number, {}, True

    def counts(self, data: bytes, in_transaction: bool) -> bool:
        """Whether the answer to this message is to be lost."""
        with self._lock:
            written = self._write_in(data)
            if not self._is_counting:
                return False
            connection = threading.get_ident()
            if written:
                self._wrote[connection] = written
            commits = COMMIT.search(data) is not None if in_transaction else bool(written)
            if not commits or connection not in self._wrote:
                return False
            self.seen.append(self._wrote.pop(connection))
            return len(self.seen) - 1 == self._lost

    def _write_in(self, data: bytes) -> str:
        """What the ledger writes by this message, shortened; empty if nothing."""
        match = WRITES.search(data)
        text = data[match.start() : match.start() + 60].decode(errors="replace") if match else ""
        if preparation := PREPARATION.search(data):
            self._prepared[preparation[1]] = text
            return ""
        if execution := EXECUTION.search(data):
            return self._prepared.get(execution[1], "")
        return text


def _is_in_transaction(data: bytes, before: bool) -> bool:
    if re.search(rb"BEGIN|START TRANSACTION|SET autocommit ?= ?0", data, re.IGNORECASE):
        return True
    if re.search(rb"COMMIT|ROLLBACK(?! TO)|SET autocommit ?= ?1", data, re.IGNORECASE):
        return False
    return before


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy in front of the test database's server."""
    with Proxy() as running:
        yield running
