"""Waits for events: sent before, while and after the run waits, each taken by one wait, and recorded with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_steps import Event, EventTimedOut, InvalidName, RunFinished, StartOutsideStep, get_workflow, workflow
from django_steps.definitions import registry
from django_steps.ledger import events
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.looking import error_of


def waiting_for(*names: str, **options: Any) -> Any:
    """A workflow that waits for these events, one after the other, and returns what they brought."""

    @workflow(name="waiting")
    def body(step):
        return [step.wait_for_event(name, **options) for name in names]

    return body


def status_of(run: WorkflowRun) -> str:
    run.refresh_from_db()
    return str(run.status)


def test_wait_returns_the_payload_of_an_event_that_came_before_it(work):
    run = waiting_for("approval").start()
    run.send_event("approval", {"ok": True})
    work()
    assert run.result(timeout=0) == [{"ok": True}]
    assert run.steps.get().kind == "event"
    assert WorkflowEvent.objects.get().consumed_by == "approval"


def test_run_waits_holding_nothing_until_the_event_comes(work):
    run = waiting_for("approval").start()
    work()
    assert status_of(run) == "waiting"
    assert (run.waiting_for, run.wakes_at, run.worker_id, run.claim_token) == (["approval"], None, None, None)
    assert run.steps.get().status == "waiting"
    run.send_event("approval", "yes", by="carla")
    assert status_of(run) == "pending"
    work()
    assert run.result(timeout=0) == ["yes"]
    assert run.steps.get().status == "succeeded"


def test_events_are_taken_in_the_order_in_which_they_were_sent_each_by_one_wait(work):
    run = waiting_for("message", "message", "message").start()
    for number in range(2):
        run.send_event("message", number)
    work()
    assert status_of(run) == "waiting"
    assert list(run.steps.values_list("name", "status")) == [
        ("message", "succeeded"),
        ("message#2", "succeeded"),
        ("message#3", "waiting"),
    ]
    run.send_event("message", 2)
    work()
    assert run.result(timeout=0) == [0, 1, 2]


def test_other_event_does_not_wake_the_run(work):
    run = waiting_for("approval").start()
    work()
    run.send_event("approval2")
    run.send_event("pprova")
    assert status_of(run) == "waiting"


def test_wait_times_out_at_its_deadline_and_not_before(work, pass_time):
    run = waiting_for("approval", timeout="7d").start()
    work()
    assert status_of(run) == "waiting"
    assert run.wakes_at is not None and abs(run.wakes_at - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)
    pass_time("6d")
    work()
    assert status_of(run) == "waiting"
    pass_time("2d")
    work()
    assert status_of(run) == "failed"
    assert error_of(run)["type"].endswith("EventTimedOut")


def test_wait_with_a_default_returns_it_and_says_that_it_timed_out(work, pass_time):
    run = waiting_for("approval", timeout="1h", default=None).start()
    other = waiting_for("approval", timeout="1h", default=None).start()
    other.send_event("approval", None)
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == other.result(timeout=0) == [None]
    assert run.steps.get().context["timed_out"] is True
    assert "timed_out" not in other.steps.get().context


def test_wait_that_is_looked_at_late_takes_the_event_that_is_there(work, pass_time):
    run = waiting_for("approval", timeout="1h").start()
    work()
    pass_time("2h")
    run.send_event("approval", "late")
    work()
    assert run.result(timeout=0) == ["late"]


def test_timeout_of_zero_only_looks(work):
    run = waiting_for("approval", timeout=0, default="none").start()
    work()
    assert run.result(timeout=0) == ["none"]


def test_event_of_any_name_is_given_whole(work):
    @workflow
    def choosing(step):
        event = step.wait_for_any_event("outcome", ["paid", "expired"], timeout="1h")
        return [event.name, event.payload, event.id, event.by, event.sent_at is not None]

    run = choosing.start()
    work()
    assert status_of(run) == "waiting" and sorted(run.waiting_for) == ["expired", "paid"]
    run.send_event("paid", 5, id="evt_1", by="provider")
    work()
    assert run.result(timeout=0) == ["paid", 5, "evt_1", "provider", True]


def test_event_with_the_same_id_is_sent_once(work, caplog):
    run = waiting_for("paid", timeout=0, default="none").start()
    first = run.send_event("paid", 5, id="evt_1", by="a")
    with caplog.at_level(logging.WARNING, "django_steps"):
        again = run.send_event("paid", 6, id="evt_1", by="b")
    assert (first.created, again.created) == (True, False)
    assert (again.payload, again.by, again.sent_at) == (5, "a", first.sent_at)
    assert "another payload" in caplog.text and "evt_1" in caplog.text
    assert run.send_event("paid", 5, id="evt_2").created
    assert WorkflowEvent.objects.count() == 2


def test_event_is_sent_by_key_before_the_run_exists(work):
    body = waiting_for("paid")
    sent = body.send_event("paid", 5, key="order-7", id="evt_1")
    assert sent.created and not body.send_event("paid", 5, key="order-7", id="evt_1").created
    run = body.start(key="order-7")
    assert not run.send_event("paid", 5, id="evt_1").created
    other = body.start(key="order-8")
    work()
    assert run.result(timeout=0) == [5]
    assert status_of(other) == "waiting"


def test_event_by_key_wakes_the_run_that_has_it(work):
    body = waiting_for("paid")
    run = body.start(key="order-7")
    work()
    body.send_event("paid", 5, key="order-7")
    assert WorkflowEvent.objects.get().run_id == run.pk
    work()
    assert run.result(timeout=0) == [5]
    with pytest.raises(RunFinished) as refused:
        body.send_event("paid", 5, key="order-7")
    assert refused.value.run_id == run.pk


def test_start_sends_an_event_in_the_same_transaction(work):
    body = waiting_for("paid")
    run = body.start(key="order-7", event=Event("paid", 5, id="evt_1"))
    again = body.start(key="order-7", event=Event("paid", 6, id="evt_2"))
    assert (run.created, again.created, run.pk) == (True, False, again.pk)
    work()
    assert run.result(timeout=0) == [5]
    with pytest.raises(RuntimeError), transaction.atomic():
        body.start(key="order-8", event=Event("paid"))
        raise RuntimeError
    assert WorkflowEvent.objects.count() == 2


def test_event_of_a_transaction_that_is_rolled_back_was_never_sent(work):
    run = waiting_for("paid").start()
    work()
    with pytest.raises(RuntimeError), transaction.atomic():
        run.send_event("paid")
        raise RuntimeError
    assert (status_of(run), WorkflowEvent.objects.count()) == ("waiting", 0)


def test_event_wakes_the_run_after_the_commit(work):
    run = waiting_for("paid").start()
    work()
    with transaction.atomic():
        run.send_event("paid")
        assert status_of(run) == "waiting"
    assert status_of(run) == "pending"


@pytest.mark.parametrize("ended", ["failed", "canceled"])
def test_run_that_did_not_succeed_keeps_the_event_for_a_retry(work, ended):
    broken = [True]

    @workflow
    def going(step):
        if ended == "failed" and broken:
            step.define("fails", lambda: 1 / 0).run()
        return step.wait_for_event("paid")

    run = going.start()
    work() if ended == "failed" else run.cancel()
    assert status_of(run) == ended
    run.send_event("paid", 5)
    broken.clear()
    run.retry()
    work()
    assert run.result(timeout=0) == 5


def test_queryset_sends_to_all_and_skips_what_has_succeeded(work):
    done = waiting_for().start()
    work()
    runs = [waiting_for("stop").start() for _ in range(2)]
    result = WorkflowRun.objects.all().send_event("stop")
    assert sorted(result.done) == sorted(run.pk for run in runs)
    assert [skipped.run_id for skipped in result.skipped] == [done.pk]
    work()
    assert [run.result(timeout=0) for run in runs] == [[None], [None]]


def test_retry_after_a_timeout_waits_anew(work, pass_time):
    run = waiting_for("paid", timeout="1h").start()
    work()
    pass_time("2h")
    work()
    assert status_of(run) == "failed"
    run.retry()
    work()
    assert status_of(run) == "waiting"
    assert run.wakes_at is not None and run.wakes_at > timezone.now() + timedelta(hours=2, minutes=30)
    run.send_event("paid", 5)
    work()
    assert run.result(timeout=0) == [5]


def test_retry_from_the_wait_takes_the_event_again(work):
    @workflow
    def going(step):
        paid = step.wait_for_event("paid")
        return step.define("book", lambda: 1 / 0 if paid == 5 else paid).run()

    run = going.start(key="k")
    run.send_event("paid", 5)
    work()
    assert status_of(run) == "failed"
    run.retry(from_step="paid")
    assert WorkflowEvent.objects.get().consumed_by is None
    work()
    assert (status_of(run), WorkflowEvent.objects.get().consumed_by) == ("failed", "paid")


@dataclass
class Decision:
    ok: bool
    note: str = ""


def test_payload_is_made_into_the_type(work):
    run = waiting_for("approval", type=Decision).start()
    run.send_event("approval", {"ok": True})
    work()
    assert run.steps.get().output == {"ok": True}
    assert status_of(run) == "succeeded"
    assert run.result(timeout=0) == [Decision(True)]


def test_payload_that_does_not_fit_fails_the_wait_and_stays(work):
    run = waiting_for("approval", type=Decision).start()
    work()
    assert run.steps.get().context["type"] == f"{__name__}:Decision"
    run.send_event("approval", {"ok": "perhaps"})
    work()
    assert status_of(run) == "failed"
    assert "ok: expected bool, got 'perhaps'" in error_of(run)["message"]
    assert WorkflowEvent.objects.get().consumed_by is None
    waiting_for("approval")  # corrected code
    run.retry()
    work()
    assert run.result(timeout=0) == [{"ok": "perhaps"}]


def test_bad_arguments_are_refused_where_they_are_typed(work):
    @workflow
    def wrong(step, run):
        found = []
        for call in (
            lambda: step.wait_for_event(""),
            lambda: step.wait_for_event("a#b"),
            lambda: step.wait_for_event("a", timeout="1h", until=timezone.now()),
            lambda: step.wait_for_event("a", timeout="soon"),
            lambda: step.wait_for_event("a", type="str"),
            lambda: step.wait_for_any_event("a", "paid"),
            lambda: step.wait_for_any_event("a", []),
            lambda: run.send_event("a"),
        ):
            try:
                call()
            except (InvalidName, TypeError, ValueError, StartOutsideStep) as error:
                found.append(type(error).__name__)
        return found

    run = wrong.start()
    work()
    assert run.result(timeout=0) == [
        "InvalidName",
        "InvalidName",
        "TypeError",
        "ValueError",
        "TypeError",
        "TypeError",
        "ValueError",
        "StartOutsideStep",
    ]


def test_branches_wait_side_by_side_and_go_on_alone(work):
    def sign(signer, step):
        return step.define("note", str).run(step.wait_for_event(f"signature-{signer}"))

    @workflow
    def signing(step):
        return step.map("sign", sign, ["a", "b"])

    run = signing.start()
    work()
    assert status_of(run) == "waiting" and run.waiting_for == ["signature-a", "signature-b"]
    run.send_event("signature-b", 2)
    work()
    assert status_of(run) == "waiting"
    assert run.steps.filter(name="sign#b/note", status="succeeded").exists()
    assert run.waiting_for == ["signature-a"]
    run.send_event("signature-a", 1)
    work()
    assert run.result(timeout=0) == ["1", "2"]


def test_branch_that_sleeps_is_woken_in_time_beside_one_that_waits(work, pass_time):
    def nap(step):
        step.sleep("nap", "1h")
        return "slept"

    def wait(step):
        return step.wait_for_event("paid", timeout="1d", default="none")

    @workflow
    def both(step):
        return list(step.gather(step.branch("nap", nap).bind(), step.branch("wait", wait).bind()))

    run = both.start()
    work()
    assert status_of(run) == "waiting"
    pass_time("2h")
    work()
    assert run.steps.filter(name="nap#", status="succeeded").exists()
    assert status_of(run) == "waiting"
    pass_time("1d")
    work()
    assert run.result(timeout=0) == ["slept", "none"]


def test_caught_timeout_replays(work, pass_time):
    @workflow
    def going(step):
        try:
            step.wait_for_event("paid", timeout="1h")
        except EventTimedOut as error:
            found = [error.step, list(error.events), isinstance(error, TimeoutError)]
        step.sleep("rest", "1h")
        return found

    run = going.start()
    for span in ("2h", "2h", "2h"):
        work()
        pass_time(span)
    assert run.result(timeout=0) == ["paid", ["paid"], True]


def test_event_whose_sender_died_after_the_commit_is_told_by_maintenance(work, monkeypatch):
    run = waiting_for("paid").start()
    work()
    with monkeypatch.context() as patch:
        patch.setattr(events, "tell", lambda *arguments: None)  # it died
        run.send_event("paid", 5)
    assert status_of(run) == "waiting"
    assert events.tell_untold(connection) == (1, None)
    assert events.tell_untold(connection) == (0, None)
    work()
    assert run.result(timeout=0) == [5]


def test_waiter_that_died_before_its_second_look_is_looked_at_after_a_minute(work, pass_time, monkeypatch):
    body = waiting_for("paid")
    run = body.start()
    work()
    with monkeypatch.context() as patch:
        patch.setattr(events, "tell", lambda *arguments: None)
        run.send_event("paid", 5)
    pass_time("61s")
    work()
    assert run.result(timeout=0) == [5]


@pytest.mark.parametrize("comes", ["before", "meanwhile"])
def test_what_the_body_says_before_a_wait_is_written_with_it(work, comes):
    seen = []

    @workflow
    def saying(step, run):
        run.update_details(stage="waiting")
        step.wait_for_event("paid")
        run.update_details(stage="paid")
        step.wait_for_event("paid")
        step.define("look", lambda: seen.append(WorkflowRun.objects.get(pk=run.pk).details)).run()

    run = saying.start()
    if comes == "before":
        run.send_event("paid")
    work()
    assert status_of(run) == "waiting"
    assert run.details == {"stage": "paid" if comes == "before" else "waiting"}
    run.send_event("paid")
    run.send_event("paid")
    work()
    assert seen == [{"stage": "paid"}]
    assert status_of(run) == "succeeded"


def test_canceled_wait_ends(work):
    run = waiting_for("paid").start()
    work()
    run.cancel()
    assert status_of(run) == "canceled"
    run.send_event("paid")
    assert status_of(run) == "canceled"


@dataclass
class Careful:
    ok: bool

    def __post_init__(self) -> None:
        if not self.ok:
            raise RuntimeError("never")


def test_payload_that_the_code_of_the_type_objects_to_is_an_invalid_event(work):
    run = waiting_for("approval", type=Careful).start()
    run.send_event("approval", {"ok": False})
    work()
    assert status_of(run) == "failed"
    assert error_of(run)["type"].endswith("InvalidEvent") and "RuntimeError: never" in error_of(run)["message"]
    assert WorkflowEvent.objects.get().consumed_by is None


def test_recorded_payload_that_the_type_refuses_by_now_is_an_invalid_event(work, pass_time):
    def body(step, type_):
        found = step.wait_for_event("approval", type=type_)
        step.sleep("rest", "1h")
        return found

    workflow(name="stricter")(lambda step: body(step, dict))
    run = get_workflow("stricter").start()
    run.send_event("approval", {"ok": False})
    work()
    registry._registry.pop(("stricter", ""))
    workflow(name="stricter")(lambda step: body(step, Careful))
    pass_time("2h")
    work()
    assert error_of(run)["type"].endswith("InvalidEvent")
    registry._registry.pop(("stricter", ""))
    workflow(name="stricter")(lambda step: body(step, dict))
    run.retry()
    work()
    assert run.result(timeout=0) == {"ok": False}


def test_event_that_is_sent_again_is_answered_also_if_the_first_cannot_be_read_any_more(work):
    run = waiting_for("paid").start()
    run.send_event("paid", 5, id="evt_1")
    WorkflowEvent.objects.update(payload_text='{"$": "gone:Class", "v": 1}')
    again = run.send_event("paid", 5, id="evt_1")
    assert (again.created, again.payload) == (False, 5)


def test_restart_waits_with_a_deadline_of_its_own(work, pass_time):
    @workflow
    def body(step):
        def second(step):
            return step.define("second", lambda: 1).run()

        return list(step.gather(step.branch("wait", wait).bind(), step.branch("other", second).bind()))

    def wait(step):
        return step.wait_for_event("paid", timeout="1h", default="none")

    run = body.start()
    work()
    pass_time("50m")
    again = run.restart(from_step="other#/second")
    work()
    pass_time("20m")
    work()
    assert (status_of(run), status_of(again)) == ("succeeded", "waiting")
