"""Random trees of branches, maps and gathers, interrupted at random: every step is recorded once, and every atomic effect is
there once, as if nothing had happened.

The passes are those of `test_model.py`: a worker's own, on this thread, cut off between any two writes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextvars import Context
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_steps import RetryPolicy, current_step, workflow
from django_steps.core import clock
from django_steps.engine.ending import Ended
from django_steps.ledger import claims, database, timers
from django_steps.models import StepRecord, WorkflowEvent, WorkflowRun
from django_steps.worker.task import Task
from tests.app.models import Effect
from tests.changing import assert_fits
from tests.engine.event_model import NAMES, Mail, tell_untold
from tests.engine.test_model import LEASE, Killed, Peril, PerilousHost
from tests.examples import assert_enough, examples
from tests.staging import make_terms

Node = Any  # a kind of step, or ("map" | "gather", what is in each of its branches)
RETRY = RetryPolicy(max_attempts=3, initial_interval="10s", jitter=False)

leaves = st.sampled_from(["step", "atomic", "sleep", "waited", "retried", "retried_atomic"])
bodies = st.recursive(
    st.lists(leaves, min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(leaves, st.tuples(st.sampled_from(["map", "gather"]), st.lists(inner, min_size=1, max_size=3))),
        min_size=1,
        max_size=3,
    ),
    max_leaves=8,
)
interruptions = st.lists(
    st.tuples(st.sampled_from(["die", "stop", "cancel", "pause", "send", "send and die"]), st.integers(0, 25)),
    min_size=1,
    max_size=8,
)


class Host(PerilousHost):
    """With points around what is handed over, too."""

    def settle(self, handed: Any) -> Any:
        return self._around(lambda: super(Host, self).settle(handed))


class _Present:
    run: WorkflowRun
    peril: Peril
    mail: Mail


def work(path: str, kind: str) -> str:
    """What every step does: it is never executed once it is recorded."""
    finished = StepRecord.objects.filter(run=_Present.run, name=path, status__in=("succeeded", "failed"))
    assert not finished.exists(), f"{path} is recorded, and is executed again"
    if kind.endswith("atomic"):
        Effect.objects.create(run=str(_Present.run.pk), name=path, pid=0, at=0)
    else:
        _Present.peril.reach()
    if kind.startswith("retried") and current_step().attempt < 3:
        raise ConnectionError(path)
    return path


def go(body: list[Node], step: Any, prefix: str) -> list[Any]:
    """Do what a body, or the body of a branch, says; the paths of its steps, nested as they are."""
    found: list[Any] = []
    for number, node in enumerate(body):
        _Present.run.update_details(**{f"at {prefix}": number, f"{prefix}{number}": 1})
        if isinstance(node, str):
            name = f"{node} {number}"
            if node == "sleep":
                step.sleep(name, "1m")
                continue
            if node == "waited":  # branches may wait for the same
                assert step.wait_for_event(NAMES[number % 2], name=name) in _Present.mail.sent[NAMES[number % 2]]
                continue
            options = {"retry": RETRY} if node.startswith("retried") else {}
            call = step.define(name, work, atomic=node.endswith("atomic"), **options)
            found.append(call.run(prefix + name, node))
            continue
        kind, branches = node
        name = f"{kind} {number}"
        if kind == "map":
            item = partial(go_in_item, branches=branches, prefix=f"{prefix}{name}")
            found.append(step.map(name, item, range(len(branches))))
        else:
            bound = [
                step.branch(f"{name}.{at}", go).bind(inner, prefix=f"{prefix}{name}.{at}#/")
                for at, inner in enumerate(branches)
            ]
            found.append(list(step.gather(*bound)))
    _Present.run.update_details(**{f"at {prefix}": len(body)})
    return found


def go_in_item(at: int, step: Any, *, branches: list[Any], prefix: str) -> list[Any]:
    return go(branches[at], step, f"{prefix}#{at}/")


def expected(body: list[Node], prefix: str = "") -> list[Any]:
    """The same without an engine."""
    found: list[Any] = []
    for number, node in enumerate(body):
        if isinstance(node, str):
            found += [] if node in ("sleep", "waited") else [f"{prefix}{node} {number}"]
            continue
        kind, branches = node
        name = f"{kind} {number}"
        inside = [f"{name}#{at}/" if kind == "map" else f"{name}.{at}#/" for at in range(len(branches))]
        found.append([expected(inner, prefix + path) for inner, path in zip(branches, inside, strict=True)])
    return found


def details_of(body: list[Node], recorded: Collection[str], is_over: bool, prefix: str = "") -> dict[str, int]:
    """What a body or branch has said, and those within, when these are recorded, and whether itself is."""
    said: dict[str, int] = {}
    at = len(body) if is_over else -1
    for number, node in enumerate(body):
        kind, branches = (node, []) if isinstance(node, str) else node
        name = f"{prefix}{kind} {number}"
        paths = [f"{name}#{i}" if kind == "map" else f"{name}.{i}#" for i in range(len(branches))]
        inner = [
            details_of(inner, recorded, path in recorded, f"{path}/")
            for inner, path in zip(branches, paths, strict=True)
        ]
        if name in recorded or any(inner):
            at = max(at, number)
        said = {**said, **{key: value for one in inner for key, value in one.items()}}
    said |= {f"{prefix}{number}": 1 for number in range(min(at + 1, len(body)))}
    return said if at < 0 else {**said, f"at {prefix}": at}


def check_details(body: list[Node]) -> None:
    """What the run says of itself is what was said before whatever is recorded, and nothing else."""
    run = WorkflowRun.objects.get(pk=_Present.run.pk)
    recorded = set(run.steps.values_list("name", flat=True))
    assert run.details == details_of(body, recorded, run.status == "succeeded"), recorded


def flat(nested: list[Any]) -> Iterator[str]:
    for one in nested:
        if isinstance(one, str):
            yield one
        else:
            yield from flat(one)


def execute(peril: Peril, interrupt: Any = None) -> None:
    """Let the time come at which the run is due, and go over it once."""
    run, terms = _Present.run, make_terms(lease=30)
    run.refresh_from_db()
    if run.status == "canceled" or run.error_type.endswith("WorkerDied"):
        run.retry()
    if run.status == "paused":
        run.resume()
    tell_untold()
    run.refresh_from_db()
    if run.status in ("sleeping", "waiting") and run.available_at_us < clock.NEVER_US:
        clock.offset_us += max(0, run.available_at_us - database.read_clock(_connection())) + 1000
    _Present.peril = peril
    for claim in claims.claim(_connection(), terms, 1).runs:
        task = Task(claim, None, Host(peril))
        if interrupt is not None:
            peril._interrupt = partial(interrupt, task)
        with contextlib.suppress(Killed):
            task.run()
    if peril.is_dead:
        for _ in range(2):  # suspected first, then to be taken over
            clock.offset_us += LEASE + 1000
            with database.writing(_connection()):
                timers.wake(_connection(), terms)


def _connection() -> Any:
    return database.connection_for("default")


@pytest.mark.django_db(transaction=True)
def test_interruptions_leave_no_trace_in_groups() -> None:
    @workflow(name="grown")
    def grown(input, step):
        return go(input, step, "")

    @settings(
        max_examples=examples(130),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(body=bodies, interrupted=interruptions)
    def interrupt(body: list[Node], interrupted: list[tuple[str, int]]) -> None:
        clock.offset_us = 0
        Effect.objects.all().delete()
        WorkflowRun.objects.all().delete()
        WorkflowEvent.objects.all().delete()
        _Present.run = run = grown.start(body, key="order-7")
        _Present.mail = mail = Mail(grown, run)
        for how, point in interrupted:
            run.refresh_from_db()
            if run.status == "waiting" and point % 3:
                mail.send(run.waiting_for[0], by_key=point % 2 == 0)
            peril = Peril(point)
            doing = {
                "die": lambda task, peril=peril: peril.kill(),
                "stop": lambda task: task.stop(Ended.RELEASED),
                "cancel": lambda task: task.stop(Ended.CANCELED) if _cancel() else None,
                "pause": lambda task: task.stop(Ended.CANCELED) if _cancel("pause") else None,
                "send": lambda task, point=point: _send(point, dies=False),
                "send and die": lambda task, point=point: _send(point, dies=True),
            }
            execute(peril, doing[how])
            check_details(body)
            mail.check()
            counts[how] += peril.is_over
        for _ in range(200):
            run.refresh_from_db()
            if run.status == "succeeded" or (run.status == "failed" and not run.error_type.endswith("WorkerDied")):
                break
            if run.status == "waiting":
                mail.send(run.waiting_for[0])
            execute(Peril())
            check_details(body)
            mail.check()
        assert run.status == "succeeded", run.error
        assert_fits(run)
        assert run.output == expected(body)
        names = Counter(run.steps.filter(kind="step").values_list("name", flat=True))
        assert names == Counter(flat(expected(body)))
        effects = Counter(Effect.objects.values_list("name", flat=True))
        assert effects == Counter(path for path in names if "atomic" in path.rpartition("/")[2])

    counts: Counter[str] = Counter()
    try:
        interrupt()
    finally:
        clock.offset_us = 0
    assert_enough(counts, ("die", "stop", "cancel", "pause", "send", "send and die"), more_than=5)


def _send(number: int, *, dies: bool) -> None:
    """Somebody sends an event; not in the transaction of a step, which is on the same connection here."""
    if not _connection().in_atomic_block:
        _Present.mail.send(NAMES[number % 2], by_key=number % 3 == 0, dies=dies)


def _cancel(control: str = "cancel") -> bool:
    """Somebody cancels or pauses the run; not in the transaction of a step, which is on the same connection here."""
    if _connection().in_atomic_block:
        return False
    somebody = WorkflowRun.objects.get(pk=_Present.run.pk)
    if somebody.is_finished:
        return False
    Context().run(getattr(somebody, control))
    return True
