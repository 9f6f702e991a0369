"""Executes nothing here: sends each claim to another engine, whose processes adopt it.

Until that has happened the claim is this worker's, which renews it. A claim that nobody adopts is sent again under the same
token: released and claimed anew, a run whose messages wait for longer than that would never begin. That somebody has adopted
it shows in the row, where the token is another one; to the heartbeat the claim is lost then.

While the engine can't be reached nothing is claimed, and what could not be sent is released.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ...core.repeated import Repeated
from ...engine.ending import Ended
from ...ledger import database, leases, notify
from ...ledger.claims import Claim
from ...ledger.terms import Kind
from ..held import Held
from ..messenger import Message, Messenger
from .base import Executor, HasRoom, Place

logger = logging.getLogger("django_steps")

CLAIMED_AHEAD = 100  # how many claims wait for the engine at most, unless somebody says otherwise
# Seconds between two looks for adopted claims while there are many: from the first to the last, as long as none is found.
_LOOK, _LAST_LOOK = 0.02, 0.5
_MANY = 0.5  # as a part of those that there may be
_IDLE = 1.0  # seconds; whatever comes earlier wakes the thread
_LAST_DOUBLING = 3  # resends follow each other after one lease, two, four, and then eight
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0  # seconds between two attempts to reach the engine
_GOODBYE = 2.0  # seconds that a message on its way may take when the worker stops


class Sent(Held):
    """A claim on its way. `due`: when it is sent, or sent again, by `time.monotonic()`."""

    def __init__(self, claim: Claim, executor: Dispatch) -> None:
        super().__init__(claim)
        self._executor = executor
        self.times, self.due = 0, self.claimed_on

    def is_over(self) -> bool:
        """Whether the run's timeout is over."""
        return self.claim.expires_at is not None and self.claim.now() >= self.claim.expires_at

    def release(self, connection: BaseDatabaseWrapper) -> None:
        if self.is_over():  # it keeps the time at which it has expired, by which it is ended
            self.claim.is_first = False
        super().release(connection)

    def stop(self, reason: Ended) -> None:
        if reason is Ended.LOST:  # adopted, or recovered by others; what was sent finds that out
            self._executor.drop(self)
        elif reason is Ended.CANCELED:
            self.interrupt = reason
            self._executor.wake()


