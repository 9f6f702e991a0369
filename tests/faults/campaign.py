"""Processes of several kinds that are killed now and then, and started again as often as they die."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping

from django.conf import settings

from .processes import Workers

# The isolation levels of the sessions of the first process, the second, and the third. Of a worker PostgreSQL's has to be the
# first one.
LEVELS = ("read committed", "repeatable read", "serializable")


def level_of(number: int) -> dict[str, str]:
    """What a process needs for its isolation level."""
    return {} if settings.DATABASE == "sqlite" else {"FAULTS_ISOLATION": LEVELS[number]}


def level_of_worker(number: int) -> dict[str, str]:
    """The same for a worker."""
    return level_of(number) if settings.DATABASE == "mysql" else {}


class Crowd:
    """`kinds`: how many processes there are of each kind, and what starts the one of a number."""

    def __init__(
        self,
        workers: Workers,
        chance: random.Random,
        kinds: Mapping[str, tuple[int, Callable[[int], subprocess.Popen[bytes]]]],
    ) -> None:
        self._workers, self._chance, self._kinds = workers, chance, kinds
        self.of = {kind: [start(number) for number in range(count)] for kind, (count, start) in kinds.items()}
        self.deaths: Counter[str] = Counter()
        self._kill_at, self._done = time.monotonic() + 2, 0

    def replace_the_dead(self) -> None:
        """Start those again that were killed or have killed themselves; none may end otherwise, but by having finished."""
        for kind, processes in self.of.items():
            for number, process in enumerate(processes):
                if process.poll() not in (None, 0):
                    assert process.returncode == -signal.SIGKILL, self._workers.log()
                    self.deaths[kind] += 1
                    processes[number] = self._kinds[kind][1](number)

    def kill_now_and_then(self, progress: Callable[[], int], least: int = 1) -> None:
        """Every few seconds: one process, or one of each kind at once; none before so much has been done since the last time,
        so that a slow machine is no reason never to come to an end."""
        if time.monotonic() < self._kill_at or (done := progress()) < self._done + least:
            return
        self._kill_at, self._done = time.monotonic() + self._chance.uniform(0.5, 4), done
        every = list(self.of.values())
        for processes in self._chance.choice([*([one] for one in every), every]):
            processes[self._chance.randrange(len(processes))].kill()
