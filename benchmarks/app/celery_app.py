"""The Celery app of W13, with a task that does nothing."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.drivers import protocol

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")

app = Celery("benchmarks", broker=os.environ["BENCHMARK_BROKER"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)  # as the how-to recommends
app.autodiscover_tasks()


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def nothing(is_last: bool) -> None:
    """Does nothing; the last ones note when."""
    if is_last:
        protocol.note("task")
