"""django-absurd: Absurd as a backend of Django's own tasks."""

from __future__ import annotations

import django_project
import protocol

django_project.set_up(["django_absurd"], {"BACKEND": "django_absurd.backends.AbsurdBackend", "QUEUES": ["default"]})

import django_absurd_tasks as tasks  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402


def migrate() -> None:
    call_command("migrate", verbosity=0)
    call_command("absurd_sync_queues", verbosity=0)


def start(workflow: str, size: int, count: int) -> None:
    task = getattr(tasks, workflow)
    with transaction.atomic():
        for _ in range(count):
            task.enqueue(size)


def start_singly(count: int) -> dict:
    tasks.steps.enqueue(1)
    return protocol.seconds(lambda: [tasks.steps.enqueue(1) for _ in range(count)])


def start_together(count: int) -> dict:
    return protocol.seconds(lambda: [start("steps", 1, protocol.BATCH) for _ in range(count // protocol.BATCH)])


def start_slowly(count: int, gap: float) -> dict:
    return protocol.slowly(lambda: str(tasks.steps.enqueue(1).id).split(":")[-1], count, gap)


def work(**options: object) -> None:
    call_command("absurd_worker", **options)


if __name__ == "__main__":
    protocol.serve(
        migrate=migrate,
        start=start,
        start_singly=start_singly,
        start_together=start_together,
        start_slowly=start_slowly,
        work=work,
    )
