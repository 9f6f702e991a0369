"""Sharing commits between the passes of one worker, and the connections that do them.

A pass that records something while another one's commit is not over waits for that, and goes into the next one together
with all others that wait. A body goes on only after its own record is committed. The thread that finds no other one
writing, or not as many as may, writes itself, so that a single pass never waits for another thread.

Whoever writes for all holds one of a few writers, and so does whoever borrows a connection for something else. Threads
that have a connection of their own use it: then no thread ever holds two.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine.connections import cut, is_changed, socket_of
from ..ledger import batches, database
from ..ledger.batches import Write
from .committers import Committers
from .flusher import Flusher
from .tellings import Tellings
from .writers import Writer

logger = logging.getLogger("django_steps")

# So many rows cost little more than one; more would make the first of them wait.
_AT_MOST = 64
_AT_MOST_SUBMITTED = 256  # where no thread waits for the first of them
# Writers that are all held for so many seconds wait for something, the lock of a run for example: there is a spare one
# then, so that the other runs don't wait as well.
_LONG_HELD = 0.5


class Entry:
    """Somebody who waits: with a `write` that others may take along, or without one, for a connection."""

    __slots__ = ("answered", "error", "is_answered", "is_written", "since", "turn", "write", "writer")

    def __init__(self, write: Write | None, answered: Answered | None = None) -> None:
        self.write = write
        # Called by whoever receives answers, where no thread waits for one.
        self.answered = answered
        self.since = 0.0  # when it was handed over, where nobody waits for it yet
        self.is_answered = False
        self.is_written = False
        self.writer: Writer | None = None  # what this one holds, and has to hand on
        self.error: Exception | None = None
        if answered is None:
            # Held until another thread has written for this one, or hands a writer to it.
            self.turn = threading.Lock()
            self.turn.acquire()


Answered = Callable[[Entry], None]
Receive = Callable[[Sequence[Entry]], None]


class _Asked:
    """A statement whose answer is waited for: since when, on which socket, and whether that was cut."""

    __slots__ = ("is_cut", "number", "since")

    def __init__(self, number: int | None) -> None:
        self.since, self.number, self.is_cut = time.monotonic(), number, False


class GroupCommit:
    """Writes records and endings of several passes with one commit where they come together.

    `writers`: how many commits there may be at a time. With a second one the database works while the first one's
    threads go on with their bodies; SQLite, which has one writer, would only let it wait.
    """

    def __init__(self, alias: str, writers: int = 1) -> None:
        self.alias = alias
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []
        self._submitted: deque[Entry] = deque()  # what no thread waits for
        self._writers = [Writer(alias) for _ in range(writers)]
        self._idle = list(self._writers)
        self._is_closed = False
        self._asked: set[_Asked] = set()  # what is sent now
        self._cutting = threading.Lock()
        # One that writes waits for the file there, and so would another one.
        self._is_sqlite = connections[alias].vendor == "sqlite"
        self._flusher = Flusher(self.flush)
        self.tellings = Tellings()
        self._committers = Committers(self._commit_submitted, writers)
        # Takes the entries that were submitted and are answered; may be called from any thread.
        self.receive: Receive = lambda entries: None

    def commit(self, write: Write) -> bool:
        """Write together with others; whether it is committed. If it isn't, it has to be written on its own.

        Raises what the database raised for this write when it was alone.
        """
        entry = Entry(write)
        self._wait_for_turn(entry)
        if entry.writer is not None:
            self._write_waiting(entry, entry.writer)
        if entry.error is not None:
            raise entry.error
        return entry.is_written

    def hand_over(self, write: Write) -> Entry:
        """Let whoever writes next write this, too; returns at once. Somebody has to `settle()` it."""
        entry = Entry(write)
        entry.since = time.monotonic()
        with self._lock:
            self._waiting.append(entry)
        self._flusher.notice()
        return entry

    def settle(self, entry: Entry) -> bool:
        """Wait until what was handed over is committed, and write it here if nobody else does. As `commit()`."""
        self._take_turn(entry)
        if entry.writer is not None:
            self._write_waiting(entry, entry.writer)
        if entry.error is not None:
            raise entry.error
        return entry.is_written

    def submit(self, write: Write, answered: Answered) -> None:
        """Let this be written together with others, by a thread that is there for that; `receive` gets it with `answered`."""
        self._submitted.append(Entry(write, answered))
        self._committers.notice()

    def _commit_submitted(self) -> bool:
        """Write what was submitted, and what else waits; whether there was anything."""
        if not self._submitted:
            return False
        leader = Entry(None)
        self._wait_for_turn(leader)
        if leader.writer is not None:
            self._write_waiting(leader, leader.writer)
        return True

    def flush(self, older_than: float) -> bool:
        """Write what was handed over so many seconds ago and is not settled; whether there is anything left of it."""
        longest = time.monotonic() - older_than
        with self._lock:
            left = [entry for entry in self._waiting if entry.since]
            old = next((entry for entry in left if entry.since < longest), None)
            if old is None or not self._idle:
                return bool(left)
            self._waiting.remove(old)
            self._hand_out(self._idle.pop(), old)
        writer, old.writer = old.writer, None
        assert writer is not None
        try:
            self._write_waiting(old, writer)
        finally:
            old.is_answered = True
            old.turn.release()
        return True

    @contextmanager
    def connection(self) -> Iterator[BaseDatabaseWrapper]:
        """A connection for whatever is not written together: the thread's own if it has one, else one of the writers'."""
        own = self._own_connection()
        if own is not None:
            yield own
            return
        entry = Entry(None)
        self._wait_for_turn(entry)
        assert entry.writer is not None
        has_failed = True
        try:
            connection = entry.writer.connection()
            yield connection
            has_failed = connection.errors_occurred
        finally:
            if has_failed:
                entry.writer.check()
            self._pass_on(entry.writer)

    @contextmanager
    def asking(self, connection: BaseDatabaseWrapper) -> Iterator[_Asked]:
        """A statement of the worker's own is sent on the connection, and its answer is waited for."""
        connection.ensure_connection()
        # Another thread can't ask for the number while this one waits: MySQL's client refuses that.
        asked = _Asked(socket_of(connection))
        self._asked.add(asked)
        try:
            yield asked
        finally:
            with self._cutting:  # from here on the number may become another socket's
                self._asked.remove(asked)

    def cut_silent(self, seconds: float) -> None:
        """Cut the connections on which an answer has been waited for so long: the thread that waits gets an error, and asks
        on another one. May be called from any thread.

        What is asked is short, so that there is a lock in its way, or nobody will ever answer. It may be asked twice.
        """
        longest = time.monotonic() - seconds
        with self._cutting:
            for asked in self._asked.copy():
                if asked.since < longest and asked.number is not None and not asked.is_cut:
                    asked.is_cut = cut(asked.number)
                    text = "Database %r has not answered for %g seconds; the connection is cut."
                    logger.warning(text, self.alias, seconds)

    def close_unused(self, seconds: float) -> None:
        """Close the connections that no thread has used for so long."""
        with self._lock:
            idle, self._idle = self._idle, []
        for writer in idle:
            writer.close_if_unused(seconds)
            self._pass_on(writer)

    def close(self) -> None:
        """Close all connections: those that are held now, when they come back."""
        self._is_closed = True
        self._flusher.stop()
        self._committers.stop()
        self.close_unused(0)

    # -- Taking turns ---------------------------------------------------------------------------

    def _wait_for_turn(self, entry: Entry) -> None:
        """Wait until the entry holds a writer, or is written by another thread."""
        with self._lock:
            if self._idle:
                self._hand_out(self._idle.pop(), entry)
                return
            self._waiting.append(entry)
        self._await_turn(entry)

    def _take_turn(self, entry: Entry) -> None:
        """The same of an entry that was handed over."""
        with self._lock:
            entry.since = 0.0
            if entry in self._waiting and self._idle:
                self._waiting.remove(entry)
                self._hand_out(self._idle.pop(), entry)
                return
        self._await_turn(entry)

    def _await_turn(self, entry: Entry) -> None:
        try:
            while not entry.turn.acquire(timeout=_LONG_HELD):
                self._take_spare(entry)
        except BaseException:  # raised into this thread: whoever hands something to it would wait for an answer
            self._leave(entry)
            raise

    def _hand_out(self, writer: Writer, entry: Entry) -> None:
        writer.held_since = time.monotonic()
        entry.writer = writer

    def _take_spare(self, entry: Entry) -> None:
        """Let one that waits have a spare writer, if all others have been held for long."""
        with self._lock:
            is_taken_along = entry not in self._waiting
            if is_taken_along or not self._are_held_for_long(all) or (self._is_sqlite and entry.write is not None):
                return
            self._waiting.remove(entry)
            writer = Writer(self.alias, is_spare=True)
            self._writers.append(writer)
            self._hand_out(writer, entry)
        entry.turn.release()

    def _leave(self, entry: Entry) -> None:
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
        if entry.writer is not None:
            self._pass_on(entry.writer)

    def _pass_on(self, writer: Writer, written: Sequence[Entry] = ()) -> None:
        """Hand a writer to the next one that waits, if there is any, and let those go on that are written for."""
        if self._is_closed:
            writer.close()
        successor = None
        with self._lock:
            writer.held_since = math.inf
            is_surplus = writer.is_spare and not self._are_held_for_long(any)
            if is_surplus:
                self._writers.remove(writer)
            elif (successor := next((entry for entry in self._waiting if not entry.since), None)) is not None:
                self._waiting.remove(successor)
                self._hand_out(writer, successor)
            else:
                self._idle.append(writer)
        if successor is not None:
            successor.turn.release()
        submitted = [entry for entry in written if entry.answered]
        for entry in written:
            if entry.answered is None:
                entry.is_answered = True
                entry.turn.release()
        if submitted:
            self.receive(submitted)
        if is_surplus:
            writer.close()

    def _are_held_for_long(self, which: Callable[[Iterable[bool]], bool]) -> bool:
        """Whether any of the writers is, or all are, held by somebody who waits for something."""
        longest = time.monotonic() - _LONG_HELD
        return which(writer.held_since < longest for writer in self._writers)

    # -- Writing --------------------------------------------------------------------------------

    def _own_connection(self) -> BaseDatabaseWrapper | None:
        """The calling thread's own connection, if it has one whose session is as it began."""
        own = database.connection_for(self.alias)
        if own.in_atomic_block:
            return own
        return own if own.connection is not None and not is_changed(own) else None

    def _write_waiting(self, leader: Entry, writer: Writer) -> None:
        """Write for all that wait, on the leader's thread."""
        batch = self._take_batch(leader)
        try:
            connection = self._own_connection() or writer.connection()
            with self.asking(connection):
                writes = [entry.write for entry in batch if entry.write is not None]
                written = batches.write_many(connection, writes) if writes else set()
            for entry in batch:
                entry.is_written = entry.write is not None and batches.identity(entry.write) in written
        except BaseException as error:
            writer.check(error)
            if not isinstance(error, Exception):
                raise
            if len(batch) == 1:
                leader.error = error
            else:  # each is written on its own then, and hears what is wrong
                logger.debug("A shared commit failed: %s", error)
        finally:
            self._pass_on(writer, batch[1:])

    def _take_batch(self, leader: Entry) -> list[Entry]:
        """The leader and those whose writes it takes along."""
        batch, others = [leader], list[Entry]()
        with self._lock:
            for entry in self._waiting:
                (others if entry.write is None or len(batch) == _AT_MOST else batch).append(entry)
            self._waiting = others
            most = _AT_MOST if leader.write is not None else _AT_MOST_SUBMITTED
            while self._submitted and len(batch) < most:
                batch.append(self._submitted.popleft())
        return batch
