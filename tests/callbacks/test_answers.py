"""The endpoint: what is sent, what is answered, and that nothing else happens."""

from __future__ import annotations

import json
import logging
from io import BytesIO

import pytest
from django.db import connection, connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from django_steps import StepsError
from django_steps.callbacks.views import event
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.admin.conftest import make_run

from .conftest import Color, Decision, Refund, add_wait, path_of, sent, waiting

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

pytestmark = pytest.mark.django_db


def end(run, status, **columns):
    WorkflowRun.objects.filter(pk=run.pk).update(status=status, phase=WorkflowRun.Phase.ENDED, **columns)


def test_json_is_sent_to_the_run(post):
    run = waiting()
    response = post(run.event_url("approval"), {"ok": True, "name": "Größe"})
    assert (response.status_code, response.json()) == (202, {"event": "approval", "created": True})
    event = run.events.get()
    assert (event.name, event.payload, event.by) == ("approval", {"ok": True, "name": "Größe"}, "callback")
    assert event.event_id == f"callback:{run.pk.hex}:approval"


@pytest.mark.parametrize("status", ["pending", "running", "sleeping", "waiting", "canceling"])
def test_event_is_taken_before_the_run_waits_for_it(post, status):
    run = make_run(status)
    assert post(run.event_url("approval"), 7).status_code == 202
    assert sent(run) == [("approval", 7)]


def test_first_answer_counts_and_a_repeated_one_is_200(post, client):
    run = waiting()
    yes, no, any_ = (
        run.event_url("approval", {"ok": True}),
        run.event_url("approval", {"ok": False}),
        run.event_url("approval"),
    )
    assert post(yes).status_code == 202
    for url, value in ((yes, None), (no, None), (any_, {"ok": 3})):
        response = post(url, value)
        assert (response.status_code, response.json()) == (200, {"event": "approval", "created": False})
    page = client.post(path_of(no), headers=BROWSER)
    assert page.status_code == 200
    assert "Already answered" in page.content.decode()
    assert sent(run) == [("approval", {"ok": True})]


def test_other_events_and_runs_are_not_used_up(post):
    run, other = waiting(), waiting()
    for url in (run.event_url("approval"), run.event_url("second"), other.event_url("approval")):
        assert post(url, 1).status_code == 202


def test_any_number_is_taken_where_that_is_signed(post):
    run = waiting()
    url = run.event_url("reading", many=True)
    assert [post(url, number).status_code for number in range(3)] == [202, 202, 202]
    assert sent(run) == [("reading", 0), ("reading", 1), ("reading", 2)]


@pytest.mark.parametrize("payload", [None, {"ok": True}, "größer 値", ["a", 2]])
def test_signed_payload_is_sent_whatever_the_body_says(client, payload):
    run = waiting()
    url = path_of(run.event_url("approval", payload))
    assert client.post(url, b"\xff" * 2_000_000, content_type="image/png").status_code == 202
    assert sent(run) == [("approval", payload)]


# -- Tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "head", "post"])
def test_bad_token_is_forbidden(client, method):
    run = waiting()
    url = path_of(run.event_url("approval"))
    for bad in (
        url[:-2] + ("A" if url[-2] != "A" else "B") + "/",
        "/workflows/events/x/",
        f"/workflows/events/{'x' * 9000}/",
    ):
        response = getattr(client, method)(bad)
        assert response.status_code == 403
    assert sent(run) == []


def test_bad_token_costs_no_query(client):
    with CaptureQueriesContext(connection) as queries:
        assert client.post("/workflows/events/x.y/").status_code == 403
    assert len(queries) == 0


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_after_the_end_of_the_run_nothing_is_taken(post, client, status):
    run = waiting()
    end(run, status)
    for url in (run.event_url("approval"), run.event_url("approval", 1), run.event_url("approval", many=True)):
        assert post(url, 1).status_code == 410
        response = client.get(path_of(url))
        assert response.status_code == 410
        assert "<button" not in response.content.decode()
    assert sent(run) == []


