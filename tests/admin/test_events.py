"""Events on the page of a run: what it waits for, what was sent to it, and discarding what no wait has taken."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry

from django_steps.models import WorkflowEvent

from .conftest import START, add_event, add_step, add_wait, error_of, make_run, url, waiting_run


def discard_url(run, event):
    return url("discard_event", run.pk, event.pk)


@pytest.fixture
def show(root):
    """The context of the page of a run: `show(run, **parameters)`."""
    return lambda run, **parameters: root.get(url("change", run.pk), parameters).context


@pytest.fixture
def text_of(root):
    """What the page of a run shows, without markup."""

    def read(run, **parameters):
        page = root.get(url("change", run.pk), parameters).content.decode().partition('id="content-main"')[2]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())

    return read


# -- What it waits for -------------------------------------------------------------------------------


def test_page_of_a_waiting_run_says_for_which_event_and_until_when(show):
    run = waiting_run("approval", until=timedelta(hours=1))
    add_wait(run, "approval", until=timedelta(hours=1))
    assert show(run)["where"] == "waits for event “approval” until 2026-03-01 04:00:00"


def test_a_sleep_beside_the_wait_is_not_its_end(show):
    run = waiting_run("approval", until=timedelta(minutes=1))
    add_wait(run, "approval")
    assert show(run)["where"] == "waits for event “approval”"
    run = waiting_run("approval", until=timedelta(minutes=1))
    add_wait(run, "approval", until=timedelta(days=2))
    assert show(run)["where"] == "waits for event “approval” until 2026-03-03 03:00:00"


def test_rows_of_waits_say_how_they_stand(show):
    run = waiting_run("signature-1", "paid", "expired")
    add_wait(run, "signature", events=["signature-1"], until=timedelta(hours=1))
    add_wait(run, "outcome", events=["paid", "expired"])
    signature, outcome = show(run)["steps"]
    assert ">waiting<" in signature.status and signature.kind == "event"
    assert signature.until == "waits for event “signature-1” until 2026-03-01 04:00:00"
    assert outcome.until == "waits for events “paid”, “expired”"
    assert (signature.attempts, signature.took, signature.line) == ("", "-", "")


def test_row_of_a_wait_that_has_ended_says_what_it_took(show):
    run = make_run()
    add_wait(run, "message#2", "succeeded", result={"ok": 1}, context={"event": {"name": "message", "by": "eve"}})
    add_wait(run, "other", "succeeded", result=1, context={"event": {"name": "other", "by": ""}})
    first, second = show(run)["steps"]
    assert first.taken == "event “message” from eve" and "ok" in first.line
    assert second.taken == "event “other”"


def test_row_of_a_wait_that_timed_out_says_whether_the_default_was_returned(show):
    error = error_of(TimeoutError("nobody came"), "reply")
    run = make_run("failed", error_text=error)
    approval = add_wait(run, "approval", "succeeded", context={"timed_out": True}, output_text=None)
    reply = add_wait(run, "reply", "failed", error_text=error, error_type="django_steps.EventTimedOut")
    other = add_wait(run, "other", "failed", error_text=error, error_type="django_steps.InvalidEvent")
    assert [record.timed_out for record in (approval, reply, other)] == [True, True, False]
    rows = show(run)["steps"]
    assert (rows[0].taken, rows[0].line) == ("timed out: the default was returned", "")
    assert ">succeeded<" in rows[0].status
    assert [failure.label for failure in rows[1].failures] == ["Failed"]


def test_a_wait_of_an_ended_run_is_canceled(show):
    run = make_run("canceled")
    add_wait(run, "approval")
    (row,) = show(run)["steps"]
    assert ">canceled<" in row.status


@pytest.mark.parametrize("context", [None, "[]", '{"events": 7}', '{"events": [7], "deadline_us": "x"}', "{"])
def test_a_damaged_wait_is_shown(root, context):
    run = waiting_run("approval")
    add_wait(run, "approval", context_text=context)
    assert root.get(url("change", run.pk)).status_code == 200


def test_timeline_draws_a_wait_as_waiting(show):
    run = make_run(finished_at=START + timedelta(hours=2))
    add_step(run, "a")
    add_wait(run, "approval", "succeeded", finished_at=START + timedelta(hours=1))
    row = show(run)["timeline"].rows[1]
    assert row.bars[0].kind == "wait"


# -- What was sent to it -----------------------------------------------------------------------------


def test_events_are_listed_with_sender_id_payload_and_the_step_that_took_them(root, show, text_of):
    run = make_run()
    add_wait(run, "approval", "succeeded", result={"ok": True})
    add_event(
        run,
        "approval",
        {"ok": True, "note": "fine"},
        by="eve",
        event_id="evt_1",
        consumed_by="approval",
        consumed_at=START + timedelta(seconds=45),
    )
    (event,) = show(run)["events"].rows
    assert (event.name, event.by, event.event_id) == ("approval", "eve", "evt_1")
    assert event.step_url == "#step-0" and not event.discard_url
    text = text_of(run)
    assert "1 event " in text and "evt_1" in text and "2026-03-01 03:00:45" in text


def test_what_no_wait_has_taken_comes_first(show):
    run = make_run()
    old = add_event(run, "late")
    taken = add_event(run, "approval", consumed_by="approval", consumed_at=START)
    new = add_event(run, "later")
    section = show(run)["events"]
    assert [event.number for event in section.rows] == [new.pk, old.pk, taken.pk]
    assert section.counts == "3 events, 2 not taken"
    assert [event.state for event in section.rows] == ["not taken", "not taken", ""]


def test_run_without_events_has_no_section(root, show):
    run = make_run()
    add_event(make_run(), "approval")
    assert show(run)["events"] is None
    assert "steps-events" not in root.get(url("change", run.pk)).content.decode()


def test_what_was_sent_by_key_before_the_run_was_there_is_shown(show):
    run = make_run(key="order-7")
    columns = {"workflow": run.workflow, "key": "order-7"}
    early = add_event(None, "paid", **columns)
    own = add_event(run, "paid", **columns)
    add_event(None, "paid", workflow=run.workflow, key="order-8")
    add_event(None, "paid", workflow="other", key="order-7")
    of_the_run_before = {"consumed_by": "paid", "consumed_at": START - timedelta(days=1)}
    add_event(None, "paid", **columns, **of_the_run_before)
    section = show(run)["events"]
    assert [(event.number, event.is_by_key) for event in section.rows] == [(own.pk, False), (early.pk, True)]
    assert section.counts == "2 events, 2 not taken"


def test_payload_is_masked_like_the_input(root, define):
    def secretive(step):
        return None

    define(secretive, name="secretive", mask=("token",))
    run = make_run(workflow="secretive")
    add_event(run, "paid", {"token": "top-secret", "sum": 3})
    page = root.get(url("change", run.pk)).content.decode()
    assert "top-secret" not in page and "********" in page
    assert "top-secret" not in root.get(discard_url(run, run.events.get())).content.decode()


def test_workflow_that_is_not_known_hides_payloads(root):
    run = make_run(workflow="gone")
    add_event(run, "paid", {"token": "top-secret"})
    assert "top-secret" not in root.get(url("change", run.pk)).content.decode()


def test_large_payload_is_shown_alone(root, show):
    run = make_run(workflow="three_steps")
    event = add_event(run, "upload", "x" * 50_000)
    other = add_event(run, "upload", "y" * 50_000)
    page = root.get(url("change", run.pk)).content.decode()
    assert "xxx" not in page and f"?event={event.pk}#" in page
    alone = root.get(url("change", run.pk), {"event": event.pk}).content.decode()
    assert "x" * 50_000 in alone and "yyy" not in alone
    assert show(make_run(), event=other.pk)["events"] is None
    stranger = make_run()
    add_event(stranger, "a")
    assert show(stranger, event=other.pk)["events"].rows == []


def test_damaged_payload_is_shown(root):
    run = make_run()
    add_event(run, "a", payload_text="{")
    assert root.get(url("change", run.pk)).status_code == 200


def test_events_are_shown_fifty_at_a_time(show):
    run = make_run()
    for _ in range(120):
        add_event(run, "tick")
    section = show(run)["events"]
    assert (len(section.rows), section.total, section.is_open) == (50, 120, True)
    assert [label for label, _url in section.links] == ["next", "last"]
    last = show(run, events=3)["events"]
    assert (last.first, last.last, len(last.rows)) == (101, 120, 20)
    for odd in ("0", "x", "-1", "9" * 40, "²", ""):
        assert show(run, events=odd)["events"].rows


def test_number_of_queries_does_not_depend_on_the_number_of_events(root, django_assert_max_num_queries):
    def queries(run):
        with django_assert_max_num_queries(30) as counted:
            root.get(url("change", run.pk))
        return len(counted)

    runs = [make_run(key=f"k{number}") for number in range(3)]
    for count, run in enumerate(runs):
        for number in range(count * 10):
            add_event(run, f"tick-{number}")
    none, ten, twenty = map(queries, runs)
    assert ten == twenty == none + 2


# -- Discarding --------------------------------------------------------------------------------------


def test_discarding_asks_and_then_no_wait_takes_the_event(root):
    run = waiting_run("approval")
    event = add_event(run, "aproval", {"ok": True}, by="eve")
    page = root.get(url("change", run.pk)).content.decode()
    assert discard_url(run, event) in page
    question = root.get(discard_url(run, event)).content.decode()
    assert (
        "Event “aproval” was sent at 2026-03-01 03:00:30 by eve." in question and "{&quot;ok&quot;: true}" in question
    )
    assert WorkflowEvent.objects.get().consumed_at is None
    answer = root.post(discard_url(run, event), follow=True).content.decode()
    assert "Discarded event “aproval”." in answer and "discarded" in answer
    event = WorkflowEvent.objects.get()
    assert event.is_discarded and not event.is_consumed
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == ["Discarded event “aproval”."]


def test_discarding_twice_does_nothing_the_second_time(root):
    run = make_run("failed")
    event = add_event(run, "approval")
    root.post(discard_url(run, event))
    first = WorkflowEvent.objects.get().consumed_at
    for answer in (root.post(discard_url(run, event), follow=True), root.get(discard_url(run, event), follow=True)):
        assert "Nothing was done: the event is discarded at" in answer.content.decode()
    assert WorkflowEvent.objects.get().consumed_at == first
    assert LogEntry.objects.count() == 1


def test_what_a_wait_has_taken_is_not_discarded(root):
    run = make_run()
    event = add_event(run, "approval", consumed_by="approval", consumed_at=START)
    answer = root.post(discard_url(run, event), follow=True).content.decode()
    assert "Nothing was done: the event is taken by step “approval” at 2026-03-01 03:00:00." in answer
    assert WorkflowEvent.objects.get().is_consumed


def test_an_event_that_was_sent_by_key_can_be_discarded(root):
    run = make_run("failed", key="order-7")
    event = add_event(None, "paid", workflow=run.workflow, key="order-7")
    root.post(discard_url(run, event))
    assert WorkflowEvent.objects.get().is_discarded


def test_an_event_of_another_run_is_not_found(root):
    event = add_event(make_run(), "approval")
    for other in (make_run(), make_run(key="k")):
        assert root.get(discard_url(other, event)).status_code == 404
        assert root.post(discard_url(other, event)).status_code == 404
    assert WorkflowEvent.objects.get().consumed_at is None


def test_discarding_takes_the_permission_to_send_events(staff):
    run = make_run()
    event = add_event(run, "approval")
    client = staff("view", "cancel", "retry")
    assert discard_url(run, event) not in client.get(url("change", run.pk)).content.decode()
    assert client.get(discard_url(run, event)).status_code == 403
    assert client.post(discard_url(run, event)).status_code == 403
    client = staff("view", "send_event")
    assert discard_url(run, event) in client.get(url("change", run.pk)).content.decode()
    assert client.post(discard_url(run, event)).status_code == 302
    assert WorkflowEvent.objects.get().is_discarded


def test_whoever_sees_the_run_sees_its_events(staff):
    run = make_run()
    add_event(run, "approval", {"ok": True}, by="eve")
    assert "eve" in staff("view").get(url("change", run.pk)).content.decode()
