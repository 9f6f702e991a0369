"""One call of the testing kit: claim what is due, execute it, let time pass, until what was asked for is done."""

from __future__ import annotations

import logging
import os
import socket
from asyncio import _get_running_loop
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Self
from uuid import UUID

from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import conf
from ..core import clock as engine_clock
from ..core.clock import to_datetime
from ..core.context import active_pass
from ..definitions import get_workflow, registered_kinds
from ..definitions.limits import known_limits
from ..durations import Duration, to_microseconds
from ..engine import afterwards, slices
from ..engine.ending import Ended
from ..engine.execution import Pass, run_claim
from ..engine.history_cache import HistoryCache, load_histories
from ..engine.host import Limits
from ..errors import GroupFailed, RunCanceled, StepsError
from ..failures import FailureRecord
from ..ledger import claims, controls, database, events, expiry, limits, lines, pauses, timers, unknown, waits
from ..ledger.claims import Claim, Claimed
from ..ledger.events import To
from ..ledger.terms import Kind, Terms
from ..models import Worker, WorkflowRun, sending
from ..values.classes import shown_name
from . import clock, strictness
from .answers import Answers
from .autocommit import Autocommit, has_clean_constraints
from .below import Below, open_below, waiting_for_events
from .errors import DoesNotEnd, UnansweredWait
from .firing import Firing
from .host import TestingHost
from .order import Order
from .stand_ins import stand_in
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

    def __init__(
        self,
        stubs: Mapping[str, Any] | None,
        events: Mapping[str, Any] | None,
        *,
        straight_through: bool,
        max_steps: int,
    ) -> None:
        if active_pass.get() is not None:
            raise StepsError("run_workflow() and drain() are for tests, not for bodies and steps: use start().")
        _refuse_in_async_code()
        self.alias = router.db_for_write(WorkflowRun)
        self.stubs, self.answers = Stubs(stubs), Answers(events)
        for event in self.answers.all():
            sending.prepared(event)  # raises what is wrong with a payload
        self.executed: dict[UUID, None] = {}
        self._suspends_always, self._max_steps = not straight_through, max_steps
        self.reached: dict[str, str] = {}  # the names of operations, and their kinds where these are known
        self._recorded: Counter[UUID] = Counter()
        self._ways: dict[tuple[UUID, int, int], Way] = {}
        self._histories = HistoryCache()
        self._limits = Limits.from_settings()
        self._exits = ExitStack()
        self._order = Order()
        self._below = Below(self.alias, self._order, self._execute_one)
        self._firsts: dict[UUID, UUID] = {}

    def __enter__(self) -> Self:
        self._exits.enter_context(clock.running())
        self._offset_before = engine_clock.offset_us
        try:
            self._clean = [c.alias for c in connections.all(initialized_only=True) if has_clean_constraints(c)]
            self._worker_id = self._register()
            limits.write(self._connection(), *known_limits())
            self._active_before = self._runs().active().count()
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
                self.answers.check_used(self.reached)
            else:
                self.stubs.check_spelling()
                self.answers.check_spelling()

    # -- The story ------------------------------------------------------------------------------

    def finish(self, run: WorkflowRun) -> None:
        """Go on until this run has ended, and the one that it has continued as."""
        while True:
            while not self._has_ended(run):
                self._go_on(run)
            if run.continued_as_id is None:
                return
            run = self._runs().get(pk=run.continued_as_id)

    def _go_on(self, run: WorkflowRun) -> None:
        """Do one thing for this run: execute it, or what it waits for, or others, or let time pass."""
        if self._execute_one(run.pk) or self.execute_other(run.pk) or self._wake_waiting(run):
            return
        wait = self.next_due()
        if wait is None:
            raise self._stuck(run)
        clock.advance(wait)

    def execute_other(self, run_id: UUID) -> bool:
        """Execute a run while this one waits, first of all those that it waits for; whether there is one."""
        return self._below.execute_one(run_id) or self._execute_one()

    def next_due(self) -> int | None:
        """In how many microseconds a run becomes due by itself; None: never."""
        return timers.next_due_by_time(self._connection()).first

    def drain(self, advance: Duration | None, *, schedules: bool = True) -> None:
        """Go on until nothing is due any more, and what becomes due within a time, that of schedules included."""
        # What is left of the time that was asked for; the time that all this takes doesn't count.
        remaining = to_microseconds(advance or 0)
        firing = Firing(self._connection(), remaining, self._max_steps) if schedules else None
        self._active_before += firing.runs if firing is not None else 0
        while True:
            if self._execute_one() or self._wake_waiting():
                continue
            wait = self.next_due()
            if firing is not None and (fired := firing.fire_before(wait)) is not None:
                self._active_before += fired.runs
                remaining = max(0, remaining - fired.passed)
                continue
            if wait is None or wait > max(remaining + _TICK, self._limits.inline_wait_us):
                clock.advance(remaining)
                return
            clock.advance(wait)
            remaining = max(0, remaining - wait)

    def _execute_one(self, run_id: UUID | None = None) -> bool:
        """Claim one run, or this one, and execute it; whether there was one."""
        if expired := expiry.end_expired(self._connection()):
            afterwards.look_after(self._connection(), Claimed([], expired, [], set()))
            return True
        claimed = claims.claim(self._connection(), self._terms(run_id), limit=1)
        if claimed.ended or claimed.canceling:
            afterwards.look_after(self._connection(), claimed)
        for claim in claimed.runs:
            self._execute(claim)
        return bool(claimed.runs or claimed.ended or claimed.canceling)

    def _wake_waiting(self, finished: WorkflowRun | None = None) -> bool:
        """Make runs ready that have what they wait for, by what the test has sent or gives; whether there are any.

        In a `TestCase` nothing is ever committed, so that nobody hears of an event that was sent. Where a run is to be
        `finished`, what is given by `events=` is for that one, those below it, and those that were executed.
        """
        connection = self._connection()
        if events.tell_untold(connection)[0] or waits.wake_all(connection) or lines.sweep(connection):
            return True
        if not self.answers:
            return False
        status, phase = WorkflowRun.Status.WAITING, WorkflowRun.Phase.TIMED
        runs = self._runs().filter(status=status, phase=phase, worker=None).order_by("pk")
        if finished is not None:
            below = [child.run_id for child in open_below(self.alias, finished.pk)]
            runs = runs.filter(pk__in=[*self.executed, finished.pk, *below])
        answered = sum(self._answer(run.pk, run.waiting_for) for run in runs)
        return answered > 0 and waits.wake_all(connection)

    def _execute(self, claim: Claim) -> None:
        self._count_run(claim)
        records = load_histories(self._connection(), [claim], self._histories)[claim.run_id]
        is_async = get_workflow(claim.workflow, claim.version).is_async
        step = self._invoked_by(claim)
        host = TestingHost(
            self.alias, claim, Autocommit(self._clean), self._order, self, suspends_always=self._suspends_always
        )
        watch = Watch(
            host,
            self.stubs,
            way=Way(claim.workflow, self._ways.get(_identity(claim)) if self._suspends_always else None, is_async),
            reach=self._reach,
            count=lambda: self._count(claim),
            answer=partial(self._answer, claim.run_id),
        )
        kept: list[Pass] = []

        def begun(current: Pass) -> None:
            if step is not None:
                current.workflow = stand_in(current.workflow, step, self.stubs)
            watch.begun(current)
            kept.append(current)

        with clock.followed(), strictness.signals_refused(), strictness.temporary_tables_dropped():
            execute = slices.run_claim if is_async else run_claim
            ending = execute(claim, host, records, interceptors=[watch], begun=begun)
        trouble = self.stubs.failed_assertion or watch.trouble
        if trouble is not None:
            raise trouble
        if not watch.has_recorded:
            self._count(claim)
        if ending.how in (Ended.SUSPENDED, Ended.RELEASED):
            self._ways[_identity(claim)] = watch.way
            self._histories.keep(claim, kept[0].history.records())
        elif ending.how is Ended.FAILED and not self.stubs.has(step):
            self._tell(claim)

    def _invoked_by(self, claim: Claim) -> str | None:
        """The name of the step, or of the item of a map, that has invoked a run. One that a stub cancels is canceled here."""
        if claim.parent is None:
            return None
        step, item = self._runs().values_list("parent_step", "parent_item").get(pk=claim.run_id)
        name = f"{step}#{item}" if item else str(step)
        if self.stubs.has(name) and self.stubs.is_stubbed_by(name, RunCanceled):
            controls.cancel(self._connection(), claim.run_id, f"the stub of step {name!r}")
        return name

    # -- What the watch asks ---------------------------------------------------------------------

    def _reach(self, name: str, kind: str) -> None:
        """Note that a pass came to this step."""
        known = self.reached.pop(name, "")  # so that the last one is the last
        self.reached[name] = kind or known

    def _answer(self, run_id: UUID, names: Collection[str]) -> bool:
        """Send a run the next event that is given for one of these names; whether there is one."""
        while (event := self.answers.next_for(self._first_of(run_id), names)) is not None:
            if sending.send(self._connection(), To(run_id=run_id), event).created:
                return True
        return False

    def _first_of(self, run_id: UUID) -> UUID:
        """The run that has continued as this one, from the first on: it has one sequence of events."""
        if run_id not in self._firsts:
            before = self._runs().filter(continued_as=run_id).values_list("pk", flat=True).first()
            self._firsts[run_id] = run_id if before is None else self._first_of(before)
        return self._firsts[run_id]

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
        run.refresh_from_db(fields=["status", "phase", "continued_as"])
        if run.phase == WorkflowRun.Phase.UNKNOWN:
            unknown.bring_back(self._connection(), self._kinds())
        return bool(run.phase == WorkflowRun.Phase.ENDED)

    def _stuck(self, run: WorkflowRun) -> StepsError:
        """What is wrong with a run that no time brings to its end."""
        run.refresh_from_db()
        paused = pauses.read(self._connection())
        if run.status == run.Status.PAUSED or (not run.pause_exempt and paused.holds(run.queue, run.workflow)):
            what = "it" if run.status == run.Status.PAUSED else "its queue or its workflow"
            return StepsError(
                f"Run {run.pk} of {run.workflow!r} is not executed, since {what} is paused: call run.resume() first."
            )
        waiting = waiting_for_events(self.alias, run.pk)
        if waiting is None:
            return StepsError(f"Run {run.pk} of {run.workflow!r} is not due at any time: it is {run.status}.")
        names = waiting.waiting_for
        what = " or ".join(map(repr, names))
        hints = "".join(self.answers.hint(name) for name in names)
        below = "" if waiting.pk == run.pk else f" Run {run.pk} of {run.workflow!r} waits for it."
        return UnansweredWait(
            f"Run {waiting.pk} of {waiting.workflow!r} waits for event {what}, and nobody sends it.{below}{hints} Answer it by"
            f" events={{{names[0]!r}: payload}}, or start the run by start(), call drain(), then"
            f" run.send_event({names[0]!r}, payload) and drain() again.{self._order.hint()}"
        )

    def _have_all_succeeded(self) -> bool:
        runs = self._runs().filter(pk__in=list(self.executed))
        return not runs.exclude(status=WorkflowRun.Status.SUCCEEDED).exists()

    def _tell(self, claim: Claim) -> None:
        """Log a failure that no stub asked for: the test's own assertion may not show why it fails."""
        run = self._runs().get(pk=claim.run_id)
        error = run.error
        if error is None or self.stubs.has(error["step"]):
            return
        where = f" in step {error['step']!r}" if error["step"] else ""
        what = "\n".join([error["traceback"] or error["message"], *_members(run)])
        hint = self._order.hint()
        logger.error("Run %s of %r failed%s:\n%s%s", run.pk, run.workflow, where, what, hint and f"\n{hint.strip()}")

    def _runs(self) -> Any:
        return WorkflowRun.objects.using(self.alias)

    def _connection(self) -> BaseDatabaseWrapper:
        return database.connection_for(self.alias)

    def _kinds(self) -> frozenset[Kind]:
        return registered_kinds()

    def _terms(self, run_id: UUID | None) -> Terms:
        return Terms(
            worker_id=self._worker_id,
            kinds=self._kinds(),
            run_id=run_id,
            paused=pauses.read(self._connection()),
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


def _refuse_in_async_code() -> None:
    """Say what to write instead, where Django would refuse the first query."""
    if _get_running_loop() is not None and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        raise StepsError(
            "run_workflow() and drain() ask the database, which async code does on a thread: in an async test write "
            "await sync_to_async(run_workflow)(…)."
        )


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
