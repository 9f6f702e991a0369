"""What users say about a poll: how often it checks, when it is done, and when it gives up.

Only the rules are here. Checking, recording and waiting are in `engine/operations/poll.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.retries import check_coefficient
from ..durations import LONGEST, Duration, to_microseconds

_LONGEST_US = to_microseconds(LONGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """The options of one poll, checked; durations in microseconds."""

    every_us: int
    backoff: float = 1.0
    longest_us: int = _LONGEST_US
    timeout_us: int | None = None
    max_checks: int | None = None
    until: Callable[[Any], object] | None = None

    def is_done(self, value: Any) -> bool:
        """Whether a check has found what is waited for; raises what `until` raises."""
        return bool(value if self.until is None else self.until(value))

    def interval_us(self, checks: int) -> int:
        """How long to wait after so many checks."""
        try:
            interval = int(self.every_us * self.backoff ** (checks - 1))
        except OverflowError:
            return self.longest_us
        return min(interval, self.longest_us)

    @property
    def is_bounded(self) -> bool:
        """Whether it comes to an end in any case."""
        return self.timeout_us is not None or self.max_checks is not None


def polling(
    name: str,
    *,
    every: Duration,
    backoff: float,
    max_interval: Duration | None,
    timeout: Duration | None,
    max_checks: int | None,
    until: Callable[[Any], object] | None,
) -> Polling:
    """Check the options of the poll of this name; raises `TypeError` or `ValueError`."""
    if until is not None and not callable(until):
        raise TypeError(f"until of poll {name!r} takes a function of the value, or None, got {until!r}.")
    every_us = to_microseconds(every)
    return Polling(
        every_us=every_us,
        backoff=check_coefficient(backoff, f"backoff of poll {name!r}"),
        longest_us=_LONGEST_US if max_interval is None else max(every_us, to_microseconds(max_interval)),
        timeout_us=None if timeout is None else to_microseconds(timeout),
        max_checks=None if max_checks is None else _check_count(max_checks, f"max_checks of poll {name!r}"),
        until=until,
    )


def _check_count(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes a whole number, got {value!r}.")
    if value < 1:
        raise ValueError(f"{what} must be at least 1, got {value}.")
    return value
