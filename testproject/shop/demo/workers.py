"""Real worker processes for the demo: started as a user would start them, stopped or killed by signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.db import connection

LEASE = 2  # seconds; short, so that a killed worker's run is taken over while somebody is watching

_SESSIONS = {
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()",
    "mysql": "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()",
}


class WorkerProcess:
    """`manage.py runworkflows` in a process of its own, on the database and the services of this process."""

    def __init__(self, log: Path) -> None:
        self.log = log
        command = ["runworkflows", "--lease", str(LEASE), "--poll-interval", "0.2", "-v", "2"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(settings.BASE_DIR / "manage.py"), *command],
                env={
                    **os.environ,
                    "DATABASE_NAME": str(connection.settings_dict["NAME"]),
                    "SHOP_API_URL": settings.SHOP_API_URL,
                    "SHOP_URL": settings.SHOP_URL,
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to tidy up, nor to tell anybody."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=10)

    def stop(self) -> int | None:
        """SIGTERM; returns the exit code, None if the process didn't end within 10 seconds and had to be killed."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def connections(self) -> int | None:
        """How many connections it has to the database; None where that can't be seen.

        On servers: how many there are besides that of this process, so ask when no other worker is left.
        """
        if connection.vendor == "sqlite":
            return self._open_files(Path(connection.settings_dict["NAME"]).resolve())
        with connection.cursor() as cursor:
            cursor.execute(_SESSIONS[connection.vendor])
            return int(cursor.fetchone()[0]) - 1

    def _open_files(self, path: Path) -> int | None:
        files = Path(f"/proc/{self.pid}/fd")  # of Linux
        return sum(_target(file) == str(path) for file in files.iterdir()) if files.exists() else None

    def last_lines(self, number: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-number:])


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""
