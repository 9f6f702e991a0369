"""Child runs: started exactly once, waited for by a parent that holds nothing, canceled and retried with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from django_steps import (
    UNFINISHED,
    ChildTimedOut,
    GroupFailed,
    InvalidState,
    RunCanceled,
    RunFailed,
    workflow,
)
from django_steps.core import clock
from django_steps.ledger import events, pruning
from django_steps.models import WorkflowEvent, WorkflowRun
from django_steps.models.event_urls import read_token
from tests.looking import error_of


def status_of(run: WorkflowRun) -> str:
    run.refresh_from_db()
    return str(run.status)


def child_of(run: WorkflowRun, step: str = "receipt") -> WorkflowRun[Any]:
    return run.children.get(parent_step=step, parent_item="")


@pytest.fixture
def receipt():
    """A child that returns what it is given, doubled."""

    @workflow(name="make_receipt", queue="receipts", priority=3)
    def make_receipt(input, step):
        return step.define("double", lambda: input * 2).run()

    return make_receipt


class Broken(Exception):
    pass


@pytest.fixture
def fragile():
    """A child that fails until it is mended; `done` counts its first step."""

    @workflow(name="fragile")
    def fragile(input, step):
        step.define("first", lambda: fragile.done.append(input)).run()
        step.define("second", second).run(input)
        return input

    def second(input):
        if fragile.is_broken:
            raise Broken(input)

    fragile.done, fragile.is_broken = [], True
    return fragile


# -- invoke ------------------------------------------------------------------------------------------


def test_invoked_run_gives_its_result_and_the_parent_holds_nothing_meanwhile(work, receipt):
    @workflow
    def parent(step):
        return step.invoke("receipt", receipt).run(21)

    run = parent.start()
    work(max_runs=1)
    assert status_of(run) == "waiting" and (run.worker_id, run.claim_token) == (None, None)
    child = child_of(run)
    assert (child.queue, child.priority, child.depth) == ("receipts", 3, 1)
    assert run.steps.get().context["child"] == child.pk.hex
    work()
    assert run.result(timeout=0) == 42
    assert (run.steps.get().kind, run.children.count()) == ("invoke", 1)
    child.refresh_from_db()
    assert child.open_parent_id is None


def test_children_are_gathered(work, receipt):
    @workflow
    def parent(step):
        return list(
            step.gather(
                step.invoke("a", receipt).bind(1),
                step.define("b", lambda: "b").bind(),
                step.invoke("c", receipt).bind(3),
            )
        )

    run = parent.start()
    work()
    assert run.result(timeout=0) == [2, "b", 6]


def test_failure_of_a_child_is_raised_with_its_cause_and_replays(work, pass_time, fragile):
    @workflow
    def parent(step):
        try:
            step.invoke("receipt", fragile).run(7)
        except RunFailed as error:
            found = [str(error.run_id), error.error["type"].rpartition(".")[2], type(error.__cause__).__name__]
        step.sleep("rest", "1h")
        return found

    run = parent.start()
    work()
    assert status_of(run) == "sleeping"
    pass_time("2h")
    work()
    assert run.result(timeout=0) == [str(child_of(run).pk), "Broken", "Broken"]


def test_canceled_child_raises_in_the_parent(work, receipt):
    @workflow
    def parent(step):
        try:
            step.invoke("receipt", receipt).run(1)
        except RunCanceled as error:
            return str(error.run_id)

    run = parent.start()
    work(max_runs=1)
    child = child_of(run)
    child.cancel()
    assert status_of(run) == "pending"
    work()
    assert run.result(timeout=0) == str(child.pk)


def test_child_that_takes_too_long_is_canceled(work, pass_time):
    @workflow
    def slow(step):
        step.wait_for_event("never")

    @workflow
    def parent(step):
        try:
            step.invoke("receipt", slow, timeout="1h").run()
        except ChildTimedOut as error:
            return [error.step, str(error.run_id)]

    run = parent.start()
    work()
    assert status_of(run) == "waiting"
    assert run.wakes_at is not None and abs(run.wakes_at - timezone.now() - timedelta(hours=1)) < timedelta(minutes=1)
    pass_time("2h")
    work()
    child = child_of(run)
    assert run.result(timeout=0) == ["receipt", str(child.pk)]
    assert child.status == "canceled"


def test_canceling_the_parent_cancels_its_children_all_the_way_down(work):
    @workflow
    def leaf(step):
        step.wait_for_event("never")

    @workflow
    def middle(step):
        step.invoke("leaf", leaf).run()

    @workflow
    def top(step):
        step.invoke("receipt", middle).run()

    run = top.start()
    work()
    run.cancel(reason="no more")
    work()
    assert {r.workflow: status_of(r) for r in WorkflowRun.objects.all()} == dict.fromkeys(
        ["top", "middle", "leaf"], "canceled"
    )


def test_parent_is_canceling_until_its_running_child_has_ended(work):
    @workflow
    def child(step):
        step.define("cancels", lambda: WorkflowRun.objects.get(workflow="parent").cancel()).run()
        step.define("never", lambda: None).run()

    @workflow
    def parent(step):
        step.invoke("receipt", child).run()

    run = parent.start()
    work()
    assert status_of(run) == "canceled"
    child_run = child_of(run)
    assert child_run.status == "canceled"
    assert list(child_run.steps.values_list("name", flat=True)) == ["cancels"]


def test_retry_of_the_parent_goes_down_to_the_failed_step_of_the_child(work, fragile):
    @workflow
    def parent(step):
        return step.invoke("receipt", fragile).run(7)

    run = parent.start()
    work()
    assert status_of(run) == "failed" and error_of(run)["type"].endswith("RunFailed")
    fragile.is_broken = False
    run.retry()
    work()
    assert run.result(timeout=0) == 7
    assert (fragile.done, run.children.count()) == ([7], 1)


def test_child_that_was_retried_by_hand_gives_its_result_to_the_retried_parent(work, fragile):
    @workflow
    def parent(step):
        return step.invoke("receipt", fragile).run(7)

    run = parent.start()
    work()
    fragile.is_broken = False
    child_of(run).retry()
    work()
    assert status_of(run) == "failed"  # its past stands
    run.retry()
    work()
    assert run.result(timeout=0) == 7


def test_retry_from_the_step_invokes_another_child(work, fragile):
    @workflow
    def parent(step):
        return step.invoke("receipt", fragile).run(7)

    run = parent.start()
    work()
    fragile.is_broken = False
    run.retry(from_step="receipt")
    work()
    assert run.result(timeout=0) == 7
    assert (fragile.done, run.children.count()) == ([7, 7], 2)
    assert run.children.filter(parent_item=None).count() == 1


def test_parent_is_not_retried_where_its_child_refuses(work):
    @workflow
    def compensating(step):
        try:
            step.define("pay", lambda: 1 / 0).run()
        except ZeroDivisionError:
            step.define("refund", lambda: None).run()
            raise

    @workflow
    def parent(step):
        return step.invoke("receipt", compensating).run()

    run = parent.start()
    work()
    with pytest.raises(InvalidState, match=r"'receipt'.*refund"):
        run.retry()
    assert status_of(run) == "failed"


def test_parent_is_not_retried_where_its_child_is_gone(work, fragile):
    @workflow
    def parent(step):
        return step.invoke("receipt", fragile).run(7)

    run = parent.start()
    work()
    WorkflowRun.objects.filter(parent=run)._raw_delete("default")
    with pytest.raises(InvalidState, match="is gone"):
        run.retry()


def test_restart_copies_the_result_and_has_no_child(work, receipt):
    @workflow
    def parent(step):
        first = step.invoke("receipt", receipt).run(1)
        return step.define("after", lambda: first + 1).run()

    run = parent.start()
    work()
    again = run.restart(from_step="after")
    work()
    assert again.result(timeout=0) == 3
    assert again.children.count() == 0


def test_runs_are_at_most_twenty_levels_deep(work):
    @workflow
    def deep(input, step):
        return step.invoke("deeper", deep).run(input + 1)

    run = deep.start(0)
    work()
    assert WorkflowRun.objects.count() == 21
    assert status_of(run) == "failed"
    deepest = WorkflowRun.objects.get(depth=20)
    assert error_of(deepest)["type"].endswith("InvalidState")


def test_failed_member_of_a_gather_cancels_the_children_of_the_others(work):
    @workflow
    def slow(step):
        step.wait_for_event("never")

    @workflow
    def parent(step):
        try:
            step.gather(step.invoke("a", slow).bind(), step.define("b", lambda: 1 / 0).bind())
        except GroupFailed as error:
            step.wait_for_event("go_on", timeout="1d", default=None)
            return list(error.failures)

    run = parent.start()
    work()
    child = child_of(run, "a")
    assert (child.status, child.cancel_reason) == ("canceled", "map stopped")
    assert status_of(run) == "waiting"
    run.send_event("go_on")
    work()
    assert run.result(timeout=0) == ["b"]


# -- start -------------------------------------------------------------------------------------------


def test_started_run_is_independent(work, receipt):
    @workflow
    def parent(step):
        run_id = step.start("news", receipt, key="news-7").run(2)
        again = step.start("again", receipt, key="news-7").run(2)
        return [run_id, again]

    run = parent.start()
    work()
    first, second = run.result(timeout=0)
    assert isinstance(first, UUID) and first == second
    other = WorkflowRun.objects.get(pk=first)
    assert (other.parent_id, other.result(timeout=0)) == (None, 4)
    assert [step.kind for step in run.steps.all()] == ["start", "start"]


# -- map ---------------------------------------------------------------------------------------------


def test_map_over_a_workflow_gives_the_results_in_order(work, receipt):
    @workflow
    def parent(step):
        return step.map("each", receipt, [3, 1, 2])

    run = parent.start()
    work()
    assert run.result(timeout=0) == [6, 2, 4]
    assert sorted(run.children.values_list("parent_item", flat=True)) == ["1", "2", "3"]
    assert {step.name: step.kind for step in run.steps.all()} == {
        "each": "map",
        "each#1": "invoke",
        "each#2": "invoke",
        "each#3": "invoke",
    }


def test_map_over_no_items_is_an_empty_list(work, receipt):
    @workflow
    def parent(step):
        return step.map("each", receipt, [])

    run = parent.start()
    work()
    assert run.result(timeout=0) == []


@pytest.mark.counts_passes
def test_map_of_many_children_wakes_the_parent_once(work, receipt):
    passes = []

    @workflow
    def parent(step):
        passes.append(1)
        return sum(step.map("each", receipt, range(600)))

    run = parent.start()
    work()
    assert run.result(timeout=0) == sum(range(600)) * 2
    assert len(passes) <= 3


def test_failed_child_stops_the_map_and_the_retry_of_the_parent_goes_on(work, fragile):
    @workflow
    def slow(input, step):
        if input == 1:
            return fragile.function(input=input, step=step)
        step.wait_for_event("go")
        return input

    @workflow
    def parent(step):
        return step.map("each", slow, [1, 2, 3])

    run = parent.start()
    work()
    assert status_of(run) == "failed"
    assert error_of(run)["type"].endswith("GroupFailed")
    assert sorted(run.children.values_list("parent_item", "status")) == [
        ("1", "failed"),
        ("2", "canceled"),
        ("3", "canceled"),
    ]
    fragile.is_broken = False
    run.retry()
    work()
    assert status_of(run) == "waiting"
    for child in run.children.filter(status="waiting"):
        child.send_event("go")
    work()
    assert run.result(timeout=0) == [1, 2, 3]
    assert fragile.done == [1]


def test_map_takes_failures_and_stops_after_successes(work, fragile):
    @workflow
    def item(input, step):
        if input == 1:
            raise Broken
        if input == 4:
            step.wait_for_event("never")
        return input

    @workflow
    def parent(step):
        found = step.map("each", item, [1, 2, 3, 4], max_failures=1, min_successes=2)
        return [
            "unfinished" if one is UNFINISHED else type(one).__name__ if isinstance(one, Exception) else one
            for one in found
        ]

    run = parent.start()
    work()
    assert run.result(timeout=0) == ["RunFailed", 2, 3, "unfinished"]


def test_concurrency_of_a_map_bounds_its_children(work):
    most = []

    @workflow
    def item(input, step):
        step.define("count", lambda: most.append(WorkflowRun.objects.filter(workflow="item").active().count())).run()

    @workflow
    def parent(step):
        return len(step.map("each", item, range(7), concurrency=2))

    run = parent.start()
    work(concurrency=4)
    assert run.result(timeout=0) == 7
    assert max(most) <= 2


def test_map_of_children_that_take_too_long(work, pass_time):
    @workflow
    def item(input, step):
        if input == 2:
            step.wait_for_event("never")
        return input

    @workflow
    def parent(step):
        found = step.map("each", item, [1, 2], timeout="1h", return_exceptions=True)
        return [type(one).__name__ for one in found]

    run = parent.start()
    work()
    assert status_of(run) == "waiting"
    pass_time("2h")
    work()
    assert run.result(timeout=0) == ["int", "ChildTimedOut"]


# -- continue_as_new ---------------------------------------------------------------------------------


def test_run_continues_as_another_one_that_takes_over(work):
    @workflow
    def counting(input, step):
        step.define("count", lambda: input).run()
        message = step.wait_for_event("message", timeout=0, default="none")
        if input < 3:
            return step.continue_as_new(input + 1)
        return [input, message]

    run = counting.start(1, key="counter")
    for text in ("a", "b", "c"):
        run.send_event("message", text)
    work()
    assert run.result(timeout=0) == [3, "c"]
    assert (status_of(run), run.output, run.key) == ("succeeded", None, None)
    last = counting.start(1, key="counter")
    assert (last.created, last.output) == (False, [3, "c"])
    assert run.continued_as is not None and run.continued_as.continued_as == last
    with pytest.raises(InvalidState):
        run.send_event("message")


def test_child_may_continue_as_another_run(work):
    @workflow
    def counting(input, step):
        return step.continue_as_new(input + 1) if input < 3 else input

    @workflow
    def parent(step):
        return [step.invoke("receipt", counting).run(1), step.map("each", counting, [1, 2])]

    run = parent.start()
    work()
    assert run.result(timeout=0) == [3, [3, 3]]


def test_continuation_that_is_not_returned_is_a_mistake(work):
    @workflow
    def forgetting(step):
        step.continue_as_new()

    run = forgetting.start()
    work()
    assert error_of(run)["type"].endswith("StepNotRun")
    assert WorkflowRun.objects.count() == 1


def test_workflow_is_no_function_of_a_step(work, receipt):
    @workflow
    def wrong(step):
        found = []
        for call in (
            lambda: step.define("a", receipt),
            lambda: step.branch("a", receipt),
            lambda: step.invoke("a", len),
            lambda: step.start("a", len),
        ):
            try:
                call()
            except TypeError as error:
                found.append("invoke" in str(error) or "takes a workflow" in str(error))
        return found

    run = wrong.start()
    work()
    assert run.result(timeout=0) == [True] * 4


def test_successor_keeps_what_its_predecessors_have_taken_apart(work):
    """A retry from a wait gives back what this run has taken, not what the runs before it took under the same key."""

    @workflow
    def entity(input, step):
        taken = step.wait_for_event("message")
        if input < 2:
            return step.continue_as_new(input + 1)
        return step.define("use", lambda: 1 / 0 if taken == "b" else taken).run()

    entity.send_event("message", "a", key="e")
    run = entity.start(1, key="e")
    work()
    last = WorkflowRun.objects.get(key="e")
    assert last.pk != run.pk
    last.send_event("message", "b")
    work()
    last.retry(from_step="message")
    assert list(WorkflowEvent.objects.order_by("id").values_list("consumed_by", flat=True)) == ["message", None]


def test_event_that_commits_while_its_run_continues_is_the_successors(work, monkeypatch):
    @workflow
    def entity(input, step):
        if input < 2:
            return step.continue_as_new(input + 1)
        return step.wait_for_event("message")

    run = entity.start(1)
    work()
    successor = WorkflowRun.objects.get(continues=run)
    # As the row of an open transaction that the continuation could not see: sent to the first run, and committed now.
    with monkeypatch.context() as patch:
        patch.setattr(events, "tell", lambda *arguments: None)
        successor.send_event("message", "late")
    WorkflowEvent.objects.update(run_id=run.pk)
    event = WorkflowEvent.objects.get()
    events.tell(connection, event.pk, events.To(run_id=run.pk), "message")
    work()
    assert run.result(timeout=0) == "late"


def test_callback_of_a_successor_counts(work, settings):
    settings.DJANGO_STEPS = {"BASE_URL": "https://example.com"}
    ids = {read_token(WorkflowRun(pk=UUID(int=n)).event_url("approval").split("/")[-2]).event_id for n in range(2)}
    assert len(ids) == 2


def test_child_is_pruned_after_its_parent(work, receipt):
    @workflow
    def parent(step):
        step.invoke("receipt", receipt).run(1)
        step.wait_for_event("go")

    run = parent.start()
    work()
    assert pruning.count(connection, clock.NEVER_US) == 0
    assert pruning.prune(connection, clock.NEVER_US) == 0
    run.send_event("go")
    work()
    assert [pruning.prune(connection, clock.NEVER_US) for _ in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("reason", ["timed out", "parent ended", "map stopped"])
def test_reason_that_somebody_gives_is_not_taken_for_the_engines_own(work, reason):
    @workflow
    def item(input, step):
        step.wait_for_event("never")

    @workflow
    def parent(step):
        try:
            step.invoke("receipt", item).run(0)
        except RunCanceled as error:
            single = type(error).__name__
        return [single, *(type(one).__name__ for one in step.map("each", item, [1], return_exceptions=True))]

    run = parent.start()
    for _ in range(2):
        work()
        run.children.get(status="waiting").cancel(reason=reason)
    work()
    assert run.result(timeout=0) == ["RunCanceled", "RunCanceled"]


def test_runs_that_are_not_waited_for_are_gathered(work, receipt):
    @workflow
    def parent(step):
        return list(step.gather(step.start("a", receipt).bind(1), step.start("b", receipt).bind(2)))

    run = parent.start()
    work()
    results = [WorkflowRun.objects.get(pk=run_id).result(timeout=0) for run_id in run.result(timeout=0)]
    assert (results, WorkflowRun.objects.count()) == ([2, 4], 3)
