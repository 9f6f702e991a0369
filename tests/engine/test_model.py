"""Random workflows, interrupted at random at every point, against a model of a dozen lines: each history comes out as if
nothing had happened.

The passes are a worker's own, with its commits, but on this thread, so that they can be cut off between any two writes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_steps import RetryPolicy, current_step, workflow
from django_steps.core import clock
from django_steps.core.states import ACTIVE, FINISHED
from django_steps.engine.ending import Ended
from django_steps.engine.history_cache import HistoryCache, load_histories
from django_steps.engine.host import Limits
from django_steps.errors import InvalidState, StepInterrupted
from django_steps.ledger import claims, database, timers
from django_steps.ledger.claims import Claim
from django_steps.ledger.terms import Terms
from django_steps.models import StepRecord, WorkflowEvent, WorkflowRun
from django_steps.worker.group_commit import GroupCommit
from django_steps.worker.host import WorkerHost
from django_steps.worker.task import Task
from tests.app.models import Effect
from tests.engine.event_model import NAMES, Mail, Taken, tell_untold
from tests.staging import make_terms
from tests.states import check_state

MINUTE = 60_000_000  # microseconds
LEASE = MINUTE // 2
RETRY = RetryPolicy(max_attempts=4, initial_interval="10s", jitter=False)
# Nothing is waited out in place: time passes on the virtual clock only.
LIMITS = Limits(inline_wait_us=0, max_value_bytes=1 << 20)


class Broken(Exception):
    """A failure that is part of the program."""


class Killed(BaseException):
    """The end of the process, as far as a pass can tell: nothing is written from here on."""


# -- The model -------------------------------------------------------------------------------------

# What a body does, one after the other; a step that fails does so in its first `times` attempts, or until it is repaired. A
# poll finds nothing in so many checks. `once` is `at_most_once`: its history does tell of an interruption in the middle of an
# attempt, which the body handles. A wait is for an event of the first or the second name; one may time out.
operations = st.one_of(
    st.tuples(st.sampled_from(["step", "atomic", "sleep", "caught", "uncaught", "raise"]), st.just(0)),
    st.tuples(st.sampled_from(["retried", "retried_atomic", "polled"]), st.integers(1, 3)),
    st.tuples(st.just("once"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["waited", "timed"]), st.integers(0, 1)),
)
programs = st.lists(operations, min_size=2, max_size=7)


# The kind and status of what is recorded of an operation; a sequential body never writes that a sleep is over.
_KINDS = {
    "sleep": ("sleep", "waiting"),
    "caught": ("step", "failed"),
    "polled": ("poll", "succeeded"),
    "waited": ("event", "succeeded"),
    "timed": ("event", "succeeded"),
}
_WAITS = ("waited", "timed")
_NOT_FINAL = ("retrying", "waiting", "begun")


class Row(NamedTuple):
    """What is to be recorded of one operation."""

    name: str
    kind: str
    status: str
    attempts: int


def details_of(program: list[tuple[str, int]], recorded: Sequence[str], last: int) -> dict[str, int]:
    """What a run has said of itself when these operations are recorded, or when it has ended at operation `last`."""
    numbers = [number for number, (operation, _) in enumerate(program) if f"{operation} {number}" in recorded]
    last = max([*numbers, last])
    return {"at": last, **{str(number): number for number in range(last + 1)}} if last >= 0 else {}


def history_of(
    program: list[tuple[str, int]], repaired: set[str], interrupted: dict[str, int]
) -> tuple[list[Row], str]:
    """What an uninterrupted pass of a program records, and how the run ends; `interrupted` are `at_most_once` steps, with the
    attempt of whose end nothing is known.
    """
    rows = []
    for number, (operation, times) in enumerate(program):
        name = f"{operation} {number}"
        if operation == "raise" and name not in repaired:
            return rows, "failed"
        if operation == "uncaught" and name not in repaired:
            return [*rows, Row(name, "step", "failed", 1)], "failed"
        if name in interrupted:
            rows.append(Row(name, "step", "failed", interrupted[name]))
        elif operation != "raise":
            attempts = 1 if operation in _WAITS else times + 1
            rows.append(Row(name, *_KINDS.get(operation, ("step", "succeeded")), attempts))
    return rows, "succeeded"


# -- The body, and what interrupts it --------------------------------------------------------------


class Peril:
    """Counts the points at which a pass can be interrupted, and interrupts it at one of them."""

    def __init__(self, point: int | None = None, interrupt: Callable[[], None] = lambda: None) -> None:
        self._left, self._interrupt = point, interrupt
        self.is_over = self.is_dead = False
        self.is_stale = False  # somebody else has taken the run over

    def reach(self) -> None:
        if self.is_dead:
            raise Killed
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left, self.is_over = None, True
                self._interrupt()

    def kill(self) -> None:
        self.is_dead = True
        raise Killed


class PerilousHost(WorkerHost):
    """A worker's host, with a point before and after whatever is written."""

    def __init__(self, peril: Peril) -> None:
        super().__init__(GroupCommit(connection.alias), LIMITS)
        self._peril = peril

    def record(self, write: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).record(write))

    def finish(self, end: Any) -> Any:
        return self._around(lambda: super(PerilousHost, self).finish(end))

    def write(self, statement: Callable[[], Any]) -> Any:
        return self._around(lambda: super(PerilousHost, self).write(statement))

    def _around(self, write: Callable[[], Any]) -> Any:
        self._peril.reach()
        outcome = write()
        self._peril.reach()
        return outcome


