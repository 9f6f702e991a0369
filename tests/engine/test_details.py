"""`run.update_details()`: what a body says of its run is written with the next record, once, and is never taken back."""

from __future__ import annotations

import asyncio
import threading
from datetime import date
from decimal import Decimal

import pytest
from django.db import connection

from django_steps import (
    AsyncStep,
    ResultUnavailable,
    RetryPolicy,
    UnserializableValue,
    ValueTooLarge,
    current_step,
    workflow,
)
from django_steps.models import WorkflowRun
from tests.app import effects
from tests.app.workflows import says_where
from tests.looking import error_of, names_of
from tests.staging import eventually, status_of


def stored(run) -> dict:
    """What the database holds."""
    return WorkflowRun.objects.get(pk=run.pk).details


def look() -> dict:
    """What a step finds in the database of its own run."""
    return stored(WorkflowRun(pk=current_step().run_id))


# -- With which record it is written -----------------------------------------------------------------


def test_values_are_merged_by_their_names(work):
    @workflow
    def packing(step, run):
        run.update_details(stage="packing", eta=date(2026, 3, 1), price=Decimal("9.90"))
        step.define("pack", lambda: None).run()
        run.update_details(stage="packed", boxes=(1, 2))
        run.update_details()

    run = packing.start()
    assert run.details == {}
    work()
    found = stored(run)
    assert found == {"stage": "packed", "eta": date(2026, 3, 1), "price": Decimal("9.90"), "boxes": (1, 2)}


@pytest.mark.parametrize("options", [{}, {"atomic": True}, {"retry": RetryPolicy(max_attempts=2)}], ids=str)
def test_it_is_there_with_the_record_of_the_step_that_comes_next(work, options):
    @workflow
    def seen(step, run):
        run.update_details(stage="before")
        first = step.define("first", look, **options).run()
        run.update_details(stage="between")
        return first, step.define("second", look, **options).run(), step.define("third", look).run()

    run = seen.start()
    work()
    assert run.result(timeout=0) == ({}, {"stage": "before"}, {"stage": "between"})


def test_it_is_there_before_an_at_most_once_step_and_with_the_first_record_of_a_poll(work, pass_time):
    found = []

    @workflow
    def careful(step, run):
        run.update_details(stage="wiring")
        step.define("wire", lambda: found.append(look()), at_most_once=True).run()
        run.update_details(stage="asking")
        step.poll("paid", lambda: found.append(look()) or len(found) > 2, every="1h").run()

    run = careful.start()
    work()
    assert found == [{"stage": "wiring"}, {"stage": "asking"}]
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"


def test_it_is_there_with_a_failed_attempt_that_is_followed_by_another(work, pass_time):
    @workflow
    def failing(step, run):
        run.update_details(stage="trying")
        step.define("flaky", lambda: 1 / 0, retry=RetryPolicy(max_attempts=2, initial_interval="1h")).run()

    run = failing.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {"stage": "trying"})


def test_it_is_there_while_the_run_sleeps(work, pass_time):
    @workflow
    def overnight(step, run):
        step.sleep("first", "1h")
        run.update_details(stage="asleep")
        step.sleep("second", "1h")
        run.update_details(stage="awake")

    run = overnight.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {})
    pass_time("2h")
    work()
    assert (status_of(run), run.details) == ("sleeping", {"stage": "asleep"})
    pass_time("2h")
    work()
    assert (status_of(run), run.details) == ("succeeded", {"stage": "awake"})


@pytest.mark.counts_passes
def test_it_is_there_with_the_end_of_a_run_that_fails_and_with_each_attempt_of_it(work, pass_time):
    attempts = []

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1h"))
    def failing(run):
        attempts.append("attempt")
        run.update_details(attempt=len(attempts))
        raise OSError

    run = failing.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {"attempt": 1})
    pass_time("2h")
    work()
    assert error_of(run)["type"] == "OSError" and run.details == {"attempt": 2}


