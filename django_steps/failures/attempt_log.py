"""The attempts of a step that failed, as the log in its record holds them, for people to read.

A retry of the run counts a step's attempts from 1 again, and the log goes on: here the two are distinguished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from ..core import clock
from .codec import FailureRecord, summary

Entry = dict[str, Any]

_LATEST_KEPT = 29
_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 2000, 8000


def append_attempt(
    log: str,
    number: int,
    started_at: int | None,
    finished_at: int | None,
    error: str | None,
    postponements: int = 0,
) -> str:
    """The text of an attempt log with one more entry; times in microseconds, `error` as the record of the failure.

    `postponements`: the attempt has ended by `RetryAfter`, so that it is not used up; so many in succession.

    Of many attempts the log keeps the first and the latest, of an error what people are shown.
    """
    entries: list[dict[str, Any]] = _entries(log)
    shown = None if error is None else FailureRecord.read(error).shortened(_LONGEST_MESSAGE, _LONGEST_TRACEBACK)
    entry = {"attempt": number, "started_at": started_at, "finished_at": finished_at, "error": shown}
    entries.append({**entry, "postponed": postponements} if postponements else entry)
    return json.dumps([*entries[:1], *entries[1:][-_LATEST_KEPT:]])


def count_postponements(log: str) -> int:
    """How many attempts in succession, up to the last one, have ended by `RetryAfter`."""
    entries = _entries(log)
    return int(entries[-1].get("postponed", 0)) if entries and isinstance(entries[-1], dict) else 0


def read_log(log: str, next_attempt: int) -> list[Entry]:
    """The entries of a log; raises one of several errors for a damaged one.

    `next_attempt` is the number of the attempt that comes, or came, after the last of them.
    """
    entries: list[Entry] = []
    # Read backwards, the numbers of one count fall. The first that doesn't is from before a retry, as all before it are:
    # no number is below 0.
    following = next_attempt
    for entry in reversed(json.loads(log) if log else []):
        if not isinstance(entry, dict):
            raise TypeError("A log of attempts holds something else.")
        postponed = entry.get("postponed", 0) > 0  # the next attempt has the same number
        following = entry["attempt"] if entry["attempt"] < following + postponed else 0
        entries.append(
            {
                "attempt": entry["attempt"],
                "postponed": postponed,
                "before_retry": following == 0,
                "started_at": entry["started_at"] and clock.to_datetime(entry["started_at"]),
                "finished_at": entry["finished_at"] and clock.to_datetime(entry["finished_at"]),
                "error": summary(entry["error"]),
            }
        )
    return entries[::-1]


def count_before_retry(entries: Sequence[Entry]) -> int:
    """How many attempts there were before the last retry of the run: each time, they were counted from 1.

    A log is cut where it is long: where what it has lost was the last attempt before a retry, this counts too few.
    """
    numbers = [entry["attempt"] for entry in entries if entry["before_retry"] and not entry["postponed"]]
    return sum(number for number, following in zip_longest(numbers, numbers[1:], fillvalue=0) if following <= number)


def _entries(log: str) -> list[Any]:
    """What a log holds; nothing where it is damaged, since that must not hold up an attempt."""
    try:
        entries = json.loads(log) if log else []
    except (ValueError, RecursionError):
        return []
    return entries if isinstance(entries, list) else []
