"""One call of the testing kit: claim what is due, execute it, let time pass, until what was asked for is done."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Self
from uuid import UUID

from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core import clock as engine_clock
from ..core.clock import to_datetime
from ..core.context import active_pass
from ..definitions import registered_kinds
from ..durations import Duration, to_microseconds
from ..engine import hooks
from ..engine.ending import Ended
from ..engine.execution import Pass, run_claim
from ..engine.history_cache import HistoryCache, load_histories
from ..engine.host import Limits
from ..errors import GroupFailed, StepsError
from ..failures import FailureRecord
from ..ledger import claims, database, timers, unknown
from ..ledger.claims import Claim
from ..ledger.terms import Kind, Terms
from ..models import Worker, WorkflowRun
from ..values.classes import shown_name
from . import clock, strictness
from .autocommit import Autocommit, has_clean_constraints
from .errors import DoesNotEnd
from .host import TestingHost
from .order import Order
from .stubs import Stubs
from .watch import Watch
from .ways import Way

logger = logging.getLogger("django_steps.testing")

# Nobody renews the kit's leases, and on the virtual clock years may pass while it holds one.
_LEASE_US = 100 * 365 * 86400 * 1_000_000
_TICK = 1000  # SQLite's clock shows whole milliseconds only
_NAMES_SHOWN = 5


class Session:
    """Use it as a context manager; on the way out the stubs are checked."""

    def __init__(self, stubs: Mapping[str, Any] | None, *, straight_through: bool, max_steps: int) -> None:
        if active_pass.get() is not None:
            raise StepsError("run_workflow() and drain() are for tests, not for bodies and steps: use start().")
        self.alias = router.db_for_write(WorkflowRun)
        self.stubs = Stubs(stubs)
        self.executed: dict[UUID, None] = {}
        self._suspends_always, self._max_steps = not straight_through, max_steps
        self.reached: dict[str, None] = {}
        self._recorded: Counter[UUID] = Counter()
        self._ways: dict[tuple[UUID, int, int], Way] = {}
        self._histories = HistoryCache()
        self._limits = Limits.from_settings()
        self._exits = ExitStack()
        self._order = Order()

    def __enter__(self) -> Self:
        self._exits.enter_context(clock.running())
        self._offset_before = engine_clock.offset_us
        try:
            self._clean = [c.alias for c in connections.all(initialized_only=True) if has_clean_constraints(c)]
            self._worker_id = self._register()
            self._active_before = WorkflowRun.objects.using(self.alias).active().count()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, error_type: type[BaseException] | None, *details: Any) -> None:
        with self._exits:
            if error_type is not None:
                return
            if self._have_all_succeeded():
                self.stubs.check_used(self.reached)
            else:
                self.stubs.check_spelling()

    # -- The story ------------------------------------------------------------------------------

    def finish(self, run: WorkflowRun) -> None:
        """Go on until this run has ended."""
        while not self._has_ended(run):
            if self._execute_one(run.pk) or self._execute_one():
                continue
            wait = timers.next_due(self._connection())
            if wait is None:
                raise StepsError(f"Run {run.pk} of {run.workflow!r} is not due at any time: it is {run.status}.")
            clock.advance(wait)

    def drain(self, advance: Duration | None) -> None:
        """Go on until nothing is due any more, and what becomes due within a time."""
        # What is left of the time that was asked for; the time that all this takes doesn't count.
        remaining = to_microseconds(advance or 0)
        while True:
            if self._execute_one():
                continue
            wait = timers.next_due(self._connection())
            if wait is None or wait > max(remaining + _TICK, self._limits.inline_wait_us):
                clock.advance(remaining)
                return
            clock.advance(wait)
            remaining = max(0, remaining - wait)

    def _execute_one(self, run_id: UUID | None = None) -> bool:
        """Claim one run, or this one, and execute it; whether there was one."""
        claimed = claims.claim(self._connection(), self._terms(run_id), limit=1)
        for ended in claimed.ended:
            hooks.run_ended(ended)
        for claim in claimed.runs:
            self._execute(claim)
        return bool(claimed.runs or claimed.ended)

    def _execute(self, claim: Claim) -> None:
        self._count_run(claim)
        records = load_histories(self._connection(), [claim], self._histories)[claim.run_id]
        autocommit = Autocommit(self._clean)
        host = TestingHost(self.alias, claim, autocommit, self._order, suspends_always=self._suspends_always)
        watch = Watch(
            host,
            self.stubs,
            way=Way(claim.workflow, self._ways.get(_identity(claim)) if self._suspends_always else None),
            reach=self._reach,
            count=lambda: self._count(claim),
        )
        kept: list[Pass] = []

        def begun(current: Pass) -> None:
            watch.begun(current)
            kept.append(current)

        with clock.followed(), strictness.signals_refused(), strictness.temporary_tables_dropped():
            ending = run_claim(claim, host, records, interceptors=[watch], begun=begun)
        trouble = self.stubs.failed_assertion or watch.trouble
        if trouble is not None:
            raise trouble
        if not watch.has_recorded:
            self._count(claim)
        if ending.how in (Ended.SUSPENDED, Ended.RELEASED):
            self._ways[_identity(claim)] = watch.way
            self._histories.keep(claim, kept[0].history.records())
        elif ending.how is Ended.FAILED:
            self._tell(claim)

    # -- What the watch asks ---------------------------------------------------------------------

    def _reach(self, name: str) -> None:
        """Note that a pass came to this step."""
        self.reached.pop(name, None)  # so that the last one is the last
        self.reached[name] = None

    def _count(self, claim: Claim) -> None:
        """Count something that a run has recorded; `DoesNotEnd` when it is too much."""
        self._recorded[claim.run_id] += 1
        if self._recorded[claim.run_id] > self._max_steps:
            last = ", ".join(map(repr, list(self.reached)[-_NAMES_SHOWN:])) or "none"
            raise DoesNotEnd(
                f"A run of {claim.workflow!r} has recorded {self._max_steps:,} steps and sleeps and has not ended; maybe it"
                f" never does. The last were: {last}. If it does take that many, allow for them with max_steps=."
                f"{self._hint_at_clocks()}{self._order.hint()}"
            )

    def _count_run(self, claim: Claim) -> None:
        """Runs may start runs, but not without end."""
        self.executed[claim.run_id] = None
        if len(self.executed) > self._active_before + self._max_steps:
            raise DoesNotEnd(
                f"Runs have started {self._max_steps:,} runs, the last one of {claim.workflow!r}; maybe this never ends. If it"
                f" does take that many, allow for them with max_steps=.{self._order.hint()}"
            )

    # -- Details --------------------------------------------------------------------------------

    def _hint_at_clocks(self) -> str:
        """The end of a message about what does not end, where time has passed meanwhile."""
        if engine_clock.offset_us == self._offset_before:
            return ""
        return (
            " If it waits until a time comes: timezone.now() follows the clock of the test, datetime.now(), time.time() and"
            " the database's clock don't."
        )

    def _has_ended(self, run: WorkflowRun) -> bool:
        run.refresh_from_db(fields=["status", "phase"])
        if run.phase == WorkflowRun.Phase.UNKNOWN:
            unknown.bring_back(self._connection(), self._kinds())
        return bool(run.phase == WorkflowRun.Phase.ENDED)

    def _have_all_succeeded(self) -> bool:
        runs = WorkflowRun.objects.using(self.alias).filter(pk__in=list(self.executed))
        return not runs.exclude(status=WorkflowRun.Status.SUCCEEDED).exists()

    def _tell(self, claim: Claim) -> None:
        """Log a failure that no stub asked for: the test's own assertion may not show why it fails."""
        run = WorkflowRun.objects.using(self.alias).get(pk=claim.run_id)
        error = run.error
        if error is None or self.stubs.has(error["step"]):
            return
        where = f" in step {error['step']!r}" if error["step"] else ""
        what = "\n".join([error["traceback"] or error["message"], *_members(run)])
        hint = self._order.hint()
        logger.error("Run %s of %r failed%s:\n%s%s", run.pk, run.workflow, where, what, hint and f"\n{hint.strip()}")

    def _connection(self) -> BaseDatabaseWrapper:
        return database.connection_for(self.alias)

    def _kinds(self) -> frozenset[Kind]:
        return registered_kinds()

    def _terms(self, run_id: UUID | None) -> Terms:
        return Terms(
            worker_id=self._worker_id,
            kinds=self._kinds(),
            run_id=run_id,
            lease_us=_LEASE_US,
            max_recoveries=conf.max_recoveries,
        )

    def _register(self) -> int:
        """A row like a worker's, which has stopped already, so that it counts as no live worker."""
        moment = database.read_clock(self._connection())
        row = Worker.objects.using(self.alias).create(
            host=socket.gethostname(),
            pid=os.getpid(),
            concurrency=1,
            lease_us=_LEASE_US,
            started_at=to_datetime(moment),
            last_seen_us=moment,
            stopped_at=to_datetime(moment),
        )
        return int(row.pk)


def _members(run: WorkflowRun) -> Iterator[str]:
    """Where the steps failed that a `GroupFailed` stands for, which is not in its own traceback."""
    record = FailureRecord.read(run.error_text)
    if record.type != shown_name(GroupFailed):
        return
    for step in run.steps.filter(name__in=record.steps[:_NAMES_SHOWN], status="failed"):
        if step.error:
            yield f"Step {step.name!r}:\n{step.error['traceback'] or step.error['message']}"


def _identity(claim: Claim) -> tuple[UUID, int, int]:
    """A run between two times that something was reset, or that its body was to be called anew."""
    return claim.run_id, claim.attempts, claim.generation
