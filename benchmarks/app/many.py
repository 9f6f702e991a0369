"""Many workers in one process, and a client that starts runs at a steady pace: for `many_workers.py`."""

from __future__ import annotations

import threading
import time

from django.db import connections

from django_steps.worker import Worker

from .workflows import steps


def work(count: int) -> None:
    """Be so many workers until killed: each a `Worker` as `runworkflows` has one, on a thread instead of in a process.

    Each has its own loop, heartbeat, maintenance, threads and connections, and its own row. What they share is the interpreter,
    and the clock that bounds how often a process notifies.
    """
    threads = [threading.Thread(target=_work, name=f"worker-{number}") for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work() -> None:
    try:
        Worker().run()
    finally:
        connections.close_all()


def start_steadily(rate: float, seconds: float, begin_at: float) -> dict[str, float]:
    """Start runs of one step at this rate (a second), from a moment on (seconds since 1970), each by itself.

    Where starts take too long for that, each follows the one before, for twice the time at most. How many there were, and in
    how many seconds.
    """
    connections["default"].ensure_connection()
    time.sleep(max(0.0, begin_at - time.time()))
    began, number = time.monotonic(), 0
    while number < rate * seconds and time.monotonic() < began + 2 * seconds:
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        steps.start({"size": 1})
        number += 1
    return {"started": number, "seconds": max(seconds, time.monotonic() - began)}
