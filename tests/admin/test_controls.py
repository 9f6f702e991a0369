"""Retry, cancel and restart: asked for first, done by a POST, logged, and safe to press twice."""

from __future__ import annotations

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client

from django_steps.models import WorkflowRun

from .conftest import add_step, error_of, failed_run, handled_run, make_run, url

CONTROLS = ["retry", "cancel", "restart"]


def messages_of(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


def logged(run):
    return [entry.get_change_message() for entry in LogEntry.objects.filter(object_id=str(run.pk)).order_by("pk")]


def test_retry_continues_from_the_failed_step_and_is_logged(root):
    run = failed_run()
    page = root.get(url("retry", run.pk)).content.decode()
    assert "Retry from step “charge”" in page
    assert "The result of 1 other step is kept" in page
    response = root.post(url("retry", run.pk))
    assert response.url == url("change", run.pk)
    assert messages_of(response) == ["Retried: the run continues with step “charge”."]
    run.refresh_from_db()
    assert run.status == "pending"
    assert logged(run) == messages_of(response)


def test_retry_of_several_steps_that_failed_names_them(root):
    text = error_of(ExceptionGroup("both", [ValueError("a"), ValueError("b")]), "a", "b")
    run = make_run("failed", error_text=text)
    for name in ("a", "b"):
        add_step(run, name, "failed", error_text=text)
    assert "The run continues with the steps “a”, “b”." in root.get(url("retry", run.pk)).content.decode()
    assert messages_of(root.post(url("retry", run.pk))) == ["Retried: the run continues with the steps “a”, “b”."]


def test_retry_of_a_run_whose_body_raised_says_that_no_step_is_executed_again(root):
    run = make_run("failed", error_text=error_of(ValueError("by the body")))
    add_step(run, "charge")
    add_step(run, "nap", kind="sleep")
    page = root.get(url("retry", run.pk)).content.decode()
    assert "The body is called again; the failure was not that of a step." in page
    assert "The result of 1 other step is kept" in page
    assert "1 sleep does not begin again." in page
    assert messages_of(root.post(url("retry", run.pk))) == [
        "Retried: the body is called again, and no recorded step is executed again."
    ]


def test_retry_of_a_canceled_run_continues_after_what_is_recorded(root):
    run = make_run("canceled")
    add_step(run, "charge")
    page = root.get(url("retry", run.pk)).content.decode()
    assert "The body is called again, and continues after what is recorded." in page
    assert "no recorded step is executed again" in messages_of(root.post(url("retry", run.pk)))[0]


def test_retry_after_dead_workers_names_the_step_that_was_reached(root):
    error = {"type": "WorkerDied", "message": "It died.", "traceback": "", "step": "crash", "steps": []}
    run = make_run("failed", error_text=json.dumps(error))
    assert "the run had reached step “crash”" in root.get(url("retry", run.pk)).content.decode()
    assert messages_of(root.post(url("retry", run.pk))) == ["Retried: the run continues with step “crash”."]


def test_second_press_of_retry_finds_it_done(root):
    run = failed_run()
    root.post(url("retry", run.pk))
    response = root.post(url("retry", run.pk))
    assert response.status_code == 302
    assert messages_of(response)[-1] == "Nothing was done: the run is pending already."
    assert logged(run) == ["Retried: the run continues with step “charge”."]


@pytest.mark.parametrize("control", CONTROLS)
def test_get_changes_nothing(root, control):
    run = make_run("sleeping") if control == "cancel" else failed_run()
    before = WorkflowRun.objects.values().get(pk=run.pk)
    assert root.get(url(control, run.pk)).status_code == 200
    assert WorkflowRun.objects.values().get() == before
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("control", CONTROLS)
def test_post_without_csrf_token_is_refused(root, control):
    run = failed_run()
    client = Client(enforce_csrf_checks=True)
    client.cookies = root.cookies
    assert client.post(url(control, run.pk)).status_code == 403
    assert WorkflowRun.objects.get().status == "failed"


@pytest.mark.parametrize("control", [*CONTROLS, "change", "history", "delete"])
@pytest.mark.parametrize("pk", ["00000000-0000-7000-8000-000000000000", "no-uuid", "a/b"])
def test_missing_run_is_404(root, control, pk):
    assert root.get(url(control, pk)).status_code == 404


def test_retry_from_a_step_resets_it_and_what_came_later(root):
    run = failed_run()
    add_step(run, "late")
    add_step(run, "nap", kind="sleep")
    page = root.get(url("retry", run.pk), {"from_step": "reserve"}).content.decode()
    assert "So are the 2 steps recorded after it" in page
    assert "The 1 sleep recorded after it begins again." in page
    root.post(url("retry", run.pk), {"from_step": "reserve"})
    run.refresh_from_db()
    assert run.status == "pending"
    assert not run.steps.exists()
    assert logged(run) == ["Retried from step “reserve”."]


@pytest.mark.parametrize("name", ['quo"te', "a/b?c&d", "🙂", "x" * 255, "<script>alert(1)</script>"])
def test_retry_from_a_step_with_an_odd_name(root, name):
    run = failed_run(step=name)
    page = root.get(url("change", run.pk)).content.decode()
    assert "<script>alert" not in page
    response = root.post(url("retry", run.pk), {"from_step": name})
    assert response.url == url("change", run.pk)
    run.refresh_from_db()
    assert run.status == "pending"


def test_retry_from_an_unknown_step_says_so(root):
    run = failed_run()
    response = root.post(url("retry", run.pk), {"from_step": "nope"})
    assert messages_of(response) == ["The run has recorded no step “nope”."]
    assert WorkflowRun.objects.get().status == "failed"


def test_handled_failure_is_explained_and_offers_the_steps(root):
    run = handled_run()
    page = root.get(url("change", run.pk)).content.decode()
    assert "Retry…" in page
    page = root.get(url("retry", run.pk)).content.decode()
    assert "“refund” ran after it" in page
    for name in ("ship", "refund"):
        assert f'value="{name}" required' in page
    assert url("restart", run.pk) in page


def test_plain_retry_of_a_handled_failure_leads_to_the_choice(root):
    run = handled_run()
    response = root.post(url("retry", run.pk))
    assert response.url == url("retry", run.pk)
    assert WorkflowRun.objects.get().status == "failed"
    root.post(url("retry", run.pk), {"from_step": "ship"})
    assert WorkflowRun.objects.get().status == "pending"


@pytest.mark.parametrize("status", ["succeeded", "running", "pending", "sleeping"])
def test_retry_of_a_run_that_did_not_fail_is_refused_with_its_status(root, status):
    run = make_run(status)
    for response in (root.get(url("retry", run.pk)), root.post(url("retry", run.pk))):
        assert response.status_code == 302
        assert f" {status}" in messages_of(response)[-1]
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("status", "then"), [("pending", "canceled"), ("sleeping", "canceled"), ("running", "canceling")]
)
def test_cancel_ends_a_run_once(root, status, then):
    run = make_run(status)
    assert root.get(url("cancel", run.pk)).status_code == 200
    response = root.post(url("cancel", run.pk))
    assert messages_of(response)[-1].startswith("Canceled." if then == "canceled" else "Canceling: the step ")
    response = root.post(url("cancel", run.pk))
    assert messages_of(response)[-1] == f"Nothing was done: the run is {then} already."
    run = WorkflowRun.objects.get()
    assert (run.status, run.canceled_by) == (then, "root")
    assert logged(run) == ["Canceled."]