class Dispatch(Executor[Sent]):
    """Sends claims by a messenger, on a thread of its own. At most `bound` of them wait to be adopted.

    `patience`: seconds after which what was not adopted is sent again.
    """

    def __init__(self, alias: str, bound: int, patience: float, messenger: Messenger, has_room: HasRoom) -> None:
        super().__init__(lambda task, ending: None, has_room)
        self._alias, self._bound, self._patience, self._messenger = alias, bound, patience, messenger
        self._sent: dict[UUID, Sent] = {}
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None
        self._look_pause = _LOOK
        self._failures = 0  # in succession, of reaching the engine
        self._try_again_on: float | None = None  # by `time.monotonic()`; None: it can be reached
        self._is_stopping = False
        self._repeated = Repeated(logger)

    # -- What the loop asks -----------------------------------------------------------------------

    def room(self) -> int:
        if self._try_again_on is not None or self._is_stopping:
            return 0
        room = self._bound - len(self._sent)
        return min(room, 1) if self._failures else room  # one to try, until something has arrived

    def take(self, tasks: Sequence[Sent], *, is_more_ready: bool) -> None:
        with self._lock:
            self._sent.update({task.claim.run_id: task for task in tasks})
        if tasks and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="django-steps-sender", daemon=True)
            self._thread.start()
        self.wake()

    def held(self) -> Mapping[UUID, Sent]:
        with self._lock:
            return dict(self._sent)

    def longest_wait(self) -> float | None:
        return None  # whoever adopts it takes the time that it takes

    def release_next(self, connection: BaseDatabaseWrapper) -> bool:
        return False

    def stop(self, timeout: float | None) -> bool:
        self._is_stopping = True
        self.wake()
        if self._thread is not None:
            self._thread.join(_GOODBYE if timeout is None else min(timeout, _GOODBYE))
        self._release(database.connection_for(self._alias), self.held().values())
        return True

    # -- What others say --------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to do for the thread."""
        self._awake.set()

    def drop(self, sent: Sent) -> None:
        """A claim is no longer this worker's."""
        with self._lock:
            if self._sent.get(sent.claim.run_id) is sent:
                del self._sent[sent.claim.run_id]
        self._has_room()

    # -- On the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        connection = database.connection_for(self._alias)
        while not self._is_stopping:
            self._awake.wait(self._pause())
            self._awake.clear()
            try:
                self._round(connection)
            except (DatabaseError, InterfaceError) as error:
                self._repeated.warning("look", "Claims could not be looked after, trying again: %s", error)
                database.drop(connection)
                time.sleep(_LOOK)
            except Exception:  # without this thread nothing is sent
                logger.exception("The thread that sends claims went on after an error.")
                time.sleep(_LOOK)
        connections.close_all()

    def _pause(self) -> float:
        if len(self._sent) >= self._bound * _MANY:
            return self._look_pause
        now = time.monotonic()
        if self._try_again_on is not None:
            return max(0.0, min(_IDLE, self._try_again_on - now))
        return max(0.0, min([_IDLE, *(sent.due - now for sent in self.held().values())]))

    def _round(self, connection: BaseDatabaseWrapper) -> None:
        if self._try_again_on is not None and time.monotonic() >= self._try_again_on:
            self._try_again()
        waiting = list(self.held().values())
        self._release(connection, [sent for sent in waiting if sent.interrupt is Ended.CANCELED or sent.is_over()])
        for sent in waiting:
            if self._try_again_on is not None or self._is_stopping:
                break
            if sent.due <= time.monotonic() and sent.interrupt is None and self._is_held(sent):
                self._send(sent)
        if self._try_again_on is not None:
            self._release(connection, [sent for sent in self.held().values() if not sent.times])
        if len(self._sent) >= self._bound * _MANY:
            self._look(connection)

    def _is_held(self, sent: Sent) -> bool:
        return self._sent.get(sent.claim.run_id) is sent

    def _send(self, sent: Sent) -> None:
        try:
            self._messenger.send(Message.of(sent.claim))
        except Exception as error:
            self._cannot_reach(error)
            return
        sent.due = time.monotonic() + self._patience * 2 ** min(sent.times, _LAST_DOUBLING)
        sent.times += 1
        if sent.times > 1:
            self._repeated.warning(
                "adoption",
                "Nobody has taken the message of run %s from %s yet, %d claimed runs wait: sent again.",
                sent.claim.run_id,
                self._messenger.name,
                len(self._sent),
            )
        if self._failures:
            self._failures = 0
            self._has_room()
        self._repeated.over("reach", "%s can be reached again.", self._messenger.name)

    def _cannot_reach(self, error: Exception) -> None:
        pause = min(_FIRST_PAUSE * 2**self._failures, _LAST_PAUSE)
        self._failures += 1
        self._try_again_on = time.monotonic() + pause
        self._repeated.warning(
            "reach",
            "%s can't be reached, so no runs are claimed; trying again in %.0f s: %s: %s",
            self._messenger.name,
            pause,
            type(error).__name__,
            error,
        )

    def _try_again(self) -> None:
        try:
            self._messenger.probe()
        except Exception as error:
            self._cannot_reach(error)
            return
        self._try_again_on = None
        for sent in self.held().values():  # what was sent before may be lost
            sent.due = 0.0
        self._has_room()

    def _look(self, connection: BaseDatabaseWrapper) -> None:
        """Find out which claims were adopted earlier than the heartbeat does: they take the place of others."""
        waiting = {run_id: sent for run_id, sent in self.held().items() if sent.times}
        found = leases.check(connection, {run_id: sent.holding() for run_id, sent in waiting.items()})
        with self._lock:
            for run_id in found.lost:
                if self._sent.get(run_id) is waiting[run_id]:
                    del self._sent[run_id]
        self._look_pause = _LOOK if found.lost else min(self._look_pause * 1.5, _LAST_LOOK)
        if found.lost:
            self._has_room()

    def _release(self, connection: BaseDatabaseWrapper, released: Collection[Sent]) -> None:
        """Release these runs: one that is canceled or to be paused is that then, and one that has expired is ended by the next
        look for such runs."""
        has_released = has_failed = False
        for sent in released:
            try:
                sent.release(connection)
            except (DatabaseError, InterfaceError) as error:
                self._repeated.warning("release", "A run could not be released, trying again: %s", error)
                database.drop(connection)
                if has_failed:  # the database is away
                    return
                has_failed = True  # its lease runs out, or there is another round; the others need not wait for that
                continue
            self.drop(sent)
            has_released = True
        if has_released:
            with suppress(DatabaseError, InterfaceError):  # it is away since then; workers look for themselves, too
                notify.workers(connection)


class Elsewhere(Place):
    """The executor of a dispatcher."""

    executes_here = False

    def __init__(
        self,
        alias: str,
        kinds: Collection[Kind],
        bound: int,
        patience: float,
        messenger: Messenger,
        has_room: HasRoom,
    ) -> None:
        self._dispatch = Dispatch(alias, bound, patience, messenger, has_room)
        self.executors = [(self._dispatch, kinds)]

    def tasks(self, claims: Sequence[Claim], connection: BaseDatabaseWrapper) -> list[Sent]:
        return [Sent(claim, self._dispatch) for claim in claims]

    def look_after(self, lease: float, worker_id: int) -> None:
        """Nothing: the executor has a thread for that."""

    def has_news(self) -> None:
        """No pass waits here."""

    def close_unused(self) -> None:
        """Its connections are those of its threads."""

    def close(self) -> None:
        """Its connections are those of its threads."""
