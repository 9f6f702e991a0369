"""Runs of one schedule that would overlap: the new one waits, or takes the place of the old one; and failures in a row."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_steps import Schedule, signals, workflow
from django_steps.definitions import scheduling
from django_steps.engine import afterwards
from django_steps.ledger import claims, overlaps, transitions
from django_steps.ledger import schedules as ledger
from django_steps.ledger.transitions import Finish
from django_steps.models import WorkflowRun, WorkflowSchedule
from django_steps.worker.maintenance import Maintenance
from tests.staging import claim, make_terms
from tests.states import check_state

from .conftest import now, schedule

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def turn(pass_time):
    """Let an hour pass, and fire as a worker does. In seconds, real time would make another slot now and then."""

    def fire():
        pass_time("1h")
        afterwards.schedules_fired(connection, ledger.fire(connection, scheduling.targets()))

    return fire


def define(overlap, **options):
    @workflow(name="often", schedule=Schedule(every="1h", overlap=overlap, **options))
    def body(input, step):
        step.define("work", lambda: None).run()
        step.sleep("rest", "1d")

    scheduling.sync()
    return body


def runs():
    return list(WorkflowRun.objects.filter(schedule="often").order_by("scheduled_for", "pk"))


def states():
    return [check_state(run)[:2] for run in runs()]


HELD = ("pending", "held")


def test_new_run_is_held_until_the_old_one_has_ended(turn):
    define("wait")
    turn()
    turn()
    assert states() == [("pending", "ready"), HELD]
    first, second = runs()
    assert second.key == f"schedule:often:{second.scheduled_for:%Y-%m-%dT%H:%M:%S}Z"
    claimed = claim(first)
    assert claims.claim(connection, make_terms(), 8).runs == [], "nobody takes a held one"
    assert transitions.release(connection, first.pk, claimed.token) is False
    assert states() == [("pending", "ready"), HELD], "a release is no end"
    first.cancel()
    assert states() == [("canceled", "ended"), ("pending", "ready")]
    assert abs(WorkflowRun.objects.get(pk=second.pk).available_at_us - now()) < 60_000_000, "since when it is ready"


def test_third_slot_takes_the_place_of_the_second(turn):
    canceled = []
    receiver = lambda run, **_: canceled.append(run.pk)  # noqa: E731
    signals.run_canceled.connect(receiver)
    try:
        define("wait")
        turn()
        turn()
        turn()
    finally:
        signals.run_canceled.disconnect(receiver)
    assert states() == [("pending", "ready"), ("canceled", "ended"), HELD]
    second = runs()[1]
    assert (second.cancel_reason, second.canceled_by, second.open_schedule) == ("superseded", "", None)
    assert canceled == [second.pk]
    assert schedule("often").skipped["counts"] == {}


def test_old_run_is_canceled_and_the_new_one_begins_once_it_has_ended(turn):
    define("cancel")
    turn()
    turn()
    assert states() == [("canceled", "ended"), ("pending", "ready")]
    first, second = runs()
    assert (first.cancel_reason, first.canceled_by) == ("superseded", "schedule often")

    claimed = claim(second)
    turn()
    assert states() == [("canceled", "ended"), ("canceling", "timed"), HELD], "a step of it is executed"
    turn()
    assert states()[1:] == [("canceling", "timed"), ("canceled", "ended"), HELD]
    transitions.release(connection, second.pk, claimed.token)
    overlaps.look(connection, "often")  # as whoever ends it does after the commit
    assert states()[-1] == ("pending", "ready")


@pytest.mark.parametrize("overlap", ["wait", "cancel"])
def test_without_an_active_run_nothing_is_held(turn, overlap):
    define(overlap)
    turn()
    assert states() == [("pending", "ready")]


def test_end_of_a_pass_lets_the_held_run_begin(pass_time, work):
    @workflow(name="often", schedule=Schedule(every="1h", overlap="wait"))
    def often(run, step):
        step.define("look", lambda: seen.append((run.scheduled_for, states()))).run()

    seen = []
    scheduling.sync()
    for _ in range(2):
        pass_time("1h")
        afterwards.schedules_fired(connection, ledger.fire(connection, scheduling.targets()))
    work(concurrency=4)
    assert states() == [("succeeded", "ended")] * 2
    assert [shown for _, shown in seen] == [
        [("running", "timed"), HELD],
        [("succeeded", "ended"), ("running", "timed")],
    ]


def test_end_of_an_async_pass_lets_the_held_run_begin(pass_time, work):
    @workflow(name="often", schedule=Schedule(every="1h", overlap="wait"))
    async def often(step):
        await step.define("look", lambda: None).run()

    scheduling.sync()
    for _ in range(2):
        pass_time("1h")
        afterwards.schedules_fired(connection, ledger.fire(connection, scheduling.targets()))
    work()
    assert states() == [("succeeded", "ended")] * 2


def test_recovery_that_ends_a_run_lets_the_held_one_begin(turn, pass_time, settings):
    define("wait")
    turn()
    claim(runs()[0])
    turn()
    terms = make_terms(max_recoveries=0)
    for _ in range(3):
        pass_time("31s")
        claimed = claims.claim(connection, terms, 0)
        afterwards.look_after(connection, claimed)
    assert states() == [("failed", "ended"), ("pending", "ready")]


@pytest.mark.parametrize("overlap", ["wait", "cancel"])
@pytest.mark.parametrize("in_bulk", [False, True])
def test_held_run_that_is_paused_is_held_again_once_it_is_resumed(turn, overlap, in_bulk):
    define(overlap)
    turn()
    first = runs()[0]
    claimed = claim(first)  # with "cancel" it is canceling from now on
    turn()
    second = runs()[1]
    second.pause()
    assert check_state(second)[:2] == ("paused", "parked")
    WorkflowRun.objects.filter(pk=second.pk).resume() if in_bulk else second.resume()
    assert states()[1] == HELD
    if overlap == "cancel":
        transitions.release(connection, first.pk, claimed.token)
    else:
        end = Finish(run_id=first.pk, token=claimed.token, status="succeeded", finished_at=claimed.now())
        transitions.finish(connection, end)
    afterwards.run_canceled(connection, claimed)
    assert states()[1] == ("pending", "ready")


def test_held_run_that_is_resumed_after_the_old_one_has_ended_begins(turn):
    define("wait")
    turn()
    turn()
    first, second = runs()
    second.pause()
    first.cancel()
    second.resume()
    assert states() == [("canceled", "ended"), ("pending", "ready")]


def test_run_that_ends_while_the_one_after_it_is_resumed_lets_it_begin(turn):
    define("wait")
    turn()
    turn()
    first, second = runs()
    second.pause()
    with transaction.atomic():
        second.resume()
        assert states()[1] == HELD
        ended = {"phase": WorkflowRun.Phase.ENDED, "status": "canceled", "finished_at": timezone.now()}
        WorkflowRun.objects.filter(pk=first.pk).update(open_schedule=None, **ended)
    assert states()[1] == ("pending", "ready")


def test_run_that_somebody_asked_for_or_that_has_begun_is_not_held_when_it_is_resumed(turn):
    define("wait")
    turn()
    first = runs()[0]
    claimed = claim(first)
    asked = WorkflowSchedule.objects.get(name="often").run_now()
    first.pause()
    transitions.release(connection, first.pk, claimed.token)
    for run in (asked, first):
        run.pause()
        run.resume()
        assert check_state(run)[:2] == ("pending", "ready")


def test_canceled_held_run_is_just_canceled(turn):
    define("wait")
    turn()
    turn()
    runs()[1].cancel("not needed")
    assert states() == [("pending", "ready"), ("canceled", "ended")]
    turn()
    assert states()[-1] == HELD


def test_what_got_lost_between_commit_and_look_is_found_by_maintenance(turn, pass_time):
    define("cancel")
    turn()
    pass_time("1h")
    ledger.fire(connection, scheduling.targets())  # and the process dies
    assert states() == [("pending", "ready"), HELD]
    Maintenance("default")._do()
    assert states() == [("canceled", "ended"), ("pending", "ready")]

    define("wait")
    first = runs()[-1]
    turn()
    claimed = claim(first)
    end = Finish(run_id=first.pk, token=claimed.token, status="succeeded", output="1", finished_at=claimed.now())
    transitions.finish(connection, end)  # and the process dies
    Maintenance("default")._do()
    assert states()[-1] == ("pending", "ready")


def test_held_run_of_a_schedule_that_is_gone_begins_all_the_same(turn):
    define("wait")
    turn()
    turn()
    schedule("often").delete()
    runs()[0].cancel()
    assert states()[-1] == ("pending", "ready")


# -- Failures in a row ------------------------------------------------------------------------------


@pytest.fixture
def failing(pass_time, work):
    """Fire and execute, with these results: `failing("failed", "succeeded")`."""
    results = []

    @workflow(name="often", schedule=Schedule(every="1h", pause_after=2))
    def often(step):
        if results.pop(0) == "failed":
            raise ValueError("it fails")

    def go_on(*wanted):
        for result in wanted:
            results.append(result)
            pass_time("1h")
            work()

    scheduling.sync()
    return go_on


def test_so_many_failures_in_a_row_pause_the_schedule(failing, caplog):
    failing("failed", "succeeded", "failed")
    assert not schedule("often").is_paused
    failing("failed")
    row = schedule("often")
    assert (row.is_paused, row.pause_reason, row.paused_by) == (True, "its last 2 runs have failed", "")
    assert row.next_at is None
    assert "Schedule 'often' is paused: its last 2 runs have failed." in caplog.text


def test_after_a_resume_failures_count_anew(failing, pass_time):
    failing("failed", "failed")
    pass_time("1m")
    schedule("often").resume()
    failing("failed")
    assert not schedule("often").is_paused
    failing("failed")
    assert schedule("often").is_paused


def test_canceled_runs_are_neither_failures_nor_successes(failing, pass_time):
    failing("failed")
    pass_time("1h")
    ledger.fire(connection, scheduling.targets())
    runs()[-1].cancel()
    failing("failed")
    assert schedule("often").is_paused
