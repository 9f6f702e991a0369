"""Workers that run beside a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_steps.worker import Worker
from tests.staging import Background


@pytest.fixture
def running() -> Iterator[Callable[..., Worker]]:
    """Workers that run beside the test until it ends: `running(concurrency=2)`."""
    started: list[tuple[Worker, Background]] = []

    def start(**options: Any) -> Worker:
        worker = Worker(**{"poll_interval": 0.1, **options})
        started.append((worker, Background(worker.run)))
        return worker

    yield start
    for worker, _ in started:
        worker.stop()
    for _, thread in started:
        thread.result()
