"""A process that starts runs and sends them events, at about the moment at which they wait: `python -m tests.faults.sender
FIRST LAST SEED`. One that is started again goes on where the last one was killed: it can't know what was sent, and sends it
again.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import django

EVENTS = 2  # for each run
_LATE = 7  # each so many runs are sent theirs when they have waited for so long that nobody looks at them any more
_SPACE = UUID(int=7)


def label_of(number: int) -> str:
    return f"wait{number}"


def token_of(label: str, number: int) -> str:
    """The payload of an event of a run."""
    return uuid5(_SPACE, f"{label} {number}").hex


def main(first: int, last: int, seed: int) -> None:
    from django.utils import timezone

    from django_steps.ledger import waits
    from django_steps.models import WorkflowRun

    from . import evidence

    chance = random.Random(f"{seed} {first} {os.getpid()}")
    lines = evidence.read(Path(os.environ[evidence.VARIABLE]))
    left = [number for number in range(first, last) if not _is_sent(lines[label_of(number)])]
    late = [number for number in left if number % _LATE == 0]
    for number in late:
        start(number)
    for number in left:
        if number not in late:
            serve(number, chance)
    for number in late:
        age = timezone.now() - WorkflowRun.objects.get(key=label_of(number)).created_at
        time.sleep(max(0.0, waits.NET_US / 1_000_000 + 1 - age.total_seconds()))
        serve(number, chance)


def _is_sent(lines: list[Any]) -> bool:
    return any(line.event == "sent" for line in lines)


def start(number: int) -> Any:
    """Start a run, or find it; its workflow."""
    from . import workflows

    body: Any = workflows.WAITING[number % len(workflows.WAITING)]
    label = label_of(number)
    again(lambda: body.start({"label": label}, key=label))
    return body


def serve(number: int, chance: random.Random) -> None:
    """Start a run and send its events, before and after."""
    from . import evidence, workflows

    label = label_of(number)
    body = workflows.WAITING[number % len(workflows.WAITING)]
    names = ["go", "go"] if body is workflows.waiting else ["a", "b"]
    sends = [lambda at=at, name=name: send(body, label, name, at, chance) for at, name in enumerate(names)]
    if chance.random() < 0.2:  # by its key, before there is a run
        sends.pop(0)()
    start(number)
    for one in sends:
        time.sleep(chance.uniform(0, 0.03))
        one()
    evidence.note(label, "sent", "all")


def send(body: Any, label: str, name: str, number: int, chance: random.Random) -> None:
    """Send an event: by run or by key, alone or together with something else."""
    from django.db import transaction

    from django_steps.models import WorkflowRun
    from tests.app.models import Effect

    token, event_id = token_of(label, number), f"{label}-{number}"
    run = WorkflowRun.objects.filter(key=label).first()
    by_run = run is not None and chance.random() < 0.5

    def once() -> None:
        if by_run:
            run.send_event(name, token, id=event_id)
        else:
            body.send_event(name, token, key=label, id=event_id)

    def with_others() -> None:
        with transaction.atomic():
            Effect.objects.create(run=label, name=f"sent {number}", pid=os.getpid(), at=time.time())
            once()

    again(with_others if chance.random() < 0.5 else once)


def again(write: Any) -> None:
    """As often as the database refuses it for a reason that passes: in a transaction of the caller's that is for him to do."""
    from django.db import OperationalError

    from django_steps.ledger import database

    while True:
        try:
            write()
            return
        except OperationalError as error:
            if not database.is_transient(error):
                raise


if __name__ == "__main__":
    django.setup()
    main(*map(int, sys.argv[1:]))