def test_deleted_run_is_gone(post, client):
    run = waiting()
    url = run.event_url("approval")
    run.steps.all().delete()
    WorkflowRun.objects.filter(pk=run.pk).update(status="canceled", phase=WorkflowRun.Phase.ENDED)
    WorkflowRun.objects.get().delete()
    assert post(url, 1).status_code == 410
    assert client.get(path_of(url)).status_code == 410
    assert not WorkflowEvent.objects.exists()


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_used_token_is_told_apart_after_the_end(post, client, status):
    run = waiting()
    yes, no, open_ = (run.event_url("approval", True), run.event_url("approval", False), run.event_url("approval"))
    assert post(yes).status_code == 202
    end(run, status)
    assert [post(url, 1).status_code for url in (yes, no, open_)] == [200, 410, 200]
    assert [client.get(path_of(url)).status_code for url in (yes, no)] == [200, 410]
    assert len(sent(run)) == 1


def test_token_lives_again_when_the_run_is_retried(post):
    run = waiting()
    end(run, "failed")
    assert post(run.event_url("approval"), 1).status_code == 410
    run.refresh_from_db()
    run.retry()
    assert post(run.event_url("approval"), 1).status_code == 202


def test_run_that_succeeds_at_that_moment_is_over(post, monkeypatch):
    run = waiting()
    url = run.event_url("approval")
    send_event = WorkflowRun.send_event

    def send_late(self, *arguments, **options):
        end(run, "succeeded")
        return send_event(self, *arguments, **options)

    monkeypatch.setattr(WorkflowRun, "send_event", send_late)
    assert post(url, 1).status_code == 410
    assert sent(run) == []


def test_run_that_continued_passes_it_on_once(post):
    run, successor = waiting(), waiting()
    url = run.event_url("approval")
    end(run, "succeeded", continued_as=successor)
    assert [post(url, 1).status_code, post(url, 2).status_code] == [202, 200]
    assert (sent(run), sent(successor)) == ([], [("approval", 1)])


def test_address_used_before_the_run_continued_stays_used(post):
    run, successor = waiting(), waiting()
    url = run.event_url("approval")
    assert post(url, 1).status_code == 202
    end(run, "succeeded", continued_as=successor)
    assert post(url, 2).status_code == 200
    assert (sent(run), sent(successor)) == ([("approval", 1)], [])


def test_address_without_its_slash_is_the_same(client):
    run = waiting()
    url = path_of(run.event_url("approval", 1)).rstrip("/")
    assert [client.get(url).status_code, client.post(url).status_code, client.post(f"{url}/").status_code] == [
        200,
        202,
        200,
    ]


# -- Bodies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"{", b"{'a': 1}", b"\xff\xfe\x00", b"NaN", b"[" * 100_000, b"1" * 5000, b"[" * 150 + b"]" * 150, b"{} {}"]
)
def test_malformed_json_is_a_bad_request(client, body):
    run = waiting()
    response = client.post(path_of(run.event_url("approval")), body, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["error"]
    assert sent(run) == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "image/png", "application/jsonp", "nothing"])
def test_other_content_type_is_unsupported(client, content_type):
    run = waiting()
    response = client.post(path_of(run.event_url("approval")), b"{}", content_type=content_type)
    assert response.status_code == 415
    assert sent(run) == []


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/cloudevents+json"]
)
def test_json_is_known_by_any_of_its_names(client, content_type):
    run = waiting()
    assert client.post(path_of(run.event_url("a")), b'{"a": 1}', content_type=content_type).status_code == 202
    assert sent(run) == [("a", {"a": 1})]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_empty_body_is_none(client, content_type):
    run = waiting()
    assert (
        client.post(path_of(run.event_url("approval")), b"", content_type, CONTENT_TYPE=content_type).status_code == 202
    )
    assert sent(run) == [("approval", None)]


class Endless(BytesIO):
    """A body that never ends, which counts what is read of it."""

    taken = 0

    def read(self, size=-1):
        assert size >= 0
        self.taken += size
        return b"1" * size


@override_settings(DJANGO_STEPS={"BASE_URL": "https://example.com", "MAX_VALUE_BYTES": 2000})
def test_body_is_limited_and_no_more_than_that_is_read(client, rf):
    run = waiting()
    url = path_of(run.event_url("approval"))
    assert client.post(url, json.dumps("x" * 1998), content_type="application/json").status_code == 202
    for content in (json.dumps("x" * 1999), "x" * 3_000_000):  # beyond Django's own limit, too
        assert client.post(path_of(run.event_url("b")), content, content_type="application/json").status_code == 413
    assert client.post(path_of(run.event_url("b")), {"file": BytesIO(b"x" * 3000)}).status_code == 413
    request = rf.post(url, content_type="application/json")
    body = request._stream = Endless()
    request.META["CONTENT_LENGTH"] = ""  # chunked
    token = path_of(run.event_url("c")).split("/")[-2]
    assert event(request, token).status_code == 413
    assert body.taken == 2001
    request = rf.post(url, b"{}", content_type="application/json")
    body = request._stream = Endless()
    request.META["CONTENT_LENGTH"] = "2001"
    assert event(request, token).status_code == 413
    assert body.taken == 0
    assert [name for name, _ in sent(run)] == ["approval"]


