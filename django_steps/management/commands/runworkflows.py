"""`manage.py runworkflows`: a worker. Parses, greets, prints a line per finished run; the work is in `worker.py`."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from django_steps.worker import Worker


class Command(BaseCommand):
    help = "Execute the runs of workflows until stopped."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--queue", action="append", default=[])
        parser.add_argument("--concurrency", type=int)
        parser.add_argument("--until-idle", action="store_true")
        parser.add_argument("--max-runs", type=int)
        parser.add_argument("--poll-interval", type=float)
        parser.add_argument("--lease", type=float)
        parser.add_argument("--shutdown-timeout", type=float)

    def handle(self, **options: Any) -> None:
        worker = Worker(
            queues=options["queue"],
            concurrency=options["concurrency"],
            lease=options["lease"],
            poll_interval=options["poll_interval"],
            until_idle=options["until_idle"],
            max_runs=options["max_runs"],
            shutdown_timeout=options["shutdown_timeout"],
        )
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.run()
