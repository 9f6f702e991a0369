"""Runs that invoke others, in every way: each has two children, which end at about the moment at which it is suspended."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import Any
from uuid import uuid4

from django_steps import AsyncStep, RunFailed, workflow
from django_steps.definitions.step import Step

from .evidence import note

CHILDREN = 2  # of each run
PARENTS_QUEUE, CHILDREN_QUEUE = "parents", "children"


class Spoiled(Exception):
    """What a child fails with, where that is part of the plan."""


def call(input: dict[str, Any], step: Step, name: str, item: dict[str, Any], branch: str = "") -> str:
    """Invoke a child; the token that it has ended with, as the body sees it, is noted."""
    try:
        ended: Any = step.invoke(name, child).run(item)
    except RunFailed as error:
        ended = error
    return see(input, branch + name, ended)


def see(input: dict[str, Any], name: str, ended: Any) -> str:
    """What a child has ended with, well or badly, is noted."""
    token = str(ended.__cause__) if isinstance(ended, RunFailed) else ended
    note(input["label"], "saw", name, token)
    return token


def work(input: dict[str, Any]) -> str:
    """What a child does, about as long as its parent needs to be suspended."""
    token = uuid4().hex
    note(input["label"], "execute", "work", token)
    time.sleep(random.uniform(0, 2) * input["pause"])
    return token


@workflow(name="faults_child", queue=CHILDREN_QUEUE)
def child(input, step):
    """Ends with the token of its step: at once, after a sleep, as another run, or by failing."""
    token = step.define("work", partial(work, input)).run()
    if input["kind"] == "slow":
        step.sleep("long", input["long"])
    if input["kind"] == "continuing":
        return step.continue_as_new({**input, "kind": "plain"})
    if input["kind"] == "failing":
        raise Spoiled(token)
    return token


def given(input: dict[str, Any], number: int) -> dict[str, Any]:
    """The input of a child."""
    return {**input, "label": f"{input['label']}.{number}", "kind": input["kinds"][number]}


@workflow(name="faults_invoking", queue=PARENTS_QUEUE)
def invoking(input, step: Step):
    """One after the other."""
    return [call(input, step, name, given(input, number)) for number, name in enumerate(["one", "two"])]


@workflow(name="faults_invoking_map", queue=PARENTS_QUEUE)
def invoking_map(input, step: Step):
    """Both at once."""
    items = [given(input, number) for number in range(CHILDREN)]
    found = step.map("item", child, items, key=lambda item: item["label"], return_exceptions=True)
    return [see(input, f"item#{item['label']}", one) for item, one in zip(items, found, strict=True)]


@workflow(name="faults_invoking_branches", queue=PARENTS_QUEUE)
def invoking_branches(input, step: Step):
    """Each in a branch."""

    def one(number, step):
        return call(input, step, "child", given(input, number), branch=f"one#{number}/")

    return step.map("one", one, range(CHILDREN))


@workflow(name="faults_invoking_async", queue=PARENTS_QUEUE)
async def invoking_async(input, step: AsyncStep):
    """Side by side."""

    async def one(number: int, name: str) -> str:
        try:
            ended: Any = await step.invoke(name, child).run(given(input, number))
        except RunFailed as error:
            ended = error
        return see(input, name, ended)

    return await asyncio.gather(*(one(number, name) for number, name in enumerate(["one", "two"])))


@workflow(name="faults_between", queue=CHILDREN_QUEUE)
def between(input, step: Step):
    """A child that has a child."""
    return call(input, step, "below", input)


@workflow(name="faults_invoking_deep", queue=PARENTS_QUEUE)
def invoking_deep(input, step: Step):
    """A child, and one of a child."""
    return [
        call(input, step, "one", given(input, 0)),
        see(input, "two", step.invoke("two", between).run(given(input, 1))),
    ]


PARENTS = (invoking, invoking_map, invoking_branches, invoking_async, invoking_deep)
