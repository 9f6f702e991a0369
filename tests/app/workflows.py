"""Workflows that worker processes of the tests execute; those that only one test needs are defined there."""

from __future__ import annotations

import os
import time
from pathlib import Path

from django_steps import workflow

from .effects import leave


@workflow
def three_steps(input, step):
    for name in ("first", "second", "third"):
        step.define(name, leave).run(name)
    return "done"


@workflow
def slow_middle(input, step):
    """The second step takes `input["seconds"]`."""
    step.define("before", leave).run("before")

    @step.define("slow")
    def slow() -> None:
        leave("slow begins")
        time.sleep(input["seconds"])
        leave("slow ends")

    slow.run()
    step.define("after", leave).run("after")


@workflow
def kills_its_worker(input, step):
    """Dies in its second step as long as the file `input["alive"]` does not exist."""
    step.define("before", leave).run("before")

    @step.define("deadly")
    def deadly() -> None:
        leave("deadly")
        if not Path(input["alive"]).exists():
            os.kill(os.getpid(), 9)

    deadly.run()


@workflow
def sleeper(input, step):
    step.define("before", leave).run("before")
    step.sleep("nap", input["duration"])
    step.define("after", leave).run("after")