class Broken(BytesIO):
    def read(self, size=-1):
        raise OSError("reset by peer")


@pytest.mark.parametrize(
    "stream, length", [(BytesIO(b"7"), "100"), (BytesIO(b""), "1"), (BytesIO(b"7"), "x"), (Broken(), "1")]
)
def test_body_that_is_cut_off_is_a_bad_request(rf, stream, length):
    run = waiting()
    request = rf.post("/", content_type="application/json")
    request._stream, request.META["CONTENT_LENGTH"] = stream, length
    assert event(request, path_of(run.event_url("approval")).split("/")[-2]).status_code == 400
    assert sent(run) == []


def test_body_that_a_middleware_has_read_is_there(rf):
    run = waiting()
    request = rf.post("/", b"7", content_type="application/json")
    assert request.body == b"7"
    assert event(request, path_of(run.event_url("approval")).split("/")[-2]).status_code == 202
    assert sent(run) == [("approval", 7)]


def test_form_that_a_middleware_has_used_up_is_a_bad_request(rf):
    run = waiting()
    request = rf.post("/", {"payload": "7"})
    assert request.POST
    assert event(request, path_of(run.event_url("approval")).split("/")[-2]).status_code == 400
    assert sent(run) == []


def test_form_with_a_payload_is_json(client):
    run = waiting()
    assert client.post(path_of(run.event_url("a")), {"payload": '{"x": [1]}'}).status_code == 202
    response = client.post(path_of(run.event_url("b")), {"payload": "{"})
    assert response.status_code == 400
    assert "Enter a valid JSON" in response.content.decode()
    body = "payload=%22gr%C3%B6%C3%9Fer%22"
    client.post(path_of(run.event_url("c")), body, content_type="application/x-www-form-urlencoded")
    assert sent(run) == [("a", {"x": [1]}), ("c", "größer")]


def test_form_of_another_program_is_a_dict_of_texts(client):
    run = waiting()
    client.post(
        path_of(run.event_url("sms")), {"From": "+49 30", "Media": ["a", "b"]}, headers={"Accept": "application/json"}
    )
    assert sent(run) == [("sms", {"From": "+49 30", "Media": ["a", "b"]})]


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_broken_form_is_a_bad_request(client, content_type):
    run = waiting()
    assert client.post(path_of(run.event_url("a")), b"nonsense", content_type=content_type).status_code in (400,)
    assert sent(run) == []


def test_form_with_a_file_is_a_bad_request_and_the_file_goes_nowhere(client, settings, tmp_path):
    settings.FILE_UPLOAD_TEMP_DIR, settings.FILE_UPLOAD_MAX_MEMORY_SIZE = tmp_path, 0
    run = waiting()
    assert client.post(path_of(run.event_url("a")), {"payload": "7", "file": BytesIO(b"content")}).status_code == 400
    assert sent(run) == []
    assert list(tmp_path.iterdir()) == []


def test_form_of_too_many_fields_is_a_bad_request(client):
    run = waiting()
    assert client.post(path_of(run.event_url("a")), {f"f{number}": "" for number in range(1001)}).status_code == 400
    assert sent(run) == []


# -- Types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "type_, good, bad",
    [
        (Decision, {"ok": True}, {"ok": "maybe"}),
        (Decision, {"ok": False, "note": "no"}, {}),
        (Decision, {"ok": True}, None),
        (Decision, {"ok": True}, {"ok": True, "more": 1}),
        (Refund, {"amount": 2.5, "day": "2026-03-01"}, {"amount": -1, "day": "2026-03-01"}),
        (bool, True, 1),
        (str, "x", 1),
        (int, 3, True),
        (float, 3, "3"),
        (dict, {"a": 1}, [1]),
    ],
)
def test_payload_has_to_fit_the_wait_that_is_recorded(post, type_, good, bad):
    run = waiting(type_=type_)
    response = post(run.event_url("approval"), bad)
    assert response.status_code == 400
    assert response.json()["errors"]
    assert sent(run) == []
    assert post(run.event_url("approval"), good).status_code == 202
    assert sent(run) == [("approval", good)]


