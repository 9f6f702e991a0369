"""Worker processes to be killed, stopped and cut off. Their output goes to a file: a pipe that nobody reads would stop them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from django_steps.models import Worker as WorkerRow
from tests.conftest import ROOT, process_environment
from tests.staging import eventually

from . import evidence
from .workflows import LONGEST_STEP

# What ends in good order ends its steps first, also that of a run which it has lost meanwhile. And Celery may take half a
# minute more: if a message has just gone to a child of a prefork pool when a warm shutdown begins, the main process discards
# the job (`AsynPool.flush` in celery), and the child waits in vain to hear that its result has arrived
# (`_ensure_messages_consumed` in billiard). There is no setting for that.
_LONGEST_END = LONGEST_STEP + 30 + 30


class Workers:
    """Starts worker processes, and makes sure that none is left."""

    def __init__(self, directory: Path) -> None:
        self.evidence = directory / "evidence"
        self.output = directory / "workers.log"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A worker with a lease of one second and four threads, unless the arguments say otherwise."""
        defaults = ["--lease", "1", "--poll-interval", "0.2", "--concurrency", "4", "-v", "0"]
        return self._run("manage.py", "runworkflows", *defaults, *arguments, environment=environment)

    def start_command(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Another command of the project."""
        return self._run("manage.py", *arguments, environment=environment)

    def start_module(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Another process on the test database: `start_module("tests.faults.sender", "1")`."""
        return self._run("-m", *arguments, environment=environment)

    def _run(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={
                    **process_environment(),
                    "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
                    **evidence.environment(self.evidence),
                    **(environment or {}),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def start_registered(self, count: int, environment: dict[str, str] | None = None) -> None:
        """Start workers and wait until they are ready: one that can't register doesn't start."""
        for _ in range(count):
            self.start(environment=environment)
        eventually(lambda: WorkerRow.objects.count() == count, timeout=60)  # several that start beside other tests

    def running(self) -> list[int]:
        """The process ids of those that still run."""
        return [process.pid for process in self._started if process.poll() is None]

    def stop(self) -> None:
        """SIGTERM to all that still run, which has to end them in good order."""
        running = [process for process in self._started if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _LONGEST_END
        codes = {process.wait(max(deadline - time.monotonic(), 0.1)) for process in running}
        assert codes <= {0, -signal.SIGTERM}, self.log()  # the latter before Python was ready for signals

    def assert_none_died(self) -> None:
        """That none has ended by itself: those that were killed from outside don't count."""
        died = [process.returncode for process in self._started if process.poll() not in (None, -signal.SIGKILL)]
        assert not died, f"workers ended with {died}:\n{self.log()}"

    def log(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def end(self) -> None:
        """Kill whatever is left, stopped processes too."""
        for process in self._started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.wait(10)
