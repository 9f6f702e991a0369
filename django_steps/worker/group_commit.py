"""Sharing commits between the passes of one worker.

A pass that records something while another one's commit is under way waits for that, and goes into the next one together
with all others that wait. A body goes on only after its own record is committed. The thread that finds no other one
writing, or not as many as may, writes itself, so that a single pass never waits for another thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db.backends.base.base import BaseDatabaseWrapper

from ..ledger import batches
from ..ledger.batches import Write

logger = logging.getLogger("django_steps")

# So many rows cost little more than one; more would make the first of them wait.
_AT_MOST = 64


class _Entry:
    __slots__ = ("error", "is_written", "leads", "turn", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.is_written = False
        self.leads = False
        self.error: Exception | None = None
        # Held until another thread has written for this one, or makes it the one that writes.
        self.turn = threading.Lock()
        self.turn.acquire()


class GroupCommit:
    """Writes records and endings of several passes with one commit where they come together.

    `writers`: how many commits may be under way at a time. With a second one the database works while the first one's
    threads go on with their bodies; SQLite, which has one writer, would only let it wait.
    """

    def __init__(self, writers: int = 1) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._idle_writers = writers

    def commit(self, connection: Callable[[], BaseDatabaseWrapper], write: Write) -> bool:
        """Write together with others; whether it is committed. If it isn't, it has to be written on its own.

        `connection` gives the calling thread's connection; it is asked only if this thread writes for all. Raises what
        the database raised for this write when it was alone.
        """
        entry = _Entry(write)
        with self._lock:
            if self._idle_writers:
                self._idle_writers -= 1
                entry.leads = True
            else:
                self._waiting.append(entry)
        if not entry.leads:
            entry.turn.acquire()
        if entry.leads:
            self._write_waiting(connection, entry)
        if entry.error is not None:
            raise entry.error
        return entry.is_written

    def _write_waiting(self, connection: Callable[[], BaseDatabaseWrapper], leader: _Entry) -> None:
        with self._lock:
            batch = [leader, *self._waiting[: _AT_MOST - 1]]
            del self._waiting[: _AT_MOST - 1]
        try:
            written = batches.write_many(connection(), [entry.write for entry in batch])
            for entry in batch:
                entry.is_written = batches.identity(entry.write) in written
        except Exception as error:
            if len(batch) == 1:
                leader.error = error
            else:  # each is written on its own then, and told what is wrong
                logger.debug("A shared commit failed: %s", error)
        finally:
            self._pass_on(batch)

    def _pass_on(self, batch: list[_Entry]) -> None:
        """Let those go on that are written for, and make one of those that came meanwhile write next."""
        with self._lock:
            successor = self._waiting.pop(0) if self._waiting else None
            if successor is None:
                self._idle_writers += 1
            else:
                successor.leads = True
        if successor is not None:
            successor.turn.release()
        for entry in batch[1:]:
            entry.turn.release()
