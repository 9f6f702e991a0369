"""The threads that write what async passes have submitted: begun with the first of it, as many as there are writers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger("django_steps")


class Committers:
    """Calls `commit()` while it returns that there was something, whenever there may be."""

    def __init__(self, commit: Callable[[], bool], most: int) -> None:
        self._commit, self._most = commit, most
        self._noticed: SimpleQueue[bool] = SimpleQueue()
        self._is_noticed = False
        self._threads: list[threading.Thread] = []
        self._is_stopped = False

    def notice(self) -> None:
        """Something was submitted. One thread that is idle is woken; a further one while that writes."""
        if self._is_noticed:
            return
        self._is_noticed = True
        if self._is_stopped:  # a step that has lasted longer than the worker waited for it
            threading.Thread(target=self._write, name="django-steps-committer", daemon=True).start()
            return
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name="django-steps-committer", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._noticed.put(True)

    def stop(self) -> None:
        """Let the threads end."""
        self._is_stopped = True
        for _ in self._threads:
            self._noticed.put(False)

    def _run(self) -> None:
        while self._noticed.get():
            self._write()

    def _write(self) -> None:
        self._is_noticed = False  # before the look, so that what is submitted after it is noticed
        try:
            while self._commit():
                pass
        except Exception:  # what could not be written together is written by itself
            logger.debug("What was submitted could not be written together.", exc_info=True)
