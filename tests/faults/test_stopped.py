"""A worker that is stopped by SIGSTOP past its lease, and continued when others have done its work."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time

from django.db import connection

from django_steps.models import WorkflowRun
from tests.staging import eventually

from . import evidence
from .expectations import KINDS

PLAIN, ATOMIC, RETRYING = KINDS[0], KINDS[1], KINDS[3]


def test_continued_worker_writes_nothing_over_others_and_goes_on_working(workers, started):
    stopped = workers.start()
    started.pause = 0.1
    for _ in range(2):
        started.start(PLAIN)
        started.start(RETRYING)
    eventually(lambda: len(evidence.read(started.path)) == 4)  # it is in the middle of all of them
    stop(stopped)
    other = workers.start()
    eventually(started.are_finished, timeout=30)
    other.terminate()
    assert other.wait(15) == 0

    stopped.send_signal(signal.SIGCONT)
    later = started.start(ATOMIC)
    eventually(lambda: WorkflowRun.objects.get(pk=later.pk).is_finished)
    assert stopped.poll() is None
    workers.stop()
    started.check()


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP; on SQLite at a moment when the process doesn't keep the file locked, which would stop everybody."""
    process.send_signal(signal.SIGSTOP)
    while connection.vendor == "sqlite" and is_locked():
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)


def is_locked() -> bool:
    with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False
