"""A Redis of our own for what Celery workers are to execute."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .processes import PeerFailed


@contextmanager
def redis() -> Iterator[str]:
    """The address of a Redis on a free port, which keeps nothing on the disk."""
    if shutil.which("redis-server") is None:
        raise PeerFailed("There is no redis-server here.")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerFailed("The redis-server does not answer.") from error
            time.sleep(0.05)