def test_retry_goes_on_from_what_was_said(work):
    is_repaired = []

    @workflow
    def failing(step, run):
        run.update_details(stage="charging", tries=1)
        step.define("charge", lambda: is_repaired or 1 / 0).run()
        run.update_details(stage="charged")

    run = failing.start()
    work()
    assert (status_of(run), run.details) == ("failed", {"stage": "charging", "tries": 1})
    is_repaired.append(True)
    run.retry()
    work()
    assert (status_of(run), run.details) == ("succeeded", {"stage": "charged", "tries": 1})


def test_run_that_is_canceled_has_what_came_before_the_step_that_was_executed(work):
    passes = []

    @workflow
    def canceled(step, run):
        passes.append("pass")
        run.update_details(stage="executing")
        step.define("cancel", lambda: WorkflowRun.objects.get(pk=current_step().run_id).cancel()).run()
        run.update_details(stage="over")
        step.define("last", look).run()

    run = canceled.start()
    work()
    assert (status_of(run), run.details, names_of(run)) == ("canceled", {"stage": "executing"}, ["cancel"])
    run.retry()
    work()
    assert (status_of(run), run.details) == ("succeeded", {"stage": "over"})


def test_restart_from_a_step_takes_over_what_was_said_and_a_plain_one_begins_anew(work):
    @workflow
    def two(step, run):
        run.update_details(first="said")
        step.define("one", lambda: None).run()
        run.update_details(second="said")
        step.define("two", look).run()

    run = two.start()
    work()
    of_step, plain = run.restart(from_step="two"), run.restart()
    assert (of_step.details, plain.details) == ({"first": "said", "second": "said"}, {})
    work()
    assert stored(of_step) == stored(plain) == {"first": "said", "second": "said"}


def test_it_is_there_with_waits_events_and_children(work):
    @workflow
    def child(run):
        run.update_details(of="the child")

    @workflow
    def parent(step, run):
        run.update_details(stage="waiting")
        step.wait_for_event("paid")
        run.update_details(stage="paid")
        first = step.define("look", look).run()
        run.update_details(stage="invoking")
        step.invoke("child", child).run()
        run.update_details(stage="invoked")
        return first, step.define("look again", look).run()

    run = parent.start()
    work()
    assert (status_of(run), run.details) == ("waiting", {"stage": "waiting"})
    run.send_event("paid", {"ok": True})
    work()
    assert run.result(timeout=0) == ({"stage": "waiting"}, {"stage": "invoking"})
    assert stored(run) == {"stage": "invoked"}
    assert WorkflowRun.objects.get(workflow="child").details == {"of": "the child"}


def test_event_that_is_there_is_taken_together_with_what_was_said(work):
    @workflow
    def taking(step, run):
        run.update_details(stage="asking")
        step.wait_for_event("paid")
        return step.define("look", look).run()

    run = taking.start()
    run.send_event("paid", {"ok": True})
    work()
    assert run.result(timeout=0) == {"stage": "asking"}


def test_run_that_goes_on_as_another_one_keeps_what_it_said_and_the_other_begins_anew(work):
    @workflow
    def rolling(input, step, run):
        run.update_details(cursor=input)
        if input < 2:
            return step.continue_as_new(input + 1)
        return input

    run = rolling.start(1)
    work()
    assert status_of(run) == "succeeded"
    assert (run.details, run.continued_as.details) == ({"cursor": 1}, {"cursor": 2})


def test_what_a_killed_worker_had_not_written_is_said_by_the_next_one(start_worker):
    run = says_where.start({"seconds": 60})
    first = start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: effects.count("second", run))
    assert stored(run) == {"at": "first"}
    first.kill()

    start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: status_of(run) == "sleeping", timeout=20)
    assert run.details == {"at": "second", "first": "done"}
    assert effects.names(run) == ["first", "second", "second"]


# -- Replay ------------------------------------------------------------------------------------------


