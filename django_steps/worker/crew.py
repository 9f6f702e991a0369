"""Which work of runs the idle threads of a worker can help with: what is executed side by side."""

from __future__ import annotations

import threading

from ..engine.host import Helpable


class Crew:
    """The work that is on offer. Threads that are idle ask for it, and are woken when there is some; here there are none."""

    def __init__(self) -> None:
        self._offered: list[Helpable] = []
        self._lock = threading.Lock()

    def offer(self, work: Helpable) -> None:
        """Let threads that are idle help, until `withdraw()`. One is woken: whether more are of use shows then."""
        with self._lock:
            self._offered.append(work)
        if work.wants_help():
            self.wake_one()

    def withdraw(self, work: Helpable) -> None:
        """Let no more threads help."""
        with self._lock:
            self._offered.remove(work)

    def work(self) -> Helpable | None:
        """Work that wants help now."""
        if not self._offered:
            return None
        with self._lock:
            offered = list(self._offered)
        return next((work for work in offered if work.wants_help()), None)

    def look(self) -> None:
        """Time has passed: what waits for it may want help by now."""
        if self.work() is not None:
            self.wake_one()

    def park(self) -> None:
        """Keep the calling thread waiting for good."""

    def wake_one(self) -> None:
        """Let one more thread look for work."""

    def wake_all(self) -> None:
        """Let all threads that are idle look for work."""
