"""Random trees of runs, interrupted, canceled and retried at random: no child is lost or started twice, no parent is left
waiting, every step is recorded once, and every atomic effect is there once.

The passes are those of `test_model.py`: a worker's own, on this thread, cut off between any two writes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import Context
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_steps import RetryPolicy, workflow
from django_steps.core import clock
from django_steps.core.ids import random_token
from django_steps.engine import afterwards
from django_steps.engine.ending import Ended
from django_steps.errors import InvalidState
from django_steps.ledger import claims, database, timers
from django_steps.models import StepRecord, WorkflowRun
from django_steps.worker.task import Task
from tests.app.models import Effect
from tests.changing import assert_fits
from tests.engine.test_group_model import Host
from tests.engine.test_model import LEASE, Killed, Peril
from tests.examples import assert_enough, examples
from tests.staging import make_terms
from tests.states import check_state

Body = list[Any]  # of kinds of steps, and of (how others are called, what each of them does)
DAY = 24 * 3600 * 1_000_000
MOST_PASSES = 400
EXAMPLES = examples(50)

leaves = st.sampled_from(["step", "atomic", "sleep", "fails"])
calls = st.sampled_from(["invoke", "map", "window", "gather", "branches"])
below = st.recursive(
    st.lists(leaves, max_size=2),
    lambda inner: st.lists(
        st.one_of(leaves, st.tuples(calls, st.lists(inner, min_size=1, max_size=3))), min_size=1, max_size=2
    ),
    max_leaves=6,
)
bodies = st.tuples(
    st.lists(leaves, max_size=1),
    st.tuples(calls, st.lists(below, min_size=1, max_size=3)),
    st.lists(leaves, max_size=1),
).map(lambda parts: [*parts[0], parts[1], *parts[2]])
# Some twice, or too few of them come to the point at which they happen.
ways = st.sampled_from(
    ["die", "stop", "stop", "cancel", "cancel", "cancel the first", "pause", "pause the first", "retry"]
)
interruptions = st.lists(st.tuples(ways, st.integers(0, 12), st.integers(0, 4)), min_size=2, max_size=6)


class Broken(Exception):
    """A failure that is part of the program."""


class _Present:
    peril = Peril()
    mended: set[str] = set()
    run: Any = None


def work(path: str, kind: str) -> str:
    """What every step does: it is never executed once it is recorded."""
    finished = StepRecord.objects.filter(run=_Present.run, name=path.rpartition("|")[2], status="succeeded")
    assert not finished.exists(), f"{path} is recorded, and is executed again"
    if kind == "atomic":
        Effect.objects.create(run="", name=path, pid=0, at=0)
    else:
        _Present.peril.reach()
    if kind == "fails" and path not in _Present.mended:
        _Present.mended.add(path)  # from the next time on
        raise Broken(path)
    return path


def define() -> Any:
    @workflow(name="grown", retry=RetryPolicy(max_attempts=2, initial_interval="10s", jitter=False))
    def grown(input, step):
        return go(input, step)

    @workflow(name="grown_once")
    def grown_once(input, step):
        return go(input, step)

    def go(input: Any, step: Any) -> Body:
        path, found = input["path"], []
        for number, node in enumerate(input["body"]):
            if isinstance(node, str):
                name = f"{node} {number}"
                if node == "sleep":
                    step.sleep(name, "1m")
                else:
                    found.append(step.define(name, work, atomic=node == "atomic").run(f"{path}|{name}", node))
                continue
            kind, inner = node
            child = grown_once if number % 2 else grown
            inputs = [{"path": f"{path}/{number}.{at}", "body": body} for at, body in enumerate(inner)]
            if kind in ("map", "window"):
                options = {"concurrency": 1} if kind == "window" else {}
                found += step.map(f"{kind} {number}", child, inputs, key=lambda one: one["path"], **options)
            elif kind == "branches":
                function = partial(invoke_in, child=child)
                found += step.map(f"{kind} {number}", function, inputs, key=lambda one: one["path"])
            elif kind == "gather":
                found += step.gather(*[step.invoke(f"{number}.{at}", child).bind(i) for at, i in enumerate(inputs)])
            else:
                found += [step.invoke(f"{number}.{at}", child).run(i) for at, i in enumerate(inputs)]
        return found

    return grown


def invoke_in(input: Any, step: Any, *, child: Any) -> Any:
    return step.invoke("child", child).run(input)


def expected(body: Body, path: str = "") -> Body:
    """What a run returns, without an engine."""
    found: Body = []
    for number, node in enumerate(body):
        if isinstance(node, str):
            found += [] if node == "sleep" else [f"{path}|{node} {number}"]
        else:
            found += [expected(inner, f"{path}/{number}.{at}") for at, inner in enumerate(node[1])]
    return found


def paths(body: Body, path: str = "") -> Iterator[str]:
    """Of each run of a tree."""
    yield path
    for number, node in enumerate(body):
        if not isinstance(node, str):
            for at, inner in enumerate(node[1]):
                yield from paths(inner, f"{path}/{number}.{at}")


def flat(nested: Body) -> Iterator[str]:
    for one in nested:
        if isinstance(one, str):
            yield one
        else:
            yield from flat(one)


def _connection() -> Any:
    return database.connection_for("default")


class Tree:
    """The runs of one example, and a worker that goes over one of them at a time."""

    def __init__(self, root: WorkflowRun, counts: Counter[str]) -> None:
        self.root, self.counts = root, counts
        self.terms = make_terms(lease=LEASE, max_recoveries=1000)
        self.passes = 0

    def go_on(self, how: str = "", point: int = 0) -> bool:
        """Go over one run, or let time pass; whether there was anything to do."""
        connection = _connection()
        claimed = claims.claim(connection, self.terms, 1)
        if claimed.ended or claimed.canceling:
            afterwards.look_after(connection, claimed)
        for claim in claimed.runs:
            self.passes += 1
            assert self.passes < MOST_PASSES, "the runs don't come to an end"
            self._pass(claim, how, point)
        for run in WorkflowRun.objects.all():
            check_state(run)
        return any(claimed) or self._let_time_pass()

    def _let_time_pass(self) -> bool:
        afterwards.cancel_orphans(_connection())
        # Parents that wait are looked at again and again: that is no reason to wait for what is paused below them.
        goes_on = WorkflowRun.objects.filter(status__in=("pending", "running", "sleeping", "canceling")).exists()
        if not goes_on and WorkflowRun.objects.filter(status="paused").resume().done:
            return True
        due = timers.next_due(_connection()).due
        if due is None or due > 30 * DAY:
            return False
        clock.offset_us += due + 1000
        return True

    def _pass(self, claim: Any, how: str, point: int) -> None:
        peril = Peril(point if how else None)
        task = Task(claim, None, Host(peril))
        doing = {
            "die": peril.kill,
            "stop": lambda: task.stop(Ended.RELEASED),
            "cancel": lambda: task.stop(Ended.CANCELED) if self.cancel(claim.run_id) else None,
            "cancel the first": lambda: self.cancel(self.root.pk),
            "pause": lambda: task.stop(Ended.CANCELED) if self.pause(claim.run_id) else None,
            "pause the first": lambda: self.pause(self.root.pk),
            "retry": self.retry_one,
        }
        peril._interrupt = doing.get(how, lambda: None)
        _Present.peril, _Present.run = peril, claim.run_id
        with contextlib.suppress(Killed):
            task.run()
        self.counts[how] += peril.is_over

    def cancel(self, run_id: Any) -> bool:
        """Somebody cancels a run; not in the transaction of a step, which is on the same connection here."""
        somebody = WorkflowRun.objects.get(pk=run_id)
        if _connection().in_atomic_block or somebody.is_finished:
            return False
        Context().run(somebody.cancel)
        return True

    def pause(self, run_id: Any) -> bool:
        """Somebody pauses a run, in the same way; it is resumed once nothing else goes on."""
        if _connection().in_atomic_block:
            return False
        with contextlib.suppress(InvalidState):
            Context().run(WorkflowRun.objects.get(pk=run_id).pause)
            return True
        return False

    def retry_one(self) -> None:
        """Somebody retries a child whose parent may know of its end, or not."""
        if _connection().in_atomic_block:
            return
        for run in WorkflowRun.objects.filter(status__in=("failed", "canceled"), parent__isnull=False)[:1]:
            with contextlib.suppress(InvalidState):
                Context().run(run.retry)

    def retry(self) -> None:
        """The first run has failed, or was canceled: let it go on, once all that it has invoked can."""
        try:
            self.root.retry()
        except InvalidState:
            assert self.go_on(), "it can't be retried, and nothing else goes on"

    def to_the_end(self) -> None:
        for _ in range(10 * MOST_PASSES):
            self.root.refresh_from_db()
            if self.root.status == "succeeded":
                break
            if self.root.is_finished:
                self.retry()
            else:
                assert self.go_on(), f"nothing goes on: {self._shown()}"
        while self.go_on():  # what is left of it
            pass

    def _shown(self) -> list[Any]:
        runs = WorkflowRun.objects.order_by("id").values_list("status", "waits_for", "parent_step", "parent_item")
        return [*runs, *StepRecord.objects.values_list("name", "kind", "status")]


def check(tree: Tree, body: Body) -> None:
    """Nothing of what happened to the tree shows in what it has come to."""
    root = tree.root
    assert (root.status, root.output) == ("succeeded", expected(body)), root.error
    runs = list(WorkflowRun.objects.all())
    assert {run.status for run in runs} == {"succeeded"}
    for run in runs:
        assert_fits(run)
    assert Counter(run.input["path"] for run in runs) == Counter(paths(body))
    assert not any(run.open_parent_id for run in runs)
    names = Counter(flat(expected(body)))
    recorded = StepRecord.objects.filter(kind="step").values_list("output_text", flat=True)
    assert len(recorded) == sum(names.values())
    effects = Counter(Effect.objects.values_list("name", flat=True))
    assert effects == Counter(path for path in names if "|atomic" in path)


@pytest.mark.django_db(transaction=True)
def test_interruptions_leave_no_trace_in_trees_of_runs() -> None:
    grown = define()
    counts: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    @given(body=bodies, interrupted=interruptions)
    def interrupt(body: Body, interrupted: list[tuple[str, int, int]]) -> None:
        clock.offset_us = 0
        Effect.objects.all().delete()
        WorkflowRun.objects.all().delete()
        _Present.mended = set()
        tree = Tree(grown.start({"path": "", "body": body}, key=str(random_token())), counts)
        for how, point, passes in interrupted:
            for _ in range(passes):
                tree.go_on()
            tree.go_on(how, point)
            tree.root.refresh_from_db()
            if tree.root.is_finished and tree.root.status != "succeeded":
                tree.retry()
        tree.to_the_end()
        check(tree, body)

    try:
        interrupt()
    finally:
        clock.offset_us = 0
    kinds = ("die", "stop", "cancel", "cancel the first", "pause", "pause the first", "retry")
    assert_enough(counts, kinds, more_than=3)
