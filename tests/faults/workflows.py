"""Workflows of every kind that a fault may meet. Each step returns a token of its own, or fails with it, so that it can be
told which execution was recorded.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial
from typing import Any
from uuid import uuid4

from django_steps import RetryPolicy, current_step, workflow
from django_steps.definitions.step import Step
from tests.app.models import Effect

from .evidence import note, real_time

QUICKLY = RetryPolicy(max_attempts=3, initial_interval="50ms", backoff_coefficient=8, jitter=False)


class Broken(Exception):
    """A failure that is part of the plan."""


def do(input: dict[str, Any], step: Step, name: str, *, failures: int = 0, branch: str = "", **options: Any) -> None:
    """A step that takes about `input["pause"]` seconds and fails in its first attempts; what the body sees is noted."""
    label, path = input["label"], branch + name
    function = partial(execute, input, failures=failures, is_atomic=options.get("atomic", False))
    try:
        seen = step.define(name, function, **options).run()
    except Broken as error:
        note(label, "saw", path, str(error))
        raise
    note(label, "saw", path, seen)


def execute(input: dict[str, Any], *item: int, failures: int = 0, is_atomic: bool = False) -> str:
    """What a step does, or the item of a map."""
    label, token, this = input["label"], uuid4().hex, current_step()
    note(label, "execute", this.name, token, this.attempt)
    time.sleep(random.uniform(0, 2) * input["pause"])
    if is_atomic:
        Effect.objects.create(run=label, name=this.name, pid=os.getpid(), at=time.time())
    time.sleep(random.uniform(0, 1) * input["pause"])
    if this.attempt <= failures:
        raise Broken(token)
    return token


def nap(input: dict[str, Any], step: Step, name: str, duration: str, branch: str = "") -> None:
    """A sleep; when it was over is noted, and what this process takes for the time."""
    step.sleep(name, duration)
    note(input["label"], "saw", branch + name, str(real_time()))
    note(input["label"], "clock", branch + name, str(int(time.time())))


@workflow(name="faults_plain")
def plain(input, step):
    for number in range(4):
        do(input, step, f"plain_{number}")
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_atomic")
def atomic(input, step):
    for number in range(4):
        do(input, step, f"atomic_{number}", atomic=True)
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_sleeping")
def sleeping(input, step):
    do(input, step, "before")
    nap(input, step, "short", "100ms")
    do(input, step, "between", atomic=True)
    nap(input, step, "long", "700ms")
    do(input, step, "after")
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_retrying")
def retrying(input, step):
    do(input, step, "before")
    do(input, step, "stubborn", failures=2, retry=QUICKLY)
    do(input, step, "stubborn_atomic", failures=1, retry=QUICKLY, atomic=True)
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_caught")
def caught(input, step):
    do(input, step, "charge", atomic=True)
    try:
        do(input, step, "ship", failures=9)
    except Broken:
        do(input, step, "refund", atomic=True)
    nap(input, step, "long", "400ms")
    do(input, step, "tell")
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_mapped")
def mapped(input, step):
    """Branches that sleep, items, and atomic items, side by side."""

    def parcel(number, step):
        branch = f"parcel#{number}/"
        do(input, step, "book", branch=branch, atomic=True)
        nap(input, step, "short", "100ms", branch)
        do(input, step, "label", branch=branch)

    step.map("parcel", parcel, range(3))
    for name, is_atomic in (("item", False), ("atomic", True)):
        tokens = step.map(name, partial(execute, input, is_atomic=is_atomic), range(4), atomic=is_atomic)
        for number, token in enumerate(tokens):
            note(input["label"], "saw", f"{name}#{number}", token)
    note(input["label"], "end", "body")
    return "done"


@workflow(name="faults_failing")
def failing(input, step):
    do(input, step, "before", atomic=True)
    do(input, step, "fatal", failures=9, retry=RetryPolicy(max_attempts=2, initial_interval="10ms"))


@workflow(name="faults_writing")
def writing(input, step):
    """Atomic steps only, without a pause: as many commits as there can be."""
    for number in range(input["steps"]):
        do(input, step, f"write_{number}", atomic=number % 2 == 0)
    note(input["label"], "end", "body")
    return "done"
