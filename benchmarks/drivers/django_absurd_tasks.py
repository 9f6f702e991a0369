"""The tasks that django-absurd executes; a module of their own, because it imports them by name."""

from __future__ import annotations

import protocol
from django.tasks import task
from django_absurd import get_absurd_context


def result(number: int) -> dict:
    return {"number": number, "ok": True}


@task
def steps(size):
    context = get_absurd_context()
    for number in range(size):
        context.step(f"step-{number}", lambda number=number: result(number))
    return {"done": size}


@task
def sleeper(size):
    context = get_absurd_context()
    context.sleep_for("nap", size)
    context.step("after", lambda: result(0))
    return {"done": 1}


@task
def resume(size):
    context = get_absurd_context()
    protocol.note("entered")
    for number in range(size):
        context.step(f"step-{number}", lambda number=number: result(number))
    context.step("last", fail_once)
    return {"done": size}


def fail_once() -> dict:
    protocol.note("last step")
    if protocol.is_first_time():
        raise RuntimeError("once")
    return {"ok": True}
