"""`manage.py sendevent`: by run and by key, with ids, and what is said of what becomes of the event."""

from __future__ import annotations

import io

import pytest
from django.core.management.base import CommandError

from django_steps import workflow
from django_steps.models import WorkflowEvent, WorkflowRun

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def approved():
    """A workflow that waits for an approval and returns it."""

    @workflow(name="approved")
    def approved(step):
        return step.wait_for_event("approval")

    return approved


def test_a_waiting_run_takes_what_is_sent(run_command, approved, work):
    run = approved.start()
    work()
    run.refresh_from_db()
    assert run.status == "waiting"
    out = run_command("sendevent", str(run.pk), "approval", '{"ok": true}', "--by", "eve", "--id", "evt_1").out
    assert out == f"Sent event 'approval' to approved, run {run.pk}\n"
    work()
    run.refresh_from_db()
    assert run.output == {"ok": True}
    event = WorkflowEvent.objects.get()
    assert (event.by, event.event_id, event.consumed_by) == ("eve", "evt_1", "approval")


def test_payload_that_the_wait_refuses_is_not_sent(run_command, work):
    @workflow(name="asked")
    def asked(step):
        return step.wait_for_event("confirm", type=bool)

    run = asked.start(key="q2")
    work()
    for whom in ([str(run.pk)], ["--workflow", "asked", "--key", "q2"]):
        with pytest.raises(CommandError, match=r"expected bool, got str\. Nothing was sent"):
            run_command("sendevent", *whom, "confirm", '"yes"')
    assert not WorkflowEvent.objects.exists()
    run_command("sendevent", str(run.pk), "confirm", "true")
    work()
    assert run.result(timeout=0) is True


def test_payload_is_null_or_read_from_stdin(run_command, approved, monkeypatch):
    run = approved.start()
    run_command("sendevent", str(run.pk), "a")
    monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2]"))
    run_command("sendevent", str(run.pk), "b", "-")
    assert [event.payload for event in WorkflowEvent.objects.all()] == [None, [1, 2]]


def test_id_that_was_sent_before_sends_nothing(run_command, approved):
    run = approved.start()
    run_command("sendevent", str(run.pk), "approval", "--id", "evt_1")
    out = run_command("sendevent", str(run.pk), "approval", "--id", "evt_1").out
    assert out == "An event with the id 'evt_1' was sent to it before. Nothing was sent.\n"
    assert WorkflowEvent.objects.count() == 1


def test_by_key_before_and_after_the_run_is_there(run_command, approved):
    by_key = ("sendevent", "--workflow", "approved", "--key", "order-7")
    assert "No run of approved has the key 'order-7'" in run_command(*by_key, "approval", "1").out
    run = approved.start(key="order-7")
    assert run_command(*by_key, "approval", "2").out == f"Sent event 'approval' to approved, run {run.pk}\n"
    assert [event.run_id for event in WorkflowEvent.objects.all()] == [None, run.pk]


def test_says_where_the_run_waits_for_something_else(run_command, approved, work):
    run = approved.start()
    work()
    out = run_command("sendevent", str(run.pk), "aproval").out
    assert "The run waits for event “approval”: the event is kept until a wait of its name takes it." in out


def test_says_that_an_ended_run_has_to_be_retried(run_command, approved):
    run = approved.start()
    run.cancel()
    assert "The run is canceled: a retry of it can take the event." in run_command("sendevent", str(run.pk), "a").out


def test_prints_nothing_with_verbosity_0(run_command, approved):
    assert run_command("sendevent", str(approved.start().pk), "a", "-v", "0") == ("", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "approval"], "Give a RUN_ID, or --workflow and --key: 'x' is not the id of a run"),
        (["0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f", "approval"], "There is no run 0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f."),
        (["RUN"], "Give the name of the event."),
        (["RUN", "approval", "{"], "The input is no valid JSON: "),
        (["RUN", "approval", "yes"], "Put texts into double quotes"),
        (["RUN", "approval", "{", "}"], "Too much was given: }."),
        (["RUN", "a#b"], "'a#b'"),
        (["RUN", "approval", "--key", "k"], "--workflow and --key go together."),
        (["approval", "--workflow", "gone", "--key", "k"], "gone"),
        (["approval", "--workflow", "approved", "--key", ""], "key"),
    ],
)
def test_bad_input_is_one_line(run_command, approved, words, said):
    run = approved.start()
    with pytest.raises(CommandError) as refused:
        run_command("sendevent", *[str(run.pk) if word == "RUN" else word for word in words])
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not WorkflowEvent.objects.exists()


def test_a_run_that_has_succeeded_takes_none(run_command, approved):
    run = approved.start()
    WorkflowRun.objects.filter(pk=run.pk).update(status="succeeded")
    with pytest.raises(CommandError):
        run_command("sendevent", str(run.pk), "approval")
    assert not WorkflowEvent.objects.exists()
