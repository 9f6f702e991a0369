"""Whatever a body does, `run_workflow()` and `drain()` give what fake steps give: bodies that are made up at random."""

from __future__ import annotations

import asyncio
import os
from random import Random
from unittest import mock

from django.test import TestCase

from django_steps import AsyncStep, workflow
from django_steps.models import WorkflowRun
from django_steps.testing import AsyncFakeStep, FakeStep, drain, run_workflow
from tests.conftest import ELSEWHERE

SIMPLE = ("step", "sleep", "event", "poll", "failure")
WITH_OTHERS = ("invoke", "map", "gather", "branches")
DEEPEST = 3


def made_up(random, depth=0):
    """What a body does: a list of operations, some of which hold such lists for others."""
    plan = []
    for number in range(random.randint(1, 3)):
        kind = random.choice(SIMPLE + (WITH_OTHERS if depth < DEEPEST else ()))
        operation = {"kind": kind, "name": f"{kind}{number}", "hours": random.randint(0, 3)}
        if kind in WITH_OTHERS:
            operation["plans"] = {str(key): made_up(random, depth + 1) for key in range(random.randint(1, 3))}
            operation["concurrency"] = random.choice([None, 1, 2])
            operation["is_async"] = random.random() < 0.5
        plan.append(operation)
    return plan


def workflow_of(operation):
    return same_async if operation["is_async"] else same_plain


def carry_out(plan, step, path=""):
    found = []
    for operation in plan:
        kind, name, hours = operation["kind"], operation["name"], operation["hours"]
        plans = operation.get("plans", {})
        if kind == "step":
            found.append(step.define(name, lambda name=name: name).run())
        elif kind == "sleep":
            step.sleep(name, f"{hours}h")
        elif kind == "event":
            found.append(step.wait_for_event(f"event{path}", timeout=f"{hours + 1}h", default="late"))
        elif kind == "poll":
            found.append(step.poll(name, lambda: "polled", every="1h").run())
        elif kind == "failure":
            try:
                step.define(name, lambda: 1 / 0).run()
            except ZeroDivisionError:
                found.append("failed")
        elif kind == "invoke":
            found.append(step.invoke(name, workflow_of(operation), timeout="90d").run(plans["0"]))
        elif kind == "map":
            keys = iter(plans)
            found.append(
                step.map(
                    name,
                    workflow_of(operation),
                    plans.values(),
                    key=lambda plan, keys=keys: next(keys),
                    concurrency=operation["concurrency"],
                )
            )
        else:
            found.append(side_by_side(operation, plans, step, path))
    return found


def side_by_side(operation, plans, step, path):
    name = operation["name"]

    def branch(key, step):
        return carry_out(plans[key], step, path + key)

    if operation["kind"] == "branches":
        return step.map(name, branch, list(plans), concurrency=operation["concurrency"])
    bound = [step.branch(f"{name}{key}", branch).bind(key) for key in plans]
    return list(step.gather(*bound, step.invoke(f"{name} child", workflow_of(operation)).bind(plans["0"])))


async def carry_out_async(plan, step, path=""):
    found = []
    for operation in plan:
        kind, name, hours = operation["kind"], operation["name"], operation["hours"]
        plans = operation.get("plans", {})
        if kind == "step":
            found.append(await step.define(name, lambda name=name: name).run())
        elif kind == "sleep":
            await step.sleep(name, f"{hours}h")
        elif kind == "event":
            found.append(await step.wait_for_event(f"event{path}", timeout=f"{hours + 1}h", default="late"))
        elif kind == "poll":
            found.append(await step.poll(name, lambda: "polled", every="1h").run())
        elif kind == "failure":
            try:
                await step.define(name, lambda: 1 / 0).run()
            except ZeroDivisionError:
                found.append("failed")
        elif kind == "invoke":
            async with asyncio.timeout(90 * 86400):  # keeps the pass in memory meanwhile
                found.append(await step.invoke(name, workflow_of(operation)).run(plans["0"]))
        elif kind == "map":
            keys = iter(plans)
            found.append(
                await step.map(
                    name,
                    workflow_of(operation),
                    plans.values(),
                    key=lambda plan, keys=keys: next(keys),
                    concurrency=operation["concurrency"],
                )
            )
        else:
            found.append(await side_by_side_async(operation, plans, step, path))
    return found


async def side_by_side_async(operation, plans, step, path):
    name = operation["name"]

    async def branch(key, step):
        return await carry_out_async(plans[key], step, path + key)

    if operation["kind"] == "branches":
        return await step.map(name, branch, list(plans), concurrency=operation["concurrency"])
    calls = [step.branch(f"{name}{key}", branch).run(key) for key in plans]
    return list(await asyncio.gather(*calls, step.invoke(f"{name} child", workflow_of(operation)).run(plans["0"])))


@workflow
def same_plain(input, step):
    return carry_out(input, step)


@workflow
async def same_async(input, step: AsyncStep):
    return await carry_out_async(input, step)


class SameResultsTests(TestCase):
    def test_runs_give_what_fake_steps_give(self):
        for seed in range(3 if ELSEWHERE else 10):
            random = Random(seed)
            plan, body = made_up(random), random.choice([same_plain, same_async])
            with self.subTest(seed=seed), mock.patch.dict(os.environ, DJANGO_STEPS_TEST_SEED=str(seed)):
                expected = (
                    asyncio.run(same_async(input=plan, step=AsyncFakeStep()))
                    if body is same_async
                    else same_plain(input=plan, step=FakeStep())
                )
                for options in ({}, {"straight_through": True}):
                    run = run_workflow(body, plan, max_steps=3000, **options)
                    self.assertEqual(run.result(), expected)
                run = body.start(plan)
                drain(advance="365d", max_steps=3000)
                self.assertEqual(run.result(), expected)
                self.assertFalse(WorkflowRun.objects.active().exists())