def test_what_a_branch_said_is_not_replaced_by_what_the_body_had_said_before(work, pass_time):
    """The only record of the body itself is yet to come when the body is replayed."""

    def delivery(item, step, run):
        step.define("load", lambda: None).run()
        run.update_details(stage="on the way")
        step.sleep("way", "1h")
        return step.define("look", look).run()

    @workflow
    def shipping(step, run):
        run.update_details(stage="begun")
        return step.map("delivery", delivery, ["a"])

    run = shipping.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {"stage": "on the way"})
    pass_time("2h")
    work()
    assert run.result(timeout=0) == [{"stage": "on the way"}]
    assert stored(run) == {"stage": "on the way"}


@pytest.mark.counts_passes
def test_a_call_is_not_taken_for_a_replayed_one_because_of_a_step_that_the_code_has_left_out(work, pass_time):
    is_new = []

    @workflow
    def changed(step, run):
        if not is_new:
            step.define("audit", lambda: None).run()
        step.sleep("night", "1h")
        run.update_details(stage="awake")
        step.define("last", lambda: None).run()

    run = changed.start()
    work()
    is_new.append(True)
    pass_time("2h")
    work()
    assert (status_of(run), run.details) == ("succeeded", {"stage": "awake"})


@pytest.mark.counts_passes
def test_in_the_body_details_are_what_it_has_said_so_far_and_in_a_step_what_is_written(work, pass_time):
    seen = []

    def branch(step, run):
        seen.append(("branch", dict(run.details)))
        run.update_details(b=1)
        seen.append(("branch", dict(run.details)))
        step.sleep("nap", "1h")

    @workflow
    def looking(step, run):
        seen.append(("body", dict(run.details)))
        run.update_details(a=1)
        seen.append(("body", dict(run.details)))
        step.branch("branch", branch).run()
        seen.append(("body", dict(run.details)))
        return step.define("look", lambda: run.details).run()

    run = looking.start()
    work()
    pass_time("2h")
    work()
    before = [("body", {}), ("body", {"a": 1})]
    of_branch = [("branch", {"a": 1}), ("branch", {"a": 1, "b": 1})]
    assert seen[:9] == before + of_branch + before + of_branch + [("body", {"a": 1})]
    assert run.result(timeout=0) == {"a": 1, "b": 1}


@pytest.mark.counts_passes
def test_body_that_is_left_says_nothing_any_more(work, pass_time):
    def nap(item, step, run):
        try:
            step.sleep("nap", "1h" if item else "2h")
        finally:
            run.update_details(**{f"left {item}": True})

    @workflow
    def leaving(step, run):
        try:
            step.map("nap", nap, [0, 1])
            step.sleep("last", "1h")
        finally:
            run.update_details(left=True)

    run = leaving.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {})
    pass_time("3h")
    work()
    assert (status_of(run), run.details) == ("sleeping", {"left 0": True, "left 1": True})
    pass_time("2h")
    work()
    assert stored(run) == {"left 0": True, "left 1": True, "left": True}


# -- Branches and groups -----------------------------------------------------------------------------


def test_what_is_said_before_a_group_is_written_by_the_first_of_it(work):
    def branch(step):
        step.define("one", lambda: None).run()
        return step.define("two", look).run()

    @workflow
    def grouped(step, run):
        run.update_details(stage="gathering")
        one, _none = step.gather(step.branch("branch", branch).bind(), step.define("step", lambda: None).bind())
        run.update_details(stage="mapping")
        step.map("first", lambda item: None, [1])
        return one, step.map("second", lambda item: look(), [1, 2])

    run = grouped.start()
    work(concurrency=1)
    assert run.result(timeout=0) == ({"stage": "gathering"}, [{"stage": "mapping"}] * 2)


def test_what_a_branch_says_last_is_written_with_its_own_record(work):
    def branch(item, step, run):
        run.update_details(**{f"item {item}": "done"})

    @workflow
    def mapped(step):
        step.map("item", branch, [1, 2, 3])
        step.branch("alone", branch).run(4)
        return step.define("look", look).run()

    run = mapped.start()
    work()
    assert run.result(timeout=0) == {f"item {number}": "done" for number in (1, 2, 3, 4)}


