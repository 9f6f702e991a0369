"""Where the async passes of a worker run: commits are shared with all passes, and what blocks goes to threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine.loops import PassLoop, Steady
from ..ledger import database
from ..ledger.claims import Claim
from ..ledger.records import Outcome, StepWrite
from ..ledger.transitions import Finish
from .confirmations import Confirmations
from .group_commit import Entry, GroupCommit
from .host import WorkerHost
from .orm_threads import OrmThreads, in_present_context

T = TypeVar("T")
U = TypeVar("U")
Put = Callable[[Callable[[], None]], None]

_writing = threading.local()  # the host that a thread writes by now


class OnThreads:
    """A `Host` for any number of threads at a time: each write gets a host of its own, which the worker's threads have."""

    suspends_always = False
    lets_through: tuple[type[BaseException], ...] = ()
    logs_failures = True

    def __init__(self, base: WorkerHost, alias: str) -> None:
        self._base, self._alias = base, alias
        self.limits, self.capture = base.limits, base.capture

    def connection(self) -> BaseDatabaseWrapper:
        host: WorkerHost | None = getattr(_writing, "host", None)
        return database.connection_for(self._alias) if host is None else host.connection()

    def record(self, write: StepWrite) -> Outcome:
        return self._by_own(lambda host: host.record(write))

    def finish(self, end: Finish) -> Outcome:
        return self._by_own(lambda host: host.finish(end))

    def write(self, statement: Callable[[], T]) -> T:
        return self._by_own(lambda host: host.write(statement))

    def tell_parent(self, parent: UUID, step: str, status: str) -> list[UUID]:
        return self._by_own(lambda host: host.tell_parent(parent, step, status))

    def connect(self) -> None:
        self._by_own(lambda host: host.connect())

    def wait(self, seconds: float) -> None:
        self._base.wait(seconds)

    def interrupt(self) -> None:
        """Let waits end at once; may be called from any thread."""
        self._base.interrupt()

    def _by_own(self, write: Callable[[WorkerHost], T]) -> T:
        before = getattr(_writing, "host", None)
        _writing.host = own = self._base.for_helper()
        try:
            return write(own)
        finally:
            _writing.host = before

    def arrange(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> Sequence[U]:
        return self._base.arrange(begun, others, concurrency)


class WorkerAsyncHost:
    """The place of one async pass in a worker; `errand` puts something on one of the worker's threads."""

    def __init__(
        self,
        loop: PassLoop,
        host: OnThreads,
        commits: GroupCommit,
        orm: OrmThreads,
        errand: Put,
        confirmations: Confirmations,
    ) -> None:
        self.host = host
        self._loop, self._commits, self._orm, self._errand = loop, commits, orm, errand
        self._confirmations = confirmations
        self._outstanding = 0
        # Since when an answer of the database is outstanding, by the monotonic clock.
        self.asked_on: float | None = None

    def record(self, write: StepWrite) -> Steady:
        if write.is_alone:
            return self._by_itself(partial(self.host.record, write))
        return self._together(write, partial(self.host.record, write))

    def finish(self, end: Finish) -> Steady:
        by_itself = partial(self.host.finish, end)
        return self._together(end, by_itself) if end.details is None else self._by_itself(by_itself)

    def confirm(self, claim: Claim) -> Steady:
        return self._confirmations.ask(claim)

    def call(self, function: Callable[[], Any]) -> Steady:
        return self._on(self._orm.put, function)

    def run_step(self, function: Callable[[], Any]) -> Steady:
        return self._on(self._errand, function)

    def _on(self, put: Put, function: Callable[[], Any]) -> Steady:
        answer = self._loop.steady()
        put(partial(self._do, in_present_context(function), answer))
        return answer

    def _do(self, function: Callable[[], Any], answer: Steady, answered: Callable[[], None] = lambda: None) -> None:
        """On a thread: call a function, and let the loop know."""
        try:
            value = function()
        except BaseException as error:
            answer_with = partial(_answer, answered, answer.fail, error)
        else:
            answer_with = partial(_answer, answered, answer.answer, value)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more for what was given up
            self._loop.call_soon_threadsafe(answer_with)

    def _by_itself(self, write: Callable[[], Outcome], answer: Steady | None = None) -> Steady:
        """Write on a thread, through an outage if need be."""
        answer = answer or self._asked()
        self._orm.put(partial(self._do, write, answer, self._answered))
        return answer

    def _together(self, write: StepWrite | Finish, by_itself: Callable[[], Outcome]) -> Steady:
        """Write with one commit together with others; by itself if that comes to nothing."""
        answer = self._asked()
        self._commits.submit(write, partial(self._committed, answer, by_itself))
        return answer

    def _committed(self, answer: Steady, by_itself: Callable[[], Outcome], entry: Entry) -> None:
        """On the loop: what was submitted is written, or not."""
        if entry.is_written:
            self._answered()
            answer.set_result(Outcome.WRITTEN)
        else:
            self._by_itself(by_itself, answer)

    def _asked(self) -> Steady:
        if not self._outstanding:
            self.asked_on = time.monotonic()
        self._outstanding += 1
        return self._loop.steady()

    def _answered(self) -> None:
        self._outstanding -= 1
        self.asked_on = time.monotonic() if self._outstanding else None


def _answer(answered: Callable[[], None], answer: Callable[[Any], None], value: Any) -> None:
    answered()
    answer(value)
