"""Events sent by hand: approvals with a form, and any event for any run that has not ended."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages

from django_steps import values
from django_steps.core import clock
from django_steps.models import WorkflowRun
from tests.callbacks.conftest import Decision, Everything, Refund, add_wait, sent, waiting

from .conftest import add_step, make_run, url


@dataclasses.dataclass
class Signature:
    name: str
    token: str = "none"


def address(run, event=""):
    return url("send_event", run.pk) + (f"?name={event}" if event else "")


def messages_of(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


def test_page_of_a_waiting_run_leads_to_the_form(root):
    run = waiting()
    page = root.get(url("change", run.pk)).content.decode()
    assert f'href="{address(run, "approval")}"' in page
    assert "Send “approval”…" in page
    assert "Send an event…" not in page


def test_page_of_another_run_leads_to_the_choice(root):
    for run, shown in ((make_run("running"), True), (make_run("failed"), True), (make_run("succeeded"), False)):
        page = root.get(url("change", run.pk)).content.decode()
        assert (f'href="{address(run)}"' in page) is shown


def test_few_of_many_events_have_a_button(root):
    names = [f"signature-{number}" for number in range(50)]
    run = make_run("waiting", waits_for="\n" + "\n".join(names) + "\n")
    for name in names:
        add_wait(run, name)
    page = root.get(url("change", run.pk)).content.decode()
    assert page.count("Send “signature-") == 3
    choice = root.get(address(run)).content.decode()
    assert choice.count("?name=signature-") == 50


def test_approval_is_sent_logged_and_says_by_whom(root):
    run = waiting(type_=Decision)
    page = root.get(address(run, "approval")).content.decode()
    assert 'name="ok"' in page
    assert 'name="note"' in page
    response = root.post(address(run, "approval"), {"ok": "true", "note": "fine"})
    assert response.url == url("change", run.pk)
    assert messages_of(response) == ["Sent “approval”."]
    event = run.events.get()
    assert (event.payload, event.by) == ({"ok": True, "note": "fine"}, "root")
    assert LogEntry.objects.get(object_id=str(run.pk)).get_change_message() == "Sent “approval”."


def test_refusal_is_said_and_not_left_out(root):
    run = waiting(type_=Decision)
    response = root.post(address(run, "approval"), {"note": "hm"})
    assert "This field is required." in response.content.decode()
    assert sent(run) == []
    root.post(address(run, "approval"), {"ok": "false", "note": "hm"})
    assert sent(run) == [("approval", {"ok": False, "note": "hm"})]


def test_page_says_until_when_the_run_waits(root):
    run = make_run("waiting", waits_for="\napproval\n")
    until = clock.to_microseconds(datetime(2030, 3, 1, 3, 0, 5, tzinfo=UTC))
    said = json.dumps({"events": ["approval"]})
    add_step(run, "approval", "waiting", kind="event", context_text=said, finished_at=None, wakes_at_us=until)
    for where in (address(run), address(run, "approval")):
        page = root.get(where).content.decode()
        assert "<span>2030-03-01</span> <span>03:00:05</span>" in page
    assert "does not wait for this event now" in root.get(address(run, "other")).content.decode()


def test_event_without_a_wait_is_json(root):
    run = make_run("sleeping")
    assert 'name="name"' in root.get(address(run)).content.decode()
    page = root.get(address(run, "stop")).content.decode()
    assert '<textarea name="payload"' in page
    assert "Enter a valid JSON." in root.post(address(run, "stop"), {"payload": "{"}).content.decode()
    root.post(address(run, "stop"), {"payload": '{"now": [true]}'})
    root.post(address(run, "stop"), {"payload": ""})
    assert sent(run) == [("stop", {"now": [True]}), ("stop", None)]


@pytest.mark.parametrize("name", ["a#b", "x" * 256, "a\u2028b"])
def test_name_that_no_event_can_have_is_refused(root, name):
    run = make_run("running")
    for answer in (root.get(address(run), {"name": name}), root.post(address(run), {"name": name, "payload": "1"})):
        assert answer.status_code == 200
        assert 'class="errorlist"' in answer.content.decode()
    assert sent(run) == []


def test_name_may_be_posted(root):
    run = make_run("running")
    root.post(address(run), {"name": "stop", "payload": "1"})
    assert sent(run) == [("stop", 1)]


def test_the_only_wait_is_meant_where_no_name_is_given(root):
    run = waiting(type_=Decision)
    root.post(address(run), {"ok": "true"})
    root.post(address(run), {"name": "other", "payload": "1"})
    assert sent(run) == [("approval", {"ok": True}), ("other", 1)]
    run = waiting("signature", type_=Signature)
    root.post(address(run), {"name": "Ada"})
    assert sent(run) == [("signature", {"name": "Ada"})]


def test_pressed_twice_one_event_is_sent(root):
    run = waiting()
    fields = {"payload": "1", "press-id": str(uuid4())}
    assert messages_of(root.post(address(run, "approval"), fields)) == ["Sent “approval”."]
    again = root.post(address(run, "approval"), fields)
    assert messages_of(again)[-1] == "Nothing was done: “approval” was sent already."
    assert sent(run) == [("approval", 1)]
    assert LogEntry.objects.count() == 1
    root.post(address(run, "approval"), {**fields, "press-id": "nonsense"})
    assert len(sent(run)) == 2


@pytest.mark.parametrize("status", ["failed", "canceled", "canceling"])
def test_run_that_may_be_retried_keeps_an_event_for_that(root, status):
    run = make_run(status)
    assert root.get(address(run, "stop")).status_code == 200
    answer = root.post(address(run, "stop"), {"payload": "1"})
    assert answer.url == url("change", run.pk)
    assert messages_of(answer)[-1] == "Sent “stop”."
    assert len(sent(run)) == 1


def test_run_that_has_succeeded_takes_none(root):
    run, status = make_run("succeeded"), "succeeded"
    for answer in (root.get(address(run, "stop")), root.post(address(run, "stop"), {"payload": "1"})):
        assert answer.url == url("change", run.pk)
        assert messages_of(answer)[-1] == f"A run that is {status} takes no events."
    assert sent(run) == []
    assert not LogEntry.objects.exists()


def test_run_that_succeeds_at_that_moment_takes_none(root, monkeypatch):
    run = waiting()
    send_event = WorkflowRun.send_event

    def send_late(self, *arguments, **options):
        WorkflowRun.objects.filter(pk=run.pk).update(status="succeeded", phase=WorkflowRun.Phase.ENDED)
        return send_event(self, *arguments, **options)

    monkeypatch.setattr(WorkflowRun, "send_event", send_late)
    response = root.post(address(run, "approval"), {"payload": "1"})
    assert messages_of(response) == ["A run that is succeeded takes no events."]


def test_complaints_of_the_type_stand_beside_their_fields(root):
    run = waiting(type_=Refund)
    page = root.post(address(run, "approval"), {"amount": "-1", "day": "2026-03-01"}).content.decode()
    assert "Input should be greater than 0" in page
    root.post(address(run, "approval"), {"amount": "2.5", "day": "2026-03-01"})
    ((_, payload),) = sent(run)
    assert Refund(**payload).amount == 2.5


def test_each_kind_of_field_has_its_value(root):
    run = waiting(type_=Everything)
    page = root.get(address(run, "approval")).content.decode()
    assert "JSON Schema" in page
    fields = {
        "text": "a",
        "whole": "1",
        "sure": "false",
        "price": "1.50",
        "day": "2026-03-01",
        "color": "BLUE",
        "size": "M",
    }
    response = root.post(address(run, "approval"), {**fields, "maybe": "", "items": "[1, 2]"})
    assert response.status_code == 302, response.content.decode()
    ((_, payload),) = sent(run)
    assert values.encode(Everything(**payload).price) == '{"$":"Decimal","v":"1.50"}'
    assert (payload["color"].name, payload["size"], payload["items"]) == ("BLUE", "M", [1, 2])
    assert "maybe" not in payload


def test_plain_type_has_one_field(root):
    run = waiting(type_=bool)
    assert 'name="payload" value="false"' in root.get(address(run, "approval")).content.decode()
    root.post(address(run, "approval"), {"payload": "false"})
    assert sent(run) == [("approval", False)]


def test_default_of_a_masked_member_is_not_shown(root, define):
    def sign(input):
        pass

    run = waiting(type_=Signature, workflow=define(sign, mask=("token",)).name)
    page = root.get(address(run, "approval")).content.decode()
    assert 'name="token"' in page
    assert 'value="none"' not in page


def test_payload_that_can_not_be_recorded_is_said(root, settings):
    settings.DJANGO_STEPS = {"MAX_VALUE_BYTES": 1024}
    run = waiting()
    response = root.post(address(run, "approval"), {"payload": json.dumps("x" * 2000)})
    assert response.status_code == 200
    assert "errornote" in response.content.decode()
    assert sent(run) == []


def test_permission_is_one_of_its_own(staff):
    run = waiting()
    client = staff("view", "retry", "cancel", "add", "delete")
    assert "Send “approval”" not in client.get(url("change", run.pk)).content.decode()
    assert client.get(address(run, "approval")).status_code == 403
    assert client.post(address(run, "approval"), {"payload": "1"}).status_code == 403
    assert staff("send_event").post(address(run, "approval"), {"payload": "1"}).status_code == 403
    assert sent(run) == []
    client = staff("view", "send_event")
    assert "Send “approval”" in client.get(url("change", run.pk)).content.decode()
    client.post(address(run, "approval"), {"payload": "1"})
    assert run.events.get().by == "staff-view-send_event"


def test_looking_sends_nothing(root):
    run = waiting()
    for where in (address(run), address(run, "approval"), address(run, "approval") + "&payload=1"):
        root.get(where)
    assert sent(run) == []
    assert not LogEntry.objects.exists()


def test_nothing_of_the_payload_is_logged(root, caplog):
    caplog.set_level("DEBUG")
    run = waiting()
    root.post(address(run, "approval"), {"payload": '"s3cret"'})
    assert "s3cret" not in caplog.text
    assert "s3cret" not in LogEntry.objects.get().change_message


def test_unknown_run_is_not_found(root):
    assert root.get(url("send_event", uuid4())).status_code == 404
