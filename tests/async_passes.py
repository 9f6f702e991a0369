"""Single passes of async bodies, as a worker makes them, cut off between any two of their writes.

The loop is on the calling thread; everything else is where a worker has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from asgiref.sync import AsyncToSync
from django.db import connection, connections
from django.db.models import Min

from django_steps.core import clock
from django_steps.core.context import active_pass
from django_steps.engine import afterwards
from django_steps.engine.ending import Ended, Ending
from django_steps.engine.host import Limits
from django_steps.engine.loops import PassLoop
from django_steps.errors import ClaimLost, InvalidState
from django_steps.ledger import claims, database, timers
from django_steps.models import WorkflowRun
from django_steps.worker.async_host import OnThreads, WorkerAsyncHost
from django_steps.worker.confirmations import Confirmations
from django_steps.worker.executors.event_loop import _received
from django_steps.worker.group_commit import GroupCommit
from django_steps.worker.host import WorkerHost
from django_steps.worker.orm_threads import OrmThreads
from django_steps.worker.task import AsyncTask, Task
from tests.engine.event_model import tell_untold
from tests.staging import make_terms

LEASE = 30_000_000  # microseconds
# Nothing is waited out in place: time passes on the virtual clock only.
LIMITS = Limits(inline_wait_us=0, max_value_bytes=1 << 20)
WAYS = ("die", "stop", "cancel", "pause")
SENDS = ("send", "send and tell")  # an event; and the pass hears of it
OTHERS = ("others", "others and tell")  # passes of other runs, such as children; and the pass hears of it


class Peril:
    """Counts the points at which a pass can be cut off, and does so at one of them, in one of `WAYS`; or sends an event."""

    def __init__(self, how: str = "", point: int | None = None) -> None:
        self._how, self._left = how, point
        self.is_over = self.is_dead = False
        self.interrupt: Callable[[Ended], None] = lambda how: None
        self.cancel: Callable[[], None] = lambda: None
        self.pause: Callable[[], None] = lambda: None
        self.send: Callable[[bool], None] = lambda tells: None
        self.go_over_others: Callable[[bool], None] = lambda tells: None

    def reach(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left >= 0:
            return
        self._left, self.is_over = None, True
        if self._how == "die":
            self.is_dead = True
        elif self._how == "stop":
            self.interrupt(Ended.RELEASED)
        elif self._how in SENDS:
            self.send(self._how == "send and tell")
        elif self._how in OTHERS:
            self.go_over_others(self._how == "others and tell")
        elif self._how == "pause":  # what it writes next tells
            self.pause()
        else:
            self.cancel()
            self.interrupt(Ended.CANCELED)


class PerilousHost(WorkerAsyncHost):
    """A worker's host, with a point before and after everything. Of one that is dead, nothing is written any more."""

    peril: Peril

    def record(self, write: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).record(write))

    def finish(self, end: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).finish(end))

    def call(self, function: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).call(function))

    def confirm(self, claim: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).confirm(claim))

    def run_step(self, function: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).run_step(function))

    def _around(self, ask: Callable[[], Any]) -> Any:
        self.peril.reach()
        told = self._loop.steady()
        if self.peril.is_dead:
            told.fail(ClaimLost())
            return told
        ask().add_done_callback(partial(self._tell, told), context=self._loop._nowhere)
        return told

    def _tell(self, told: Any, answer: Any) -> None:
        self.peril.reach()
        error = ClaimLost() if self.peril.is_dead else answer.exception()
        if error is not None:
            told.fail(error)
        else:
            told.set_result(answer.result())


