"""Limits together with pauses, timeouts and schedules: each way out of a line or a slot lets others go on, each way back goes
through the line."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings
from django.urls import reverse

from django_steps import InvalidInput, Limit, Schedule, workflow
from django_steps.definitions import scheduling
from django_steps.engine import afterwards
from django_steps.engine.afterwards import Aftercare
from django_steps.ledger import claims, expiry, lines, timers, transitions
from django_steps.ledger import schedules as ledger
from django_steps.ledger.claims import Claim
from django_steps.ledger.transitions import Finish
from django_steps.ledger.waits import Suspension
from django_steps.models import WorkflowLimit, WorkflowPause, WorkflowRun
from django_steps.worker.expiry import Expiry
from django_steps.worker.lines import Lines
from django_steps.worker.registration import write_limits
from tests.app import effects
from tests.app.workflows import three_steps
from tests.ledger.limited import NARROW, left, take
from tests.staging import SECOND, recover, status_of, step_write
from tests.states import check_state
from tests.wire import counted

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("limits_are_written")]

Phase = WorkflowRun.Phase


@workflow(limit=Limit(at_once=1, hold="executing"))
def lines_alone(step: Any) -> None:
    step.define("work", effects.leave).run("alone")
    step.sleep("nap", "1h")


@workflow(limit=Limit(at_once=1, hold="unfinished", key=lambda input: input["customer"]))
def lines_to_the_end(input: Any, step: Any) -> None:
    step.define("work", effects.leave).run("alone")
    step.sleep("nap", "1h")


@workflow(limit=Limit(rate="1/m"))
def lines_slowly(step: Any) -> None:
    step.sleep("nap", "1h")


def finish(claim: Claim) -> None:
    now = claim.now()
    transitions.finish(connection, Finish(run_id=claim.run_id, token=claim.token, status="succeeded", finished_at=now))
    left(claim)


def suspend(claim: Claim) -> None:
    write = step_write(claim, "nap", kind="sleep", status="waiting")
    transitions.suspend(connection, claim.run_id, claim.token, Suspension(claim.now() + 3600 * SECOND), write)
    left(claim)


def phases(*runs: WorkflowRun) -> list[str]:
    """The phases of runs, each of which fits the table of states."""
    return [check_state(run).phase for run in runs]


def holds(run: WorkflowRun) -> tuple[str | None, ...]:
    """The line and the slots of a run."""
    return WorkflowRun.objects.values_list("line_key", "slot_1", "slot_2", "slot_queue").get(pk=run.pk)


NOTHING = (None, None, None, None)
CUSTOMER_7 = {"customer": 7}


# -- Paused runs -------------------------------------------------------------------------------------


def test_a_paused_run_leaves_the_line_and_resumes_in_its_place() -> None:
    runs = [lines_alone.start() for _ in range(4)]
    runs[1].pause()
    assert (phases(runs[1]), holds(runs[1])) == (["parked"], NOTHING)
    (claim,) = take()
    finish(claim)
    assert phases(*runs[1:]) == ["parked", "ready", "in_line"]
    runs[1].resume()
    assert phases(*runs[1:]) == ["in_line", "ready", "in_line"]
    finish(take()[0])
    assert phases(runs[1], runs[3]) == ["ready", "in_line"]


@pytest.mark.parametrize("in_bulk", [False, True])
def test_a_run_that_is_paused_before_it_begins_gives_its_slot_to_the_next(in_bulk: bool) -> None:
    for kind, input in ((lines_alone, None), (lines_to_the_end, CUSTOMER_7)):
        first, second = kind.start_many([input] * 2)
        WorkflowRun.objects.filter(pk=first.pk).pause() if in_bulk else first.pause()
        assert phases(first, second) == ["parked", "ready"]
        assert holds(first) == NOTHING
        WorkflowRun.objects.filter(pk=first.pk).resume() if in_bulk else first.resume()
        assert phases(first, second) == ["in_line", "ready"]


def test_a_paused_run_is_resumed_at_once_where_there_is_room() -> None:
    run = lines_alone.start()
    run.pause()
    run.resume()
    assert phases(run) == ["ready"]


def test_a_sleeping_run_that_is_paused_keeps_the_slot_of_unfinished() -> None:
    first, second = lines_to_the_end.start_many([CUSTOMER_7] * 2)
    suspend(take()[0])
    first.pause()
    assert phases(first, second) == ["parked", "in_line"]
    assert holds(first)[1] == "1:7#lines_to_the_end"
    first.resume()
    assert phases(first, second) == ["ready", "in_line"]


@pytest.mark.parametrize("kind", [lines_alone, lines_to_the_end])
def test_a_run_that_is_paused_while_it_executes(kind: Any) -> None:
    first, second = kind.start_many([CUSTOMER_7 if kind is lines_to_the_end else None] * 2)
    (claim,) = take()
    first.pause()
    assert phases(first, second) == ["timed", "in_line"]
    transitions.release(connection, claim.run_id, claim.token)
    left(claim)
    assert phases(first, second) == ["parked", "ready" if kind is lines_alone else "in_line"]


def test_a_run_that_is_paused_before_its_body_is_called_keeps_nothing() -> None:
    first, second = lines_to_the_end.start_many([CUSTOMER_7] * 2)
    (claim,) = take()
    first.pause()
    transitions.release(connection, claim.run_id, claim.token, is_untouched=True)
    left(claim)
    assert phases(first, second) == ["parked", "ready"]
    assert holds(first) == NOTHING


def test_a_pausing_run_whose_worker_dies_lets_the_next_one_go_on(pass_time: Any) -> None:
    first, second = lines_alone.start_many([None] * 2)
    take(lease=SECOND)
    first.pause()
    pass_time("2s")
    lines.promote(connection, recover().lines)
    assert (status_of(first), phases(first, second)) == ("paused", ["parked", "ready"])


def test_a_canceled_or_retried_paused_run_is_in_no_line_and_in_line_again() -> None:
    first, second = lines_alone.start_many([None] * 2)
    second.pause()
    second.cancel()
    assert holds(second) == NOTHING
    second.retry()
    assert phases(first, second) == ["ready", "in_line"]


# -- Paused queues and workflows ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["queue", "workflow"])
def test_a_pause_parks_runs_in_line_too_and_they_get_in_line_again(what: str) -> None:
    runs = [lines_alone.start() for _ in range(3)]
    WorkflowPause.objects.pause_queue("default") if what == "queue" else lines_alone.pause()
    assert phases(*runs) == ["parked"] * 3
    assert {holds(run) for run in runs} == {NOTHING}
    assert {status_of(run) for run in runs} == {"pending"}
    WorkflowPause.objects.resume_queue("default") if what == "queue" else lines_alone.resume()
    assert phases(*runs) == ["ready", "in_line", "in_line"]


def test_a_paused_queue_leaves_the_slots_of_a_workflow_to_other_queues() -> None:
    held, other = lines_alone.start(queue="mail"), lines_alone.start()
    assert phases(held, other) == ["ready", "in_line"]
    WorkflowPause.objects.pause_queue("mail")
    assert phases(held, other) == ["parked", "ready"]
    WorkflowPause.objects.resume_queue("mail")
    assert phases(held, other) == ["in_line", "ready"]
    finish(take()[0])
    assert phases(held) == ["ready"]


def test_a_paused_queue_takes_no_part_in_the_rate_of_a_workflow(pass_time: Any) -> None:
    WorkflowPause.objects.pause_queue("mail")
    delayed = lines_slowly.start(queue="mail", delay="1s")
    paused = lines_slowly.start_many([None] * 3, queue="mail")
    assert phases(*paused) == ["parked"] * 3
    pass_time("2s")
    take()
    assert phases(delayed) == ["parked"]
    other = lines_slowly.start()
    assert phases(other) == ["ready"]
    assert phases(lines_slowly.start()) == ["in_line"]
    assert {holds(run) for run in [delayed, *paused]} == {NOTHING}
    take()
    WorkflowPause.objects.resume_queue("mail")
    assert phases(delayed, *paused) == ["in_line"] * 4


def test_many_runs_of_a_paused_queue_hold_nobody_up(narrow: Any) -> None:
    WorkflowPause.objects.pause_queue("mail")
    paused = lines_alone.start_many([None] * 5, queue="mail")
    other = lines_alone.start()
    assert phases(*paused, other) == [*["parked"] * 5, "ready"]


def test_a_pause_that_ends_while_a_run_is_parked_brings_it_back(monkeypatch: Any) -> None:
    WorkflowPause.objects.pause_queue("mail")
    park = lines._park

    def ending(*arguments: Any) -> int:
        parked = park(*arguments)
        WorkflowPause.objects.all().delete()  # its look came before this commit
        return parked

    monkeypatch.setattr(lines, "_park", ending)
    assert phases(lines_alone.start(queue="mail")) == ["ready"]


def test_a_queue_with_a_limit_is_paused_and_resumed(narrow: Any, work: Any) -> None:
    runs = [three_steps.start({}, queue="narrow") for _ in range(3)]
    assert phases(*runs) == ["ready", "in_line", "in_line"]
    WorkflowPause.objects.pause_queue("narrow")
    late = three_steps.start({}, queue="narrow")
    work()
    assert {status_of(run) for run in [*runs, late]} == {"pending"}
    assert phases(*runs, late) == ["parked"] * 4
    WorkflowPause.objects.resume_queue("narrow")
    assert phases(*runs, late) == ["ready", "in_line", "in_line", "in_line"]
    work()
    assert {status_of(run) for run in [*runs, late]} == {"succeeded"}


def test_a_run_that_is_let_through_a_pause_gets_in_line() -> None:
    first, second = lines_alone.start_many([None] * 2)
    lines_alone.pause()
    second.resume()
    assert phases(first, second) == ["parked", "ready"]
    first.resume()
    assert phases(first, second) == ["in_line", "ready"]


def test_a_queue_that_gets_a_limit_while_it_is_paused_limits_what_comes_back() -> None:
    runs = [three_steps.start({}, queue="narrow") for _ in range(2)]
    WorkflowPause.objects.pause_queue("narrow")
    with override_settings(DJANGO_STEPS=NARROW):
        write_limits(connection)
        WorkflowPause.objects.resume_queue("narrow")
        write_limits(connection)
        assert phases(*runs) == ["ready", "in_line"]


# -- Timeouts ----------------------------------------------------------------------------------------


def end_expired() -> int:
    return len(expiry.end_expired(connection))


def test_a_run_expires_in_line(pass_time: Any) -> None:
    first = lines_alone.start()
    late, later = lines_alone.start(start_within="1h"), lines_alone.start()
    assert phases(first, late, later) == ["ready", "in_line", "in_line"]
    pass_time("2h")
    assert end_expired() == 1
    assert (status_of(late), late.cancel_reason, holds(late)) == ("canceled", "expired", NOTHING)
    finish(take()[0])
    assert phases(later) == ["ready"]


def test_a_run_that_expires_with_a_slot_lets_the_next_one_go_on(pass_time: Any) -> None:
    late, next_one = lines_alone.start(start_within="1h"), lines_alone.start()
    pass_time("2h")
    assert end_expired() == 1
    assert (status_of(late), phases(next_one)) == ("canceled", ["ready"])


def test_a_run_that_has_begun_expires_asleep_and_lets_the_next_one_go_on(pass_time: Any) -> None:
    late = lines_to_the_end.start(CUSTOMER_7, timeout="30m")
    next_one = lines_to_the_end.start(CUSTOMER_7)
    suspend(take()[0])
    pass_time("40m")
    assert end_expired() == 1
    assert (status_of(late), phases(next_one)) == ("failed", ["ready"])


def test_a_paused_run_that_expires_lets_the_next_one_go_on(pass_time: Any) -> None:
    late = lines_to_the_end.start(CUSTOMER_7, timeout="30m")
    next_one = lines_to_the_end.start(CUSTOMER_7)
    suspend(take()[0])
    late.pause()
    pass_time("40m")
    assert phases(next_one) == ["in_line"]
    assert end_expired() == 1
    assert (status_of(late), phases(next_one)) == ("failed", ["ready"])


def test_parked_runs_expire(pass_time: Any) -> None:
    runs = [lines_alone.start(start_within="1h") for _ in range(2)]
    lines_alone.pause()
    pass_time("2h")
    assert end_expired() == 2
    assert {status_of(run) for run in runs} == {"canceled"}
    assert lines_alone.resume()
    assert phases(*runs) == ["ended"] * 2


def test_the_time_of_a_run_counts_from_its_first_claim_and_not_while_it_is_in_line(pass_time: Any) -> None:
    first, second = lines_alone.start_many([None] * 2)
    second.cancel()
    limited = lines_alone.start(timeout="1h")
    pass_time("2h")
    assert end_expired() == 0
    finish(take()[0])
    (claim,) = take()
    assert (claim.run_id, claim.expires_at is not None) == (limited.pk, True)
    assert status_of(first) == "succeeded"


def test_a_worker_ends_what_expires_and_promotes_the_next_run(pass_time: Any) -> None:
    late, next_one = lines_alone.start(start_within="1h"), lines_alone.start()
    pass_time("2h")
    aftercare = Aftercare()
    Expiry().end(connection, aftercare)
    assert not aftercare.go_on(connection)
    assert (status_of(late), phases(next_one)) == ("canceled", ["ready"])


# -- What a worker waits for -------------------------------------------------------------------------


def test_one_statement_says_when_the_next_thing_happens_by_time() -> None:
    lines_slowly.start()
    lines_slowly.start()
    take()
    lines_alone.start(start_within="1h")
    lines_alone.start(delay="2h")
    with counted(connection) as wire:
        found = timers.next_due(connection, ["lines_slowly"])
    assert wire.statements == 1
    assert found.rate is not None and 0 <= found.rate <= 60 * SECOND
    assert found.expires is not None and found.expires > 3500 * SECOND
    assert found.first == min(found.rate, lines.LOOK_EACH_US)


def test_a_worker_looks_for_a_rate_when_it_has_learned_the_time(pass_time: Any) -> None:
    _, second = lines_slowly.start(), lines_slowly.start()
    take()
    known = Lines()
    assert not known.promote(connection)
    pass_time("1m")
    known.learn(0, None)
    assert known.promote(connection)
    assert phases(second) == ["ready"]
    assert not WorkflowLimit.objects.exclude(due_us=None).exists()


# -- Schedules ---------------------------------------------------------------------------------------


@pytest.fixture
def turn(pass_time: Any) -> Any:
    """Let an hour pass, and fire as a worker does."""

    def fire() -> None:
        pass_time("1h")
        afterwards.schedules_fired(connection, ledger.fire(connection, scheduling.targets()))

    return fire


def define(overlap: str = "allow", **options: Any) -> Any:
    @workflow(name="often", schedule=Schedule(every="1h", overlap=overlap, input={"customer": 7}), **options)
    def often(input: Any, step: Any) -> None:
        step.sleep("rest", "1d")

    scheduling.sync()
    write_limits(connection)
    return often


def fired() -> list[WorkflowRun]:
    return list(WorkflowRun.objects.filter(schedule="often").order_by("scheduled_for", "pk"))


def test_runs_of_a_schedule_have_the_limits_of_their_workflow_and_queue(turn: Any, narrow: Any) -> None:
    define(queue="narrow", limit=Limit(at_once=1, hold="unfinished", key=lambda input: f"customer {input['customer']}"))
    turn()
    turn()
    first, second = fired()
    assert (first.limit_1, first.limit_2, first.limit_queue) == ("u-1:customer 7#often", None, "e-q:#narrow")
    assert phases(first, second) == ["ready", "in_line"]
    finish(take()[0])
    assert phases(second) == ["ready"]


def test_a_run_that_a_schedule_is_asked_for_is_limited(turn: Any) -> None:
    from django_steps.models import WorkflowSchedule

    define(limit=Limit(at_once=1, hold="unfinished"))
    turn()
    second = WorkflowSchedule.objects.get(name="often").run_now()
    assert phases(*fired()) == ["ready", "in_line"]
    assert second.limit_1 == "u-1:#often"


def test_a_held_run_gets_in_line_once_it_is_let_go(turn: Any) -> None:
    often = define("wait", limit=Limit(at_once=1, hold="unfinished"))
    turn()
    other = often.start({"customer": 7})
    turn()
    first, held = fired()
    assert phases(first, other, held) == ["ready", "in_line", "held"]
    assert holds(held) == NOTHING
    (claim,) = take()
    finish(claim)
    afterwards.look_after(connection, claims.Claimed([], [claim.run_id], [], set()))
    assert phases(other, held) == ["ready", "in_line"]
    finish(take()[0])
    assert phases(held) == ["ready"]


def test_a_held_run_is_ready_where_the_limit_has_room(turn: Any) -> None:
    define("cancel", limit=Limit(at_once=1, hold="unfinished"))
    turn()
    turn()
    first, second = fired()
    assert (status_of(first), phases(second)) == ("canceled", ["ready"])


def test_letting_go_a_held_run_that_is_not_limited_costs_no_statement_more(turn: Any) -> None:
    define("wait")
    turn()
    turn()
    (claim,) = take()
    finish(claim)
    with counted(connection) as wire:
        afterwards.look_after_held(connection)
    assert phases(*fired()) == ["ended", "ready"]
    # Who is held; what of it; its UPDATE; and the notification, where there is one.
    assert wire.statements <= 4


def test_a_held_run_that_is_superseded_or_paused_holds_nothing(turn: Any) -> None:
    define("wait", limit=Limit(at_once=1, hold="unfinished"))
    turn()
    turn()
    held = fired()[1]
    turn()
    assert (status_of(held), holds(held)) == ("canceled", NOTHING)
    last = fired()[2]
    last.pause()
    assert (phases(last), holds(last)) == (["parked"], NOTHING)
    last.resume()
    assert (phases(last), holds(last)) == (["held"], NOTHING)


def test_a_key_function_that_fails_disables_the_schedule(turn: Any) -> None:
    from django_steps.models import WorkflowSchedule

    define(limit=Limit(at_once=1, hold="unfinished", key=lambda input: input["missing"]))
    turn()
    assert fired() == []
    assert "The key of a limit of workflow 'often' could not be made" in (
        WorkflowSchedule.objects.get(name="often").disabled_reason
    )


def test_a_key_function_that_fails_is_said_to_whoever_asks_for_a_run(admin_client: Any) -> None:
    from django_steps.models import WorkflowSchedule

    define(limit=Limit(at_once=1, hold="unfinished", key=lambda input: input["missing"]))
    schedule = WorkflowSchedule.objects.get(name="often")
    why = "The key of a limit of workflow 'often' could not be made: KeyError('missing')"
    with pytest.raises(InvalidInput, match=re.escape(why)):
        schedule.run_now()
    url = reverse("admin:django_steps_workflowschedule_run_now", args=[schedule.pk])
    assert why in unescape(admin_client.post(url, follow=True).content.decode())
    with pytest.raises(CommandError, match=re.escape(why)):
        call_command("backfillschedule", "often", "--from", "2026-03-28T12:00", "--to", "2026-03-28T12:01")
    assert fired() == []


def test_a_run_that_continues_has_the_limits_of_its_queue_its_timeout_and_its_schedule(
    turn: Any, narrow: Any, work: Any
) -> None:
    @workflow(
        name="often",
        schedule=Schedule(every="1h", queue="narrow", input={"customer": 7}),
        timeout="2h",
        limit=Limit(at_once=1, hold="unfinished", key=lambda input: input["customer"]),
    )
    def often(input: Any, step: Any) -> Any:
        if input["customer"] == 7:
            return step.continue_as_new({"customer": 8})
        step.sleep("rest", "1d")
        return None

    scheduling.sync()
    write_limits(connection)
    turn()
    WorkflowRun.objects.get()
    from django_steps.models import WorkflowSchedule

    WorkflowSchedule.objects.get(name="often").pause()
    work()
    before, after = WorkflowRun.objects.order_by("pk")
    assert (before.status, holds(before)) == ("succeeded", NOTHING)
    assert (after.limit_1, after.limit_queue, after.queue) == ("u-1:8#often", "e-q:#narrow", "narrow")
    assert (after.schedule, after.open_schedule, after.timeout_us) == ("often", "often", 7200 * SECOND)
    assert after.expires_at_us is not None
    assert (after.status, holds(after)) == ("sleeping", (None, "1:8#often", None, None))


def test_a_run_of_a_schedule_has_the_timeouts_of_its_workflow(turn: Any, pass_time: Any) -> None:
    define(timeout="8h", start_within="4h", limit=Limit(at_once=1, hold="unfinished"))
    turn()
    (first,) = fired()
    assert (first.timeout_us, first.start_within_us) == (8 * 3600 * SECOND, 4 * 3600 * SECOND)
    turn()
    late = fired()[1]
    take()
    pass_time("241m")
    assert end_expired() == 1
    assert (status_of(first), status_of(late), holds(late)) == ("running", "canceled", NOTHING)
