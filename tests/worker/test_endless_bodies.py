"""A body that catches the exception by which its pass ends, and goes on without end, costs a thread and not the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from django_steps import workflow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app.workflows import tiny
from tests.looking import error_of
from tests.staging import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@workflow
def endless_sleeper(step):
    while True:
        try:
            step.sleep("rest", "1h")
        except:  # noqa: E722
            continue


@workflow
def endless_stepper(step):
    number = 0
    while True:
        try:
            number += 1
            step.define(f"step {number}", time.sleep).run(0.001)
        except:  # noqa: E722
            continue


@workflow
def endless_after_a_mistake(step):
    while True:
        try:
            step.define("same", lambda: 1).run()
        except:  # noqa: E722
            continue


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(concurrency=1, poll_interval=0.05)
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker
    worker.stop()
    thread.join(15)
    assert not thread.is_alive()  # the abandoned thread keeps no worker from ending


@pytest.mark.parametrize("endless", [endless_sleeper, endless_after_a_mistake])
def test_run_fails_and_names_the_place_and_the_worker_goes_on(worker, endless):
    run = endless.start()
    eventually(lambda: WorkflowRun.objects.filter(pk=run.pk, status="failed").exists())
    error = error_of(run)
    assert error["type"] == "django_steps.errors.EndlessBody"
    assert f"{__file__}:" in error["message"] and "in endless_" in error["message"]
    other = tiny.start({})
    eventually(lambda: WorkflowRun.objects.filter(pk=other.pk, status="succeeded").exists())


def test_canceled_run_is_canceled(worker):
    run = endless_stepper.start()
    eventually(lambda: run.steps.count() > 2)
    run.cancel()
    eventually(lambda: WorkflowRun.objects.filter(pk=run.pk, status="canceled").exists())
    other = tiny.start({})
    eventually(lambda: WorkflowRun.objects.filter(pk=other.pk, status="succeeded").exists())


def test_worker_that_stops_ends(worker):
    run = endless_stepper.start()
    eventually(lambda: run.steps.count() > 2)
    worker.stop()
    eventually(lambda: WorkflowRun.objects.filter(pk=run.pk, status="failed").exists())
