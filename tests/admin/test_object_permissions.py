"""A subclass decides for each run: every page, button, form and action asks it with the run."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client

from django_steps.models import WorkflowRun

from .conftest import failed_run, make_run, url
from .test_bulk import answer, ask

CONTROLS = {"retry": "failed", "cancel": "sleeping", "restart": "failed", "delete": "failed"}


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch):
    """Let the registered ModelAdmin refuse these permissions for runs of the queue `secret`."""

    def refuse(*names: str) -> None:
        model_admin = admin.site._registry[WorkflowRun]
        for name in names:
            method = getattr(model_admin, f"has_{name}_permission")

            def has_permission(request, obj=None, method=method):
                return method(request, obj) and (obj is None or obj.queue != "secret")

            monkeypatch.setattr(model_admin, f"has_{name}_permission", has_permission)

    return refuse


def a_run(status: str, **columns) -> WorkflowRun:
    return failed_run(**columns) if status == "failed" else make_run(status, **columns)


@pytest.mark.parametrize("page", ["change", "retry", "cancel", "restart", "history"])
def test_a_run_that_may_not_be_seen_has_no_page(root, refuse, page):
    refuse("view")
    secret, plain = failed_run(queue="secret"), failed_run()
    assert root.get(url(page, secret.pk)).status_code == 403
    assert root.get(url(page, plain.pk)).status_code in (200, 302)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_refused_for_a_run(root, refuse, control):
    refuse("start" if control == "restart" else control)
    run = a_run(CONTROLS[control], queue="secret")
    assert f"/{control}/" not in root.get(url("change", run.pk)).content.decode()
    assert root.get(url(control, run.pk)).status_code == 403
    assert root.post(url(control, run.pk), {"post": "yes"}).status_code == 403
    assert list(WorkflowRun.objects.values_list("status", flat=True)) == [run.status]


@pytest.mark.parametrize("permission", ["view", "start"])
def test_the_input_of_a_run_that_may_not_be_seen_is_in_no_form(root, refuse, permission):
    refuse(permission)
    run = failed_run(queue="secret", input={"salary": 123456})
    response = root.get(f"{url('start')}?run={run.pk}")
    assert response.status_code == 403
    assert "123456" not in response.content.decode()
    assert root.post(f"{url('start')}?run={run.pk}", {"queue": "default", "priority": "0"}).status_code == 403
    assert WorkflowRun.objects.count() == 1


@pytest.mark.parametrize("control", CONTROLS)
def test_an_action_leaves_out_and_names_the_runs_without_the_permission(root, refuse, control):
    refuse("start" if control == "restart" else control)
    status = CONTROLS[control]
    secret, plain = a_run(status, queue="secret", key="payroll-7"), a_run(status)
    page = ask(root, control, [secret, plain])
    text = page.content.decode()
    assert "1 (you have no permission for three_steps payroll-7) will be skipped" in text
    assert f"1 run will be {control}" in text.replace("retried", "retry")
    said = str(list(get_messages(answer(root, page).wsgi_request))[-1])
    assert "1 skipped: you have no permission for three_steps payroll-7" in said
    secret.refresh_from_db()
    assert secret.status == status
    assert not WorkflowRun.objects.filter(restart_of=secret).exists()
    assert not LogEntry.objects.filter(object_id=str(secret.pk)).exists()


def test_an_answer_that_names_other_runs_is_asked_about_too(root, refuse):
    refuse("view")
    run = failed_run(queue="secret")
    data = {"action": "retry", "_selected_action": str(run.pk), "runs": str(run.pk), "select_across": "1"}
    root.post(url("changelist"), data)
    assert WorkflowRun.objects.get().status == "failed"


def test_the_overview_and_other_pages_lead_to_no_run_that_may_not_be_seen(root, refuse):
    refuse("view")
    waiting = make_run("pending", queue="secret")
    first = failed_run()
    restart = failed_run(queue="secret", restart_of=first)
    for page in (url("overview"), url("changelist"), url("change", first.pk)):
        text = root.get(page).content.decode().split("results", 1)[0]
        assert url("change", waiting.pk) not in text
        assert url("change", restart.pk) not in text
    assert "The oldest run that is ready has waited" in root.get(url("overview")).content.decode()


def test_without_any_permission_there_is_no_action(staff):
    client: Client = staff("view")
    run = failed_run()
    ask(client, "restart", [run])
    assert WorkflowRun.objects.count() == 1
