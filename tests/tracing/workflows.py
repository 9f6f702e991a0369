"""Workflows of the worker processes that are traced, and die."""

from __future__ import annotations

import os
import signal

from django_steps import RetryPolicy, workflow
from tests.app import effects
from tests.app.effects import leave


@workflow
def traced_order(input, step):
    """A retry, a map, a child, for which it is suspended, and a worker that dies."""
    step.define("reserve", leave).run("reserve")
    step.define("charge", fail_once, retry=RetryPolicy(initial_interval="1ms")).run(step_name="charge")
    step.map("pack", pack, ["a", "b", "c"])
    step.invoke("receipt", traced_receipt).run()
    step.define("label", leave).run("label")
    step.define("deliver", die_once).run("deliver")


@workflow
def traced_receipt(step):
    step.define("print", leave).run("print")


def pack(item, step):
    step.define("wrap", leave).run(f"wrap {item}")


def fail_once(step_name):
    leave(step_name)
    if effects.count(step_name) == 1:
        raise OSError("refused")


def die_once(step_name):
    leave(step_name)
    if effects.count(step_name) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
