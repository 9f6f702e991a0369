"""The commit succeeded and its answer was lost: at every write of the ledger, one at a time, the outcome is the same."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connections
from django.test import override_settings

from django_steps import RetryPolicy, workflow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app.models import Effect
from tests.staging import eventually

from .losses import Losses, losses  # noqa: F401

ONCE_MORE = RetryPolicy(max_attempts=2, initial_interval="10ms")
LATER = RetryPolicy(max_attempts=2, initial_interval="60ms")
RECORDS = [
    ("plain", "succeeded", 1),
    ("atomic", "succeeded", 1),
    ("nap", "waiting", 1),
    ("soon", "succeeded", 2),
    ("later", "succeeded", 2),
    ("atomic_later", "succeeded", 2),
    ("caught", "failed", 1),
    ("inline", "waiting", 1),
    ("once", "succeeded", 1),
]
# Which functions execute how often, in this order: an attempt that failed is followed by the next one, and the failure
# that ends the first attempt of the run is forgotten.
EXECUTED = [
    "plain",
    "atomic",
    "soon",
    "soon",
    "later",
    "later",
    "atomic_later",
    "atomic_later",
    "caught",
    "once",
    "once",
]


@pytest.fixture
def executed() -> list[str]:
    return []


@pytest.fixture
def lossy(executed: list[str]) -> Any:
    """A workflow that makes the ledger write in every way it can."""

    def work(name: str, *, failures: int = 0) -> None:
        executed.append(name)
        if executed.count(name) <= failures:
            raise LookupError(name)

    def write(name: str, *, failures: int = 0) -> None:
        Effect.objects.create(name=name, pid=0, at=0)
        work(name, failures=failures)

    @workflow(name="lossy", retry=ONCE_MORE)
    def lossy(step):
        step.define("plain", work).run("plain")
        step.define("atomic", write, atomic=True).run("atomic")
        step.sleep("nap", "60ms")
        step.define("soon", work, retry=ONCE_MORE).run("soon", failures=1)
        step.define("later", work, retry=LATER).run("later", failures=1)
        step.define("atomic_later", write, retry=LATER, atomic=True).run("atomic_later", failures=1)
        try:
            step.define("caught", work).run("caught", failures=9)
        except LookupError:
            step.sleep("inline", "5ms")
        step.define("once", work).run("once", failures=1)
        return "done"

    return lossy


def drive(run: WorkflowRun) -> None:
    """A worker in a thread of its own until the run is finished; another one if it could not register."""

    def serve(worker: Worker) -> None:
        try:
            worker.run()
        except (DatabaseError, InterfaceError):
            started.append(None)
        finally:
            connections.close_all()

    def has_ended() -> bool:
        run.refresh_from_db()
        return run.is_finished or not thread.is_alive()

    started: list[None] = []
    while True:
        worker = Worker(poll_interval=0.02, concurrency=1)
        thread = threading.Thread(target=serve, args=(worker,))
        thread.start()
        try:
            eventually(has_ended)
        finally:
            worker.stop()
            thread.join(15)
        assert not thread.is_alive()
        if run.is_finished:
            return
        assert len(started) == 1, "a worker ended that had begun to work"


@override_settings(DJANGO_STEPS={"INLINE_WAIT": "30ms"})
def test_a_lost_answer_changes_nothing_at_any_write(losses, lossy, executed, report):  # noqa: F811
    lost = []
    for number in count():
        committed = one_pass(losses, lossy, executed, number)
        if number >= len(committed):
            break
        lost.append(committed[number])
    assert len(lost) > 15
    report("lost-answers", lost=len(lost))


def one_pass(losses: Losses, lossy: Any, executed: list[str], number: int) -> list[str]:  # noqa: F811
    """One run, with the answer to one commit lost if there are so many; what was committed."""
    executed.clear()
    Effect.objects.all().delete()
    run = lossy.start()
    losses.lose(number)
    drive(run)
    where = f"The answer to commit {number} of {losses.seen} was lost."
    assert run.status == "succeeded", where
    assert run.attempts == 2, where
    assert list(run.steps.order_by("position").values_list("name", "status", "attempts")) == RECORDS, where
    assert executed == EXECUTED, where
    assert sorted(Effect.objects.values_list("name", flat=True)) == ["atomic", "atomic_later"], where
    return list(losses.seen)


def test_a_start_whose_answer_was_lost_is_found_by_its_key(losses):  # noqa: F811
    """The caller can't know whether the run was started; with a key it can ask for it again."""

    @workflow(name="keyed")
    def keyed():
        pass

    def start() -> None:
        try:
            outcomes.append(keyed.start(key="order-7"))
        except (DatabaseError, InterfaceError) as error:
            outcomes.append(error)
            connections["default"].close()
            outcomes.append(keyed.start(key="order-7"))
        finally:
            connections.close_all()

    outcomes: list[Any] = []
    losses.lose(0)
    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)
    error, run = outcomes
    assert isinstance(error, (DatabaseError, InterfaceError))
    assert not run.created
    assert WorkflowRun.objects.get() == run
