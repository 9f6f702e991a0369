"""Workers that are killed while they undo: whoever takes over goes on."""

from __future__ import annotations

import json

import pytest

from django_steps import RunCanceled, RunFailed
from tests.app import effects
from tests.app.workflows import booked_and_undone
from tests.staging import eventually

pytestmark = pytest.mark.django_db(transaction=True)
FAST = ("--lease", "1", "--poll-interval", "0.1")


def test_run_is_undone_although_an_undo_kills_its_worker(start_worker, tmp_path):
    run = booked_and_undone.start({"alive": str(tmp_path / "alive")})
    worker = start_worker(*FAST)
    eventually(lambda: (run.refresh_from_db(), run.status == "sleeping")[1], timeout=30)
    run.cancel(reason="rain", undo=True)
    assert worker.wait() == -9
    assert effects.names(run) == ["flight", "hotel", "car", "undo car", "undo hotel"]
    (tmp_path / "alive").touch()
    start_worker(*FAST)
    with pytest.raises(RunCanceled):
        run.result(timeout=30)
    run.refresh_from_db()
    assert (run.status, run.recoveries) == ("canceled", 1)
    # The atomic one took effect once; what killed the worker was executed again.
    assert effects.names(run)[3:] == ["undo car", "undo hotel", "undo hotel", "undo flight"]


def test_undo_that_kills_each_worker_fails_the_run_until_it_is_repaired(start_worker, tmp_path):
    run = booked_and_undone.start({"alive": str(tmp_path / "alive")})
    environment = {"DJANGO_STEPS": json.dumps({"MAX_RECOVERIES": 1})}
    for _ in range(3):
        start_worker(*FAST, environment=environment)
    eventually(lambda: (run.refresh_from_db(), run.status == "sleeping")[1], timeout=30)
    run.cancel(undo=True)
    with pytest.raises(RunFailed, match="hotel#undo"):
        run.result(timeout=40)
    assert run.error_type.endswith("WorkerDied")
    (tmp_path / "alive").touch()
    run.retry()
    assert run.status in ("canceling", "canceled")  # the worker that is left may have done it
    with pytest.raises(RunCanceled):
        run.result(timeout=30)
    assert effects.names(run)[3:] == ["undo car", "undo hotel", "undo hotel", "undo hotel", "undo flight"]