def test_canceling_run_shows_by_whom_and_why_and_has_no_button_for_it(root):
    run = make_run("canceling", cancel_reason="sent <twice>", canceled_by="eve", current_step="ship")
    page = root.get(url("change", run.pk))
    text = page.content.decode()
    assert "steps-status-canceling" in text and "now: ship" in text and page.context["is_live"]
    assert "<dd>eve</dd>" in text and "<dd>sent &lt;twice&gt;</dd>" in text
    assert not {"Cancel", "Delete"} & {str(tool.label) for tool in page.context["tools"]}
    assert not any("Retry" in str(tool.label) for tool in page.context["tools"])
    assert messages_of(root.get(url("cancel", run.pk))) == ["A run that is canceling can't be canceled."]


def test_cancel_of_a_finished_run_is_refused(root):
    run = make_run("succeeded")
    response = root.post(url("cancel", run.pk))
    assert messages_of(response) == ["Nothing was done: the run is succeeded already."]


def test_restart_starts_one_new_run_however_often_it_is_pressed(root):
    run = make_run("succeeded", input={"order": 7})
    first = root.post(url("restart", run.pk))
    second = root.post(url("restart", run.pk))
    new = WorkflowRun.objects.get(restart_of=run)
    assert first.url == second.url == url("change", new.pk)
    assert new.input == {"order": 7}
    assert "started already" in messages_of(second)[-1]
    assert logged(run) == [f"Restarted as {new.pk}."]
    assert str(new.pk) in root.get(url("change", run.pk)).content.decode()
    assert str(run.pk) in root.get(url("change", new.pk)).content.decode()


def test_restart_is_possible_again_once_the_new_run_has_ended(root):
    run = make_run("succeeded")
    for _press in range(3):
        root.post(url("restart", run.pk))
        WorkflowRun.objects.filter(restart_of=run).update(status="failed")
    assert WorkflowRun.objects.filter(restart_of=run).count() == 3
