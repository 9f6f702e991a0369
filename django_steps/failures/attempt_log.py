"""The attempts of a step that failed, as its record has logged them, for people to read.

A retry of the run counts a step's attempts from 1 again, and the log goes on: here the two are told apart. What writes
the log is `ledger/forgetting.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from ..core import clock
from . import codec

Entry = dict[str, Any]


def read_log(log: str, next_attempt: int) -> list[Entry]:
    """The entries of a log. `next_attempt` is the number of the attempt that comes, or came, after the last of them."""
    entries: list[Entry] = []
    # Read backwards, the numbers of one count fall. The first that doesn't is from before a retry, as all before it are:
    # no number is below 0.
    following = next_attempt
    for entry in reversed(json.loads(log) if log else []):
        following = entry["attempt"] if entry["attempt"] < following else 0
        entries.append(
            {
                "attempt": entry["attempt"],
                "before_retry": following == 0,
                "started_at": entry["started_at"] and clock.to_datetime(entry["started_at"]),
                "finished_at": entry["finished_at"] and clock.to_datetime(entry["finished_at"]),
                "error": codec.summary(entry["error"]),
            }
        )
    return entries[::-1]


def count_before_retry(entries: Sequence[Entry]) -> int:
    """How many attempts there were before the last retry of the run: each time, they were counted from 1.

    A log is cut where it is long: where what it has lost was the last attempt before a retry, this counts too few.
    """
    numbers = [entry["attempt"] for entry in entries if entry["before_retry"]]
    return sum(number for number, following in zip_longest(numbers, numbers[1:], fillvalue=0) if following <= number)
