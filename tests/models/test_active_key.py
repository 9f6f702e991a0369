"""Active keys: at most one run of a workflow is active under one, and it is found by it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from django_steps import Event, InvalidState, workflow
from django_steps.core import clock
from django_steps.errors import InvalidName
from django_steps.ledger import taking, transitions
from django_steps.ledger.pruning import prune, prune_events
from django_steps.ledger.transitions import Finish
from django_steps.models import WorkflowEvent, WorkflowRun
from django_steps.testing import drain, run_workflow
from tests.app.workflows import sleeper
from tests.staging import Background, at_once, claim, status_of, step_write

pytestmark = pytest.mark.django_db(transaction=True)


@workflow
def waits_for_payment(step: Any) -> Any:
    return step.wait_for_event("paid", timeout="1h", default=None)


@workflow
def goes_on_by_key(input: int, step: Any) -> Any:
    if input:
        return step.continue_as_new(input - 1)
    return step.wait_for_event("paid", timeout="1h", default=None)


@workflow
def starts_sync(step: Any) -> Any:
    return [step.start(name, waits_for_payment, active_key="user-7").run(None) for name in ("first", "second")]


def finish(run: WorkflowRun, status: str = "succeeded") -> None:
    claimed = claim(run)
    ended = Finish(run_id=run.pk, token=claimed.token, status=status, output="null", finished_at=claimed.now())
    transitions.finish(connection, ended)


# -- One at a time -----------------------------------------------------------------------------------


def test_start_under_a_held_active_key_returns_the_run_that_holds_it() -> None:
    first = sleeper.start({"a": 1}, active_key="user-7")
    second = sleeper.start({"a": 2}, active_key="user-7")
    assert (first.created, second.created) == (True, False)
    assert (second.pk, second.active_key, second.input) == (first.pk, "user-7", {"a": 1})


def test_an_active_key_is_free_once_its_run_has_ended() -> None:
    first = sleeper.start({}, active_key="user-7")
    finish(first)
    second = sleeper.start({}, active_key="user-7")
    first.refresh_from_db()
    assert second.created and second.pk != first.pk
    assert (first.active_key, second.active_key) == (None, "user-7")


@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_every_way_to_end_gives_the_active_key_free(end: str) -> None:
    first = sleeper.start({}, active_key="user-7")
    first.cancel() if end == "canceled" else finish(first, end)
    assert status_of(first) == end
    assert sleeper.start({}, active_key="user-7").created


def test_active_keys_are_one_workflows_own() -> None:
    assert sleeper.start({}, active_key="user-7").created
    assert waits_for_payment.start(active_key="user-7").created


def test_active_keys_and_keys_are_two_namespaces() -> None:
    keyed = sleeper.start({}, key="user-7")
    active = sleeper.start({}, active_key="user-7")
    assert active.created and keyed.pk != active.pk


def test_with_a_key_and_an_active_key_the_run_with_the_key_comes_first() -> None:
    keyed = sleeper.start({}, key="a")
    active = sleeper.start({}, active_key="b")
    assert sleeper.start({}, key="a", active_key="b").pk == keyed.pk
    assert sleeper.start({}, key="c", active_key="b").pk == active.pk
    assert sleeper.start({}, key="c", active_key="d").created


def test_start_is_refused_while_the_holder_is_canceling() -> None:
    run = sleeper.start({}, active_key="user-7")
    held = claim(run)
    run.cancel()
    with pytest.raises(InvalidState, match=f"{run.pk} is active under 'user-7' and is canceling"):
        sleeper.start({}, active_key="user-7")
    assert transitions.release(connection, run.pk, held.token)
    assert sleeper.start({}, active_key="user-7").created


def test_of_many_starts_at_once_one_makes_the_run() -> None:
    runs = at_once([lambda: sleeper.start({}, active_key="user-7")] * 8)
    assert len({run.pk for run in runs}) == 1
    assert [run.created for run in runs].count(True) == 1


def test_a_start_waits_for_an_open_transaction_that_has_the_key() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time.")
    with transaction.atomic():
        first = sleeper.start({}, active_key="user-7")
        other = Background(lambda: sleeper.start({}, active_key="user-7"))
    assert other.result().pk == first.pk


@pytest.mark.parametrize("wrong", ["", " a", "a\n", 7, "x" * 256])
def test_active_keys_are_checked_as_keys_are(wrong: Any) -> None:
    with pytest.raises(InvalidName):
        sleeper.start({}, active_key=wrong)
    assert not WorkflowRun.objects.exists()


def test_start_many_takes_no_active_key() -> None:
    with pytest.raises(TypeError, match="active_key"):
        sleeper.start_many([{}], active_key="a")  # type: ignore[call-arg]


def test_a_body_starts_one_run_under_an_active_key() -> None:
    run = run_workflow(starts_sync)
    first, second = run.output
    assert first == second
    assert WorkflowRun.objects.filter(workflow="waits_for_payment").count() == 1


# -- Retry, restart, continuation --------------------------------------------------------------------


def test_retry_takes_the_place_again() -> None:
    run = sleeper.start({}, active_key="user-7")
    run.cancel()
    run.retry()
    assert (run.status, run.active_key) == ("pending", "user-7")
    assert sleeper.start({}, active_key="user-7").pk == run.pk


def test_retry_is_refused_where_the_place_is_taken_and_names_the_other() -> None:
    run = sleeper.start({}, active_key="user-7")
    run.cancel("why")
    other = sleeper.start({}, active_key="user-7")
    with pytest.raises(InvalidState, match=f"'user-7' is taken by run {other.pk}"):
        run.retry()
    run.refresh_from_db()
    assert (run.status, run.cancel_reason, run.active_key) == ("canceled", "why", None)
    done, skipped = WorkflowRun.objects.filter(pk=run.pk).retry()
    assert (done, len(skipped)) == ([], 1)
    other.cancel()
    run.retry()
    assert run.status == "pending"


def test_restart_has_no_active_key() -> None:
    run = sleeper.start({}, active_key="user-7")
    assert run.restart().active_key is None


def test_a_continuation_takes_the_active_key_over() -> None:
    run = goes_on_by_key.start(2, active_key="user-7")
    drain()
    holder = WorkflowRun.objects.get(active_key="user-7")
    assert (holder.pk != run.pk, holder.status) == (True, "waiting")
    goes_on_by_key.send_event("paid", 5, key="user-7")
    drain()
    holder.refresh_from_db()
    assert (holder.output, holder.active_key) == (5, None)


# -- Events ------------------------------------------------------------------------------------------


def test_an_event_by_key_reaches_the_run_that_is_active_under_it() -> None:
    keyed = waits_for_payment.start(key="user-7")
    active = waits_for_payment.start(active_key="user-7")
    waits_for_payment.send_event("paid", 5, key="user-7")
    drain()
    assert (status_of(active), status_of(keyed)) == ("succeeded", "waiting")


def test_an_event_by_key_reaches_the_run_with_the_key_once_none_is_active_under_it() -> None:
    keyed = waits_for_payment.start(key="user-7")
    waits_for_payment.start(active_key="user-7").cancel()
    waits_for_payment.send_event("paid", 5, key="user-7")
    drain()
    keyed.refresh_from_db()
    assert keyed.output == 5


def test_an_event_by_key_wakes_the_waiting_run_that_is_active_under_it() -> None:
    run = waits_for_payment.start(active_key="user-7")
    drain()
    assert status_of(run) == "waiting"
    waits_for_payment.send_event("paid", 5, key="user-7")
    assert status_of(run) == "pending"


def test_an_event_that_comes_first_is_taken_by_the_next_run_that_starts() -> None:
    waits_for_payment.send_event("paid", 5, key="user-7")
    run = waits_for_payment.start(active_key="user-7")
    drain()
    run.refresh_from_db()
    assert run.output == 5


def test_start_with_an_event_sends_it_to_the_run_that_is_active() -> None:
    first = waits_for_payment.start(active_key="user-7")
    again = waits_for_payment.start(active_key="user-7", event=Event("paid", 5, id="evt_1"))
    drain()
    first.refresh_from_db()
    assert (again.pk, first.output) == (first.pk, 5)


def test_an_event_with_an_id_is_sent_once_to_an_active_key() -> None:
    waits_for_payment.start(active_key="user-7")
    sent = [waits_for_payment.send_event("paid", 5, key="user-7", id="evt_1").created for _ in range(2)]
    assert sent == [True, False]


def test_a_retry_from_the_wait_takes_again_what_came_before_the_run() -> None:
    waits_for_payment.send_event("paid", 5, key="user-7")
    run = waits_for_payment.start(active_key="user-7")
    claimed = claim(run)
    found = taking.look(connection, claimed.run_id, ["paid"])
    assert found is not None
    taking.take(connection, step_write(claimed, "paid", kind="event", output="5"), found)
    ended = Finish(run_id=run.pk, token=claimed.token, status="failed", finished_at=claimed.now())
    transitions.finish(connection, ended)
    run.refresh_from_db()
    run.retry(from_step="paid")
    drain()
    run.refresh_from_db()
    assert run.output == 5


def test_pruning_leaves_what_the_next_run_under_the_key_may_take() -> None:
    waits_for_payment.send_event("paid", 1, key="user-7")
    first = waits_for_payment.start(active_key="user-7")
    drain()
    assert status_of(first) == "succeeded"
    waits_for_payment.send_event("paid", 2, key="user-7")
    assert prune(connection, clock.host_time() + 60_000_000) == 1
    assert [event.payload for event in WorkflowEvent.objects.all()] == [2]
    waits_for_payment.start(active_key="user-7")
    assert WorkflowEvent.objects.filter(run=None).count() == 1
    assert prune_events(connection, clock.host_time() + 60_000_000) == (0, None)
    WorkflowRun.objects.all().delete()
    assert prune_events(connection, clock.host_time() + 60_000_000) == (1, None)


# -- Seen --------------------------------------------------------------------------------------------


def test_startworkflow_takes_an_active_key_and_says_who_has_it() -> None:
    out = StringIO()
    call_command("startworkflow", "sleeper", "{}", "--active-key", "user-7", stdout=out)
    run = WorkflowRun.objects.get()
    assert run.active_key == "user-7"
    call_command("startworkflow", "sleeper", "{}", "--active-key", "user-7", stdout=out)
    assert f"Run {run.pk} is active under 'user-7'" in out.getvalue()
    assert WorkflowRun.objects.count() == 1


def test_showworkflows_shows_the_active_key() -> None:
    run = sleeper.start({}, active_key="user-7")
    out, text = StringIO(), StringIO()
    call_command("showworkflows", str(run.pk), "--json", stdout=out)
    assert json.loads(out.getvalue())["active_key"] == "user-7"
    call_command("showworkflows", str(run.pk), stdout=text)
    assert "active key" in text.getvalue() and "user-7" in text.getvalue()
