"""Runs in line for the slots of limits: who may begin, who holds what, and who lets others go on."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import override_settings

from django_steps import InvalidInput, InvalidState, Limit, workflow
from django_steps.core import clock
from django_steps.definitions.limits import known_limits
from django_steps.ledger import database, limits, lines, transitions, unknown
from django_steps.ledger.claims import Claim
from django_steps.ledger.inserts import Child
from django_steps.ledger.transitions import Finish
from django_steps.ledger.waits import Suspension
from django_steps.models import WorkflowLimit, WorkflowRun
from django_steps.worker.registration import write_limits
from tests.ledger.limited import NARROW, left, take
from tests.staging import SECOND, at_once, second_connection, status_of, step_write
from tests.states import check_state

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("limits_are_written")]

IN_LINE, READY, TIMED = WorkflowRun.Phase.IN_LINE, WorkflowRun.Phase.READY, WorkflowRun.Phase.TIMED


def customer_of(input: Any) -> Any:
    return input["customer"]


@workflow(limit=Limit(at_once=2, hold="executing"))
def two_at_once(step: Any) -> None:
    step.sleep("nap", "1h")


@workflow(limit=Limit(at_once=1, hold="unfinished", key=customer_of))
def one_per_customer(input: Any, step: Any) -> None:
    step.sleep("nap", "1h")


@workflow(
    limit=[Limit(at_once=1, hold="unfinished", key=customer_of), Limit(at_once=2, hold="executing")], queue="narrow"
)
def limited_twice(input: Any, step: Any) -> None:
    step.sleep("nap", "1h")


@workflow(limit=Limit(rate="1/m"))
def one_a_minute(step: Any) -> None:
    step.sleep("nap", "1h")


@workflow(queue="narrow")
def in_narrow_queue(step: Any) -> None:
    step.sleep("nap", "1h")


def finish(claim: Claim, status: str = "succeeded") -> None:
    now = claim.now()
    transitions.finish(connection, Finish(run_id=claim.run_id, token=claim.token, status=status, finished_at=now))
    transitions.release(connection, claim.run_id, claim.token)  # where it was canceled meanwhile
    left(claim)


def suspend(claim: Claim, until: int = 3600 * SECOND, waits_for: str | None = None) -> None:
    write = step_write(claim, "nap", kind="sleep", status="waiting")
    suspension = Suspension(claim.now() + until, waits_for)
    transitions.suspend(connection, claim.run_id, claim.token, suspension, write)
    left(claim)


def phases(*runs: WorkflowRun) -> list[int]:
    found = {run.pk: run.phase for run in WorkflowRun.objects.all()}
    return [found[run.pk] for run in runs]


def ids(found: list[Claim]) -> list[UUID]:
    return [claim.run_id for claim in found]


# -- At once -----------------------------------------------------------------------------------------


def test_no_more_runs_are_ready_than_the_limit_allows() -> None:
    runs = [two_at_once.start() for _ in range(4)]
    assert phases(*runs) == [READY, READY, IN_LINE, IN_LINE]
    assert {status_of(run) for run in runs} == {"pending"}
    assert [check_state(run).phase for run in runs] == ["ready", "ready", "in_line", "in_line"]


def test_the_end_of_a_run_lets_the_next_one_go_on() -> None:
    runs = [two_at_once.start() for _ in range(4)]
    first, _ = take()
    finish(first)
    assert phases(*runs[2:]) == [READY, IN_LINE]


def test_each_key_has_slots_of_its_own() -> None:
    runs = [one_per_customer.start({"customer": customer}) for customer in (7, 8, 7)]
    assert phases(*runs) == [READY, READY, IN_LINE]


def test_keys_are_told_apart_and_checked() -> None:
    with pytest.raises(InvalidInput, match=r"could not be made: KeyError\('customer'\)"):
        one_per_customer.start({})
    with pytest.raises(InvalidInput, match=r"The key function of a limit of workflow 'one_per_customer' gave 1\.5"):
        one_per_customer.start({"customer": 1.5})
    run = one_per_customer.start({"customer": "a/b#c" * 100})
    assert len(run.limit_1) <= 360
    assert not WorkflowRun.objects.exclude(pk=run.pk).exists()


def test_the_line_is_by_priority_and_then_in_the_order_of_the_starts() -> None:
    runs = [two_at_once.start(priority=priority) for priority in (0, 0, 0, 0, 5)]
    first, second = take()
    finish(first)
    assert phases(*runs) == [WorkflowRun.Phase.ENDED, TIMED, IN_LINE, IN_LINE, READY]
    finish(second)
    assert phases(*runs[2:]) == [READY, IN_LINE, READY]


def test_many_starts_and_children_at_once_get_in_line_together() -> None:
    runs = two_at_once.start_many([None] * 20)
    assert phases(*runs) == [READY] * 2 + [IN_LINE] * 18


def test_a_start_that_is_rolled_back_leaves_the_slot() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        two_at_once.start_many([None] * 2)
        raise ZeroDivisionError
    runs = two_at_once.start_many([None] * 2)
    assert phases(*runs) == [READY] * 2


def test_a_start_in_a_transaction_goes_on_after_its_commit() -> None:
    with transaction.atomic():
        runs = [two_at_once.start() for _ in range(3)]
        assert phases(*runs) == [IN_LINE] * 3
    assert phases(*runs) == [READY, READY, IN_LINE]


def test_a_delayed_run_gets_in_line_when_it_is_due(pass_time: Any) -> None:
    first = two_at_once.start(delay="1h")
    others = two_at_once.start_many([None] * 2)
    assert phases(first, *others) == [TIMED, READY, READY]
    pass_time("1h")
    assert len(take()) == 2
    assert phases(first) == [IN_LINE]


# -- Who holds a slot --------------------------------------------------------------------------------


def test_executing_gives_the_slot_up_where_the_run_sleeps_and_gets_in_line_before_newer_ones(pass_time: Any) -> None:
    runs = [two_at_once.start() for _ in range(5)]
    first, second = take()
    suspend(first, until=SECOND)
    assert phases(*runs[2:]) == [READY, IN_LINE, IN_LINE]
    take()
    pass_time("2s")
    assert take() == []
    assert phases(runs[0], *runs[3:]) == [IN_LINE] * 3
    finish(second)
    assert phases(runs[0], *runs[3:]) == [READY, IN_LINE, IN_LINE]


def test_unfinished_keeps_the_slot_while_the_run_sleeps_or_waits(pass_time: Any) -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(2)]
    (first,) = take()
    suspend(first, until=SECOND)
    assert phases(*runs) == [TIMED, IN_LINE]
    pass_time("2s")
    (again,) = take()
    assert again.run_id == first.run_id
    finish(again)
    assert phases(runs[1]) == [READY]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_every_end_gives_the_slot_up(status: str) -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(2)]
    finish(take()[0], status)
    assert phases(runs[1]) == [READY]


def test_a_cancel_gives_the_slot_up_and_leaves_the_line() -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(4)]
    runs[1].cancel()
    assert runs[1].line_key is None
    runs[0].cancel()
    assert phases(*runs[2:]) == [READY, IN_LINE]
    WorkflowRun.objects.filter(pk=runs[2].pk).cancel()
    assert phases(runs[3]) == [READY]


def test_a_canceling_run_holds_its_slot_until_it_has_ended() -> None:
    runs = [two_at_once.start() for _ in range(3)]
    held = {claim.run_id: claim for claim in take()}
    runs[0].cancel()
    assert phases(runs[2]) == [IN_LINE]
    claim = held[runs[0].pk]
    assert transitions.release(connection, claim.run_id, claim.token)
    left(claim)
    assert phases(runs[2]) == [READY]


def test_a_release_and_a_recovery_keep_the_slot(pass_time: Any) -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(2)]
    (first,) = take()
    transitions.release(connection, first.run_id, first.token)
    left(first)
    assert phases(*runs) == [READY, IN_LINE]
    take(lease=SECOND)
    pass_time("5s")
    assert take() == []  # suspected
    pass_time("60s")
    assert ids(take()) == [runs[0].pk]
    assert phases(runs[1]) == [IN_LINE]


def test_a_run_that_fails_by_its_dead_workers_gives_the_slot_up(pass_time: Any) -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(2)]
    take(lease=SECOND, max_recoveries=0)
    for _ in range(2):
        pass_time("60s")
        take(max_recoveries=0, limit=0)
    assert status_of(runs[0]) == "failed"
    assert phases(runs[1]) == [READY]


def test_retry_gets_in_line_again_by_its_id() -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(3)]
    runs[0].cancel()
    (claim,) = take()
    runs[0].retry()
    assert phases(*runs) == [IN_LINE, TIMED, IN_LINE]
    finish(claim)
    assert phases(runs[0], runs[2]) == [READY, IN_LINE]


def test_bulk_retries_pass_through_limits() -> None:
    runs = [two_at_once.start() for _ in range(5)]
    WorkflowRun.objects.all().cancel()
    WorkflowRun.objects.all().retry()
    assert phases(*runs) == [READY, READY, IN_LINE, IN_LINE, IN_LINE]


def test_a_restart_has_the_limits_of_the_run() -> None:
    run = one_per_customer.start({"customer": 7})
    again = run.restart()
    assert (again.limit_1, again.phase) == (run.limit_1, IN_LINE)


def test_runs_of_unknown_workflows_hold_no_slot_and_are_not_in_line() -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(2)]
    known = [("two_at_once", "")]
    while unknown.set_aside(connection, known):
        pass
    assert phases(*runs) == [WorkflowRun.Phase.UNKNOWN] * 2
    assert not WorkflowRun.objects.exclude(slot_1=None, line_key=None).exists()
    while unknown.bring_back(connection, [("one_per_customer", "")]):
        pass
    assert sorted(phases(*runs)) == [READY, IN_LINE]


# -- An event, a child -------------------------------------------------------------------------------


def test_a_run_that_an_event_wakes_gets_in_line() -> None:
    runs = [two_at_once.start() for _ in range(3)]
    first, second = take()
    suspend(first, waits_for="\npaid\n")
    (third,) = take()
    runs[0].send_event("paid")
    assert phases(runs[0]) == [IN_LINE]
    finish(second)
    assert phases(runs[0]) == [READY]
    finish(third)


def test_a_run_that_an_event_wakes_goes_on_where_there_is_room() -> None:
    run = two_at_once.start()
    (claim,) = take()
    suspend(claim, waits_for="\npaid\n")
    run.send_event("paid")
    assert phases(run) == [READY]


# -- Several limits ----------------------------------------------------------------------------------


def test_a_run_with_several_limits_gets_in_line_for_one_after_the_other(narrow: Any) -> None:
    runs = [limited_twice.start({"customer": customer}) for customer in (1, 1, 2, 3)]
    rows = WorkflowRun.objects.order_by("id").values_list("line_key", "slot_1", "slot_2", "slot_queue")
    assert list(rows) == [
        (None, "1:1#limited_twice", "2:#limited_twice", "q:#narrow"),
        ("1:1#limited_twice", None, None, None),
        ("q:#narrow", "1:2#limited_twice", "2:#limited_twice", None),
        ("2:#limited_twice", "1:3#limited_twice", None, None),
    ]
    (first,) = take()
    finish(first)
    # Before the others, since it was started before them.
    assert phases(*runs[1:]) == [READY, IN_LINE, IN_LINE]
    assert list(rows)[2:] == [
        ("q:#narrow", "1:2#limited_twice", "2:#limited_twice", None),
        ("2:#limited_twice", "1:3#limited_twice", None, None),
    ]


def test_a_queue_counts_the_runs_of_all_workflows(narrow: Any) -> None:
    first, second = in_narrow_queue.start(), two_at_once.start(queue="narrow")
    assert phases(first, second) == [READY, IN_LINE]
    finish(take()[0])
    assert phases(second) == [READY]


def test_a_sleeping_run_of_a_limited_queue_holds_nothing(narrow: Any) -> None:
    first, second = in_narrow_queue.start(), in_narrow_queue.start()
    suspend(take()[0])
    assert phases(first, second) == [TIMED, READY]


# -- The numbers -------------------------------------------------------------------------------------


def test_a_limit_that_is_added_to_a_queue_moves_its_ready_runs_to_the_line() -> None:
    runs = [in_narrow_queue.start() for _ in range(3)]
    assert phases(*runs) == [READY] * 3
    with override_settings(DJANGO_STEPS=NARROW):
        write_limits(connection)
        assert phases(*runs) == [READY, IN_LINE, IN_LINE]
        check_state(runs[1])


def test_a_limit_that_is_removed_lets_all_go_on(narrow: Any) -> None:
    runs = [in_narrow_queue.start() for _ in range(3)]
    with override_settings(DJANGO_STEPS={}):
        write_limits(connection)
    assert phases(*runs) == [READY] * 3


def test_a_limit_that_is_raised_or_lowered_counts_from_then_on(narrow: Any) -> None:
    runs = [in_narrow_queue.start() for _ in range(5)]
    with override_settings(DJANGO_STEPS={"QUEUES": {"narrow": {"at_once": 3}}}):
        write_limits(connection)
        assert phases(*runs) == [READY] * 3 + [IN_LINE] * 2
    write_limits(connection)
    first, second, third = take()
    finish(first)
    finish(second)
    assert phases(*runs[3:]) == [IN_LINE] * 2
    finish(third)
    assert phases(*runs[3:]) == [READY, IN_LINE]


def test_promoters_read_the_row_and_not_their_settings(narrow: Any) -> None:
    with override_settings(DJANGO_STEPS={"QUEUES": {"narrow": {"at_once": 50}}}):
        runs = [in_narrow_queue.start() for _ in range(3)]
    assert phases(*runs) == [READY, IN_LINE, IN_LINE]


def test_before_a_worker_has_written_a_limit_runs_stay_in_line() -> None:
    WorkflowLimit.objects.all().delete()
    run = two_at_once.start()
    assert phases(run) == [IN_LINE]
    write_limits(connection)
    assert phases(run) == [READY]


def test_a_limit_that_is_removed_before_a_worker_knew_it_lets_all_go_on() -> None:
    with override_settings(DJANGO_STEPS=NARROW):
        run = in_narrow_queue.start()
    assert phases(run) == [IN_LINE]
    write_limits(connection)
    assert phases(run) == [READY]


def test_limits_are_written_once() -> None:
    assert not limits.write(connection, *known_limits())


def test_rows_of_keys_are_deleted_once_nobody_needs_them() -> None:
    run = one_per_customer.start({"customer": 7})
    assert limits.prune(connection) == 0
    run.cancel()
    assert limits.prune(connection) == 1
    assert WorkflowLimit.objects.filter(name="1:#one_per_customer").exists()
    assert phases(one_per_customer.start({"customer": 7})) == [READY]


# -- Ancestors ---------------------------------------------------------------------------------------


def child_of(parent: Claim, **fields: Any) -> WorkflowRun:
    from django_steps.definitions.starting import new_run
    from django_steps.ledger import children

    new = new_run(
        one_per_customer, {"customer": 7}, child=Child(parent.run_id, f"child {len(fields)}", "", parent.depth + 1)
    )
    children.insert(connection, [new])
    return WorkflowRun.objects.get(pk=new.id)


def test_a_child_goes_on_although_its_ancestors_hold_the_slots() -> None:
    parent = one_per_customer.start({"customer": 7})
    other = one_per_customer.start({"customer": 7})
    (held,) = take()
    child = child_of(held)
    assert phases(parent, other, child) == [TIMED, IN_LINE, READY]
    suspend(held, waits_for="\n#child 0\n")
    (held_child,) = take()
    grandchild = child_of(held_child)
    assert phases(other, grandchild) == [IN_LINE, READY]


def test_two_children_of_one_parent_go_on_one_after_the_other() -> None:
    one_per_customer.start({"customer": 7})
    (held,) = take()
    first, second = child_of(held), child_of(held, more=1)
    assert phases(first, second) == [READY, IN_LINE]
    finish(take()[0])
    assert phases(second) == [READY]


# -- Rates -------------------------------------------------------------------------------------------


def test_a_rate_lets_runs_begin_one_after_the_other(pass_time: Any) -> None:
    runs = [one_a_minute.start() for _ in range(3)]
    assert phases(*runs) == [READY, IN_LINE, IN_LINE]
    assert ids(take()) == [runs[0].pk]
    assert phases(*runs[1:]) == [IN_LINE, IN_LINE]
    pass_time("1m")
    lines.promote(connection, lines.due(connection))
    assert phases(*runs[1:]) == [READY, IN_LINE]


def test_a_rate_does_not_count_passes(pass_time: Any) -> None:
    run = one_a_minute.start()
    suspend(take()[0], until=6 * SECOND)
    other = one_a_minute.start()
    pass_time("30s")
    assert ids(take()) == [run.pk]
    assert phases(other) == [IN_LINE]


def test_a_retry_counts_as_a_run_that_begins() -> None:
    runs = [one_a_minute.start() for _ in range(3)]
    WorkflowRun.objects.all().cancel()
    WorkflowRun.objects.all().retry()
    assert phases(*runs).count(IN_LINE) >= 2


def test_runs_that_are_ready_and_not_claimed_hold_up_the_rate(pass_time: Any) -> None:
    runs = [one_a_minute.start() for _ in range(5)]
    for _ in range(10):
        pass_time("10m")
        lines.sweep(connection)
    assert phases(*runs) == [READY] + [IN_LINE] * 4
    assert len(take()) == 1


def test_a_clock_that_was_put_back_does_not_stop_a_rate(pass_time: Any) -> None:
    one_a_minute.start()
    take()
    run = one_a_minute.start()
    WorkflowLimit.objects.filter(name="1:#one_a_minute").update(tat_us=clock.host_time() + 3600 * SECOND * 10)
    lines.sweep(connection)
    assert phases(run) == [IN_LINE]
    pass_time("90s")
    lines.promote(connection, lines.due(connection))
    assert phases(run) == [READY]


# -- Side by side ------------------------------------------------------------------------------------


def test_promoters_at_once_let_no_more_go_on_than_the_limit_allows() -> None:
    def start_and_cancel() -> None:
        for _ in range(10):
            two_at_once.start()
            assert WorkflowRun.objects.exclude(slot_1=None).count() <= 2

    results = at_once([start_and_cancel] * 4)
    assert results == [None] * 4
    ready = WorkflowRun.objects.filter(phase=READY)
    for expected in range(38, 0, -2):
        ready.first()
        claimed = take()
        assert len(claimed) == 2
        for claim in claimed:
            finish(claim)
        assert WorkflowRun.objects.filter(phase=IN_LINE).count() == max(0, expected - 2)


def test_a_promoter_that_finds_the_limit_locked_leaves_it_to_the_other() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite locks the whole file")
    two_at_once.start().cancel()
    with second_connection() as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM django_steps_workflowlimit WHERE name = '1:#two_at_once' FOR UPDATE")
        run = two_at_once.start()
        assert phases(run) == [IN_LINE]
        cursor.execute("ROLLBACK")
    assert lines.sweep(connection)
    assert phases(run) == [READY]


def test_what_a_dead_process_has_not_promoted_is_found_by_maintenance() -> None:
    runs = [one_per_customer.start({"customer": 7}) for _ in range(2)]
    (claim,) = take()
    transitions.finish(
        connection, Finish(run_id=claim.run_id, token=claim.token, status="succeeded", finished_at=claim.now())
    )
    assert phases(runs[1]) == [IN_LINE]
    assert lines.sweep(connection)
    assert phases(runs[1]) == [READY]
    assert not lines.sweep(connection)


def test_a_rate_is_exact_over_every_minute_also_after_a_stall_and_with_the_clock_put_back(pass_time: Any) -> None:
    body = workflow(name="thirty", limit=Limit(rate="30/m"))(lambda: None)
    write_limits(connection)
    body.start_many([None] * 200)
    began: list[int] = []
    put_back = 0  # microseconds
    for number in range(300):
        if number == 120:  # somebody puts the clock back
            put_back = 3600 * SECOND
            clock.offset_us -= put_back
            lines.sweep(connection)
        clock.offset_us += 40 * SECOND if number == 60 else SECOND // 2  # a stall
        lines.promote(connection, lines.due(connection))
        passed = database.read_clock(connection) + put_back
        for claim in take():
            began.append(passed)
            finish(claim)
    # What is claimed after a look is from before it: a second more or less.
    for start in began:
        assert sum(start <= moment < start + 59 * SECOND for moment in began) <= 31
    assert len(began) >= (began[-1] - began[0] - 50 * SECOND) // (2.5 * SECOND)  # it is looked twice a second


def test_a_storm_of_starts_ends_retries_and_cancels_locks_nobody_out() -> None:
    def storm(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            run = limited_twice.start({"customer": chance.randrange(3)})
            kind = chance.randrange(4)
            if kind == 0:
                with suppress(InvalidState):  # others do the same
                    run.cancel()
                    run.retry()
            elif kind == 1:
                some = list(WorkflowRun.objects.active().values_list("pk", flat=True)[:5])
                WorkflowRun.objects.filter(pk__in=some).cancel()
            elif kind == 2:
                WorkflowRun.objects.filter(status="canceled").retry()
            for claim in take(chance.randrange(1, 4)):
                assert WorkflowRun.objects.exclude(slot_2=None).count() <= 2
                finish(claim)

    for result in at_once([partial(storm, seed) for seed in range(4)]):
        assert result is None, result
    while WorkflowRun.objects.active().exists():
        lines.sweep(connection)
        claimed = take()
        assert claimed, list(WorkflowRun.objects.active().values_list("phase", "line_key", "slot_1", "slot_2"))
        for claim in claimed:
            finish(claim)
    assert not WorkflowRun.objects.exclude(slot_1=None, slot_2=None, line_key=None).exists()
