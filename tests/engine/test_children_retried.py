"""What becomes of child runs when their parents are retried, canceled, recovered, or their lists change."""

from __future__ import annotations

from contextvars import Context
from dataclasses import dataclass

import pytest

from django_steps import (
    RetryPolicy,
    workflow,
)
from django_steps.models import WorkflowRun
from tests.looking import error_of
from tests.staging import LostAnswers


@dataclass
class Order:
    number: int


class Broken(Exception):
    pass


def status_of(run: WorkflowRun) -> str:
    run.refresh_from_db()
    return str(run.status)


def statuses(run: WorkflowRun) -> dict[str, str]:
    """The status of each child that counts, by its item."""
    return dict(run.children.filter(parent_item__isnull=False).values_list("parent_item", "status"))


@pytest.fixture
def fragile():
    """A child that fails until it is mended; `done` counts its first step. It waits for "go" if `waits`."""

    @workflow(name="fragile")
    def fragile(input, step):
        step.define("first", lambda: fragile.done.append(input)).run()
        step.define("second", second).run(input)
        if fragile.waits:
            step.wait_for_event("go")
        return input

    def second(input):
        if input in fragile.broken:
            raise Broken(input)

    fragile.done, fragile.broken, fragile.waits = [], {1}, False
    return fragile


@pytest.fixture
def mapping(fragile):
    """A parent of three fragile children."""

    @workflow
    def mapping(step):
        mapping.passes += 1
        return step.map("each", fragile, mapping.items)

    mapping.items, mapping.passes = [1, 2, 3], 0
    return mapping


# -- invoke ------------------------------------------------------------------------------------------


@pytest.mark.counts_passes
def test_retried_parent_waits_for_a_child_that_is_active_already(work, fragile):
    passes = []

    @workflow
    def parent(step):
        passes.append(1)
        return step.invoke("receipt", fragile).run(1)

    run = parent.start()
    work()
    fragile.broken, fragile.waits = set(), True
    child = run.children.get()
    child.retry()
    work()
    assert status_of(child) == "waiting"
    run.retry()
    passes.clear()
    work()
    assert status_of(run) == "waiting"
    assert len(passes) <= 3
    child.send_event("go")
    work()
    assert run.result(timeout=0) == 1
    assert fragile.done == [1]


def test_child_that_is_retried_by_hand_after_its_parents_end_is_no_orphan(work, fragile):
    from django.db import connection

    from django_steps.ledger import cascades

    @workflow
    def parent(step):
        step.gather(step.invoke("receipt", fragile).bind(2), step.define("bad", lambda: 1 / 0).bind())

    fragile.waits = True
    run = parent.start()
    work()
    assert status_of(run) == "failed"
    child = run.children.get()
    assert child.status == "canceled"
    child.retry()
    assert cascades.orphaned(connection) == []
    work()
    assert status_of(child) == "waiting"


def test_policy_of_the_parent_retries_the_child(work, pass_time, fragile):
    @workflow(retry=RetryPolicy(max_attempts=3, initial_interval="1m", jitter=False))
    def parent(step):
        return step.invoke("receipt", fragile).run(1)

    run = parent.start()
    work()
    assert status_of(run) == "sleeping"
    fragile.broken = set()
    pass_time("2m")
    work()
    assert run.result(timeout=0) == 1
    assert (fragile.done, run.children.count()) == ([1], 1)


def test_policy_of_the_parent_ends_with_the_failure_of_a_child_that_can_not_be_retried(work, pass_time):
    @workflow
    def compensating(step):
        try:
            step.define("pay", lambda: 1 / 0).run()
        except ZeroDivisionError:
            step.define("refund", lambda: None).run()
            raise

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1m", jitter=False))
    def parent(step):
        return step.invoke("receipt", compensating).run()

    run = parent.start()
    work()
    pass_time("2m")
    work()
    assert status_of(run) == "failed"
    assert error_of(run)["type"].endswith("RunFailed")


