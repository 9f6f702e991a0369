"""What a pass needs from the place where it runs.

`Direct` is the simplest such place: the caller's thread and connection. The worker brings its own.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, Self, TypeVar
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from .. import failures
from ..conf import conf
from ..errors import EndlessBody
from ..ledger import cascades, database, records, transitions
from ..ledger.claims import Claim
from ..ledger.records import Outcome, StepWrite
from ..ledger.transitions import Finish
from .captured import Capture
from .ending import Ending

logger = logging.getLogger("django_steps")

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Limits:
    """What passes keep to, mostly by the settings, which are read once: reading them costs as much as half a step."""

    inline_wait_us: int  # up to how many microseconds are waited out in place
    max_value_bytes: int
    step_grace_us: int = 30_000_000  # for how long after its timeout a plain function may still end
    on_changed_arguments: str = "warn"  # "ignore", "warn" or "fail", of calls with others than those that were recorded
    trusted: float = 0.01  # for so many seconds after a write of the pass its run counts as not canceled

    @classmethod
    def from_settings(cls) -> Limits:
        microsecond = timedelta(microseconds=1)
        return cls(
            conf.inline_wait // microsecond,
            conf.max_value_bytes,
            conf.step_grace // microsecond,
            conf.on_changed_arguments,
        )


class Handed(Protocol):
    """A record that is on its way to the database."""


class Helpable(Protocol):
    """Work that other threads can help with."""

    def wants_help(self) -> bool:
        """Whether there is something for another thread to do."""
        ...

    def help(self, gives_way: Callable[[], bool]) -> None:
        """Do some of it on the calling thread, until there is no more or `gives_way()`."""
        ...


class Host(Protocol):
    """Where a pass runs: who writes for it, and who can wait. All of it may block."""

    def connection(self) -> BaseDatabaseWrapper:
        """The connection to the database of the runs: in a statement of `write`, the one to carry it out on; else the
        calling thread's own."""
        ...

    def record(self, write: StepWrite) -> Outcome:
        """Record the outcome of a step; returns when it is committed."""
        ...

    def finish(self, end: Finish) -> Outcome:
        """End the run; returns when it is committed."""
        ...

    def write(self, statement: Callable[[], T]) -> T:
        """Carry out another write, through an outage of the database if need be."""
        ...

    def tell_parent(self, parent: UUID, step: str, status: str) -> list[UUID]:
        """Let a run know that a child of this step has ended so, which is committed. Returns the runs that ended because of
        it."""
        ...

    def connect(self) -> None:
        """Connect the calling thread to the database of the runs, unless it is; through an outage if need be."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait; less when there is a reason to look up."""
        ...

    def arrange(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> Sequence[U]:
        """The order in which units of a group are executed: those that had begun in an earlier pass, which keep their places
        among the `concurrency` (None: all) that may have begun, and the others."""
        ...

    @property
    def suspends_always(self) -> bool:
        """Whether the run is released after every step that was executed, so that the body is replayed each time."""
        ...

    @property
    def lets_through(self) -> tuple[type[BaseException], ...]:
        """What a body raises that is no failure of the run but goes to whoever called."""
        ...

    @property
    def logs_failures(self) -> bool:
        """Whether a run that has failed is written to the log."""
        ...

    @property
    def limits(self) -> Limits:
        """What the settings allow here."""
        ...

    @property
    def capture(self) -> Capture | None:
        """What keeps the log lines of bodies and steps; None where nothing does."""
        ...


class ThreadedHost(Host, Protocol):
    """Where the pass of a plain body runs: on a thread of its own, which others may help with what is side by side."""

    def hand_over(self, write: StepWrite) -> Handed:
        """Let a new record be committed soon, together with others."""
        ...

    def is_answered(self, handed: Handed) -> bool:
        """Whether `settle()` would not wait."""
        ...

    def settle(self, handed: Handed) -> Outcome:
        """Wait until the record is committed; its outcome. Raises what `record()` raises."""
        ...

    def offer(self, work: Helpable) -> None:
        """Let threads that are idle help, until `withdraw()`."""
        ...

    def withdraw(self, work: Helpable) -> None:
        """Let no more threads help; those that do go on to the end of what they do."""
        ...

    def call_for_help(self) -> None:
        """Let more threads look for work: what is offered takes long."""
        ...

    def park(self) -> None:
        """Keep this thread, which helps and whose work never ends, waiting for good; another one takes its place."""
        ...

    def for_helper(self) -> ThreadedHost:
        """The same place for a thread that helps: a host is used by one thread at a time."""
        ...

    def has_endless_body(self, claim: Claim, ending: Ending) -> None:
        """The body of this pass goes on calling operations although the pass is ending; called on its thread.

        A host that has other threads need not return: that keeps the body from using up the processor.
        """
        ...


class Direct:
    """Writes on the calling thread's own connection, and lets errors of the database through."""

    suspends_always = False
    lets_through: tuple[type[BaseException], ...] = ()
    logs_failures = True
    capture: Capture | None = None

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self.limits = Limits.from_settings()

    def connection(self) -> BaseDatabaseWrapper:
        return database.connection_for(self._alias)

    def record(self, write: StepWrite) -> Outcome:
        return records.record(self.connection(), write)

    def finish(self, end: Finish) -> Outcome:
        return transitions.finish(self.connection(), end)

    def write(self, statement: Callable[[], T]) -> T:
        return statement()

    def tell_parent(self, parent: UUID, step: str, status: str) -> list[UUID]:
        return cascades.tell_parents(self.connection(), {(parent, step): [status]})

    def connect(self) -> None:
        self.connection().ensure_connection()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def hand_over(self, write: StepWrite) -> Handed:
        return _Answered(self.record(write))

    def is_answered(self, handed: Handed) -> bool:
        return True

    def settle(self, handed: Handed) -> Outcome:
        assert isinstance(handed, _Answered)
        return handed.outcome

    def offer(self, work: Helpable) -> None:
        """There are no other threads."""

    def withdraw(self, work: Helpable) -> None:
        """There are no other threads."""

    def call_for_help(self) -> None:
        """There are no other threads."""

    def park(self) -> None:
        """No thread helps here."""

    def for_helper(self) -> Self:
        return self

    def arrange(self, begun: Sequence[U], others: Sequence[U], concurrency: int | None) -> Sequence[U]:
        return [*begun, *others]

    def has_endless_body(self, claim: Claim, ending: Ending) -> None:
        logger.error("%s", endless_body(claim.run_id))


@dataclass(slots=True)
class _Answered:
    outcome: Outcome


def endless_body(run_id: UUID) -> EndlessBody:
    """What is wrong with a body that doesn't let its pass end, and where; to be called on its thread."""
    place = next(
        (caller for caller in reversed(traceback.extract_stack()) if failures.is_users_code(caller.filename)), None
    )
    where = f" at {place.filename}:{place.lineno}, in {place.name}," if place else ""
    return EndlessBody(
        f"The body of run {run_id}{where} catches the exception that ends its pass, and goes on calling steps without end. "
        "Catch Exception instead of using a bare `except:` or BaseException, or raise it again."
    )
