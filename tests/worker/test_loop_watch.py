"""What blocks the event loop is named, with its line and its run, in the log and on the row of the worker."""

from __future__ import annotations

import logging
import time

import pytest

from django_steps import AsyncStep, workflow
from django_steps.definitions import registry
from django_steps.models import Worker as WorkerRow
from django_steps.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)


def blocked_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "has been blocked" in record.getMessage()]


def test_body_that_blocks_the_loop_is_named_with_its_line(caplog):
    @workflow
    async def blocks(step: AsyncStep) -> None:
        time.sleep(1.5)  # here

    run = blocks.start()
    with caplog.at_level(logging.WARNING, "django_steps"):
        Worker(until_idle=True, poll_interval=0.05).run()
    (line,) = blocked_lines(caplog)
    number = blocks.function.__code__.co_firstlineno + 2
    assert f"{__file__}:{number}" in line
    assert "blocks" in line
    assert str(run.pk) in line


def test_step_that_blocks_the_loop_is_named_with_its_line(caplog):
    async def hog() -> None:
        time.sleep(0.6)

    @workflow
    async def calls(step: AsyncStep) -> None:
        await step.define("hog", hog).run()

    run = calls.start()
    with caplog.at_level(logging.WARNING, "django_steps"):
        Worker(until_idle=True, poll_interval=0.05).run()
    (line,) = blocked_lines(caplog)
    assert "hog" in line
    assert str(run.pk) in line


def test_row_of_the_worker_says_what_has_blocked_its_loop():
    @workflow
    async def blocks(step: AsyncStep) -> None:
        time.sleep(2.2)

    run = blocks.start()
    Worker(until_idle=True, poll_interval=0.05).run()
    row = WorkerRow.objects.get()
    assert __file__ in row.blocked_by
    assert str(run.pk) in row.blocked_by
    assert row.blocked_us is not None


def test_leases_are_renewed_while_the_loop_is_blocked():
    calls = []

    @workflow
    async def blocks(step: AsyncStep) -> None:
        calls.append(1)
        time.sleep(3.5)

    run = blocks.start()
    Worker(until_idle=True, poll_interval=0.05, lease=1).run()
    run.refresh_from_db()
    assert (run.status, run.recoveries, calls) == ("succeeded", 0, [1])


def test_plain_step_that_takes_long_blocks_nothing(caplog):
    @workflow
    async def waits(step: AsyncStep) -> None:
        await step.define("slow", time.sleep).run(0.6)

    waits.start()
    with caplog.at_level(logging.WARNING, "django_steps"):
        Worker(until_idle=True, poll_interval=0.05).run()
    assert blocked_lines(caplog) == []


def test_worker_without_async_workflows_says_so_on_its_row():
    registry._registry.clear()

    @workflow
    def plain() -> None:
        pass

    Worker(until_idle=True, poll_interval=0.05, async_concurrency=7).run()
    assert WorkerRow.objects.get().async_concurrency == 0


def test_worker_says_how_many_async_runs_it_executes():
    @workflow
    async def waits() -> None:
        pass

    Worker(until_idle=True, poll_interval=0.05, async_concurrency=7).run()
    assert WorkerRow.objects.get().async_concurrency == 7
