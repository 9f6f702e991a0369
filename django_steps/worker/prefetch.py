"""How many runs a worker holds: as many as it has threads, and some ahead where passes are quick.

A claim costs about the same for one run as for many, so that it waits until half of those ahead have begun. Knows no
threads and no database.
"""

from __future__ import annotations

# As many runs are claimed ahead as will have begun in so many seconds; never more than so many for each thread (a few
# more where there are few threads), since a worker that dies takes them with it.
_AHEAD_FOR, _MOST_PER_THREAD, _FEW = 0.05, 2, 8


class Prefetch:
    """Measures how long passes take; `concurrency` is the number of threads."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self.usual: float | None = None  # seconds that a pass takes, rather too many than too few

    def note(self, seconds: float) -> None:
        """A pass took so long. One slow pass counts at once, and stops counting only after a number of quick ones."""
        if self.usual is None or seconds > self.usual:
            self.usual = seconds
        else:
            self.usual = self.usual * 0.8 + seconds * 0.2

    def note_wait(self) -> None:
        """A run that was claimed ahead has found no thread: none is claimed ahead until passes are known to be quick again."""
        self.note(max(self.usual or 0.0, 2 * self._concurrency * _AHEAD_FOR))

    @property
    def prefetches(self) -> bool:
        """Whether passes are quick enough for more runs to be held than there are threads."""
        return self._ahead() > 0

    def room(self, held: int) -> int:
        """How many runs to claim while so many are held."""
        return self._concurrency + self._ahead() - held if held <= self.low() else 0

    def low(self) -> int:
        """The number of held runs at which it is time to claim more: never so few that a thread has nothing to do."""
        return self._concurrency - 1 + (self._ahead() + 1) // 2

    def _ahead(self) -> int:
        if self.usual is None:
            return 0
        most = max(self._concurrency * _MOST_PER_THREAD, _FEW)
        return int(min(self._concurrency * _AHEAD_FOR / max(self.usual, 1e-6), most))
