"""django-tasks-db, a plain queue: no steps, no history. One job stands for one step."""

from __future__ import annotations

import django_project
import protocol

django_project.set_up(["django_tasks", "django_tasks_db"], {"BACKEND": "django_tasks_db.DatabaseBackend"})

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django_tasks_tasks import do_nothing  # noqa: E402


def migrate() -> None:
    call_command("migrate", verbosity=0)


def start(workflow: str, size: int, count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            do_nothing.enqueue(size)


def start_singly(count: int) -> dict:
    do_nothing.enqueue(1)
    return protocol.seconds(lambda: [do_nothing.enqueue(1) for _ in range(count)])


def start_together(count: int) -> dict:
    return protocol.seconds(lambda: [start("steps", 1, protocol.BATCH) for _ in range(count // protocol.BATCH)])


def start_slowly(count: int, gap: float) -> dict:
    return protocol.slowly(lambda: do_nothing.enqueue(1).id, count, gap)


def work(**options: object) -> None:
    call_command("db_worker", verbosity=0, startup_delay=False, reload=False, **options)


if __name__ == "__main__":
    protocol.serve(
        migrate=migrate,
        start=start,
        start_singly=start_singly,
        start_together=start_together,
        start_slowly=start_slowly,
        work=work,
    )