def test_signed_payload_has_to_fit_too(post):
    run = waiting(type_=Decision)
    assert post(run.event_url("approval", {"ok": "maybe"})).status_code == 400
    assert sent(run) == []


@pytest.mark.parametrize("type_", [None, "nowhere.at_all:Class", "tests.callbacks.conftest:gone", 7, "json:dumps"])
def test_what_can_not_be_checked_is_taken(post, type_):
    run = waiting(type_=type_)
    assert post(run.event_url("approval"), {"anything": 1}).status_code == 202


def test_several_waits_of_different_types_take_anything(post):
    run = waiting(type_=Decision)
    add_wait(run, "approval", Refund, name="other")
    assert post(run.event_url("approval"), 5).status_code == 202


def test_form_of_a_type_takes_its_fields(client):
    run = waiting(type_=Decision)
    url = path_of(run.event_url("approval"))
    response = client.post(url, {"note": "x"}, headers=BROWSER)
    assert response.status_code == 400
    assert "This field is required" in response.content.decode()
    assert 'value="x"' in response.content.decode()
    response = client.post(url, {"ok": ""}, headers={"Accept": "application/json"})
    assert (response.status_code, response.json()["errors"]) == (400, ["ok: This field is required."])
    assert sent(run) == []
    assert client.post(url, {"ok": "on", "note": "fine"}, headers=BROWSER).status_code == 202
    assert sent(run) == [("approval", {"ok": True, "note": "fine"})]


def test_masked_values_are_in_no_complaint(post, define_masked):
    run = waiting(type_=Decision, workflow=define_masked("note").name)
    response = post(run.event_url("approval"), {"ok": True, "note": 471147})
    assert response.status_code == 400
    assert "471147" not in response.content.decode()


@pytest.fixture
def define_masked():
    from django_steps import Workflow
    from django_steps.definitions import registry

    def masked(input):
        pass

    return lambda *keys: registry.register(Workflow(masked, mask=keys))


# -- Pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_changes_nothing(client, method):
    run = waiting()
    before = WorkflowRun.objects.values().get()
    for url in (run.event_url("approval"), run.event_url("approval", {"ok": True})):
        with CaptureQueriesContext(connection) as queries:
            assert getattr(client, method)(path_of(url)).status_code == 200
        assert all(query["sql"].startswith("SELECT") for query in queries)
    assert sent(run) == []
    assert WorkflowRun.objects.values().get() == before


def test_page_says_what_is_asked(client):
    run = waiting(workflow="process_order", key="order-7")
    page = client.get(path_of(run.event_url("approval", {"ok": True, "note": "<b>", "n": None}))).content.decode()
    for text in (
        "approval",
        "process_order",
        "order-7",
        "<dd>Yes</dd>",
        "&lt;b&gt;",
        "Nothing has been sent yet",
        "<button",
    ):
        assert text in page
    assert "<script" not in page
    assert "style=" not in page


def test_key_that_the_admin_made_is_not_shown(client):
    run = waiting(key="restart-01890a5d-ac96-774b-bcce-b302099a8057")
    assert "restart-0189" not in client.get(path_of(run.event_url("approval"))).content.decode()


def test_signed_none_says_that_there_is_no_more(client):
    page = client.get(path_of(waiting().event_url("approval", None))).content.decode()
    assert "no further content" in page
    assert "<textarea" not in page


def test_masked_keys_of_a_signed_payload_are_hidden(client, define_masked):
    run = waiting(workflow=define_masked("token").name)
    page = client.get(path_of(run.event_url("approval", {"token": "s3cret", "n": 4711}))).content.decode()
    assert "4711" in page
    assert "s3cret" not in page


def test_page_has_the_form_of_the_type(client):
    page = client.get(path_of(waiting(type_=Decision).event_url("approval"))).content.decode()
    assert 'name="ok" value="true"' in page
    assert 'name="note"' in page
    page = client.get(path_of(waiting().event_url("approval"))).content.decode()
    assert '<textarea name="payload"' in page


