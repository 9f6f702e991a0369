"""The Celery app of the fault tests: `celery -A tests.faults.celery_app worker`."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.faults.settings")

app = Celery("faults", broker=os.environ["FAULTS_BROKER"])
app.conf.update(
    task_default_queue=os.environ["FAULTS_CELERY_QUEUE"],
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
app.autodiscover_tasks()
