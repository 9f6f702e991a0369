"""Real workers and real signals: what ends, what is recorded, what is free for others, and the exit code."""

from __future__ import annotations

import signal
import time

import pytest

from django_steps.models import Worker, WorkflowRun
from tests.app import effects
from tests.app.workflows import forks, slow_middle
from tests.staging import TO_START, eventually

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = ("--poll-interval", "0.1")


@pytest.fixture
def in_a_step(start_worker):
    """A worker process in the middle of a step that takes so many seconds, and its run."""

    def start(seconds: float, *arguments: str):
        run = slow_middle.start({"seconds": seconds})
        worker = start_worker(*QUICK, *arguments)
        eventually(lambda: effects.count("slow begins", run), TO_START)
        return worker, run

    return start


@pytest.mark.parametrize(
    "signum",
    [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.any_database) for each in (signal.SIGINT, signal.SIGHUP))],
    ids=lambda signum: signum.name,
)
def test_a_signal_lets_the_step_end_and_gives_the_run_back_at_once(in_a_step, signum):
    worker, run = in_a_step(1)
    worker.process.send_signal(signum)

    assert worker.wait(15) == 0
    run.refresh_from_db()
    assert (run.status, run.phase) == ("pending", WorkflowRun.Phase.READY)
    assert list(run.steps.values_list("name", "status")) == [("before", "succeeded"), ("slow", "succeeded")]
    assert effects.names(run) == ["before", "slow begins", "slow ends"]
    printed = worker.output()
    assert "Stopping when 1 run has ended its step; once more ends at once:" in printed
    assert f"slow_middle  {run.pk}  slow\n" in printed
    assert "Traceback" not in printed


def test_a_worker_that_is_stopped_does_not_say_what_is_left(in_a_step):
    slow_middle.start({"seconds": 0}, delay="1h")
    worker, _ = in_a_step(0.5, "--until-idle")
    assert worker.stop() == 0
    assert worker.output().splitlines()[-1].startswith("Ended. ")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
@pytest.mark.any_database
def test_a_second_signal_ends_at_once(in_a_step, signum):
    worker, run = in_a_step(30)
    worker.process.send_signal(signum)
    time.sleep(0.3)  # two signals at the same moment are one
    worker.process.send_signal(signum)

    assert worker.wait(15) == 1
    run.refresh_from_db()
    assert run.status == "running"
    assert effects.names(run) == ["before", "slow begins"]


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)],
    ids=lambda signals: " ".join(signum.name for signum in signals),
)
@pytest.mark.any_database
def test_several_signals_at_the_same_moment_are_one(in_a_step, signals):
    worker, run = in_a_step(1)
    for signum in signals:
        worker.process.send_signal(signum)

    assert worker.wait(15) == 0
    assert effects.names(run) == ["before", "slow begins", "slow ends"]


@pytest.mark.any_database
def test_what_nohup_ignores_stays_ignored(in_a_step):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited by what is started now
    try:
        worker, run = in_a_step(1, "--until-idle")
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.process.send_signal(signal.SIGHUP)

    assert worker.wait(15) == 0
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_processes_that_a_step_forks_end_as_they_would_anywhere(start_worker):
    run = forks.start({})
    worker = start_worker("--until-idle", *QUICK)
    assert worker.wait(30) == 0
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", [[1, 4, 9], -signal.SIGTERM, -signal.SIGHUP])


def test_the_shutdown_timeout_ends_it(in_a_step):
    worker, run = in_a_step(30, "--shutdown-timeout", "0.5")
    worker.process.send_signal(signal.SIGTERM)

    assert worker.wait(15) == 1
    run.refresh_from_db()
    assert run.status == "running"
    assert "The shutdown timeout is over" in worker.output()


def test_an_idle_worker_stops_at_once(start_worker):
    worker = start_worker("--poll-interval", "60")
    eventually(_live_workers, TO_START)
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 10  # and not after the poll interval
    assert not _live_workers()


def test_until_idle_ends_with_0_when_runs_failed(start_worker):
    run = slow_middle.start({"no": "seconds"})
    assert start_worker("--until-idle", *QUICK).wait(20) == 0
    run.refresh_from_db()
    assert run.status == "failed"


def test_a_database_that_is_not_there_is_exit_code_1(start_worker, tmp_path):
    database = {"DATABASE": "sqlite", "DATABASE_NAME": str(tmp_path / "empty.sqlite3")}
    worker = start_worker(environment=database)
    assert worker.wait(20) == 1
    printed = worker.output()
    assert printed.startswith("CommandError: Database 'default' lacks tables of django_steps.")
    assert len(printed.splitlines()) == 1


def _live_workers() -> int:
    return Worker.objects.filter(stopped_at=None).count()