def test_branches_on_many_threads_lose_nothing_of_each_other(work):
    def branch(item, step, run):
        for number in range(3):
            run.update_details(**{f"item {item}": number})
            step.define(f"step {number}", lambda: None, atomic=item % 3 == 0).run()

    @workflow
    def mapped(step, run):
        run.update_details(begun=True)
        step.map("item", branch, range(12))

    run = mapped.start()
    work(concurrency=6)
    assert status_of(run) == "succeeded"
    assert run.details == {"begun": True, **{f"item {number}": 2 for number in range(12)}}


def test_two_records_that_carry_the_same_at_the_same_time_both_come_about(work):
    """Each of them locks the run to read what it has to hold, and then changes it."""
    barrier = threading.Barrier(4)

    def branch(item, step, run):
        run.update_details(**{f"item {item}": "said"})
        step.define("together", lambda: barrier.wait(10) and None).run()
        return step.define("look", look).run()

    @workflow
    def mapped(step, run):
        run.update_details(begun=True)
        return step.map("item", branch, range(4), concurrency=4)

    run = mapped.start()
    work(concurrency=4)
    assert status_of(run) == "succeeded", run.error
    assert all(found["begun"] for found in run.output)
    assert run.details == {"begun": True, **{f"item {number}": "said" for number in range(4)}}


# -- Steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_step_says_is_written_with_its_outcome(work, atomic):
    @workflow
    def counting(step, run):
        def count():
            run.update_details(lines=12, seen=look())
            run.update_details(lines=13)

        run.update_details(stage="counting")
        step.define("count", count, atomic=atomic).run()
        run.update_details(stage="counted")
        step.define("last", lambda: None).run()

    run = counting.start()
    work()
    assert (status_of(run), run.details) == ("succeeded", {"lines": 13, "seen": {}, "stage": "counted"})


@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_step_says_in_an_attempt_that_fails_is_written_with_that(work, pass_time, atomic):
    @workflow
    def counting(step, run):
        def count():
            run.update_details(attempt=current_step().attempt)
            if current_step().attempt == 1:
                raise OSError

        policy = RetryPolicy(max_attempts=2, initial_interval="1h")
        step.define("count", count, atomic=atomic, retry=policy).run()

    run = counting.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {"attempt": 1})
    pass_time("2h")
    work()
    assert (status_of(run), run.details) == ("succeeded", {"attempt": 2})


# -- Async bodies ------------------------------------------------------------------------------------


def test_async_body_says_it_by_a_plain_call(work, pass_time):
    async def item(number, step, run):
        run.update_details(**{f"item {number}": "begun"})
        await step.sleep("nap", "1h")
        run.update_details(**{f"item {number}": "done"})

    async def alook():
        return await asyncio.to_thread(look_and_close, current_step().run_id)

    @workflow
    async def telling(step: AsyncStep, run):
        run.update_details(stage="begun")
        first = await step.define("first", alook).run()
        run.update_details(stage="sleeping")
        await step.map("item", item, [1, 2])
        assert run.details == {"stage": "sleeping"}
        run.update_details(stage="over")
        return first, await step.define("last", alook).run()

    run = telling.start()
    work()
    assert (status_of(run), run.details) == ("sleeping", {"stage": "sleeping", "item 1": "begun", "item 2": "begun"})
    pass_time("2h")
    work()
    done = {"item 1": "done", "item 2": "done"}
    assert run.result(timeout=0) == ({}, {"stage": "sleeping", **done})
    assert stored(run) == {"stage": "over", **done}


def look_and_close(run_id) -> dict:
    try:
        return stored(WorkflowRun(pk=run_id))
    finally:
        connection.close()


