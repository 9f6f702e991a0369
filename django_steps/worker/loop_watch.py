"""Notices when something blocks the event loop, so that all async runs of the process wait for it: where, and in which run."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import FrameType
from typing import NamedTuple
from uuid import UUID

from .. import failures
from ..core.repeated import Repeated
from ..engine.frame import Frame
from ..engine.loops import PassLoop

logger = logging.getLogger("django_steps")

_INTERVAL = 0.1  # seconds between two looks
_LONG = 0.25  # seconds for which nothing may keep the loop
_MOST_FRAMES = 200


class Blockage(NamedTuple):
    """What keeps the loop: the line, the function, and the run that it belongs to (None: not known)."""

    place: str
    function: str
    run_id: UUID | None

    def __str__(self) -> str:
        return f"{self.place}, in {self.function}" + (f", run {self.run_id}" if self.run_id else "")


class LoopWatch:
    """Looks at a loop from a thread of its own, until it is stopped."""

    def __init__(self, loop: PassLoop, thread: threading.Thread) -> None:
        self._loop, self._thread = loop, thread
        self._repeated = Repeated(logger)
        self._stop = threading.Event()
        self._said_of: float | None = None  # the round that was spoken of, by when it began
        self.last: Blockage | None = None
        self._watching = threading.Thread(target=self._run, name="django-steps-loop-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._watching.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL):
            since = self._loop.rounds.busy_since
            if since is None or time.monotonic() - since < _LONG or since == self._said_of:
                continue
            found = self._look()
            if found is None or self._loop.rounds.busy_since != since:
                continue
            self._said_of, self.last = since, found
            self._repeated.warning(
                f"{found.place}",
                "The event loop has been blocked for %.2f s by now, at %s: all async runs of this process wait meanwhile. "
                "Await what takes long, or make it a plain step, which is executed on a thread.",
                time.monotonic() - since,
                found,
            )

    def _look(self) -> Blockage | None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        place: FrameType | None = None
        run_id: UUID | None = None
        for _ in range(_MOST_FRAMES):
            if frame is None:
                break
            code = frame.f_code
            if failures.is_users_code(code.co_filename):
                # The innermost one that is no library's, else the innermost.
                if place is None or (_is_library(place.f_code.co_filename) and not _is_library(code.co_filename)):
                    place = frame
            elif run_id is None:
                run_id = _run_of(frame)
            frame = frame.f_back
        if place is None or run_id is None:  # it is the engine that is busy, with many runs
            return None
        return Blockage(f"{place.f_code.co_filename}:{place.f_lineno}", place.f_code.co_qualname, run_id)


def _is_library(path: str) -> bool:
    return "site-packages" in path or path.startswith(sys.base_prefix)


def _run_of(frame: FrameType) -> UUID | None:
    """The run that one of the engine's own functions works for."""
    own = frame.f_locals.get("frame")
    return own.run_id if isinstance(own, Frame) else None
