"""The attempts of a step that failed, as its record has logged them, for people to read.

A retry of the run counts a step's attempts from 1 again, and the log goes on: here the two are told apart. What writes
the log is `ledger/forgetting.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from . import failures
from .ledger import sql

Entry = dict[str, Any]


def read_log(log: str, limit: int) -> list[Entry]:
    """The entries of a log; those of the present count have numbers below `limit`, others are from before a retry."""
    entries: list[Entry] = []
    for entry in reversed(json.loads(log) if log else []):
        limit = entry["attempt"] if entry["attempt"] < limit else 0
        entries.append(
            {
                "attempt": entry["attempt"],
                "before_retry": not limit,
                "started_at": entry["started_at"] and sql.to_datetime(entry["started_at"]),
                "finished_at": entry["finished_at"] and sql.to_datetime(entry["finished_at"]),
                "error": failures.summary(entry["error"]),
            }
        )
    return entries[::-1]


def count_before_retry(entries: Sequence[Entry]) -> int:
    """How many attempts there were before the last retry of the run: each time, they were counted from 1."""
    numbers = [entry["attempt"] for entry in entries if entry["before_retry"]]
    return sum(number for number, following in zip_longest(numbers, numbers[1:], fillvalue=0) if following <= number)
