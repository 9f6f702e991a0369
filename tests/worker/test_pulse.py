"""`--heartbeat-file`: it is touched as long as a worker works, and only then."""

from __future__ import annotations

import math
import os
import threading
import time

import pytest
from django.core.management.base import CommandError

from django_steps import workflow
from django_steps.worker import Worker, pulse
from django_steps.worker.pulse import Gathered, Pulse
from tests.commands.conftest import run_command  # noqa: F401
from tests.staging import Background, eventually

OLD = 1_000_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "alive"


def make_old(path):
    os.utime(path, (OLD, OLD))


def is_old(path):
    return path.stat().st_mtime == OLD


def test_a_loop_that_works_touches_the_file(path):
    beat = Pulse(path, slack=30)
    beat.look()
    assert path.exists()
    make_old(path)
    beat.works(0)
    beat.look()
    assert not is_old(path)


def test_a_loop_that_hangs_touches_nothing(path):
    path.touch()
    make_old(path)
    beat = Pulse(path, slack=-1)
    beat.works(0.5)  # it is silent for longer than it has said, and the slack
    beat.look()
    assert is_old(path)
    beat.works(5)
    beat.look()
    assert not is_old(path)


def test_steps_that_end_may_take_as_long_as_they_take(path):
    beat = Pulse(path, slack=-1e9)
    beat.works(math.inf)
    beat.look()
    assert path.exists()


def test_a_file_that_cannot_be_written_later_is_a_line_and_no_end(tmp_path, caplog):
    directory = tmp_path / "gone"
    beat = Pulse(directory / "alive", slack=30)
    beat.look()
    beat.look()
    assert ["could not be written" in record.getMessage() for record in caplog.records] == [True]
    directory.mkdir()
    beat.look()
    assert (directory / "alive").exists()
    assert "can be written again" in caplog.records[-1].getMessage()


class TestSupervisor:
    """The file of a supervisor."""

    @pytest.fixture(autouse=True)
    def looks_always(self, monkeypatch):
        monkeypatch.setattr(pulse, "_INTERVAL", 0)

    def test_all_workers_have_to_touch_theirs(self, path):
        path.touch()
        make_old(path)
        gathered = Gathered(path, 2)
        first, second = gathered.paths
        assert [item.name for item in gathered.paths] == ["alive.1", "alive.2"]
        gathered.look([0, 1])
        assert is_old(path)
        for item in gathered.paths:  # as an earlier process has left them
            item.touch()
            make_old(item)
        gathered.look([0, 1])
        first.touch()
        gathered.look([0, 1])
        assert is_old(path)
        gathered.look([0])  # the second has nothing left to do
        assert not is_old(path)
        make_old(path)
        second.touch()
        gathered.look([0, 1])
        assert not is_old(path)

    def test_one_that_stops_touching_is_noticed(self, path, monkeypatch):
        gathered = Gathered(path, 1)
        gathered.paths[0].touch()
        gathered.look([0])
        make_old(gathered.paths[0])
        gathered.look([0])
        assert path.exists()
        make_old(path)
        monkeypatch.setattr(pulse, "_FRESH", -1)
        gathered.look([0])
        assert is_old(path)


@pytest.mark.django_db(transaction=True)
class TestWorker:
    """The file of a real one."""

    def test_a_worker_touches_it_while_it_is_idle_and_while_steps_end(self, path, monkeypatch):
        goes_on = threading.Event()

        @workflow
        def pulse_lasting(input, step):
            step.define("wait", goes_on.wait).run(20)

        worker = Worker(poll_interval=0.05, lease=1, heartbeat_file=path)
        thread = Background(worker.run)
        try:
            eventually(path.exists)
            make_old(path)
            eventually(lambda: not is_old(path))
            run = pulse_lasting.start()
            eventually(lambda: worker.in_progress())
            worker.stop()
            eventually(lambda: worker._pulse._works_until == math.inf)
            make_old(path)
            eventually(lambda: not is_old(path))
        finally:
            goes_on.set()
            worker.stop()
            thread.result(20)
        assert run.pk

    def test_a_loop_that_hangs_is_seen(self, path, monkeypatch):
        monkeypatch.setattr("django_steps.worker.loop._SLACK", 0.1)
        worker = Worker(poll_interval=0.05, lease=0.5, heartbeat_file=path)
        hangs, has_hung = threading.Event(), threading.Event()

        def hang(*args):
            has_hung.set()
            hangs.wait(20)
            return 0, False

        monkeypatch.setattr(worker, "_claim", hang)
        thread = Background(worker.run)
        try:
            assert has_hung.wait(10)
            eventually(lambda: time.monotonic() > worker._pulse._works_until)
            eventually(path.exists)
            make_old(path)
            worker._pulse.look()
            assert is_old(path)
        finally:
            worker.stop()
            hangs.set()
            thread.result(20)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["missing/alive", "", "."])
def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path, name, run_command):  # noqa: F811
    with pytest.raises(CommandError, match=r"--heartbeat-file: .* can't be written: .*Give a file in a directory"):
        run_command("runworkflows", "--until-idle", "--heartbeat-file", str(tmp_path / name))


@pytest.mark.django_db(transaction=True)
def test_every_process_has_a_file_and_the_supervisor_one_for_all(start_worker, path):
    supervisor = start_worker("--processes", "2", "--poll-interval", "0.1", "--heartbeat-file", str(path))
    files = [path, path.with_name("alive.1"), path.with_name("alive.2")]
    eventually(lambda: all(item.exists() for item in files))
    for item in files:
        make_old(item)
    eventually(lambda: not any(map(is_old, files)))
    assert supervisor.stop() == 0
