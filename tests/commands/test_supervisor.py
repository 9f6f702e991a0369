"""Several real worker processes: replaced when they die, restarted when files change, stopped together."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from django_steps import workflow
from django_steps.models import Worker, WorkflowRun
from tests.app import effects
from tests.app.workflows import slow_middle, three_steps
from tests.conftest import ROOT
from tests.staging import TO_START, eventually

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = ("--poll-interval", "0.1")


def live_pids() -> set[int]:
    """The processes of workers that have not said that they stopped, and that exist."""
    return {pid for pid in Worker.objects.filter(stopped_at=None).values_list("pid", flat=True) if is_running(pid)}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_worker_is_replaced_and_all_stop_together(start_worker):
    supervisor = start_worker("--processes", "2", *QUICK)
    before = eventually(lambda: len(live_pids()) == 2 and live_pids(), TO_START)
    assert supervisor.pid not in before

    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    after = eventually(lambda: len(live_pids() - {killed}) == 2 and live_pids() - {killed}, TO_START)
    assert len(after - before) == 1

    run = three_steps.start({})
    assert run.result(timeout=10) == "done"
    assert supervisor.stop() == 0
    assert not live_pids()
    printed = supervisor.output()
    assert printed.count("2 worker processes") == 1
    assert f"Worker {killed} was killed by SIGKILL. Another one is started in 1 s." in printed


def test_stopping_lets_the_steps_of_all_workers_end(start_worker):
    run = slow_middle.start({"seconds": 1})
    supervisor = start_worker("--processes", "2", *QUICK)
    eventually(lambda: effects.count("slow begins", run), TO_START)

    supervisor.process.send_signal(signal.SIGINT)
    assert supervisor.wait(15) == 0
    run.refresh_from_db()
    assert run.status == "pending"
    assert effects.count("slow ends", run) == 1
    assert not live_pids()


def signal_unit(signum: int, pids: list[int]) -> None:
    """Signal every process of a unit, as systemd and Heroku do."""
    for pid in pids:
        os.kill(pid, signum)


@pytest.mark.any_database
def test_a_signal_to_every_process_of_a_unit_is_one(start_worker):
    run = slow_middle.start({"seconds": 2})
    supervisor = start_worker("--processes", "2", *QUICK)
    eventually(lambda: effects.count("slow begins", run), TO_START)
    workers = sorted(eventually(lambda: len(live_pids()) == 2 and live_pids(), TO_START))

    signal_unit(signal.SIGTERM, [supervisor.pid, *workers])
    time.sleep(0.5)
    signal_unit(signal.SIGHUP, [supervisor.pid, *(pid for pid in workers if is_running(pid))])  # of SendSIGHUP=yes
    assert supervisor.wait(15) == 0
    run.refresh_from_db()
    assert run.status == "pending"
    assert effects.count("slow ends", run) == 1
    assert "Traceback" not in supervisor.output()


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one worker", "two workers"])
@pytest.mark.any_database
def test_a_hang_up_in_the_last_moments_of_a_process_changes_nothing(start_worker, options):
    process = start_worker(*options, *QUICK)
    eventually(live_pids, TO_START)
    process.process.send_signal(signal.SIGTERM)
    while process.process.poll() is None:
        process.process.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    assert process.wait() == 0


@pytest.mark.any_database
def test_repeated_to_every_process_of_a_unit_it_ends_at_once(start_worker):
    run = slow_middle.start({"seconds": 30})
    supervisor = start_worker("--processes", "1", "--reload", *QUICK)
    eventually(lambda: effects.count("slow begins", run), TO_START)
    unit = [supervisor.pid, *live_pids()]

    signal_unit(signal.SIGTERM, unit)
    time.sleep(0.5)
    assert all(map(is_running, unit))
    signal_unit(signal.SIGTERM, unit)
    assert supervisor.wait(15) == 1
    assert effects.count("slow ends", run) == 0


@pytest.mark.any_database
def test_workers_that_are_starting_up_end_with_their_supervisor(start_worker):
    supervisor = start_worker("--processes", "2", *QUICK)
    assert "2 worker processes" in supervisor.process.stdout.readline()
    time.sleep(0.3)  # they have begun, and are far from having imported Django
    assert supervisor.stop() == 0
    assert "Traceback" not in supervisor.output()


@pytest.mark.any_database
def test_a_second_signal_kills_all_workers(start_worker):
    run = slow_middle.start({"seconds": 30})
    supervisor = start_worker("--processes", "2", *QUICK)
    eventually(lambda: effects.count("slow begins", run), TO_START)
    pids = eventually(lambda: len(live_pids()) == 2 and live_pids(), TO_START)

    supervisor.process.send_signal(signal.SIGTERM)
    eventually(lambda: len(live_pids()) < 2)  # the idle one has stopped, so the signal came through
    time.sleep(0.3)  # two signals at the same moment are one
    supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.wait(15) == 1
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.any_database
def test_workers_end_when_their_supervisor_is_killed(start_worker):
    supervisor = start_worker("--processes", "2", *QUICK)
    eventually(lambda: len(live_pids()) == 2, TO_START)
    supervisor.kill()
    eventually(lambda: not live_pids())


def test_until_idle_ends_when_all_workers_have(start_worker):
    runs = three_steps.start_many([{}] * 10)
    three_steps.start({}, delay="1h")
    supervisor = start_worker("--processes", "2", "--until-idle", *QUICK)
    assert supervisor.wait(30) == 0
    assert {run.status for run in WorkflowRun.objects.filter(pk__in=[run.pk for run in runs])} == {"succeeded"}
    *_, ended, left = supervisor.output().splitlines()
    assert ended == "Ended."
    assert left.startswith("Left for later: 1 delayed; the next is due at ")


RELOADED = """
from django_steps import workflow

@workflow
def reloaded(input):
    return "{answer}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an app of its own, whose workflows may be changed."""
    (tmp_path / "reloaded_app").mkdir()
    (tmp_path / "reloaded_app" / "__init__.py").touch()
    (tmp_path / "reloaded_app" / "workflows.py").write_text(RELOADED.format(answer="old"))
    (tmp_path / "reloading_settings.py").write_text(
        "from tests.settings import *\n"
        "from tests.settings import INSTALLED_APPS\n"
        'INSTALLED_APPS = [*INSTALLED_APPS, "reloaded_app"]\n'
    )
    return tmp_path


@pytest.mark.any_database
def test_changed_files_restart_the_workers_even_after_broken_ones(start_worker, project):
    @workflow
    def reloaded(input): ...

    environment = {"PYTHONPATH": f"{project}:{ROOT}", "DJANGO_SETTINGS_MODULE": "reloading_settings"}
    supervisor = start_worker("--reload", *QUICK, environment=environment)
    module = project / "reloaded_app" / "workflows.py"
    assert reloaded.start({}).result(timeout=15) == "old"

    lines: list[str] = []
    reader = threading.Thread(target=lambda: [lines.append(line) for line in supervisor.process.stdout], daemon=True)
    reader.start()
    module.write_text("1 / 0\n")
    eventually(lambda: "ended with exit code 1. It is restarted when a Python file changes." in "".join(lines))
    module.write_text(RELOADED.format(answer="brand new"))
    assert reloaded.start({}).result(timeout=15) == "brand new"

    assert supervisor.stop() == 0
    reader.join(10)
    printed = "".join(lines)
    assert f"{module} changed: the workers are restarted." in printed
    assert "ZeroDivisionError" in printed
