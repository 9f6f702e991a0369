"""Signals: sent after the commit, once for each thing that happened, and harmless when a receiver raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from django_steps import RetryPolicy, signals, workflow
from django_steps.ledger import database, timers, transitions
from django_steps.models import WorkflowRun
from tests.app.workflows import tiny
from tests.staging import claim, make_terms

ALL = {
    name: getattr(signals, name)
    for name in ("run_first_claimed", "run_succeeded", "run_failed", "run_canceled", "step_succeeded", "step_failed")
}


@pytest.fixture
def sent() -> Iterator[list[tuple[Any, ...]]]:
    """What was sent: the signal's name, the run's id and, for steps, the name."""
    found: list[tuple[Any, ...]] = []
    receivers = []
    for name, signal in ALL.items():

        def receive(sender: Any, run: WorkflowRun, name: str = name, step: str | None = None, **known: Any) -> None:
            assert sender is WorkflowRun
            assert not connection.in_atomic_block
            found.append((name, run.pk, step) if step else (name, run.pk))

        receivers.append((signal, receive))
        signal.connect(receive, sender=WorkflowRun)
    yield found
    for signal, receive in receivers:
        signal.disconnect(receive, sender=WorkflowRun)


def test_signals_tell_the_story_of_a_run_once(work, pass_time, sent):
    @workflow
    def story(step):
        step.define("one", lambda: 1).run()
        step.sleep("pause", "1h")
        step.define("two", lambda: 2).run()

    run = story.start()
    work()
    pass_time("2h")
    work()
    assert sent == [
        ("run_first_claimed", run.pk),
        ("step_succeeded", run.pk, "one"),
        ("step_succeeded", run.pk, "two"),
        ("run_succeeded", run.pk),
    ]


PASSES = ("pass_started", "pass_ended", "step_started", "run_suspended")


@pytest.fixture
def passes() -> Iterator[list[tuple[Any, ...]]]:
    """What was sent of passes and attempts: the signal's name, and what it carries besides the run."""
    found: list[tuple[Any, ...]] = []
    receivers = []
    for name in PASSES:

        def receive(sender: Any, run: WorkflowRun, signal: Any, name: str = name, **known: Any) -> None:
            assert sender is WorkflowRun
            found.append((name, *known.values()))

        receivers.append((getattr(signals, name), receive))
        getattr(signals, name).connect(receive, sender=WorkflowRun)
    yield found
    for signal, receive in receivers:
        signal.disconnect(receive, sender=WorkflowRun)


def test_signals_of_passes_and_attempts_say_how_each_began_and_ended(work, pass_time, passes):
    tries: list[int] = []

    def shaky() -> None:
        tries.append(1)
        if len(tries) < 2:
            raise OSError

    @workflow
    def rests(step):
        step.define("shaky", shaky, retry=RetryPolicy(max_attempts=2, initial_interval="1ms")).run()
        step.sleep("pause", "1h")

    run = rests.start()
    work()
    run.refresh_from_db()
    suspended = run.wakes_at
    pass_time("2h")
    work()
    assert passes == [
        ("pass_started",),
        ("step_started", "shaky", 1),
        ("step_started", "shaky", 2),
        ("run_suspended", suspended),
        ("pass_ended", "suspended"),
        ("pass_started",),
        ("pass_ended", "succeeded"),
    ]


def test_run_that_waits_for_others_is_told_as_waiting_until_its_deadline_or_for_good(work, passes):
    @workflow
    def waits(step):
        step.wait_for_event("paid")
        step.wait_for_event("sent", timeout="1h")

    seen: list[Any] = []

    def look(sender: Any, run: WorkflowRun, until: Any, **known: Any) -> None:
        seen.append((run.status, run.waiting_for, run.wakes_at == until))

    signals.run_suspended.connect(look)
    try:
        run = waits.start()
        work()
        run.send_event("paid")
        work()
    finally:
        signals.run_suspended.disconnect(look)
    run.refresh_from_db()
    assert run.wakes_at is not None
    assert passes == [
        ("pass_started",),
        ("run_suspended", None),
        ("pass_ended", "suspended"),
        ("pass_started",),
        ("run_suspended", run.wakes_at),
        ("pass_ended", "suspended"),
    ]
    assert seen == [("waiting", ["paid"], True), ("waiting", ["sent"], True)]


def test_signals_of_passes_say_that_a_run_was_canceled(work, passes):
    @workflow
    def canceled(step):
        step.define("cancel", lambda: WorkflowRun.objects.get().cancel()).run()
        step.define("never", lambda: None).run()

    canceled.start()
    work()
    assert passes == [("pass_started",), ("step_started", "cancel", 1), ("pass_ended", "canceled")]


