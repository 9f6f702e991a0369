"""A worker that is stopped by SIGSTOP past its lease, and continued when others have done its work."""

from __future__ import annotations

import signal

from django_steps.models import WorkflowRun
from tests.conftest import wait_until

from . import evidence
from .expectations import KINDS

ATOMIC, RETRYING = KINDS[1], KINDS[3]


def test_continued_worker_writes_nothing_over_others_and_goes_on_working(workers, started):
    stopped = workers.start()
    started.pause = 0.1
    for _ in range(2):
        started.start(ATOMIC)
        started.start(RETRYING)
    wait_until(lambda: len(evidence.read(started.path)) == 4)  # it is in the middle of all of them
    stopped.send_signal(signal.SIGSTOP)
    other = workers.start()
    wait_until(started.are_finished)
    other.terminate()
    assert other.wait(15) == 0

    stopped.send_signal(signal.SIGCONT)
    later = started.start(ATOMIC)
    wait_until(lambda: WorkflowRun.objects.get(pk=later.pk).is_finished)
    assert stopped.poll() is None
    workers.stop()
    started.check()
