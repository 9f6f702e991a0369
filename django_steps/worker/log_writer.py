"""The thread that writes captured log lines, twice a second while there are any. It begins with the first one.

It borrows a connection of the writers, so that commits go on by the others. Lines are worth less than the steps that they tell
of: where the database can't take them, or there are too many, they are dropped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from django.db import DatabaseError, InterfaceError, OperationalError

from ..core.repeated import Repeated
from ..ledger import database, logs
from ..ledger.logs import NewLine
from .group_commit import GroupCommit

logger = logging.getLogger("django_steps")

_INTERVAL = 0.5  # seconds; a crash loses no more than the lines of these
_MOST = 10_000  # lines that wait
_GOODBYE = 5.0  # seconds that the last ones may take


class LogWriter:
    """Writes the lines that are put into it, batch by batch, until it is stopped."""

    def __init__(self, commits: GroupCommit, repeated: Repeated) -> None:
        self._commits, self._repeated = commits, repeated
        self._lines: deque[NewLine] = deque()
        self._noticed, self._stopped = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def put(self, line: NewLine) -> None:
        """Let a line be written soon; returns at once. From any thread."""
        if len(self._lines) >= _MOST:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._noticed.is_set():
            self._notice()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopped.set()
        self._noticed.set()
        if self._thread is not None:
            self._thread.join(_GOODBYE)

    def _notice(self) -> None:
        with self._lock:
            self._noticed.set()
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="django-steps-logs", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._noticed.wait()
            self._stopped.wait(_INTERVAL)
            # Cleared before the lines are taken, so that what comes after it is noticed.
            self._noticed.clear()
            try:
                self._write()
            except Exception:  # without this thread no line is written any more
                logger.debug("Captured log lines could not be written.", exc_info=True)

    def _write(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._repeated.warning("logs", "%d log lines were not captured, since too many came at once.", dropped)
        while self._lines:
            batch = [self._lines.popleft() for _ in range(min(len(self._lines), logs.AT_ONCE))]
            try:
                self._send(batch)
            except (DatabaseError, InterfaceError) as error:
                self._repeated.warning("logs", "Captured log lines could not be written: %s", error)
                if isinstance(error, (OperationalError, InterfaceError)):  # the database is not there, or will be
                    self._lines.extendleft(reversed(batch))
                    self._noticed.set()
                return

    def _send(self, batch: list[NewLine]) -> None:
        with self._commits.connection() as connection, self._commits.asking(connection):
            database.retrying(connection, lambda: logs.write(connection, batch))
