"""A worker that is idle fires in time, and asks the database no more often for it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
from django.db import connection, connections

from django_steps.core import clock
from django_steps.ledger import timers
from django_steps.models import WorkflowRun, WorkflowSchedule
from django_steps.worker import Worker

from .conftest import now

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = 1_000_000


@contextmanager
def working(**options):
    worker = Worker(poll_interval=1.0, **options)

    def run():
        try:
            worker.run()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(20)
    assert not thread.is_alive()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_idle_worker_fires_in_time_and_looks_no_more_often(tidy, monkeypatch):
    looks, next_due = [], timers.next_due
    monkeypatch.setattr(timers, "next_due", lambda *arguments: looks.append(time.monotonic()) or next_due(*arguments))
    # The first slot is three seconds ahead.
    clock.offset_us = -(now() % (10 * SECOND)) + 7 * SECOND
    try:
        WorkflowSchedule.objects.create(name="often", workflow="tidy", every="10s")
        with working():
            until(lambda: looks)
            time.sleep(1)
            before = len(looks)
            time.sleep(1)
            assert len(looks) - before <= 2, "a worker without schedules looks as often"
            until(WorkflowRun.objects.filter(status="succeeded").exists)
        [run] = WorkflowRun.objects.all()
        late = clock.to_microseconds(run.started_at) - clock.to_microseconds(run.scheduled_for)
        assert 0 <= late < 1_000_000, late  # it is less than 50 ms on a machine that has nothing else to do
    finally:
        clock.offset_us = 0
    assert connection.vendor


def test_schedule_that_is_made_while_a_worker_is_idle_is_heard_of(tidy):
    clock.offset_us = -(now() % (10 * SECOND)) + 7 * SECOND
    try:
        with working():
            time.sleep(1)
            WorkflowSchedule.objects.create(name="often", workflow="tidy", every="10s")
            until(WorkflowRun.objects.filter(status="succeeded").exists)
    finally:
        clock.offset_us = 0
