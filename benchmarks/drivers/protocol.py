"""What all drivers share: commands in, one line of JSON out, and the notes that a body leaves of when it was where.

Only the standard library, since every driver runs in an environment of its own.

    migrate()                       make the tables
    start(workflow, size, count)    start runs, as fast as it goes; not timed
    start_singly(count)             -> {"seconds"}: starts, one after the other
    start_together(count)           -> {"seconds"}: starts in batches of 100 in one transaction, or the nearest to it
    start_slowly(count, gap)        -> {"started": {id: time}}: starts with pauses
    send_slowly(count, gap)         -> {"started": {id: time}}: ours, events for runs that wait, when they were committed
    work(...)                       be a worker until killed

What `start` starts: `steps`, `async_steps` (the same from an async body), `async_naps` (each of its steps waits), `sleeper`
and `resume`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 100
NAP = 0.05  # seconds that a step of `async_naps` waits


def serve(**commands: Callable[..., Any]) -> None:
    """Execute the command of this process's command line, and print its answer."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(commands[name](**arguments)), flush=True)


def database() -> dict[str, Any]:
    """Where to work: `host`, `port`, `user` and `name`, or the `path` of a SQLite file."""
    place: dict[str, Any] = json.loads(os.environ["BENCHMARK_DATABASE"])
    return place


def url() -> str:
    """The same as a PostgreSQL URL."""
    place = database()
    return f"postgresql://{place['user']}@{place['host']}:{place['port']}/{place['name']}"


def seconds(work: Callable[[], Any]) -> dict[str, float]:
    """How long a piece of work takes."""
    began = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - began}


def slowly(start: Callable[[], object], count: int, gap: float) -> dict[str, dict[str, float]]:
    """Start with pauses of about `gap` seconds: irregular ones, so that no poll interval fits them by chance."""
    pauses = random.Random(1)
    started: dict[str, float] = {}
    for _ in range(count):
        time.sleep(gap * pauses.uniform(0.7, 1.3))
        now = time.time()
        started[str(start())] = now
    return {"started": started}


def note(event: str) -> None:
    """Leave a note of when a body was where."""
    with Path(os.environ["BENCHMARK_NOTES"]).open("a") as file:
        file.write(json.dumps([event, time.time()]) + "\n")


def is_first_time() -> bool:
    """Whether nobody has asked before, in whatever process."""
    try:
        Path(os.environ["BENCHMARK_NOTES"] + ".failed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