def test_tasks_of_an_async_body_say_it_side_by_side(work, pass_time):
    @workflow
    async def telling(step: AsyncStep, run):
        async def task(number):
            await step.define(f"step {number}", lambda: None).run()
            run.update_details(**{f"task {number}": "stepped"})
            await step.sleep(f"nap {number}", "1h")

        async def quiet():
            """Nothing is recorded after this but the suspension."""
            await asyncio.sleep(0.05)
            run.update_details(quiet=True)

        await asyncio.gather(task(1), task(2), quiet())

    run = telling.start()
    work()
    assert status_of(run) == "sleeping"
    assert run.details == {"task 1": "stepped", "task 2": "stepped", "quiet": True}
    pass_time("2h")
    work()
    assert status_of(run) == "succeeded"
    assert run.details == {"task 1": "stepped", "task 2": "stepped", "quiet": True}


@pytest.mark.parametrize("error", [None, OSError])
def test_end_of_an_async_run_writes_what_was_said_last(work, error):
    @workflow
    async def telling(run):
        run.update_details(stage="over")
        if error is not None:
            raise error

    run = telling.start()
    work()
    assert (status_of(run), run.details) == ("failed" if error else "succeeded", {"stage": "over"})


# -- What is refused ---------------------------------------------------------------------------------


def test_details_are_said_by_the_body_of_the_run_only(work):
    @workflow
    def other(run):
        pass

    first, second = other.start(), other.start()
    with pytest.raises(ResultUnavailable, match="body of this run"):
        first.update_details(stage="outside")

    @workflow
    def telling(run):
        with pytest.raises(ResultUnavailable, match="body of this run"):
            WorkflowRun.objects.get(pk=second.pk).update_details(stage="of another")

    run = telling.start()
    work()
    assert status_of(run) == "succeeded", run.error


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"a": object()}, UnserializableValue),
        ({"$": 1}, UnserializableValue),
        ({"a": "x" * 2000}, ValueTooLarge),
        ({"b": "x" * 600}, ValueTooLarge),  # with what was said before
    ],
    ids=["no value", "no name", "too large", "too large together"],
)
def test_what_cannot_be_recorded_is_refused_where_it_is_said(work, settings, given, error):
    settings.DJANGO_STEPS = {"MAX_VALUE_BYTES": 1100}

    @workflow
    def telling(step, run):
        run.update_details(a="x" * 600)
        step.define("one", lambda: None).run()
        with pytest.raises(error, match="details"):
            run.update_details(**given)
        step.define("two", lambda: None).run()
        run.update_details(a="shorter", b="y" * 600)

    run = telling.start()
    work()
    assert status_of(run) == "succeeded", run.error
    assert stored(run) == {"a": "shorter", "b": "y" * 600}


def test_what_finished_branches_have_said_counts_for_the_size(work, settings):
    settings.DJANGO_STEPS = {"MAX_VALUE_BYTES": 1100}

    def branch(step, run):
        run.update_details(a="x" * 600)

    @workflow
    def telling(step, run):
        step.branch("branch", branch).run()
        step.define("one", lambda: None).run()
        run.update_details(b="x" * 600)

    run = telling.start()
    work()
    assert error_of(run)["type"].endswith("ValueTooLarge")
    assert "together" in error_of(run)["message"]


def test_value_may_be_changed_by_the_body_after_it_was_said(work):
    @workflow
    def telling(step, run):
        seen = ["a"]
        run.update_details(seen=seen)
        seen.append("b")
        run.details["seen"].append("c")
        step.define("one", lambda: None).run()

    run = telling.start()
    work()
    assert stored(run) == {"seen": ["a"]}


def test_row_that_cannot_be_read_is_written_anew(work):
    @workflow
    def telling(step, run):
        run.update_details(stage="said")

    run = telling.start()
    WorkflowRun.objects.filter(pk=run.pk).update(details_text="[damaged")
    work()
    assert (status_of(run), run.details) == ("succeeded", {"stage": "said"})
