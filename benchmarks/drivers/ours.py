"""django-steps through its public API. The worker is the real `manage.py runworkflows`, and not started here."""

from __future__ import annotations

import time
from typing import Any

import django
from django.core.management import call_command

from benchmarks.drivers import protocol

django.setup()


def migrate() -> None:
    call_command("migrate", verbosity=0)


def start(workflow: str, size: int, count: int) -> None:
    from django_steps import get_workflow

    get_workflow(workflow).start_many([{"size": size}] * count)


def start_singly(count: int) -> dict[str, float]:
    from benchmarks.app.workflows import steps

    steps.start({"size": 1})  # opens the connection
    return protocol.seconds(lambda: [steps.start({"size": 1}) for _ in range(count)])


def start_together(count: int) -> dict[str, float]:
    from benchmarks.app.workflows import steps

    steps.start({"size": 1})
    batch = [{"size": 1}] * protocol.BATCH
    return protocol.seconds(lambda: [steps.start_many(batch) for _ in range(count // protocol.BATCH)])


def start_slowly(count: int, gap: float) -> dict[str, dict[str, float]]:
    from benchmarks.app.workflows import steps

    return protocol.slowly(lambda: steps.start({"size": 1}).pk, count, gap)


def send_slowly(count: int, gap: float) -> dict[str, dict[str, float]]:
    """Events for runs that wait, with pauses; when each was committed."""
    from django.db import transaction

    from django_steps.models import WorkflowRun

    committed: list[float] = []
    runs = list(WorkflowRun.objects.filter(status="waiting")[:count])

    def send() -> object:
        run = runs.pop()
        with transaction.atomic():
            transaction.on_commit(lambda: committed.append(time.time()))
            run.send_event("go", {"ok": True})
        return run.pk

    started = protocol.slowly(send, count, gap)["started"]
    return {"started": dict(zip(started, committed, strict=True))}


def send_tasks(count: int, last: int) -> dict[str, float]:
    """Tasks of Celery that do nothing; when the first was sent. The last ones note when they were executed."""
    from benchmarks.app.celery_app import nothing

    began = time.time()
    for number in range(count):
        nothing.delay(number >= count - last)
    return {"began": began}


def send_to_celery(count: int, edge: int) -> None:
    """Tasks of Celery that do what a step does. So many of the first and of the last note when they were executed."""
    from benchmarks.app.plain_celery import one_step

    for number in range(count):
        one_step.delay(number, not edge <= number < count - edge)


def idle() -> None:
    """Have Django set up and the database connected, note that, and do nothing."""
    from django.contrib.contenttypes.models import ContentType

    ContentType.objects.count()
    protocol.note("idle")
    time.sleep(3600)


def workers(count: int) -> None:
    from benchmarks.app import many

    many.work(count)


def start_steadily(**options: Any) -> Any:
    from benchmarks.app import many

    return many.start_steadily(**options)


def retry_failed() -> dict[str, float]:
    from django_steps.models import WorkflowRun

    (run,) = WorkflowRun.objects.failed()
    protocol.note("retried")
    run.retry()
    return {}


def claims(**options: Any) -> Any:
    from benchmarks.app import claims

    return claims.measure(**options)


def crowd(**options: Any) -> Any:
    from benchmarks.app import crowd

    return crowd.make(**options)


if __name__ == "__main__":
    protocol.serve(
        migrate=migrate,
        start=start,
        start_singly=start_singly,
        start_together=start_together,
        start_slowly=start_slowly,
        send_slowly=send_slowly,
        send_tasks=send_tasks,
        send_to_celery=send_to_celery,
        idle=idle,
        workers=workers,
        start_steadily=start_steadily,
        retry_failed=retry_failed,
        claims=claims,
        crowd=crowd,
    )
