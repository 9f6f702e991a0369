"""Workers on hosts whose clocks are an hour apart. Not on SQLite: its clock is the host's, and there is one host only.

The wrong clock is a few lines of C in front of the C library, so that Python and the database's client see it, too; without
a C compiler this is not tested, and the header of the test run says so.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from tests.staging import eventually

from . import evidence


@pytest.fixture
def wrong_clock(tmp_path: Path) -> str:
    """The library that makes the clock of a process wrong by `CLOCK_OFFSET` seconds."""
    library = tmp_path / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


def test_workers_whose_clocks_are_an_hour_apart_agree(workers, started, wrong_clock):
    """Leases are kept, sleeps end in time, and nothing is taken from a worker that lives."""
    for offset in ("-3600", "3600"):
        workers.start("--concurrency", "3", environment={"LD_PRELOAD": wrong_clock, "CLOCK_OFFSET": offset})
    eventually(lambda: WorkerRow.objects.count() == 2)
    started.pause = 0.05
    began = time.monotonic()
    started.start_mixed(18)
    eventually(started.are_finished, timeout=30)
    assert time.monotonic() - began < 10  # nobody waited for the other clock
    workers.assert_none_died()
    workers.stop()

    started.check()
    lines = [line for run_lines in evidence.read(started.path).values() for line in run_lines]
    clocks = [int(line.token) for line in lines if line.event == "clock"]
    assert max(clocks) - min(clocks) > 7000, "the clocks were not apart, or one worker did it all"
    started.check()
    for run in WorkflowRun.objects.all():
        assert not run.recovery_log
        assert abs(run.finished_at.timestamp() - time.time()) < 60
