"""Where a moment lies on a drawing of fixed width, when most of the time nothing happened.

Time in which steps executed keeps its proportions; where waiting would leave no room for it, waiting is drawn shorter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

_MOST_IDLE = 0.35  # of the width, for all waiting together
_LEAST = 0.01  # of the width, for all execution together: for less nothing is drawn shorter
_WORTH_IT = 1.0  # seconds of execution for which waiting is drawn as short as that; of 1 ms there is nothing to be seen


class Scale:
    """Percent of the width for moments (in seconds) between `start` and `end`; `busy` are the times of execution."""

    def __init__(self, start: float, end: float, busy: Iterable[tuple[float, float]]) -> None:
        self.start, self.end = start, max(end, start + 1e-6)
        spans = _united(busy, self.start, self.end)
        worked = sum(end - begin for begin, end in spans)
        idle = self.end - self.start - worked
        share = (1 - _MOST_IDLE) * min(1.0, worked / _WORTH_IT)
        self.is_compressed = share > _LEAST and worked < (self.end - self.start) * share * 0.73
        weight = worked / idle * (1 - share) / share if self.is_compressed else 1.0
        self._times, self._places, self._weights = [self.start], [0.0], [weight]
        for begin, end in spans:
            self._turn(begin, 1.0)
            self._turn(end, weight)
        self._total = self._place(self.end)

    def percent(self, moment: float) -> float:
        """The place of a moment, from 0 to 100."""
        return self._place(min(max(moment, self.start), self.end)) / self._total * 100

    def _turn(self, moment: float, weight: float) -> None:
        self._places.append(self._place(moment))
        self._times.append(moment)
        self._weights.append(weight)

    def _place(self, moment: float) -> float:
        index = bisect_right(self._times, moment) - 1
        return self._places[index] + (moment - self._times[index]) * self._weights[index]


def _united(spans: Iterable[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    united: list[tuple[float, float]] = []
    for begin, stop in sorted((max(begin, start), min(stop, end)) for begin, stop in spans):
        if stop <= begin:
            continue
        if united and begin <= united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], stop)
        else:
            united.append((begin, stop))
    return united
