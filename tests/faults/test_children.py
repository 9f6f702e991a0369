"""Ends of children against the suspension of their parent, by real processes: those that execute the children, and those that
execute the parents, are killed, also at the worst moments.
"""

from __future__ import annotations

import os
import random
import time
from datetime import timedelta
from typing import Any

import pytest

from django_steps.models import WorkflowRun
from tests.staging import eventually

from . import dying, evidence
from .campaign import Crowd, level_of_worker
from .families import CHILDREN, CHILDREN_QUEUE, PARENTS, PARENTS_QUEUE
from .processes import Workers

# `FAULTS_PAIRS` lets the long test be longer, or shorter.
PAIRS = int(os.environ.get("FAULTS_PAIRS", "2000"))
PAUSE = 0.01  # about so many seconds a child takes
AT_ONCE = 24  # parents that have not ended: those that wait for a net are among them
WORKERS = {"parents": (PARENTS_QUEUE, 1), "children": (CHILDREN_QUEUE, 2)}
SOMETIMES = ("failing", "continuing", "slow")


def test_children_that_end_while_their_parent_is_suspended_wake_it_without_a_net(workers, chance):
    tally = campaign(workers, chance, pairs=60, dies=0)
    assert not tally["late"] and not tally["kills"]


def test_ends_of_children_and_suspensions_that_meet_are_neither_lost_nor_taken_twice(workers, chance):
    tally = campaign(workers, chance, pairs=20, dies=0.1, net=dying.SHORT, kills=True)
    assert tally["kills"]


@pytest.mark.faults
def test_thousands_of_ends_of_children_and_suspensions_that_meet_are_neither_lost_nor_taken_twice(
    workers, chance, report
):
    began = time.monotonic()
    tally = campaign(workers, chance, pairs=PAIRS, dies=0.02, net=10, kills=True)
    report("children", pairs=PAIRS, **tally, seconds=round(time.monotonic() - began))


def campaign(
    workers: Workers, chance: random.Random, *, pairs: int, dies: float, net: float | None = None, kills: bool = False
) -> dict[str, int]:
    """Start parents, some at a time, until all have ended; start again the workers that die, and kill one now and then, or one
    of each kind."""
    environment = dying.environment(dies, net=net)

    def starting(queue: str) -> Any:
        return lambda number: workers.start("--queue", queue, environment={**environment, **level_of_worker(number)})

    crowd = Crowd(workers, chance, {kind: (count, starting(queue)) for kind, (queue, count) in WORKERS.items()})
    left = [label_of(number) for number in range(pairs // CHILDREN)][::-1]
    parents = len(left)

    def are_finished() -> bool:
        crowd.replace_the_dead()
        if kills and left:
            crowd.kill_now_and_then(lambda: WorkflowRun.objects.finished().count(), max(1, pairs // 80))
        active = WorkflowRun.objects.active().filter(parent=None).count()
        while left and active < AT_ONCE:
            start(left.pop(), chance, net)
            active += 1
        return not active

    eventually(are_finished, timeout=60 + pairs)
    workers.stop()
    late = check(parents, workers, (net or 60) / 2)
    lines = evidence.read(workers.evidence)[dying.HERE]
    deaths = crowd.deaths
    return {
        "kills": deaths.total(),
        "of_children": deaths["children"],
        "of_parents": deaths["parents"],
        "before_wake": sum(line.step == "tell_parents" for line in lines),
        "before_look": sum(line.step == "look_again" for line in lines),
        "met": sum(line.event == dying.FOUND for line in lines),
        "late": late,
        "runs": WorkflowRun.objects.count(),
    }


def label_of(number: int) -> str:
    return f"family{number}"


def start(label: str, chance: random.Random, net: float | None) -> None:
    kinds = [chance.choice(SOMETIMES) if chance.random() < 0.2 else "plain" for _ in range(CHILDREN)]
    # So slow that the first net is drawn up before it ends, if it is short.
    input = {"label": label, "pause": PAUSE, "kinds": kinds, "long": f"{(net or 0) + 0.5}s"}
    PARENTS[int(label.removeprefix("family")) % len(PARENTS)].start(input, key=label)


def check(parents: int, workers: Workers, patience: float) -> int:
    """Each parent got what each of its children ended with, once, and every pass saw the same. How many steps and maps went on
    later than `patience` seconds after the last of their children had ended."""
    lines = evidence.read(workers.evidence)
    runs = list(WorkflowRun.objects.prefetch_related("steps"))
    by_key = {run.key: run for run in runs if run.key is not None}
    # One that has continued as another one has left its place to it.
    children = [run for run in runs if run.parent_id is not None and run.continued_as_id is None]
    below: dict[Any, list[WorkflowRun]] = {}
    for run in children:
        below.setdefault(run.parent_id, []).append(run)
    late = 0
    tokens = []
    for number in range(parents):
        label = label_of(number)
        parent = by_key[label]
        assert parent.status == "succeeded", f"{label} is {parent.status}: {parent.error}"
        seen = [(line.step, line.token) for line in lines[label] if line.event == "saw"]
        ended = sorted(below[parent.pk], key=lambda run: run.input["label"])
        assert [run.input["label"] for run in ended] == [f"{label}.{at}" for at in range(CHILDREN)], f"{label}: {ended}"
        assert parent.output == [token_of(run) for run in ended], f"{label} got {parent.output}"
        by_name = {name_of(run): token_of(run) for run in ended}
        assert set(seen) == set(by_name.items()), f"{label}: bodies saw {seen} instead of {by_name}"
        records = {record.name: record for record in parent.steps.all()}
        last = {run.parent_step: run.finished_at for run in sorted(ended, key=lambda run: run.finished_at)}
        late += sum(
            records[step].finished_at - ended_at > timedelta(seconds=patience) for step, ended_at in last.items()
        )
        tokens += parent.output
    assert len(set(tokens)) == len(tokens), "the result of a child was taken twice"
    assert len(children) == parents * CHILDREN + sum(run.workflow == "faults_between" for run in children)
    assert not any(run.open_parent_id for run in runs)
    return late


def name_of(run: WorkflowRun) -> str:
    """The name of the record that a parent has of its child."""
    return f"{run.parent_step}#{run.parent_item}" if run.parent_item else run.parent_step


def token_of(run: WorkflowRun) -> str:
    """What a child ended with."""
    if run.input["kind"] == "failing" and run.workflow == "faults_child":
        assert run.status == "failed"
        return run.error["message"]
    assert run.status == "succeeded", f"{run} is {run.status}"
    return run.output
