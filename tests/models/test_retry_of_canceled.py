"""Retries of runs whose async body had canceled steps: what is executed again, and what stays canceled.

The records are written one by one, as such a body leaves them: who knew of what when it was called is all that counts.
"""

from __future__ import annotations

import pytest
from django.db import connection

from django_steps.engine.history_cache import HistoryCache
from django_steps.errors import FailureWasHandled
from django_steps.ledger import histories, records, transitions
from django_steps.ledger.order import Level, context_of
from django_steps.ledger.transitions import Finish
from tests.admin.conftest import error_of
from tests.app import effects
from tests.app.workflows import three_steps
from tests.staging import SECOND, claim, status_of, step_write

pytestmark = pytest.mark.django_db(transaction=True)


class Recording:
    """A run that is executed, and gets a record by each call; `after` names the last step whose outcome its body knew.

    `inside`: the branches that it is called in, each with its group and, by name, what was known at its entry.
    """

    def __init__(self):
        self.run = three_steps.start({})
        self.claimed = claim(self.run)
        self._positions = {"": -1}

    def add(self, name, status="succeeded", after="", *, inside=(), group="", **fields):
        position = self._positions[name] = max(self._positions.values()) + 1
        levels = [Level(branch, of, self._positions[entry]) for branch, of, entry in inside]
        details = {"context": context_of(levels, group), "branch": levels[-1].branch if levels else ""}
        error = error_of(OSError(name), name) if status == "failed" else None
        output = "null" if status == "succeeded" else None
        write = step_write(
            self.claimed,
            name,
            position,
            status=status,
            after=self._positions[after],
            **{"output": output, "error": error, **details, **fields},
        )
        assert records.record(connection, write) is records.Outcome.WRITTEN
        return self

    def canceled(self, name, after="", **fields):
        return self.add(name, "canceled", after, **fields)

    def fail(self, *steps):
        """The run fails, by the failures of these steps, or by a `TimeoutError` of the body."""
        now = self.claimed.now()
        end = Finish(
            run_id=self.run.pk, token=self.claimed.token, status="failed", error=_error(steps), finished_at=now
        )
        assert transitions.finish(connection, end) is records.Outcome.WRITTEN
        return self.run


def _error(steps):
    return error_of(OSError("it failed") if steps else TimeoutError(), *steps)


def retry(recording, *steps):
    recording.fail(*steps).retry()


def attempt_again(recording, *steps):
    claimed = recording.claimed
    due = claimed.now() + 3600 * SECOND
    transitions.attempt_again(connection, claimed.run_id, claimed.token, due, _error(steps), list(steps))


again = pytest.mark.parametrize("go_on", [retry, attempt_again])


def left(run):
    return list(run.steps.order_by("position").values_list("name", "status"))


@again
def test_siblings_that_a_task_group_canceled_for_a_failure_are_executed_again(go_on):
    found = Recording().add("first").add("a", "failed", "first")
    found.canceled("b", "first").canceled("nap", "first", kind="sleep").canceled("ask", "first", kind="poll")
    go_on(found, "a")
    assert left(found.run) == [("first", "succeeded"), ("a", "retrying")]


@again
def test_what_a_timeout_broke_off_that_ended_the_run_is_executed_again(go_on, work, pass_time):
    found = Recording().add("first").canceled("second", "first")
    go_on(found)
    assert left(found.run) == [("first", "succeeded")]
    pass_time("2h")
    work()
    assert status_of(found.run) == "succeeded" and effects.names(found.run) == ["second", "third"]


@again
@pytest.mark.parametrize("plan_b", ["succeeded", "failed", "canceled"])
def test_what_a_body_went_on_from_stays_canceled(go_on, plan_b):
    found = Recording().canceled("plan a").add("plan b", plan_b, "plan a")
    go_on(found, *["plan b"] * (plan_b == "failed"))
    assert left(found.run)[0] == ("plan a", "canceled")
    assert (
        left(found.run)[1:]
        == {
            "succeeded": [("plan b", "succeeded")],
            "failed": [("plan b", "retrying")],
            "canceled": [],
        }[plan_b]
    )


def test_a_sleep_that_was_waiting_and_is_canceled_begins_again():
    found = Recording().add("nap", "waiting", kind="sleep", wakes_at_us=1, finished_at=None)
    found.canceled("nap", kind="sleep", replaces=True)
    retry(found)
    assert left(found.run) == []


def test_a_canceled_step_handles_a_failure_only_if_the_failure_was_known_when_it_was_called():
    """Its position alone says nothing: siblings are canceled after the failure."""
    found = Recording().add("a", "failed").canceled("sibling").canceled("another")
    found.fail("a").retry()
    assert left(found.run) == [("a", "retrying")]
    handling = Recording().add("a", "failed").canceled("refund", "a")
    with pytest.raises(FailureWasHandled, match="'refund' ran after it"):
        handling.fail("a").retry()
    assert left(handling.run) == [("a", "failed"), ("refund", "canceled")]


def test_a_plan_b_for_one_step_does_not_handle_the_failure_of_another():
    found = Recording().canceled("plan a").add("plan b", after="plan a").add("ship", "failed", "plan b").canceled("c")
    found.fail("ship").retry()
    assert left(found.run) == [("plan a", "canceled"), ("plan b", "succeeded"), ("ship", "retrying")]