def test_parent_that_was_canceled_goes_on_with_its_child(work, fragile):
    fragile.waits = True

    @workflow
    def parent(step):
        return step.invoke("receipt", fragile).run(2)

    run = parent.start()
    work()
    run.cancel()
    work()
    assert (status_of(run), statuses(run)) == ("canceled", {"": "canceled"})
    run.retry()
    work()
    assert (status_of(run), statuses(run)) == ("waiting", {"": "waiting"})
    run.children.get().send_event("go")
    work()
    assert run.result(timeout=0) == 2
    assert fragile.done == [2]


def test_child_that_somebody_canceled_is_retried_with_its_parent(work, fragile):
    fragile.waits = True

    @workflow
    def parent(step):
        return step.invoke("receipt", fragile).run(2)

    run = parent.start()
    work()
    run.children.get().cancel(reason="by hand")
    work()
    assert status_of(run) == "failed" and error_of(run)["type"].endswith("RunCanceled")
    run.retry()
    work()
    run.children.get().send_event("go")
    work()
    assert run.result(timeout=0) == 2


def test_timeout_of_a_child_counts_anew_after_a_retry(work, pass_time, fragile):
    fragile.waits = True

    @workflow
    def parent(step):
        return step.invoke("receipt", fragile, timeout="1h").run(2)

    run = parent.start()
    work()
    pass_time("2h")
    work()
    assert status_of(run) == "failed" and error_of(run)["type"].endswith("ChildTimedOut")
    run.retry()
    work()
    assert status_of(run) == "waiting"
    run.children.get().send_event("go")
    work()
    assert run.result(timeout=0) == 2


def test_mistake_of_the_parent_cancels_its_children_and_they_go_on_when_it_is_mended(work, fragile):
    fragile.waits = True
    mistaken = [True]

    @workflow
    def parent(step):
        def wrong(step):
            if mistaken:
                step.define("a", lambda: 1).run()
                step.define("a", lambda: 1).run()

        return list(step.gather(step.invoke("receipt", fragile).bind(2), step.branch("wrong", wrong).bind()))

    run = parent.start()
    work()
    assert status_of(run) == "failed"
    assert [child.status for child in run.children.all()] == ["canceled"]
    mistaken.clear()
    run.retry()
    work()
    run.children.get().send_event("go")
    work()
    assert run.result(timeout=0) == [2, None]
    assert fragile.done == [2]


def test_too_deep_a_parent_can_be_retried(work):
    @workflow
    def deep(input, step):
        return step.invoke("deeper", deep).run(input + 1)

    deep.start(0)
    work()
    deepest = WorkflowRun.objects.get(depth=20)
    deepest.retry()
    work()
    assert error_of(deepest)["type"].endswith("InvalidState")


def test_restart_of_a_run_that_waits_for_a_child_invokes_one_of_its_own(work, fragile):
    fragile.waits = True

    @workflow
    def parent(step):
        def slow(step):
            return step.invoke("receipt", fragile).run(2)

        step.define("before", lambda: None).run()
        return list(step.gather(step.branch("slow", slow).bind(), step.define("other", lambda: 1 / 0).bind()))

    run = parent.start()
    work()
    again = run.restart(from_step="other")
    work()
    assert status_of(again) == "failed"
    assert error_of(again)["type"].endswith("GroupFailed")
    assert "InvalidState" not in str(error_of(again))


# -- map ---------------------------------------------------------------------------------------------


def test_item_that_succeeded_meanwhile_gives_its_result(work, fragile, mapping):
    run = mapping.start()
    work()
    assert status_of(run) == "failed"
    fragile.broken = set()
    run.children.get(parent_item="1").retry()
    work()
    run.retry()
    work(max_runs=20)
    assert run.result(timeout=0) == [1, 2, 3]
    assert fragile.done == [1, 2, 3]