class Passes:
    """Makes passes of one run. `trace`: what the body says of the present pass; `seen`: of all of them."""

    present: Passes

    def __init__(self, loop: PassLoop, commits: GroupCommit, orm: OrmThreads, pool: ThreadPoolExecutor) -> None:
        self.loop = loop
        self._commits, self._orm, self._pool = commits, orm, pool
        self._others_commits = GroupCommit(connection.alias)  # of another worker
        self.count = 0
        self.begin(None)

    def begin(self, run: Any) -> None:
        """Another run."""
        Passes.present = self
        self.run: WorkflowRun = run
        self.send: Callable[[str], None] = lambda name: None  # an event for the run; of any name, if it waits for none
        self.trace: list[Any] = []
        self.seen: list[tuple[tuple[str, ...], list[str]]] = []
        self.faults: list[str] = []
        self.is_final: set[str] = set()
        self.executed: list[tuple[str, int]] = []
        self.peril = Peril()

    def once(self, peril: Peril | None = None) -> Ending | None:
        """Let the time come at which the run is due, and go over it once."""
        run = self.run
        run.refresh_from_db()
        if run.status == "canceled" or run.error_type.endswith("WorkerDied"):
            self._retry()
        if run.status == "paused":
            run.resume()
        tell_untold()
        run.refresh_from_db()
        if run.status in ("sleeping", "waiting", "canceling"):
            self._let_time_pass()
        self.peril = peril or Peril()
        ending, terms = None, make_terms(lease=LEASE)
        for claim in self._claim(run.pk, terms):
            ending = self._pass(claim)
        if self.peril.is_dead:
            for _ in range(2):  # suspected first, then to be taken over
                clock.offset_us += LEASE + 1000
                with database.writing(_connection()):
                    timers.wake(_connection(), terms)
        return ending

    def go_over_others(self) -> bool:
        """Go once over each of the other runs that are due, as another worker does; whether there was one."""
        others = WorkflowRun.objects.exclude(pk=self.run.pk).exclude(status__in=WorkflowRun.FINISHED).order_by("pk")
        found = list(others.values_list("pk", flat=True))
        terms = make_terms(lease=LEASE) if found else None
        claimed = [claim for pk in found for claim in self._claim(pk, terms)]
        for claim in claimed:
            Task(claim, None, WorkerHost(self._others_commits, LIMITS)).run()
        return bool(claimed)

    def others_to_the_end(self) -> None:
        """Go over the other runs until they have ended."""
        while self.go_over_others() or self._let_time_pass():
            pass

    def _claim(self, run_id: Any, terms: Any) -> list[Any]:
        claimed = claims.claim(_connection(), replace(terms, run_id=run_id), 1)
        if claimed.ended or claimed.canceling:
            afterwards.look_after(_connection(), claimed)
        return list(claimed.runs)

    def _let_time_pass(self) -> bool:
        """Let the time come at which the first of the runs is due; whether there is one that has a time."""
        timed = WorkflowRun.objects.filter(status__in=("sleeping", "waiting", "canceling"), worker=None)
        due = timed.aggregate(due=Min("available_at_us"))["due"]
        if due is None or due >= clock.NEVER_US:
            return False
        clock.offset_us += max(0, due - database.read_clock(_connection())) + 1000
        return True

    def _retry(self) -> None:
        """A retry forgets cancellations that nothing has followed from: what passes have seen of them may come later again."""
        canceled = self.run.steps.filter(status="canceled").values_list("name", flat=True)
        before = set(canceled)
        self.run.retry()
        forgotten = {f"{name} canceled" for name in before - set(canceled.all())}
        for _, trace in self.seen:
            trace[:] = [event for event in trace if event not in forgotten]

    def to_the_end(self, look: Callable[[WorkflowRun], None] = lambda run: None, most: int = 60) -> WorkflowRun:
        """Go over it until it has ended, and look at what each pass has seen."""
        for _ in range(most):
            self.run.refresh_from_db()
            if self.run.status == "succeeded":
                break
            if self.run.status == "failed" and not self.run.error_type.endswith("WorkerDied"):
                break
            if self.run.waiting_for:
                self.send(self.run.waiting_for[0])
            self.go_over_others()
            self.once()
            look(self.run)
        self.check()
        return self.run

    def check(self) -> None:
        """What a pass has seen is how each later one begins; nothing is executed that is recorded."""
        assert not self.faults, f"{self.faults} {self.run.input} {self.all_seen()}"
        for number, (_, earlier) in enumerate(self.seen):
            for over, later in self.seen[number + 1 :]:
                visible = [event for event in earlier if not any(event.startswith(begin) for begin in over)]
                most = min(len(visible), len(later))
                assert visible[:most] == later[:most], (
                    f"a later pass went another way:\n{visible}\n{later}\nof {self.all_seen()}"
                )

    def all_seen(self) -> str:
        """What each pass has seen, a line each, and what is recorded."""
        steps = [
            f"{step.position}<{step.after} {step.name} {step.status}" for step in self.run.steps.order_by("position")
        ]
        return "\n".join(str(trace) for _, trace in self.seen) + "\n" + str(steps)

    def _pass(self, claim: Any) -> Ending:
        self.count += 1
        records = self.run.steps.filter(status__in=("succeeded", "failed", "canceled"))
        self.is_final = set(records.values_list("name", flat=True))
        # Branches and maps that are over are not entered again.
        groups = self.run.steps.filter(status__in=("succeeded", "failed", "canceled"), kind__in=("branch", "map"))
        over = tuple(
            f"{name}{end}"
            for name, kind in groups.values_list("name", "kind")
            for end in ("/#" if kind == "map" else "/")
        )
        self.trace = []
        self.seen.append((over, self.trace))
        base = WorkerHost(self._commits, LIMITS)
        place = OnThreads(base, connection.alias)
        confirmations = Confirmations(self.loop, place, self._orm.put)
        host = PerilousHost(self.loop, place, self._commits, self._orm, self._submit, confirmations)
        host.peril = self.peril
        task = AsyncTask(claim, None, base, host)
        self.peril.interrupt = task.stop
        self.peril.cancel = lambda: self._submit(self._cancel).result()
        self.peril.pause = lambda: self._submit(self._pause).result()
        self.peril.send = partial(self._send, task)
        self.peril.go_over_others = partial(self._go_over_others, task)
        began = time.monotonic()
        try:
            ending = self.loop.run_until_complete(asyncio.wait_for(self.loop.create_task(task.run_async(self.loop)), 6))
        except TimeoutError:
            raise AssertionError(f"A pass does not end: {vars(task._frame.state.desk)}\n{self.all_seen()}") from None
        if time.monotonic() - began > 3:
            self.faults.append(f"A pass took {time.monotonic() - began:.1f} s")
        return ending

    def _submit(self, function: Callable[[], Any]) -> Any:
        """Call something on a thread, which keeps no connection."""

        def call() -> None:
            try:
                function()
            finally:
                connections.close_all()

        return self._pool.submit(call)

    def _send(self, task: AsyncTask, tells: bool) -> None:
        waiting = [name for call in task.waits_for() for name in call.events]
        self._submit(lambda: self.send(waiting[-1] if waiting else "")).result()
        if tells:
            task.has_news()

    def _go_over_others(self, task: AsyncTask, tells: bool) -> None:
        self._submit(self.go_over_others).result()
        if tells:
            task.has_news()

    def _cancel(self) -> None:
        somebody = WorkflowRun.objects.get(pk=self.run.pk)
        if not somebody.is_finished:
            somebody.cancel()

    def _pause(self) -> None:
        with suppress(InvalidState):  # it has ended
            WorkflowRun.objects.get(pk=self.run.pk).pause()

    # -- What bodies and steps call --

    def executes(self, path: str, attempt: int = 1) -> None:
        """A step is executed."""
        if path in self.is_final:
            self.faults.append(f"{path} is recorded, and is executed again")
        self.executed.append((path, attempt))

    async def noted(self, name: str, awaitable: Any) -> Any:
        """Await a call of the body, and keep what became of it."""
        try:
            value = await awaitable
        except asyncio.CancelledError:
            if not is_ending():
                self.trace.append(f"{name} canceled")
            raise
        except Exception as error:
            self.trace.append(f"{name} {type(error).__name__}")
            raise
        self.trace.append(name)
        return value


def noted(name: str, awaitable: Any) -> Any:
    return Passes.present.noted(name, awaitable)


def is_ending() -> bool:
    """Whether the present pass is ending."""
    frame = active_pass.get()
    assert frame is not None
    return frame.state.is_ending or frame.state.interrupt is not None


@contextmanager
def passes() -> Iterator[Passes]:
    """Makes passes; the clock is put right afterwards."""
    loop = PassLoop()
    commits = GroupCommit(connection.alias, writers=1 if connection.vendor == "sqlite" else 2)
    commits.receive = partial(_received, loop)
    orm = OrmThreads(connection.alias, 2)
    pool = ThreadPoolExecutor(3)
    AsyncToSync.loop_thread_executors[loop] = orm  # type: ignore[assignment]
    made = Passes(loop, commits, orm, pool)
    try:
        yield made
    finally:
        clock.offset_us = 0
        orm.stop()
        for thread in orm._threads.values():
            thread.join(5)
        pool.shutdown()
        commits.close()
        made._others_commits.close()
        del AsyncToSync.loop_thread_executors[loop]
        loop.close()


def _connection() -> Any:
    return database.connection_for("default")
