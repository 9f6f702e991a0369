"""Workflows with limits of every kind, and random trees of runs that invoke each other under them."""

from __future__ import annotations

import random
import time
from typing import Any

from django_steps import Limit, workflow

AT_ONCE = 3  # of the crowded ones that execute
OWNERS = 4  # of each of which one is unfinished
LIMITED = ["bough", "twig", "bush"]


def occupy(pause: float) -> None:
    """A step that takes about so many seconds."""
    time.sleep(random.uniform(0, 2) * pause)


@workflow(name="faults_crowded", limit=Limit(at_once=AT_ONCE, hold="executing"))
def crowded(input, step):
    """Leaves its slot while it sleeps."""
    step.define("first", occupy).run(input["pause"])
    step.sleep("nap", "300ms")  # longer than what is waited out
    step.define("second", occupy).run(input["pause"])


@workflow(name="faults_owned", limit=Limit(at_once=1, hold="unfinished", key=lambda input: input["owner"]))
def owned(input, step):
    """Keeps its slot while it sleeps."""
    step.define("first", occupy).run(input["pause"])
    step.sleep("nap", "250ms")
    step.define("second", occupy).run(input["pause"])


def grow(input: dict[str, Any], step: Any) -> int:
    """Invoke what is below, one after the other or all at once; how many runs that are, with this one."""
    step.define("grow", occupy).run(input["pause"])
    below = [(number, tree) for number, tree in enumerate(input["below"])]
    if input["together"]:
        sizes = step.gather(*(step.invoke(f"below {n}", KINDS[tree["kind"]]).bind(tree) for n, tree in below))
    else:
        sizes = [step.invoke(f"below {n}", KINDS[tree["kind"]]).run(tree) for n, tree in below]
    return 1 + sum(sizes)


@workflow(name="faults_bough", limit=Limit(at_once=2, hold="executing"))
def bough(input, step):
    """Two execute."""
    return grow(input, step)


@workflow(name="faults_twig", limit=Limit(at_once=2, hold="unfinished"))
def twig(input, step):
    """Two are unfinished, but for those that invoke each other."""
    return grow(input, step)


@workflow(name="faults_bush", limit=Limit(at_once=1, hold="executing", key=lambda input: input["owner"]))
def bush(input, step):
    """One of each owner executes."""
    return grow(input, step)


KINDS = {"bough": bough, "twig": twig, "bush": bush}


def random_tree(chance: random.Random, pause: float, depth: int = 3) -> dict[str, Any]:
    """The input of a run of `KINDS` that invokes others, which invoke others."""
    count = chance.choice([0, 1, 1, 2, 3]) if depth else 0
    return {
        "kind": chance.choice(LIMITED),
        "owner": chance.randrange(2),
        "together": chance.random() < 0.5,
        "pause": pause,
        "below": [random_tree(chance, pause, depth - 1) for _ in range(count)],
    }


def size(tree: dict[str, Any]) -> int:
    """How many runs a tree is."""
    return 1 + sum(map(size, tree["below"]))