@pytest.mark.counts_passes
def test_item_that_is_active_already_is_waited_for(work, fragile, mapping):
    run = mapping.start()
    work()
    fragile.broken, fragile.waits = set(), True
    child = run.children.get(parent_item="1")
    child.retry()
    work()
    mapping.passes = 0
    run.retry()
    work(max_runs=20)
    assert status_of(run) == "waiting" and mapping.passes <= 3
    child.send_event("go")
    work()
    assert run.result(timeout=0) == [1, 2, 3]


def test_item_is_taken_anew_from_its_step(work, fragile, mapping):
    run = mapping.start()
    work()
    fragile.broken = set()
    run.retry(from_step="each#1")
    work()
    assert run.result(timeout=0) == [1, 2, 3]
    assert sorted(fragile.done) == [1, 1, 2, 3]
    assert run.children.count() == 4


def test_map_is_taken_anew_from_its_name(work, fragile, mapping):
    run = mapping.start()
    work()
    fragile.broken = set()
    run.retry(from_step="each")
    work()
    assert run.result(timeout=0) == [1, 2, 3]
    assert run.children.count() == 6


def test_concurrency_of_a_map_holds_after_a_retry(work, fragile):
    most = []

    @workflow
    def item(input, step):
        most.append(WorkflowRun.objects.filter(workflow="item").active().count())
        if input in fragile.broken:
            raise Broken

    @workflow
    def parent(step):
        return len(step.map("each", item, range(6), concurrency=2, max_failures=5))

    fragile.broken = {0, 1, 2, 3, 4, 5}
    run = parent.start()
    work()
    assert status_of(run) == "failed"
    fragile.broken = set()
    most.clear()
    run.retry()
    work(concurrency=4)
    assert run.result(timeout=0) == 6
    assert max(most) <= 2


def test_list_that_changed_between_passes_is_matched_by_key(work, fragile, mapping):
    fragile.broken, fragile.waits = set(), True
    run = mapping.start()
    work()
    mapping.items = [4, 2, 1]
    for child in run.children.all():
        child.send_event("go")
    work()
    for child in run.children.filter(status="waiting"):
        child.send_event("go")
    work()
    assert run.result(timeout=0) == [4, 2, 1]
    assert sorted(fragile.done) == [1, 2, 3, 4]


def test_list_that_became_shorter_gives_its_results(work, fragile, mapping):
    fragile.broken, fragile.waits = {3}, True
    run = mapping.start()
    work(max_runs=1)
    mapping.items = [2]
    work()
    for child in run.children.filter(status="waiting"):
        child.send_event("go")
    work()
    assert run.result(timeout=0) == [2]


def test_input_of_one_item_that_is_invalid_inserts_nothing(work):
    @workflow
    def item(input: Order, step):
        return input.number

    @workflow
    def parent(step):
        return step.map("each", item, [{"number": 1}, {"number": "x"}], key=lambda i: str(i["number"]), concurrency=1)

    run = parent.start()
    work()
    assert status_of(run) == "failed" and error_of(run)["type"].endswith("InvalidInput")
    assert WorkflowRun.objects.count() == 1


def test_path_of_an_item_that_is_too_long_inserts_nothing(work, fragile):
    @workflow
    def parent(step):
        return step.map("e" * 200, fragile, ["a", "b" * 90])

    run = parent.start()
    work()
    assert status_of(run) == "failed" and error_of(run)["type"].endswith("InvalidName")
    assert WorkflowRun.objects.count() == 1


def test_equal_keys_insert_nothing(work, fragile):
    @workflow
    def parent(step):
        return step.map("each", fragile, [1, "1"])

    run = parent.start()
    work()
    assert status_of(run) == "failed" and error_of(run)["type"].endswith("DuplicateStepName")
    assert WorkflowRun.objects.count() == 1


