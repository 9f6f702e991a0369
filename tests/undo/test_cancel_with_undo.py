"""`run.cancel(undo=True)`: one pass replays what is recorded, and undoes it; the run is canceling until then."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from django.db import connection

from django_steps import GroupFailed, InvalidState, Limit, RetryPolicy, RunCanceled, workflow
from django_steps.ledger import order, transitions, unknown
from django_steps.models import StepRecord, WorkflowRun
from django_steps.testing import drain
from tests.changing import deploy
from tests.staging import claim, make_terms, recover
from tests.states import check_state
from tests.undo.journal import Journal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal() -> Journal:
    return Journal()


KINDS = pytest.mark.parametrize("kind", ["plain", "async"])


def undos(run: Any) -> list[str]:
    return [record.name for record in StepRecord.objects.filter(run=run, kind="undo").order_by("position")]


def trip(journal: Journal, then: Any, kind: str = "plain", **options: Any) -> Any:
    """A body that books two days, and then does something else."""
    if kind == "plain":

        def body(step: Any) -> Any:
            step.define("flight", journal.book, undo=journal.cancel, **options).run("monday")
            step.define("hotel", journal.book, undo=journal.cancel, **options).run("tuesday")
            then(step)
            journal.append("went on")

        return body

    async def async_body(step: Any) -> Any:
        await step.define("flight", journal.abook, undo=journal.acancel, **options).run("monday")
        await step.define("hotel", journal.abook, undo=journal.acancel, **options).run("tuesday")
        await then(step)
        journal.append("went on")

    return async_body


def sleeping(step: Any) -> Any:
    return step.sleep("night", "1h")


def waiting(step: Any) -> Any:
    return step.wait_for_event("approval")


def failing(step: Any) -> Any:
    def fail() -> None:
        raise OSError("no car left")

    return step.define("car", fail).run()


UNDONE = ["book monday", "book tuesday", "cancel tuesday's", "cancel monday's"]


@KINDS
@pytest.mark.parametrize("then", [sleeping, waiting, failing])
def test_steps_are_undone_newest_first_and_the_run_is_canceled(work, journal, then, kind):
    run = deploy(f"tour_{then.__name__}_{kind}", trip(journal, then, kind)).start()
    work()
    run.cancel(reason="rain", by="ann", undo=True)
    assert run.status == "canceling"
    assert check_state(run).phase == "ready"
    work()
    run.refresh_from_db()
    assert (run.status, run.cancel_reason, run.canceled_by) == ("canceled", "rain", "ann")
    assert (run.error, run.finished_at is not None) == (None, True)
    assert journal == UNDONE
    assert undos(run) == ["hotel#undo", "flight#undo"]
    check_state(run)
    with pytest.raises(RunCanceled):
        run.result()


def test_paused_run_is_undone(work, journal):
    run = deploy("tour_paused", trip(journal, sleeping)).start()
    work()
    run.pause()
    run.cancel(undo=True)
    assert run.paused_at is None
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


@KINDS
def test_running_run_is_undone_once_its_step_has_ended(work, journal, kind):
    held: dict[str, Any] = {}

    def cancel():
        held["run"].cancel(undo=True)

    def then(step):
        step.define("car", cancel, undo=journal.cancel_all).run()
        step.define("boat", journal.send).run()

    async def async_then(step):
        await step.define("car", cancel, undo=journal.cancel_all).run()
        await step.define("boat", journal.send).run()

    body = trip(journal, then if kind == "plain" else async_then, kind)
    run = held["run"] = deploy(f"tour_running_{kind}", body).start()
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert "went on" not in journal
    assert undos(run) == ["car#undo", "hotel#undo", "flight#undo"]
    assert journal == ["book monday", "book tuesday", "cancel all None", "cancel tuesday's", "cancel monday's"]


def test_run_that_never_began_is_just_canceled(work, journal):
    run = deploy("tour_delayed", trip(journal, sleeping)).start(delay="1h")
    run.cancel(undo=True)
    assert (run.status, run.undoing) == ("canceled", None)
    run.retry()
    assert run.status == "pending"


def test_run_that_was_claimed_ahead_and_not_begun_is_just_canceled(work, journal):
    run = deploy("tour_ahead", trip(journal, sleeping)).start(start_within="1h", timeout="2h")
    claimed = claim(run)
    run.cancel(undo=True)
    assert run.status == "canceling"
    is_canceled = transitions.release(
        connection, run.pk, claimed.token, is_untouched=claimed.is_first, begin_by=claimed.begin_by
    )
    assert is_canceled
    run.refresh_from_db()
    check_state(run)
    assert (run.status, run.undoing, run.expires_at_us) == ("canceled", None, None)
    work()
    assert journal == []


def test_claim_that_was_adopted_by_others_is_not_released_by_who_has_lost_it(journal):
    run = deploy("tour_adopted", trip(journal, sleeping)).start(start_within="1h")
    claimed = claim(run)
    run.cancel(undo=True)
    WorkflowRun.objects.filter(pk=run.pk).update(claim_token=claimed.token + 1)
    assert not transitions.release(connection, run.pk, claimed.token, is_untouched=True, begin_by=claimed.begin_by)
    run.refresh_from_db()
    assert (run.status, run.worker_id) == ("canceling", claimed.worker_id)


def test_run_that_was_retried_and_not_claimed_is_undone(work, journal):
    run = deploy("tour_retried", trip(journal, failing)).start()
    work()
    run.retry()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_succeeded_run_cant_be_undone(work):
    run = deploy("tour_over", lambda: None).start()
    work()
    with pytest.raises(InvalidState, match="has succeeded"):
        run.cancel(undo=True)


def test_canceled_run_has_to_be_retried_first(work, journal):
    run = deploy("tour_canceled", trip(journal, sleeping)).start()
    work()
    run.cancel()
    with pytest.raises(InvalidState, match="Retry it"):
        run.cancel(undo=True)


def test_canceling_run_cant_be_undone_any_more(work, journal):
    run = deploy("tour_canceling", trip(journal, sleeping)).start()
    claim(run)
    run.cancel()
    with pytest.raises(InvalidState, match="without undo"):
        run.cancel(undo=True)


def test_cancel_again_changes_nothing(work, journal):
    run = deploy("tour_canceled_twice", trip(journal, sleeping)).start()
    work()
    run.cancel(reason="first", undo=True)
    run.cancel(reason="second", undo=True)
    run.cancel(reason="third")
    assert (run.status, run.cancel_reason) == ("canceling", "first")
    with pytest.raises(InvalidState, match="canceling until"):
        run.retry()
    with pytest.raises(InvalidState, match="is canceling"):
        run.pause()
    work()
    run.cancel(undo=True)
    run.refresh_from_db()
    assert (run.status, run.cancel_reason) == ("canceled", "first")


def test_undone_run_cant_be_retried_but_restarted(work, journal):
    run = deploy("tour_undone", trip(journal, sleeping)).start()
    work()
    run.cancel(undo=True)
    work()
    for how in ({}, {"from_step": "flight"}):
        with pytest.raises(InvalidState, match=r"restart\(\)"):
            run.retry(**how)
    new = run.restart()
    work()
    assert new.steps.filter(kind="undo").count() == 0
    assert journal.count("book monday") == 2


@KINDS
def test_undo_that_has_failed_for_good_fails_the_run_and_a_retry_goes_on_undoing(work, journal, kind):
    journal.fails_to_cancel = {"tuesday"}
    run = deploy(f"tour_stuck_{kind}", trip(journal, sleeping, kind)).start()
    work()
    run.cancel(reason="rain", undo=True)
    work()
    run.refresh_from_db()
    assert (run.status, run.error_type, run.failed_step) == ("failed", "django_steps.errors.UndoFailed", "hotel#undo")
    assert "The undo of 'hotel' failed" in run.error["message"]
    assert journal == ["book monday", "book tuesday", "cancel monday's"]
    check_state(run)
    with pytest.raises(InvalidState, match="from a step"):
        run.retry(from_step="flight")
    journal.fails_to_cancel = set()
    run.retry()
    assert (run.status, run.error) == ("canceling", None)
    work()
    run.refresh_from_db()
    assert (run.status, run.cancel_reason) == ("canceled", "rain")
    assert journal == ["book monday", "book tuesday", "cancel monday's", "cancel tuesday's"]
    assert run.steps.get(name="hotel#undo").earlier_attempts


def test_cancel_with_undo_of_one_that_has_failed_to_undo_goes_on_undoing(work, journal):
    journal.fails_to_cancel = {"tuesday"}
    run = deploy("tour_stuck_again", trip(journal, sleeping)).start()
    work()
    run.cancel(undo=True)
    work()
    journal.fails_to_cancel = set()
    run.refresh_from_db()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceled"


@KINDS
def test_back_offs_of_undos_suspend_the_run(work, pass_time, journal, kind):
    journal.fails_to_cancel = {"tuesday"}
    policy = RetryPolicy(max_attempts=3, initial_interval="1h", max_interval="1h", jitter=False)
    run = deploy(f"tour_backing_off_{kind}", trip(journal, waiting, kind, retry=policy), timeout="30m").start()
    work()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceling"
    assert (check_state(run).phase, run.expires_at) == ("timed", None)
    assert run.steps.get(name="hotel#undo").status == "retrying"
    journal.fails_to_cancel = set()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_timeout_of_the_run_does_not_count(work, pass_time, journal):
    run = deploy("tour_expired", trip(journal, waiting), timeout="30m").start()
    work()
    pass_time("31m")
    work()
    run.refresh_from_db()
    assert run.error_type == "django_steps.errors.RunTimedOut"
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_what_the_body_has_undone_is_not_undone_again(work, journal):
    def then(step):
        step.undo()
        step.define("car", journal.book, undo=journal.cancel).run("wednesday")
        step.sleep("night", "1h")

    run = deploy("tour_half", trip(journal, then)).start()
    work()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == [*UNDONE, "book wednesday", "cancel wednesday's"]


@KINDS
def test_undo_that_had_failed_in_the_body_is_reported_and_tried_by_a_retry(work, journal, kind):
    journal.fails_to_cancel = {"tuesday"}

    def then(step):
        try:
            step.undo()
        except Exception:
            step.sleep("night", "1h")

    async def async_then(step):
        try:
            await step.undo()
        except Exception:
            await step.sleep("night", "1h")

    body = trip(journal, then if kind == "plain" else async_then, kind)
    run = deploy(f"tour_caught_{kind}", body).start()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    journal.fails_to_cancel = set()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == ["book monday", "book tuesday", "cancel monday's", "cancel tuesday's"]


@pytest.mark.parametrize("how", ["by a cancel", "in the body"])
def test_step_that_had_returned_when_the_body_canceled_it_is_undone(work, pass_time, journal, how):
    async def body(step):
        def book():
            loop.call_soon_threadsafe(given_up.cancel)  # a plain function runs to its end all the same
            return journal.book("monday")

        loop = asyncio.get_running_loop()
        given_up = asyncio.ensure_future(step.define("flight", book, undo=journal.cancel).run())
        await asyncio.wait([given_up])
        await step.sleep("night", "1h")
        await step.undo()

    run = deploy(f"tour_given_up_{how[:2]}", body).start()
    work()
    record = run.steps.get(name="flight")
    assert (record.status, record.output, record.has_undo) == ("canceled", "monday's", True)
    if how == "by a cancel":
        run.cancel(undo=True)
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert run.status == ("canceled" if how == "by a cancel" else "succeeded")
    assert journal == ["book monday", "cancel monday's"]


def test_step_that_was_canceled_before_it_returned_is_not_undone(work, journal):
    async def body(step):
        async def book():
            given_up.cancel()
            await asyncio.sleep(0)
            return journal.book("monday")

        given_up = asyncio.ensure_future(step.define("flight", book, undo=journal.cancel).run())
        await asyncio.wait([given_up])
        await step.sleep("night", "1h")

    run = deploy("tour_given_up_early", body).start()
    work()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert (run.status, journal, undos(run)) == ("canceled", [], [])


@KINDS
def test_step_to_which_the_body_comes_by_a_failed_undo_is_undone_before_that_is_tried_again(work, journal, kind):
    journal.fails_to_cancel = {"monday", "plan b"}

    def rent():
        raise OSError("no car left")

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        try:
            step.define("car", rent).run()
        except OSError:
            try:
                step.undo()
            except GroupFailed:
                step.define("desk", journal.book, undo=journal.cancel).run("plan b")
            raise

    async def async_body(step):
        await step.define("flight", journal.abook, undo=journal.acancel).run("monday")
        try:
            await step.define("car", rent).run()
        except OSError:
            try:
                await step.undo()
            except GroupFailed:
                await step.define("desk", journal.abook, undo=journal.acancel).run("plan b")
            raise

    run = deploy(f"tour_doubly_stuck_{kind}", body if kind == "plain" else async_body).start()
    work()
    run.cancel(undo=True)
    work()
    journal.fails_to_cancel = set()
    for status, canceled in [("failed", ["plan b's"]), ("canceled", ["plan b's", "monday's"])]:
        run.refresh_from_db()
        run.retry()
        work()
        run.refresh_from_db()
        assert (run.status, [line[7:] for line in journal if line.startswith("cancel")]) == (status, canceled)


# -- Branches, groups, children -----------------------------------------------------------------------


@KINDS
def test_branches_and_groups_are_undone_that_are_over_suspended_or_failed(work, pass_time, journal, kind):
    def leg(day, step):
        step.define("train", journal.book, undo=journal.cancel).run(day)
        if day == "late":
            step.sleep("strike", "300d")
        if day == "never":
            raise OSError("no train")

    def body(step):
        step.branch("there", leg).run("1")
        step.map("legs", leg, ["never", "2"], return_exceptions=True)
        step.gather(
            step.define("seat", journal.book, undo=journal.cancel).bind("3"),
            step.branch("back", leg).bind("late"),
            step.branch("home", leg).bind("4"),
        )

    async def async_leg(day, step):
        await step.define("train", journal.abook, undo=journal.acancel).run(day)
        if day == "late":
            await step.sleep("strike", "300d")
        if day == "never":
            raise OSError("no train")

    async def async_body(step):
        await step.branch("there", async_leg).run("1")
        await step.map("legs", async_leg, ["never", "2"], return_exceptions=True)
        await step.gather(
            step.define("seat", journal.abook, undo=journal.acancel).bind("3"),
            step.branch("back", async_leg).bind("late"),
            step.branch("home", async_leg).bind("4"),
        )

    run = deploy(f"tour_of_legs_{kind}", body if kind == "plain" else async_body).start()
    work()
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "canceled", run.error
    steps = ["there#/train", "legs#never/train", "legs#2/train", "seat", "back#/train", "home#/train"]
    assert sorted(undos(run)) == sorted(f"{step}#undo" for step in steps)
    assert sorted(line.split()[1] for line in journal if line.startswith("cancel")) == sorted(
        f"{day}'s" for day in ["1", "never", "2", "3", "late", "4"]
    )


@pytest.mark.parametrize("how", ["by a cancel", "in the body"])
def test_each_record_is_looked_at_once_however_many_branches_are_over(work, pass_time, journal, monkeypatch, how):
    """How often places are read of records, in the pass that undoes: by the number of branches."""

    def leg(day, step):
        step.define("train", journal.book, undo=journal.cancel).run(day)

    def looks(count):
        def body(step):
            step.map("legs", leg, [str(day) for day in range(count)])
            step.sleep("night", "1h")
            step.undo()

        run = deploy(f"tour_of_many_legs_{how[:2]}", body).start()
        work()
        if how == "by a cancel":
            run.cancel(undo=True)
        pass_time("61m")
        seen = 0

        def read(*args):
            nonlocal seen
            seen += 1
            return whole(*args)

        whole = order.Place.read
        with monkeypatch.context() as patched:
            patched.setattr(order.Place, "read", read)
            work()
        assert len(undos(run)) == count
        return seen

    assert looks(80) < 3 * looks(40)


@workflow(name="tour_of_a_child")
def child_tour(step: Any) -> None:
    step.sleep("night", "300d")


@KINDS
def test_children_are_canceled_first(work, journal, kind):
    def then(step):
        return step.invoke("child", child_tour).run()

    run = deploy(f"tour_with_a_child_{kind}", trip(journal, then, kind)).start()
    work()
    child = WorkflowRun.objects.get(parent=run)
    run.cancel(undo=True)
    child.refresh_from_db()
    assert (child.status, child.cancel_cause) == ("canceled", "parent canceled")
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_undo_waits_for_children_that_workers_hold(work, journal):
    run = deploy("tour_with_a_held_child", trip(journal, lambda step: step.invoke("child", child_tour).run())).start()
    work()
    child = WorkflowRun.objects.get(parent=run)
    WorkflowRun.objects.filter(pk=child.pk).update(phase=0, status="pending")
    claimed = claim(child)
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert (run.status, check_state(run).phase) == ("canceling", "timed")
    assert undos(run) == []
    from django_steps.ledger import cascades, transitions

    assert transitions.release(connection, child.pk, claimed.token)
    cascades.ended(connection, [child.pk])
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_parent_of_a_child_that_is_undone_learns_that_it_was_canceled(work, journal):
    child = deploy("tour_as_a_child", trip(journal, sleeping))
    caught = []

    def body(step):
        try:
            step.invoke("child", child).run()
        except RunCanceled as error:
            caught.append(error)

    parent = deploy("tour_with_an_undone_child", body).start()
    work()
    run = WorkflowRun.objects.get(parent=parent)
    run.cancel(undo=True)
    parent.refresh_from_db()
    assert parent.status == "waiting"
    work()
    parent.refresh_from_db()
    assert (parent.status, len(caught)) == ("succeeded", 1)


# -- Code that has changed ------------------------------------------------------------------------------


@KINDS
def test_steps_that_the_code_does_not_reach_any_more_are_listed(work, journal, caplog, kind):
    run = deploy(f"tour_changed_{kind}", trip(journal, sleeping, kind)).start()
    work()

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.define("train", journal.book, undo=journal.cancel).run("sunday")

    async def async_body(step):
        await step.define("flight", journal.abook, undo=journal.acancel).run("monday")
        await step.define("train", journal.abook, undo=journal.acancel).run("sunday")

    deploy(f"tour_changed_{kind}", body if kind == "plain" else async_body)
    run.cancel(undo=True)
    with caplog.at_level(logging.WARNING, "django_steps"):
        work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert "'hotel'" in run.error["message"]
    assert "does not undo 'hotel'" in caplog.text
    assert journal == ["book monday", "book tuesday", "cancel monday's"]
    # With code that comes to it again, a retry undoes the rest.
    deploy(f"tour_changed_{kind}", trip(journal, sleeping, kind))
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == ["book monday", "book tuesday", "cancel monday's", "cancel tuesday's"]


def test_a_record_of_another_kind_ends_the_replay(work, journal):
    run = deploy("tour_mismatched", trip(journal, sleeping)).start()
    work()

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.sleep("hotel", "1h")

    deploy("tour_mismatched", body)
    run.cancel(undo=True)
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert undos(run) == ["flight#undo"]


def test_plain_cancel_gives_up_an_undo_that_no_worker_has_the_code_for(work, journal):
    run = deploy("tour_gone", trip(journal, sleeping)).start()
    work()
    run.cancel(reason="rain", undo=True)
    assert run.cancel() is None and run.status == "canceling"  # a worker may undo it, and will
    unknown.set_aside(connection, [("another", "")])
    run.cancel(reason="the code is gone", by="ann")
    assert check_state(run) == ("canceled", "ended", "-", "-", "set")
    assert (run.cancel_reason, run.canceled_by, run.finished_at is not None) == ("the code is gone", "ann", True)
    assert journal == ["book monday", "book tuesday"]
    # Nothing was undone. So it can go on once the code is back, or be undone.
    run.retry()
    work()
    run.cancel(undo=True)
    work()
    assert (WorkflowRun.objects.get(pk=run.pk).status, journal) == ("canceled", UNDONE)


def test_run_whose_undo_was_given_up_halfway_does_not_go_on(work, pass_time, journal):
    journal.fails_to_cancel = {"monday"}
    policy = RetryPolicy(max_attempts=3, initial_interval="1h", max_interval="1h", jitter=False)
    run = deploy("tour_gone_halfway", trip(journal, sleeping, retry=policy)).start()
    work()
    run.cancel(undo=True)
    work()
    run.cancel()
    assert run.status == "canceling"  # the next attempt is waited for
    WorkflowRun.objects.filter(pk=run.pk).update(phase=WorkflowRun.Phase.READY)
    unknown.set_aside(connection, [("another", "")])
    run.cancel()
    assert run.status == "canceled"
    assert journal == ["book monday", "book tuesday", "cancel tuesday's"]
    with pytest.raises(InvalidState, match=r"restart\(\)"):
        run.retry()


def test_cancel_of_the_parent_does_not_give_up_an_undo(work, journal):
    child = deploy("tour_gone_child", trip(journal, sleeping))
    parent = deploy("tour_gone_parent", lambda step: step.invoke("child", child).run()).start()
    work()
    run = WorkflowRun.objects.get(parent=parent)
    run.cancel(undo=True)
    unknown.set_aside(connection, [("tour_gone_parent", "")])
    parent.cancel()
    run.refresh_from_db()
    assert run.status == "canceling"


# -- Workers that die, limits, pauses --------------------------------------------------------------------


def test_whoever_takes_over_from_a_dead_worker_goes_on_undoing(work, pass_time, journal):
    run = deploy("tour_recovered", trip(journal, sleeping)).start()
    work()
    run.cancel(undo=True)
    claimed = claim(run)
    assert claimed.is_undoing
    assert check_state(run) == ("canceling", "timed", "set", "set", "-")
    pass_time("31s")
    recover()
    run.refresh_from_db()
    assert (run.status, run.recoveries, check_state(run).phase) == ("canceling", 1, "ready")
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_worker_that_dies_before_the_undo_begins_leaves_it_to_others(work, pass_time, journal):
    run = deploy("tour_left_behind", trip(journal, sleeping)).start()
    work()
    WorkflowRun.objects.filter(pk=run.pk).update(phase=0, status="pending")
    claim(run)
    run.cancel(undo=True)
    assert (run.status, run.undoing) == ("canceling", 1)
    pass_time("31s")
    recover()
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_recoveries_count_and_a_retry_undoes_on(work, pass_time, journal):
    run = deploy("tour_deadly", trip(journal, sleeping)).start()
    work()
    run.cancel(undo=True)
    claim(run)
    pass_time("31s")
    recover(make_terms(max_recoveries=0))
    run.refresh_from_db()
    assert (run.status, run.error_type) == ("failed", "django_steps.errors.WorkerDied")
    run.retry()
    assert (run.status, run.recoveries) == ("canceling", 0)
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_run_in_line_is_undone_without_a_slot(work, journal):
    one = Limit(at_once=1, hold="unfinished")
    body = trip(journal, lambda step: step.sleep("night", "1h"))
    first = deploy("tour_limited", body, limit=one).start()
    work()
    second = WorkflowRun.objects.get(pk=deploy("tour_limited", body, limit=one).start().pk)
    work()
    first.cancel(undo=True)
    work()
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == ("canceled", "sleeping")


def test_paused_queue_keeps_the_undo_waiting_until_it_is_resumed(work, journal):
    tour = deploy("tour_held", trip(journal, sleeping))
    run = tour.start()
    work()
    tour.pause(reason="holidays")
    try:
        run.cancel(undo=True)
        work()
        run.refresh_from_db()
        assert (run.status, undos(run)) == ("canceling", [])
        check_state(run)
        run.resume()
        work()
        run.refresh_from_db()
        assert run.status == "canceled"
    finally:
        tour.resume()


def test_paused_workflow_that_is_resumed_lets_undos_go_on(work, journal):
    tour = deploy("tour_held_for_long", trip(journal, sleeping))
    run = tour.start()
    work()
    tour.pause()
    run.cancel(undo=True)
    work()
    tour.resume()
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE


def test_signals_say_that_the_run_was_canceled(work, journal):
    from django_steps import signals

    heard = []

    def hear(sender, run, **details):
        heard.append((run.pk, run.status))

    run = deploy("tour_heard", trip(journal, sleeping)).start()
    work()
    run.cancel(undo=True)
    signals.run_canceled.connect(hear)
    try:
        work()
    finally:
        signals.run_canceled.disconnect(hear)
    assert heard == [(run.pk, "canceled")]


# -- Many at once, and the testing kit --------------------------------------------------------------------


def test_querysets_cancel_with_undo_and_report_what_they_skipped(work, journal):
    run = deploy("tour_of_many", trip(journal, sleeping)).start()
    over = deploy("tour_of_none", lambda: None).start()
    work()
    result = WorkflowRun.objects.filter(pk__in=[run.pk, over.pk]).cancel(reason="rain", undo=True)
    assert (result.done, [skipped.run_id for skipped in result.skipped]) == ([run.pk], [over.pk])
    work()
    run.refresh_from_db()
    assert run.status == "canceled"


@KINDS
def test_drain_executes_undos(journal, kind):
    run = deploy(f"tour_drained_{kind}", trip(journal, sleeping, kind)).start()
    drain()
    run.cancel(undo=True)
    drain()
    run.refresh_from_db()
    assert run.status == "canceled"
    assert journal == UNDONE