@pytest.mark.parametrize(
    "accept, content_type, is_page",
    [
        ("text/html", "application/json", True),
        ("text/html,*/*", "application/x-www-form-urlencoded", True),
        ("*/*", "application/x-www-form-urlencoded", True),
        ("application/json", "application/x-www-form-urlencoded", False),
        ("*/*", "application/json", False),
        ("", "application/json", False),
    ],
)
def test_people_get_a_page_and_machines_json(client, accept, content_type, is_page):
    run = waiting()
    headers = {"Accept": accept} if accept else {}
    url = path_of(run.event_url("approval"))
    bad, good = (b"{", b"1") if "json" in content_type else (b"payload={", b"payload=1")
    for status, body in ((400, bad), (202, good), (200, good)):
        response = client.post(url, body, content_type=content_type, headers=headers)
        assert response.status_code == status
        assert response["Content-Type"].startswith("text/html" if is_page else "application/json")


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_other_methods_are_not_allowed(client, method):
    run = waiting()
    response = getattr(client, method)(path_of(run.event_url("approval")))
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD, POST")
    assert sent(run) == []


def test_no_answer_is_kept_framed_or_tells_its_address(client, post):
    run = waiting()
    url = path_of(run.event_url("approval"))
    answers = [
        client.get(url),
        client.get("/workflows/events/x/"),
        client.put(url),
        client.post(url, b"x", content_type="text/plain"),
        client.post(url, b"1", content_type="application/json"),
        client.post(url, b"1", content_type="application/json"),
    ]
    assert [answer.status_code for answer in answers] == [200, 403, 405, 415, 202, 200]
    for answer in answers:
        assert answer["Cache-Control"] == "no-store"
        assert answer["Referrer-Policy"] == "no-referrer"
        assert answer["X-Frame-Options"] == "DENY"
        assert "Location" not in answer


def test_no_session_no_cookie_and_no_csrf_token_is_needed(db):
    run = waiting()
    client = Client(enforce_csrf_checks=True)
    page = client.get(path_of(run.event_url("approval", True)))
    assert not page.cookies
    response = client.post(
        path_of(run.event_url("approval", True)), {}, headers={"Origin": "https://elsewhere.example"}
    )
    assert (response.status_code, dict(response.cookies)) == (202, {})


def test_next_in_the_address_leads_nowhere(client):
    run = waiting()
    response = client.post(
        f"{path_of(run.event_url('approval', True))}?next=https://elsewhere.example/", headers=BROWSER
    )
    assert response.status_code == 202
    assert "elsewhere" not in response.content.decode()


def test_logs_have_neither_token_nor_payload(client, caplog):
    caplog.set_level(logging.DEBUG)
    run = waiting(type_=Decision)
    url = path_of(run.event_url("approval"))
    token = url.split("/")[-2]
    client.get("/workflows/events/forged-token/")
    client.post(url, b'{"secret": "s3cret"', content_type="application/json")
    client.post(url, b'{"ok": "s3cret"}', content_type="application/json")
    client.post(url, b"s3cret", content_type="text/plain")
    client.put(url)
    client.post(url, b'{"ok": true, "note": "s3cret"}', content_type="application/json")
    client.post(url, b'{"ok": false, "note": "s3cret"}', content_type="application/json")
    end(run, "succeeded")
    client.get(path_of(run.event_url("other")))
    assert "was answered with 400: event 'approval'" in caplog.text
    for text in ("s3cret", token, "forged-token", path_of(run.event_url("other"))):
        assert text not in caplog.text


def test_event_that_can_not_be_recorded_is_a_bad_request(post, monkeypatch):
    def refuse(*arguments, **options):
        raise StepsError("no")

    monkeypatch.setattr(WorkflowRun, "send_event", refuse)
    assert post(waiting().event_url("approval"), 1).status_code == 400


def test_signed_payload_of_a_class_that_is_gone_is_a_bad_request(post, monkeypatch):
    run = waiting()
    url = run.event_url("approval", Color.RED)
    monkeypatch.delattr("tests.callbacks.conftest.Color")
    assert post(url).status_code == 400
    assert sent(run) == []


def test_view_is_outside_of_the_transaction_of_the_request():
    assert event._non_atomic_requests >= set(connections)


@pytest.mark.django_db(transaction=True)
def test_event_is_committed_where_requests_are_atomic(post, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    run = waiting()
    states = []
    send_event = WorkflowRun.send_event

    def watched(self, *arguments, **options):
        states.append(connection.in_atomic_block)
        return send_event(self, *arguments, **options)

    monkeypatch.setattr(WorkflowRun, "send_event", watched)
    assert post(run.event_url("approval"), 1).status_code == 202
    assert states == [False]
