"""How a worker process ends: SIGTERM or SIGINT once to end well, twice to end at once.

A handler runs between any two instructions of the main thread, which may hold any lock then: it only puts a word into
a queue, and a thread does the rest. Supervised workers also end when their supervisor is gone.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# The exit code of a process that ended with steps still running. They are picked up when their leases run out.
ENDED_AT_ONCE = 1

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_once() -> None:
    """End this process without waiting for anything, not even for somebody to read what it printed."""
    os._exit(ENDED_AT_ONCE)


class StopSignals:
    """While this is entered, the first signal calls `on_stop`, and the second ends the process.

    `is_stopping` tells whether there was one. Signals belong to the main thread: entered in any other, it changes nothing.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self.is_stopping = False
        self._words: queue.SimpleQueue[bool] = queue.SimpleQueue()  # the one queue that a handler may use
        self._before: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._act, name="django-steps-signals", daemon=True)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._receive) for signum in STOP_SIGNALS}
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if self._before:
            self._words.put(False)

    def stop_when_closed(self, descriptor: int) -> None:
        """Stop, too, when the other end of a pipe is closed: whoever holds it has gone."""
        threading.Thread(target=self._watch, args=(descriptor,), name="django-steps-supervisor", daemon=True).start()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.is_stopping:
            end_at_once()
        self.is_stopping = True
        self._words.put(True)

    def _act(self) -> None:
        if self._words.get():
            self._on_stop()

    def _watch(self, descriptor: int) -> None:
        while os.read(descriptor, 1024):
            pass
        self._words.put(True)
