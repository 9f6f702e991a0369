"""Celery workers and dispatchers as processes, on a queue of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from uuid import UUID, uuid4

from celery import Celery

from django_steps.models import WorkflowRun
from tests.staging import eventually

from . import brokers
from .processes import Workers

_POOLS = {
    "prefork": ["--pool", "prefork", "--concurrency", "2"],
    "threads": ["--pool", "threads", "--concurrency", "4"],
    "solo": ["--pool", "solo"],
}


class Fleet:
    """Processes that share a queue of a broker. `environment`: what they need for it."""

    def __init__(self, workers: Workers, broker: str, environment: dict[str, str], lease: str = "1s") -> None:
        self._workers, self.broker, self.queue = workers, broker, environment["FAULTS_CELERY_QUEUE"]
        self.environment = {**environment, "FAULTS_LEASE": lease}
        self._app = Celery(broker=environment["FAULTS_BROKER"], set_as_current=False)
        self._names: list[str] = []  # of the Celery workers

    def celery(self, pool: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A Celery worker."""
        options = ["--without-heartbeat", "--without-gossip", "--without-mingle", "--loglevel", "warning"]
        # Two of one name would lock each other out on RabbitMQ.
        self._names.append(f"{uuid4().hex}@here")
        app = ["celery", "-A", "tests.faults.celery_app", "worker", "--hostname", self._names[-1]]
        return self._workers.start_module(*app, *_POOLS[pool], *options, *arguments, environment=self.environment)

    def wait_until_ready(self) -> None:
        """Wait until all Celery workers take messages: beside other tests two have taken a minute to start."""
        eventually(lambda: all(f"{name} takes messages" in self._workers.log() for name in self._names), timeout=180)

    def dispatcher(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A dispatcher."""
        options = ["--executor", "celery", "--concurrency", "20", *arguments]
        return self._workers.start(*options, environment=self.environment)

    def purge(self) -> int:
        """Lose all messages that wait; how many there were."""
        return brokers.purge(self.broker, self.queue)

    def wait_until_taken(self) -> None:
        """Wait until Celery workers have taken all messages, those that come to nothing, too."""
        eventually(lambda: not brokers.waiting(self.broker, self.queue), timeout=60)

    def send_again(self, messages: Iterable[tuple[UUID, int]]) -> None:
        """Send messages for these runs and tokens, as if they had come twice, or late."""
        for run_id, token in messages:
            arguments = {
                "run_id": str(run_id),
                "token": token,
                "has_history": True,
                "is_first": False,
                "queue": "default",
            }
            self._app.send_task("django_steps.execute", kwargs=arguments, queue=self.queue)

    def close(self) -> None:
        """Let go of the broker."""
        self._app.close()


def claimed() -> list[tuple[UUID, int]]:
    """The runs that somebody holds, with the tokens of their claims."""
    held = WorkflowRun.objects.filter(phase=WorkflowRun.Phase.TIMED, worker__isnull=False)
    return list(held.values_list("pk", "claim_token"))
