"""Replays on a thread of its own, so that a body that does not come to its next step is left alone after a time."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from queue import SimpleQueue

from django.db import DatabaseError, connections

from . import verdicts
from .recordings import Recording
from .replays import replay
from .verdicts import Verdict

_Work = tuple[Recording, Future[Verdict]]


class Replayer:
    """Replays runs one after the other; each may take so many seconds. Use it as a context manager."""

    def __init__(self, alias: str, seconds: float) -> None:
        self._alias, self._seconds = alias, seconds
        self._queue: SimpleQueue[_Work | None] | None = None

    def __enter__(self) -> Replayer:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._queue is not None:
            self._queue.put(None)

    def replay(self, recording: Recording) -> Verdict:
        """What becomes of a run. One that takes too long keeps its thread, which ends with the process."""
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(target=self._work, args=[self._queue], name="django-steps-replays", daemon=True).start()
        answer: Future[Verdict] = Future()
        self._queue.put((recording, answer))
        try:
            return answer.result(self._seconds)
        except TookTooLong:
            self._queue = None
            return verdicts.slow(recording, self._seconds)
        except DatabaseError:
            raise
        except Exception as error:  # and the others are replayed all the same
            return verdicts.broken(recording, error)

    def _work(self, queue: SimpleQueue[_Work | None]) -> None:
        try:
            while (work := queue.get()) is not None:
                recording, answer = work
                try:
                    answer.set_result(replay(recording, self._alias))
                except BaseException as error:
                    answer.set_exception(error)
        finally:
            connections.close_all()
