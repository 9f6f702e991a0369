"""The brokers of the tests, on this machine, and queues of their own: what cannot be reached is left out, and said so."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from kombu import Connection

BROKERS = {
    "redis": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/11"),
    "rabbitmq": os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//"),
}


def why_unreachable(address: str) -> str:
    """Why a broker can't be reached; empty if it can."""
    try:
        with Connection(address, connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def queue_on(broker: str) -> Iterator[dict[str, str]]:
    """A queue for one test, as the environment of its processes; skips the test where there is no such broker."""
    if why := why_unreachable(BROKERS[broker]):
        pytest.skip(f"{broker} can't be reached at {BROKERS[broker]}: {why}")
    name = f"django-steps-{uuid4().hex}"
    try:
        yield {"FAULTS_BROKER": BROKERS[broker], "FAULTS_CELERY_QUEUE": name}
    finally:
        delete(broker, name)


class Redis:
    """A server of its own, so that killing it hurts nobody. What it holds is gone then."""

    def __init__(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        from tests.staging import eventually  # here, since `tests.run` asks for brokers without Django

        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        eventually(lambda: not why_unreachable(self.url))

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def purge(broker: str, queue: str) -> int:
    """Lose all messages of a queue; how many there were."""
    with Connection(BROKERS[broker]) as connection, connection.SimpleQueue(queue) as waiting:
        return int(waiting.clear())


def waiting(broker: str, queue: str) -> int:
    """How many messages wait in a queue."""
    with Connection(BROKERS[broker]) as connection, connection.channel() as channel:
        # Not passive: on Redis there is no queue that is empty.
        return int(channel.queue_declare(queue, durable=True, auto_delete=False).message_count)


def delete(broker: str, queue: str) -> None:
    """Delete a queue with its messages, and the exchange of that name."""
    with Connection(BROKERS[broker]) as connection, connection.channel() as channel:
        channel.queue_delete(queue)
        channel.exchange_delete(queue)
        if broker == "redis":  # where kombu leaves what it knows of the exchange
            channel.client.delete(f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}")