def test_failed_attempts_are_told_each_and_the_failed_run_only_when_it_is_final(work, sent):
    def fail():
        raise OSError

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1ms"))
    def failing(step):
        step.define("one", fail, retry=RetryPolicy(max_attempts=2, initial_interval="1ms")).run()

    run = failing.start()
    work()
    assert sent == [("run_first_claimed", run.pk), *[("step_failed", run.pk, "one")] * 4, ("run_failed", run.pk)]


def test_run_of_a_signal_carries_its_end(work):
    seen: list[Any] = []

    def receive(run: WorkflowRun, **known: Any) -> None:
        seen.append((run.status, run.output, run.error and run.error["type"], run.input, run.finished_at is not None))

    @workflow
    def succeeding():
        return {"ok": True}

    @workflow
    def failing():
        raise OSError

    for signal in (signals.run_succeeded, signals.run_failed):
        signal.connect(receive)
    try:
        succeeding.start(1)
        failing.start(2)
        work(concurrency=1)
    finally:
        for signal in (signals.run_succeeded, signals.run_failed):
            signal.disconnect(receive)
    assert seen == [("succeeded", {"ok": True}, None, 1, True), ("failed", None, "OSError", 2, True)]


def test_cancel_is_told_once_of_a_waiting_run_and_of_a_running_one(work, sent, django_capture_on_commit_callbacks):
    @workflow
    def canceling(step, run):
        step.define("cancel", lambda: WorkflowRun.objects.get(pk=run.pk).cancel()).run()
        step.define("never", lambda: 1).run()

    waiting = canceling.start()
    waiting.cancel()
    running = canceling.start()
    work()
    assert [entry for entry in sent if entry[0] == "run_canceled"] == [
        ("run_canceled", waiting.pk),
        ("run_canceled", running.pk),
    ]
    running.refresh_from_db()
    assert running.status == "canceled"
    assert "never" not in running.steps.values_list("name", flat=True)


def test_receiver_that_raises_is_logged_and_harms_nothing(work, caplog):
    def receive(**known: Any) -> None:
        raise ZeroDivisionError

    @workflow
    def fine(step):
        return step.define("one", lambda: 1).run()

    for signal in ALL.values():
        signal.connect(receive)
    try:
        run = fine.start()
        work()
    finally:
        for signal in ALL.values():
            signal.disconnect(receive)
    assert run.result(timeout=0) == 1
    assert "ZeroDivisionError" in caplog.text


def test_receiver_that_exits_harms_neither_the_run_nor_the_worker(work, caplog):
    def leave(sender: Any, run: WorkflowRun, **known: Any) -> None:
        raise SystemExit("as call_command() may")

    @workflow
    def noticed(input, step):
        step.define("one", lambda: 1).run()
        return "done"

    for name in ("step_succeeded", "run_succeeded"):
        ALL[name].connect(leave, sender=WorkflowRun)
    try:
        runs = noticed.start_many([{}, {}])
        work(concurrency=1)
    finally:
        for name in ("step_succeeded", "run_succeeded"):
            ALL[name].disconnect(leave, sender=WorkflowRun)
    assert [run.result(timeout=1) for run in runs] == ["done", "done"]
    assert "A receiver of a signal" in caplog.text


def test_receiver_of_a_step_may_start_a_run(work):
    @workflow
    def alert(input):
        return input

    @workflow
    def watched(input, step):
        step.define("one", lambda: 1).run()

    def start_alert(sender: Any, run: WorkflowRun, step: str, **known: Any) -> None:
        if run.workflow == "watched":
            alert.start(step, key=f"alert-{run.pk}")

    signals.step_succeeded.connect(start_alert, sender=WorkflowRun)
    try:
        watched.start({})
        work()
    finally:
        signals.step_succeeded.disconnect(start_alert, sender=WorkflowRun)
    assert WorkflowRun.objects.get(workflow="alert").result(timeout=1) == "one"


def test_first_claim_is_told_when_the_body_is_called_for_the_first_time(transactional_db, work, sent):
    run = tiny.start({})
    claimed = claim(run)
    assert transitions.release(connection, run.pk, claimed.token, is_untouched=claimed.is_first) is False
    work()
    copy = run.restart(from_step=run.steps.get().name)
    work()
    assert [event for event in sent if event[0] == "run_first_claimed"] == [
        ("run_first_claimed", run.pk),
        ("run_first_claimed", copy.pk),
    ]


def test_cancel_is_told_also_when_the_worker_that_held_the_run_is_dead(transactional_db, work, pass_time, sent):
    run = tiny.start({})
    claim(run)
    run.cancel()
    assert sent == []
    pass_time("1m")
    with database.writing(connection):
        timers.wake(connection, make_terms())  # it is suspected
    assert sent == []
    pass_time("1m")
    work()
    assert sent == [("run_canceled", run.pk)]
