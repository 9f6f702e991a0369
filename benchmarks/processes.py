"""The processes of the peers: commands that end, workers that are killed, and what a worker costs while it lives.

Memory, threads and processor time are read from /proc; where there is none, they are missing in the results.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_TICK = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0


class PeerFailed(Exception):
    """A peer's command failed, or its worker died; with the end of what it printed."""


def call(command: Sequence[str], environment: Mapping[str, str], timeout: float = 300) -> Any:
    """Execute a driver's command to its end; its answer."""
    process = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if process.returncode:
        raise PeerFailed(f"{command[-2]} ended with {process.returncode}: {_end(process.stderr)}")
    lines = process.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


def _end(output: str) -> str:
    """The last few lines; the last of a traceback says what went wrong."""
    return " / ".join(line.strip() for line in reversed(output.strip().splitlines()[-3:]))


class WorkerProcess:
    """A worker in a process of its own, with its output in `log`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # Ctrl-C is for the harness, which ends its workers
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cpu(self) -> float | None:
        """Seconds of processor time so far, user and system."""
        with suppress(OSError):
            # The name of the command, in parentheses, may hold anything.
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICK
        return None

    def memory(self) -> dict[str, float]:
        """Resident MiB (`rss`) and `threads`; empty where that can't be read."""
        with suppress(OSError):
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            if "VmRSS" in status:
                return {"rss": int(status["VmRSS"].split()[0]) / _MIB, "threads": int(status["Threads"])}
        return {}

    def share_of_memory(self) -> dict[str, float]:
        """Resident MiB with its share only of what other processes have mapped, too (`pss`); empty where that can't be read."""
        with suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return {"pss": int(line.split()[1]) / _MIB}
        return {}

    def settle(self, least: float = 1.0, most: float = 8.0) -> None:
        """Wait until it has started and does next to nothing."""
        began, before = time.monotonic(), -1.0
        while time.monotonic() - began < most:
            time.sleep(0.5)
            if not self.is_alive:
                raise PeerFailed(f"The worker died: {self.tail()}")
            now = self.cpu()
            if now is not None and now - before < 0.03 and time.monotonic() - began > least:
                return
            before = now or 0.0

    def wait(self, timeout: float) -> None:
        """Until it ends by itself."""
        self._process.wait(timeout)

    def tail(self) -> str:
        """The end of what it printed, on one line."""
        return _end(self._log.read_text(errors="replace"))

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