class _Present:
    """What the body looks at: a pass begins in a context of its own."""

    machine: Modelled
    peril: Peril


def work(name: str, operation: str, times: int) -> str:
    """What every step does: it is never executed once it is recorded, and fails as the program says."""
    machine, peril = _Present.machine, _Present.peril
    is_atomic = operation.endswith("atomic")
    if operation == "once":  # also by a stale pass
        attempt = name, current_step().attempt
        assert attempt not in machine.begun, f"{attempt} is executed again"
        machine.begun.add(attempt)
    if not peril.is_stale:
        finished = StepRecord.objects.filter(run=machine.run, name=name).exclude(status__in=_NOT_FINAL)
        assert not finished.exists(), f"{name} is recorded, and is executed again"
    if is_atomic:
        Effect.objects.create(run=str(machine.run.pk), name=name, pid=0, at=0)
    else:
        peril.reach()
    if operation == "polled":
        checks = StepRecord.objects.get(run=machine.run, name=name).checks
        return f"result of {name}" if checks == times else ""
    if current_step().attempt <= times or operation == "caught":
        raise Broken(name)
    if operation == "uncaught" and name not in machine.repaired:
        raise Broken(name)
    return f"result of {name}"


def define_modelled() -> Any:
    @workflow(name="modelled")
    def modelled(input, step, run):
        taken = Taken(_Present.machine.mail)
        for number, (operation, times) in enumerate(input):
            name = f"{operation} {number}"
            run.update_details(at=number, **{str(number): number})
            if operation == "sleep":
                step.sleep(name, "1m")
            elif operation in _WAITS:
                options = {"timeout": "10m", "default": None} if operation == "timed" else {}
                payload = step.wait_for_event(NAMES[times], name=name, **options)
                if payload is not None:
                    taken.got(NAMES[times], payload)
            elif operation == "raise":
                if name not in _Present.machine.repaired:
                    raise Broken(name)
            else:
                is_once = operation == "once"
                options = {"retry": RETRY} if times else {}
                if operation == "polled":
                    call = step.poll(name, work, every="1m", timeout="100d", max_checks=times + 1)
                else:
                    is_atomic = operation.endswith("atomic")
                    call = step.define(name, work, atomic=is_atomic, at_most_once=is_once, **options)
                try:
                    assert call.run(name, operation, times) == f"result of {name}"
                except StepInterrupted:
                    assert is_once and name in _Present.machine.interrupted
                except Broken as error:
                    assert error.args == (name,)
                    if operation != "caught":
                        raise
        run.update_details(at=len(input), **{str(len(input)): len(input)})
        return len(input)

    return modelled


# -- The machine -----------------------------------------------------------------------------------


goes_on = precondition(lambda self: self.status in ("pending", "sleeping", "waiting"))
points = st.one_of(st.integers(0, 3), st.integers(0, 20))


