"""The Celery app of the fault tests: `celery -A tests.faults.celery_app worker`."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.faults.settings")

app = Celery("faults", broker=os.environ["FAULTS_BROKER"])
app.conf.update(
    task_default_queue=os.environ["FAULTS_CELERY_QUEUE"],
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
app.autodiscover_tasks()


@signals.worker_ready.connect
def say(sender: Any, **_kwargs: Any) -> None:
    """For tests that wait for it."""
    print(f"{sender.hostname} takes messages", file=sys.__stdout__, flush=True)
