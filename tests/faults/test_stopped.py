"""A worker that is stopped by SIGSTOP past its lease, and continued when others have done its work."""

from __future__ import annotations

import signal

from django_steps.models import WorkflowRun
from tests.staging import eventually
from tests.standing_still import stand_still

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
    stand_still(stopped)
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
