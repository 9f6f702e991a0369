"""How many runs of a workflow, or of a queue, may execute at once, and how many may begin in a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, overload

from ..durations import rate_interval

Hold = Literal["executing", "unfinished"]

MOST = 1_000_000


class Stage:
    """Where a run holds the slots of a limit: the first and the second of its workflow, and its queue's. It gets in the lines
    in this order."""

    FIRST: Final = "1"
    SECOND: Final = "2"
    QUEUE: Final = "q"


class Limit:
    """How many runs of a workflow execute at once, and how many begin in a time: `@workflow(limit=Limit(…))`.

    - `at_once`: a whole number of runs. `hold` says how long a run counts, and is required then: `"executing"`, while it
      executes or is ready to; or `"unfinished"`, from its beginning to its end, while it sleeps and waits, too.
    - `rate`: text such as `"100/m"` or `"5/s"`: so many runs begin in this time, evenly spread. It counts how often runs begin,
      not their passes. `burst`: how many may begin at the same moment after a quiet time; one second's worth always may.
    - `key`: a function of the input: each key has slots and a rate of its own. It gives text, a whole number, an Enum member,
      a UUID, a date or a model's instance, and is called once, when a run is started.

    Raises `TypeError` or `ValueError`.

    >>> Limit(at_once=1, key=lambda input: input["customer"], hold="unfinished")
    Limit(at_once=1, hold='unfinished', key=<lambda>)
    """

    @overload
    def __init__(
        self,
        *,
        at_once: int,
        hold: Hold,
        rate: str | None = None,
        burst: int = 1,
        key: Callable[[Any], object] | None = None,
    ) -> None: ...
    @overload
    def __init__(self, *, rate: str, burst: int = 1, key: Callable[[Any], object] | None = None) -> None: ...

    def __init__(
        self,
        *,
        at_once: int | None = None,
        rate: str | None = None,
        burst: int = 1,
        key: Callable[[Any], object] | None = None,
        hold: Hold | None = None,
    ) -> None:
        if at_once is None and rate is None:
            raise TypeError("A Limit needs at_once= or rate=.")
        if at_once is not None and hold is None:
            raise TypeError(
                'at_once= needs hold="executing" (a run counts while it executes) or hold="unfinished" (from its beginning to'
                " its end, while it sleeps or waits, too)."
            )
        if at_once is None and hold is not None:
            raise TypeError("hold= goes with at_once=: a rate alone holds nothing.")
        if hold not in (None, "executing", "unfinished"):
            raise ValueError(f'hold= takes "executing" or "unfinished", got {hold!r}.')
        if key is not None and not callable(key):
            raise TypeError(f"key= of a Limit takes a function of the input, got {key!r}.")
        self.at_once = None if at_once is None else _count(at_once, "at_once")
        self.rate, self.key, self.hold = rate, key, hold
        self.interval_us = None if rate is None else rate_interval(rate)
        self.burst = _count(burst, "burst")
        if rate is None and burst != 1:
            raise TypeError("burst= goes with rate=.")

    def __repr__(self) -> str:
        said = {"at_once": self.at_once, "hold": self.hold, "rate": self.rate}
        parts = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        parts += [f"burst={self.burst}"] if self.burst != 1 else []
        parts += [f"key={getattr(self.key, '__name__', self.key)}"] if self.key is not None else []
        return f"Limit({', '.join(parts)})"

    @property
    def rule(self) -> str:
        """What stands before the name of the limit in a run's row; see `ledger/lines.py`."""
        held = {"unfinished": "u", "executing": "e", None: "r"}[self.hold]
        return held + ("t" if self.rate is not None else "-")


def _count(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} of a Limit takes a whole number, got {value!r}.")
    if not 1 <= value <= MOST:
        raise ValueError(f"{what} of a Limit takes a whole number from 1 to {MOST:,}, got {value!r}.")
    return int(value)


def definition_name(stage: str, of: str) -> str:
    """The name of a limit of a workflow or queue, for all keys."""
    return f"{stage}:#{of}"


def limit_name(stage: str, of: str, key: str) -> str:
    """The name of a limit for one key, in which no `#` stands; an empty key: that of all runs."""
    return f"{stage}:{key}#{of}"


def definition_of(name: str) -> str:
    """The name without the key of a limit for one key.

    >>> definition_of("1:7#sync")
    '1:#sync'
    """
    return name[:2] + name[name.index("#") :]


def shown(name: str) -> str:
    """A limit as people read it.

    >>> shown("1:7#sync"), shown("2:#sync"), shown("q:#mail")
    ('sync 7', 'sync', 'queue mail')
    """
    key, _, of = name[2:].partition("#")
    if name[0] == Stage.QUEUE:
        return f"queue {of}"
    return f"{of} {key}" if key else of