def test_maps_of_runs_are_nested(work):
    @workflow
    def leaf(input, step):
        return input * 2

    @workflow
    def middle(input, step):
        return sum(step.map("leaf", leaf, range(input)))

    @workflow
    def top(step):
        def inner(item, step):
            return [*step.map("middle", middle, [item, item + 1]), step.invoke("leaf", leaf).run(item)]

        return step.map("each", inner, [1, 2])

    run = top.start()
    work()
    assert run.result(timeout=0) == [[0, 2, 2], [2, 6, 4]]
    names = set(run.steps.values_list("name", flat=True))
    assert "each#1/middle#2" in names and "each#2/leaf" in names


def test_signals_tell_of_children_that_were_canceled(work, fragile):
    from django_steps import signals

    seen = []

    def receive(run, **kwargs):
        seen.append(run.pk)

    fragile.waits = True

    @workflow
    def parent(step):
        step.map("each", fragile, [2, 3])

    signals.run_canceled.connect(receive)
    try:
        run = parent.start()
        work()
        run.cancel()
        work()
    finally:
        signals.run_canceled.disconnect(receive)
    assert sorted(seen) == sorted([run.pk, *run.children.values_list("pk", flat=True)])


# -- Many --------------------------------------------------------------------------------------------


def test_cancel_goes_down_to_many_that_have_children_of_their_own(work):
    @workflow
    def leaf(input, step):
        step.wait_for_event("never")

    @workflow
    def middle(input, step):
        step.invoke("leaf", leaf).run(input)

    @workflow
    def top(step):
        step.map("each", middle, range(150))

    run = top.start()
    work()
    assert WorkflowRun.objects.filter(status="waiting").count() == 301
    run.cancel()
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"canceled"}


def test_children_of_a_parent_that_is_canceled_while_it_starts_them_are_canceled(work, monkeypatch):
    from django_steps.ledger import children

    insert_more = children.insert_more

    def cancel_and_insert(connection, parent, token, children):
        Context().run(WorkflowRun.objects.get(pk=parent).cancel)
        return insert_more(connection, parent, token, children)

    @workflow
    def leaf(input, step):
        step.wait_for_event("never")

    @workflow
    def parent(step):
        step.map("each", leaf, range(1200))

    run = parent.start()
    monkeypatch.setattr(children, "insert_more", cancel_and_insert)
    work()
    assert status_of(run) == "canceled"
    assert run.children.count() == 500
    assert set(run.children.values_list("status", flat=True)) == {"canceled"}


def test_child_of_a_parent_that_waits_is_not_pruned(work, fragile):
    from django.db import connection

    from django_steps.ledger import database, pruning

    @workflow
    def parent(step):
        step.invoke("a", fragile).run(3)
        step.wait_for_event("go")

    run = parent.start()
    work()
    pruning.prune(connection, database.read_clock(connection) + 1_000_000)
    assert run.children.count() == 1
    run.send_event("go")
    work()
    for _ in range(3):
        pruning.prune(connection, database.read_clock(connection) + 1_000_000)
    assert WorkflowRun.objects.count() == 0


def test_timeout_of_a_map_counts_for_each_child_from_its_start(work, pass_time):
    @workflow
    def item(input, step):
        step.sleep("nap", "40m")
        return input

    @workflow
    def parent(step):
        return step.map("each", item, [1, 2, 3], concurrency=1, timeout="1h")

    run = parent.start()
    for _ in range(5):
        work()
        pass_time("41m")
    work()
    assert run.result(timeout=0) == [1, 2, 3]


@pytest.mark.parametrize("nth", range(0, 30, 2))
def test_children_are_started_once_whatever_answer_is_lost(work, nth):
    @workflow
    def leaf(input, step):
        return input

    @workflow
    def parent(step):
        step.start("let go", leaf).run(0)
        return [step.invoke("one", leaf).run(1), *step.map("more", leaf, [2, 3])]

    work()  # the first worker writes the limits and schedules of all workflows that there are
    run = parent.start()
    with LostAnswers(nth):
        work()
    work()
    assert run.result(timeout=0) == [1, 2, 3]
    assert WorkflowRun.objects.count() == 5