def test_a_canceled_branch_is_forgotten_with_what_was_canceled_in_it():
    x, y = [("x", "", "")], [("y", "", "")]
    found = Recording().add("x/a", "failed", inside=x).canceled("x/b", inside=x).add("y/c", inside=y)
    found.canceled("y/d", "y/c", inside=y).add("x", "failed", kind="branch").canceled("y", kind="branch")
    found.fail("x/a", "x").retry()
    assert left(found.run) == [("x/a", "retrying"), ("y/c", "succeeded")]


def test_a_step_of_another_branch_has_not_noticed_a_cancel_and_a_later_one_of_the_same_has():
    x, y = [("x", "", "")], [("y", "", "")]
    found = (
        Recording().canceled("x/a", inside=x).add("y/b", after="x/a", inside=y).add("y/c", "failed", "y/b", inside=y)
    )
    found.canceled("x/plan a", "x/a", inside=x)
    found.fail("y/c").retry()
    assert left(found.run) == [("x/a", "canceled"), ("y/b", "succeeded"), ("y/c", "retrying")]


def test_a_branch_or_map_that_the_body_went_on_from_stays_canceled_with_all_that_is_in_it():
    item = [("order#2", "order", "")]
    found = Recording().add("order#1", group="order").canceled("order#2/charge", inside=item)
    found.canceled("order#2", kind="branch", group="order").canceled("order", kind="map")
    found.add("plan b", "failed", "order")
    found.fail("plan b").retry()
    assert [status for _name, status in left(found.run)] == [
        "succeeded",
        "canceled",
        "canceled",
        "canceled",
        "retrying",
    ]


def test_a_canceled_map_is_forgotten_and_the_results_of_its_items_are_kept():
    found = Recording().add("order#1", group="order").canceled("order#2", group="order").canceled("order", kind="map")
    found.fail().retry()
    assert left(found.run) == [("order#1", "succeeded")]


def test_retry_and_restart_from_a_step_forget_what_was_canceled_beside_it():
    """From `a` on all that knew of the cancel is gone, so that nothing would cancel `b` again."""
    found = Recording().add("first").add("a", "failed", "first").canceled("b", "first").add("refund", after="b")
    run = found.fail("a")
    with pytest.raises(FailureWasHandled):
        run.retry()
    new = run.restart(from_step="a")
    assert left(new) == [("first", "succeeded")]
    run.retry(from_step="a")
    assert left(run) == [("first", "succeeded")]


def test_what_had_returned_before_it_was_canceled_has_succeeded_after_a_retry():
    found = Recording().add("first").canceled("a", "first", output='"done"').canceled("b", "first")
    run = found.add("c", "failed", "first").fail("c")
    run.retry()
    assert left(run) == [("first", "succeeded"), ("a", "succeeded"), ("c", "retrying")]
    assert run.steps.get(name="a").output == "done"


def test_what_had_returned_before_it_was_canceled_has_succeeded_after_a_retry_from_another_step():
    found = Recording().add("first").canceled("a", "first", output='"done"').add("c", "failed", "first")
    run = found.fail("c")
    run.retry(from_step="c")
    assert left(run) == [("first", "succeeded"), ("a", "succeeded")]


def test_retry_from_a_canceled_step_executes_it_again_though_it_had_returned():
    found = Recording().add("first").canceled("a", "first", output='"done"')
    run = found.fail()
    run.retry(from_step="a")
    assert left(run) == [("first", "succeeded")]


@pytest.mark.parametrize("from_step", ["b", ["b", "plan b"]])
def test_retry_from_a_canceled_step_executes_what_was_canceled_with_it(from_step):
    found = Recording().add("first").canceled("a", "first").canceled("b", "first").add("plan b", after="b")
    found.add("last", "failed", "plan b").fail("last").retry(from_step=from_step)
    assert left(found.run) == [("first", "succeeded")]


def test_retry_from_plan_b_leaves_plan_a_canceled():
    found = Recording().canceled("plan a").add("plan b", after="plan a").canceled("c", "plan b")
    run = found.fail()
    assert left(run.restart(from_step="plan b")) == [("plan a", "canceled")]
    run.retry(from_step="plan b")
    assert left(run) == [("plan a", "canceled")]


def test_retry_from_a_canceled_branch_begins_it_anew():
    x = [("x", "", "first")]
    found = Recording().add("first").add("x/a", inside=x, after="first").canceled("x/b", "x/a", inside=x)
    found.canceled("x", "first", kind="branch").add("plan b", after="x").fail().retry(from_step="x")
    assert left(found.run) == [("first", "succeeded")]


def test_a_history_that_a_worker_has_kept_is_not_used_once_canceled_steps_are_forgotten(pass_time):
    found = Recording()
    for number in range(HistoryCache._WORTH_KEEPING):
        found.add(f"step {number}")
    found.canceled("b").add("a", "failed")
    kept = histories.load(connection, {found.run.pk: -1})[found.run.pk][:-1]
    attempt_again(found, "a")
    cache = HistoryCache()
    cache.keep(found.claimed, kept, ["a"])
    pass_time("2h")
    assert cache.take([claim(found.run)]) == {}
