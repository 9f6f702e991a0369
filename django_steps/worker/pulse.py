"""The heartbeat file: a file that is touched as long as a worker works, for whoever restarts it otherwise.

The thread of the heartbeat touches it if the loop has said that it works: so it grows old where either of them hangs. That the
database can't be reached is no reason to restart a worker, and doesn't make it old.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..core.repeated import Repeated

logger = logging.getLogger("django_steps")

_INTERVAL = 1.0  # seconds between two touches
# Seconds for which a worker of a supervisor may leave its file alone.
_FRESH = 10.0


def touch(path: Path) -> None:
    """Make the file, or make it new; raises `OSError`, also where it is a directory."""
    with path.open("ab"):
        os.utime(path)


class Pulse:
    """Touches a file each second while the loop works. Without a path it does nothing.

    `slack`: seconds that the loop may take beyond the time that it has said.
    """

    def __init__(self, path: Path | None, slack: float) -> None:
        self._path, self._slack = path, slack
        self._works_until = time.monotonic() + slack
        self._repeated = Repeated(logger)

    def works(self, seconds: float = 0.0) -> None:
        """The loop works, and is going to wait for so long; `math.inf`: nothing is expected of it any more."""
        self._works_until = time.monotonic() + seconds + self._slack

    def look(self) -> None:
        """Touch the file if the loop works: about each second, on another thread than the loop's."""
        if self._path is None or time.monotonic() > self._works_until:
            return
        _touch(self._path, self._repeated)


class Gathered:
    """Touches the file of a supervisor while each of its workers touches its own."""

    def __init__(self, path: Path, processes: int) -> None:
        self._path = path
        self.paths = [_of_worker(path, number) for number in range(processes)]
        # The time of each file as it was seen last, and when that had changed, by `time.monotonic()`.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._looks_at = 0.0
        self._repeated = Repeated(logger)

    def look(self, numbers: Sequence[int]) -> None:
        """Touch the file if the files of the workers with these numbers are fresh; about each second."""
        now = time.monotonic()
        if now < self._looks_at:
            return
        self._looks_at = now + _INTERVAL
        fresh = [self._is_fresh(self.paths[number], now) for number in numbers]  # each is looked at
        if all(fresh):
            _touch(self._path, self._repeated)

    def _is_fresh(self, path: Path, now: float) -> bool:
        try:
            touched = path.stat().st_mtime_ns
        except OSError:
            return False
        if path not in self._seen:  # it may be one that an earlier worker has left
            self._seen[path] = (touched, -math.inf)
        elif self._seen[path][0] != touched:
            self._seen[path] = (touched, now)
        return now - self._seen[path][1] <= _FRESH


def _of_worker(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number + 1}")


def _touch(path: Path, repeated: Repeated) -> None:
    try:
        touch(path)
        repeated.over("touch", "The heartbeat file can be written again.")
    except OSError as error:
        repeated.warning("touch", "The heartbeat file could not be written, trying again: %s", error)
