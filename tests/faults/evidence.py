"""What bodies and steps really did: a file to which every process appends lines, and which no fault loses.

It is apart from the database on purpose, so that what the database says can be held against it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "FAULTS_EVIDENCE"
# How far the machine's clock is ahead of its monotonic one, which no fault changes.
CLOCK_VARIABLE = "FAULTS_CLOCK"


def note(label: str, event: str, step: str, token: str = "", attempt: int = 1) -> None:
    """Append one line by one system call: lines of several processes never mix, and a killed one leaves all or nothing."""
    line = f"{label} {event} {step} {token or '-'} {attempt} {os.getpid()}\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


# By file: the least that the clock was ahead by when a process was started.
_least_ahead: dict[str, int] = {}


def environment(path: Path) -> dict[str, str]:
    """What a process needs to leave evidence."""
    ahead = _ahead()
    _least_ahead[str(path)] = min(ahead, _least_ahead.get(str(path), ahead))
    return {VARIABLE: str(path), CLOCK_VARIABLE: str(ahead)}


def set_forward(path: Path) -> int:
    """By how many microseconds the machine's clock was set forward meanwhile, as that of a virtual machine may be: the time of
    the database goes with it, and that of the processes, which they count from their start, doesn't.
    """
    return max(0, _ahead() - _least_ahead.get(str(path), _ahead())) // 1000


def _ahead() -> int:
    return time.time_ns() - time.monotonic_ns()


def real_time() -> int:
    """The machine's time in microseconds, whatever this process takes for the time."""
    return (time.monotonic_ns() + int(os.environ[CLOCK_VARIABLE])) // 1000


@dataclass(frozen=True, slots=True)
class Line:
    """`event`: `execute` (a step's function begins), `saw` (the body went on with its outcome), `end` (of the body),
    `clock` (what the process takes for the time)."""

    event: str
    step: str
    token: str
    attempt: int
    pid: int


def read(path: Path) -> dict[str, list[Line]]:
    """All lines, by the label of their run, in the order in which they were written."""
    found: dict[str, list[Line]] = defaultdict(list)
    if path.exists():
        for text in path.read_text().splitlines():
            label, event, step, token, attempt, pid = text.split(" ")
            found[label].append(Line(event, step, token, int(attempt), int(pid)))
    return found
