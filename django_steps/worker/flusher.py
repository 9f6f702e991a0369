"""The thread that writes what was handed over to be committed, and that nobody waits for yet.

Whoever hands records over goes on with something else, and waits for them later. If that takes long, they are written here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("django_steps")

_SOON = 0.01  # seconds for which a record that was handed over may wait for company


class Flusher:
    """Calls `flush(older_than)` now and then while it returns that there is anything left; begins with the first notice."""

    def __init__(self, flush: Callable[[float], bool]) -> None:
        self._flush = flush
        self._noticed = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def notice(self) -> None:
        """Something was handed over."""
        if self._noticed.is_set():
            return
        self._noticed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="django-steps-flusher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop; what is left is written by those who wait for it."""
        self._stopped.set()
        self._noticed.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._noticed.wait()
            # Cleared before the last look, so that what is handed over after it is noticed.
            while not self._stopped.wait(_SOON):
                self._noticed.clear()
                try:
                    if not self._flush(_SOON):
                        break
                except Exception:  # those who wait for it write it, or hear what is wrong
                    logger.debug("A record could not be written by the flusher.", exc_info=True)
