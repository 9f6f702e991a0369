"""Events against waits, by real processes: those that send and those that wait are killed, also at the worst moments."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

from django_steps.models import WorkflowEvent, WorkflowRun
from tests.staging import eventually

from . import dying, evidence
from .campaign import Crowd, level_of, level_of_worker
from .processes import Workers
from .sender import EVENTS, label_of, token_of

WORKERS, SENDERS = 2, 3
# `FAULTS_PAIRS` lets the long test be longer, or shorter.
PAIRS = int(os.environ.get("FAULTS_PAIRS", "2000"))


def test_events_and_waits_that_meet_are_neither_lost_nor_taken_twice(workers, chance, seed):
    tally = campaign(workers, chance, seed, pairs=60, dies=0.1, net=dying.SHORT)
    assert tally["kills"]


@pytest.mark.faults
def test_thousands_of_events_and_waits_that_meet_are_neither_lost_nor_taken_twice(workers, chance, seed, report):
    began = time.monotonic()
    tally = campaign(workers, chance, seed, pairs=PAIRS, dies=0.02)
    report("events", pairs=PAIRS, **tally, seconds=round(time.monotonic() - began))


def campaign(
    workers: Workers, chance: random.Random, seed: int, *, pairs: int, dies: float, net: float | None = None
) -> dict[str, int]:
    """Let processes send and wait until all is sent, and start again those that die; kill one or two of them now and then."""
    environment = dying.environment(dies, net=net)
    runs = pairs // EVENTS
    bounds = [runs * number // SENDERS for number in range(SENDERS + 1)]

    def start_worker(number: int) -> Any:
        return workers.start(environment={**environment, **level_of_worker(number)})

    def start_sender(number: int) -> Any:
        arguments = map(str, (bounds[number], bounds[number + 1], seed))
        return workers.start_module("tests.faults.sender", *arguments, environment={**environment, **level_of(number)})

    crowd = Crowd(workers, chance, {"worker": (WORKERS, start_worker), "sender": (SENDERS, start_sender)})
    while any(sender.poll() != 0 for sender in crowd.of["sender"]):
        time.sleep(0.02)
        crowd.replace_the_dead()
        crowd.kill_now_and_then(WorkflowEvent.objects.count, max(1, pairs // 80))

    def are_finished() -> bool:
        crowd.replace_the_dead()  # some die of a look
        return not WorkflowRun.objects.active().exists()

    eventually(are_finished, timeout=180)
    workers.stop()
    check(runs, workers)
    deaths = crowd.deaths
    return {"kills": deaths.total(), "senders": deaths["sender"], "workers": deaths["worker"], "runs": runs}


def check(runs: int, workers: Workers) -> None:
    """Each run got its events, each event was taken by one wait, and every pass saw the same."""
    lines = evidence.read(workers.evidence)
    found = {run.key: run for run in WorkflowRun.objects.all()}
    events: dict[Any, list[WorkflowEvent]] = {}
    for event in WorkflowEvent.objects.order_by("id"):
        events.setdefault(event.key, []).append(event)
    for number in range(runs):
        label = label_of(number)
        tokens = [token_of(label, at) for at in range(EVENTS)]
        run, sent = found[label], events[label]
        assert run.status == "succeeded", f"{label} is {run.status}: {run.error}"
        assert run.output == tokens, f"{label} got {run.output} instead of {tokens}"
        assert [event.payload for event in sent] == tokens, f"{label}: {sent}"
        taken = {event.consumed_by: event.payload for event in sent}
        records = run.steps.filter(kind="event")
        assert taken == {record.name: record.output for record in records}, f"{label}: {taken}"
        seen = {(line.step, line.token) for line in lines[label] if line.event == "saw"}
        assert seen == set(taken.items()), f"{label}: bodies saw {seen} instead of {taken}"
    assert not WorkflowEvent.objects.filter(told=False).exists()
