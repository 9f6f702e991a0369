"""Limits hold in the testing kit, on its clock."""

from __future__ import annotations

import random
from typing import Any

import pytest

from django_steps import Limit, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import drain, run_workflow

pytestmark = pytest.mark.django_db


def test_a_run_in_line_goes_on_once_the_other_has_ended() -> None:
    @workflow(limit=Limit(at_once=1, hold="unfinished"))
    def alone(step: Any) -> None:
        step.sleep("nap", "1h")

    runs = [alone.start() for _ in range(3)]
    drain()
    assert list(WorkflowRun.objects.order_by("id").values_list("status", flat=True)) == [
        "sleeping",
        "pending",
        "pending",
    ]
    drain(advance="90m")
    assert list(WorkflowRun.objects.order_by("id").values_list("status", flat=True)) == [
        "succeeded",
        "sleeping",
        "pending",
    ]
    drain(advance="2h")
    assert all(
        later.started_at >= earlier.finished_at for earlier, later in zip(runs_of(), runs_of()[1:], strict=False)
    )
    assert len(runs) == WorkflowRun.objects.filter(status="succeeded").count()


def runs_of() -> list[WorkflowRun]:
    return list(WorkflowRun.objects.order_by("id"))


def test_runs_begin_at_the_rate_on_the_clock_of_the_test() -> None:
    @workflow(limit=Limit(rate="1/m"))
    def paced_here() -> None:
        pass

    paced_here.start_many([None] * 5)
    drain()
    assert WorkflowRun.objects.filter(status="succeeded").count() == 1
    drain(advance="2m30s")
    assert WorkflowRun.objects.filter(status="succeeded").count() == 3
    drain(advance="1h")
    assert WorkflowRun.objects.filter(status="succeeded").count() == 5


def test_run_workflow_passes_through_the_limits_of_its_children() -> None:
    @workflow(limit=Limit(at_once=1, hold="executing", rate="1/m"))
    def narrow_child(input: int, step: Any) -> int:
        return int(step.define("double", lambda: input * 2).run())

    @workflow
    def wide(step: Any) -> Any:
        return step.map("each", narrow_child, [1, 2, 3])

    assert run_workflow(wide).result() == [2, 4, 6]


@pytest.mark.parametrize("seed", range(10))
def test_random_trees_of_runs_that_invoke_each_other_under_limits_end(seed: int) -> None:
    chance = random.Random(seed)
    made: list[Any] = []

    def body(input: Any, step: Any) -> int:
        # Only its own workflow or one behind it: in a circle two limits may wait for each other.
        return 1 + sum(step.invoke(f"child {n}", made[which]).run(rest) for n, (which, rest) in enumerate(input))

    for number in range(3):
        hold = chance.choice(["executing", "unfinished"])
        limit = Limit(at_once=chance.randint(1, 2), hold=hold)
        made.append(workflow(name=f"tree_{seed}_{number}", limit=limit)(body))

    def tree(level: int, least: int) -> list[Any]:
        if level == 0:
            return []
        children = [chance.randrange(least, 3) for _ in range(chance.randrange(3))]
        return [[which, tree(level - 1, which)] for which in children]

    for _ in range(4):
        which = chance.randrange(3)
        made[which].start(tree(3, which))
    drain()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}