class Modelled(RuleBasedStateMachine):
    """One run, driven by rules until it has ended."""

    workflow: Any
    terms: Terms
    counts: Counter[str]

    @initialize(program=programs)
    def start(self, program: list[tuple[str, int]]) -> None:
        self.program, self.repaired = program, set[str]()
        self.begun, self.interrupted = set[tuple[str, int]](), dict[str, int]()
        self.run: WorkflowRun = self.workflow.start(program, key=str(uuid4()))
        self.mail = Mail(self.workflow, self.run)
        self.histories = HistoryCache()
        self.paused_one = False  # whether the last attempt to pause it did so, or found it paused
        self.ended_at = -1  # the operation at which it has ended last
        self.counts["runs"] += 1

    @precondition(lambda self: self.status == "succeeded")
    @rule(program=programs)
    def start_another(self, program: list[tuple[str, int]]) -> None:
        self.start(program)

    @goes_on
    @rule()
    def go_over_once(self) -> None:
        self._execute()

    @goes_on
    @rule(point=points)
    def die(self, point: int) -> None:
        """The process ends, and somebody else finds out by the lease."""
        peril = Peril(point, lambda: peril.kill())
        self._execute(peril)
        if peril.is_dead:
            self._let_leases_run_out()

    @goes_on
    @rule(point=points)
    def stop_worker(self, point: int) -> None:
        """The worker is told to stop, and gives the run back at the next step."""
        self._execute(Peril(point, lambda: self.task.stop(Ended.RELEASED)))

    @goes_on
    @rule(point=points, passes=st.integers(1, 3))
    def be_taken_over(self, point: int, passes: int) -> None:
        """Another worker takes the run over and gets on with it, while this one is still there and goes on later."""

        def other_worker() -> None:
            if connection.in_atomic_block:
                return
            peril.is_stale = True
            job = self.task
            self._let_leases_run_out()
            for _ in range(passes):
                self._execute()
            self.task = job
            left.append(self._written())

        left: list[Any] = []
        peril = Peril(point, other_worker)
        self._execute(peril)
        assert left in ([], [self._written()])  # the stale pass wrote nothing

    @rule(name=st.sampled_from(NAMES), by_key=st.booleans(), again=st.booleans(), dies=st.booleans())
    def send(self, name: str, by_key: bool, again: bool, dies: bool) -> None:
        self.mail.send(name, by_key=by_key, again=again, dies=dies)
        self.counts["events"] += not again

    @goes_on
    @rule(point=points, name=st.sampled_from(NAMES), by_key=st.booleans(), dies=st.booleans())
    def send_in_the_middle(self, point: int, name: str, by_key: bool, dies: bool) -> None:
        """Also between a look that finds nothing and the suspension, and right after it."""

        def send() -> None:
            if not connection.in_atomic_block:
                self.mail.send(name, by_key=by_key, dies=dies)
                self.counts["events in the middle"] += 1

        self._execute(Peril(point, send))

    @goes_on
    @rule(by=st.sampled_from(["", "eve"]))
    def cancel_at_rest(self, by: str) -> None:
        self.run.cancel(reason="at rest", by=by)
        assert (self.run.status, self.run.canceled_by) == ("canceled", by)

    @goes_on
    @rule(point=points)
    def cancel_in_the_middle(self, point: int) -> None:
        """The pass goes on until it notices, and then lets go."""
        peril = Peril(point, self._cancel)
        self._execute(peril)
        assert self.status != "canceling"

    @goes_on
    @rule(point=points)
    def cancel_and_die(self, point: int) -> None:
        """The process ends when somebody has just canceled the run: whoever recovers the run only ends it."""

        def cancel_and_kill() -> None:
            self._cancel()
            peril.kill()

        peril = Peril(point, cancel_and_kill)
        self._execute(peril)
        if peril.is_dead:
            passes = self.counts["passes"]
            self._let_leases_run_out()
            if self.status == "canceled":
                self._execute()
                assert self.counts["passes"] == passes

    @goes_on
    @rule(by=st.sampled_from(["", "eve"]))
    def pause_at_rest(self, by: str) -> None:
        self.run.pause(reason="at rest", by=by)
        assert (self.run.status, self.run.pause_reason, self.run.paused_by) == ("paused", "at rest", by)
        self.counts["pauses"] += 1

    @goes_on
    @rule(point=points)
    def pause_in_the_middle(self, point: int) -> None:
        """The pass goes on until it notices, and then lets go; nothing but an end comes before the pause."""
        self.paused_one = False
        self._execute(Peril(point, self._pause))
        assert self.status in (("paused", "succeeded", "failed") if self.paused_one else ACTIVE + FINISHED)
        self.counts["pauses in the middle"] += self.status == "paused"

    @goes_on
    @rule(point=points)
    def pause_and_die(self, point: int) -> None:
        """The process ends when somebody has just asked for a pause: whoever recovers the run pauses it."""

        def pause_and_kill() -> None:
            self._pause()
            peril.kill()

        peril = Peril(point, pause_and_kill)
        self._execute(peril)
        if peril.is_dead:
            passes = self.counts["passes"]
            self._let_leases_run_out()
            if self.status == "paused":
                self._execute()
                assert self.counts["passes"] == passes

    @goes_on
    @rule(point=points)
    def pause_and_resume_in_the_middle(self, point: int) -> None:
        """Before the pass has noticed it, or after."""

        def both() -> None:
            self._pause()
            if self.paused_one:
                Context().run(WorkflowRun.objects.get(pk=self.run.pk).resume)

        self._execute(Peril(point, both))
        assert self.status != "paused"

    @precondition(lambda self: self.status == "paused")
    @rule()
    def let_time_pass_while_paused(self) -> None:
        clock.offset_us += 10 * MINUTE
        with database.writing(connection):
            timers.wake(connection, self.terms)
        self._execute()
        assert self.status == "paused"

    @precondition(lambda self: self.status == "paused")
    @rule()
    def resume(self) -> None:
        with pytest.raises(InvalidState):
            self.run.retry()
        self.run.resume()
        assert (self.run.status, self.run.pause_reason, self.run.paused_at) == ("pending", "", None)

    @precondition(lambda self: self.status == "paused")
    @rule()
    def cancel_what_is_paused(self) -> None:
        self.run.cancel()
        assert self.run.status == "canceled"

    @precondition(lambda self: self.status in FINISHED)
    @rule()
    def refuse_to_pause_what_has_ended(self) -> None:
        for control in (self.run.pause, self.run.resume):
            with pytest.raises(InvalidState):
                control()

    @precondition(lambda self: self.status == "canceled")
    @rule()
    def retry_what_was_canceled(self) -> None:
        self.run.retry()
        assert (self.run.status, self.run.cancel_reason, self.run.canceled_by) == ("pending", "", "")

    @precondition(lambda self: self.status == "failed")
    @rule()
    def repair_and_retry(self) -> None:
        self._repair()

    @invariant()
    def history_is_the_beginning_of_the_models(self) -> None:
        check_state(self.run)
        rows, ending = history_of(self.program, self.repaired, self.interrupted)
        recorded = [
            Row(record.name, record.kind, record.status, record.attempts)
            for record in StepRecord.objects.filter(run=self.run).order_by("position")
        ]
        if self.status == "failed":
            self.ended_at = self._broken()[0][0]
        elif self.status == "succeeded":
            self.ended_at = len(self.program)
        names = [row.name for row in recorded]
        assert self.run.details == details_of(self.program, names, self.ended_at)
        if recorded and recorded[-1].status in _NOT_FINAL and recorded[-1].kind != "sleep":
            *recorded, tried = recorded
            expected = rows[len(recorded)]
            assert tried.name == expected.name
            assert tried.attempts < expected.attempts + (tried.status == "begun" or tried.kind == "event")
        assert recorded == rows[: len(recorded)]
        if self.status in ("succeeded", "failed"):
            assert (recorded, self.status) == (rows, ending)
        self.mail.check()
        effects = list(Effect.objects.filter(run=str(self.run.pk)).order_by("id").values_list("name", flat=True))
        assert effects == [row.name for row in recorded if row.name.split()[0].endswith("atomic")]

    def teardown(self) -> None:
        if hasattr(self, "run"):
            self._drive_to_the_end()
        clock.offset_us = 0

    @property
    def status(self) -> str:
        self.run.refresh_from_db()
        return str(self.run.status)

    # -- Details --

    def _drive_to_the_end(self) -> None:
        for _ in range(100):
            if self.status == "succeeded":
                assert self.run.output == len(self.program)
                break
            if self.status == "failed":
                self._repair()
            if self.status == "canceled":
                self.run.retry()
            if self.status == "paused":
                self.run.resume()
            if self.status == "waiting":
                self.mail.send(self.run.waiting_for[0])
            self._execute()
            self.history_is_the_beginning_of_the_models()
        assert self.status == "succeeded"

    def _execute(self, peril: Peril | None = None) -> None:
        """Let the time come at which the run is due, and go over it once."""
        tell_untold()
        self.run.refresh_from_db()
        if self.run.status in ("sleeping", "waiting") and self.run.available_at_us < clock.NEVER_US:
            clock.offset_us += max(0, self.run.available_at_us - database.read_clock(connection)) + 1000
        for claim in claims.claim(connection, self._terms_for_run(), 1).runs:
            self._pass_over(claim, peril or Peril())

    def _pass_over(self, claim: Claim, peril: Peril) -> None:
        self.counts["passes"] += 1
        _Present.machine = self
        _Present.peril = peril
        begun = StepRecord.objects.filter(run=self.run, status="begun")  # and whoever began it has lost the run
        self.interrupted |= dict(begun.values_list("name", "attempts"))
        self.counts["left in the middle"] += len(begun)
        records = load_histories(connection, [claim], self.histories).get(claim.run_id)
        self.task = job = Task(claim, records, PerilousHost(peril))
        try:
            ending = job.run()
        except Killed:
            return
        finally:
            self.counts["interruptions"] += peril.is_over
        if ending.how is Ended.SUSPENDED:
            self.histories.keep(claim, job.recorded())

    def _cancel(self) -> None:
        """Somebody cancels the run; not in the transaction of a step, which is on the same connection here."""
        if not connection.in_atomic_block:
            with contextlib.suppress(InvalidState):  # it has just ended
                somebody = WorkflowRun.objects.get(pk=self.run.pk)
                Context().run(somebody.cancel)  # in another context than the body's

    def _pause(self) -> None:
        """Somebody pauses the run; not in the transaction of a step, which is on the same connection here."""
        self.paused_one = False
        if not connection.in_atomic_block:
            with contextlib.suppress(InvalidState):  # it has just ended
                Context().run(WorkflowRun.objects.get(pk=self.run.pk).pause)
                self.paused_one = True

    def _written(self) -> Any:
        """The run and its records, as they are in the tables."""
        runs = WorkflowRun.objects.filter(pk=self.run.pk)
        steps = StepRecord.objects.filter(run=self.run).order_by("position")
        return list(runs.values()), list(steps.values()), list(WorkflowEvent.objects.order_by("id").values())

    def _let_leases_run_out(self) -> None:
        """Suspected first, then to be taken over."""
        for _ in range(2):
            clock.offset_us += LEASE + 1000
            with database.writing(connection):
                timers.wake(connection, self.terms)

    def _repair(self) -> None:
        self.repaired.add(self._broken()[0][1])
        self.run.retry()

    def _broken(self) -> list[tuple[int, str]]:
        """The number and the name of each operation that fails the run."""
        named = [(number, f"{operation} {number}") for number, (operation, _) in enumerate(self.program)]
        return [
            (n, name) for n, name in named if name.split()[0] in ("uncaught", "raise") and name not in self.repaired
        ]

    def _terms_for_run(self) -> Terms:
        return replace(self.terms, run_id=self.run.pk)


@pytest.fixture
def machine(transactional_db: None) -> Any:
    """The class of the machine, with a workflow and a worker."""
    modelled = define_modelled()  # before the terms, which name the workflows that are known
    terms = make_terms(lease=LEASE, max_recoveries=1000)
    return type("Modelled", (Modelled,), {"workflow": modelled, "terms": terms, "counts": Counter()})


def check(machine: Any, examples: int) -> None:
    """Let the machine go through so many sequences of rules."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_interruptions_at_any_point_leave_no_trace_in_any_history(machine):
    for _ in range(8):  # the sequences are random: it may take some more until there was enough of everything
        check(machine, examples=10)
        if machine.counts["interruptions"] > 10 and machine.counts["pauses"] > 3:
            break
    assert machine.counts["interruptions"] > 10
    assert machine.counts["pauses"] + machine.counts["pauses in the middle"] > 3
