"""Viewing, starting, retrying, canceling and deleting are permissions of their own."""

from __future__ import annotations

import pytest

from django_steps.models import WorkflowRun

from .conftest import failed_run, make_run, url

BUTTONS = {"retry": "Retry from step", "cancel": ">Cancel<", "add": ">Restart<", "delete": ">Delete<"}


def run_for(control):
    return make_run("sleeping") if control == "cancel" else failed_run()


@pytest.mark.parametrize("control", BUTTONS)
def test_without_the_permission_there_is_no_button_and_the_post_is_403(staff, control):
    run = run_for(control)
    client = staff("view", *(set(BUTTONS) - {control}))
    assert BUTTONS[control] not in client.get(url("change", run.pk)).content.decode()
    name = "restart" if control == "add" else control
    assert client.get(url(name, run.pk)).status_code == 403
    assert client.post(url(name, run.pk), {"post": "yes"}).status_code == 403
    assert WorkflowRun.objects.get().status == run.status


@pytest.mark.parametrize("control", BUTTONS)
def test_with_the_permission_alone_there_is_the_button_and_the_post_works(staff, control):
    run = run_for(control)
    client = staff("view", control)
    page = client.get(url("change", run.pk)).content.decode()
    assert [text for text in BUTTONS.values() if text in page] == [BUTTONS[control]]
    name = "restart" if control == "add" else control
    assert client.post(url(name, run.pk), {"post": "yes"}).status_code == 302
    now = list(WorkflowRun.objects.order_by("pk").values_list("status", flat=True))
    assert now == {"retry": ["pending"], "cancel": ["canceled"], "add": ["failed", "pending"], "delete": []}[control]


def test_staff_with_view_only_see_no_action(staff):
    run = failed_run()
    client = staff("view")
    assert "Retry selected" not in client.get(url("changelist")).content.decode()
    assert "from_step" not in client.get(url("change", run.pk)).content.decode()
    response = client.post(
        url("changelist"), {"action": "retry", "_selected_action": str(run.pk), "runs": str(run.pk), "select_across": 1}
    )
    assert response.status_code in (200, 302)
    assert WorkflowRun.objects.get().status == "failed"


def test_staff_without_view_see_nothing(staff):
    run = failed_run()
    client = staff("retry", "cancel")
    for address in (url("changelist"), url("change", run.pk), url("retry", run.pk), url("overview")):
        assert client.get(address).status_code == 403


@pytest.mark.parametrize("name", ["changelist", "start", "overview"])
def test_others_are_sent_to_the_login(client, db, name):
    assert "/login/" in client.get(url(name)).url


@pytest.mark.parametrize("status", ["pending", "running", "sleeping"])
def test_only_finished_runs_can_be_deleted(root, status):
    run = make_run(status)
    assert BUTTONS["delete"] not in root.get(url("change", run.pk)).content.decode()
    assert root.post(url("delete", run.pk), {"post": "yes"}).status_code == 403
    assert WorkflowRun.objects.exists()


def test_deleting_a_run_deletes_its_steps_and_frees_its_restarts(root):
    run = failed_run()
    restart = make_run("succeeded", restart_of=run)
    assert "Step records: 2" in root.get(url("delete", run.pk)).content.decode().replace("step records", "Step records")
    root.post(url("delete", run.pk), {"post": "yes"})
    assert list(WorkflowRun.objects.all()) == [restart]
    assert WorkflowRun.objects.get().restart_of_id is None
    assert not run.steps.exists()


def test_nothing_is_edited(root):
    run = failed_run()
    assert root.post(url("change", run.pk), {"status": "succeeded"}).status_code == 403
    assert root.post(url("history", run.pk)).status_code in (200, 403, 405)
    assert WorkflowRun.objects.get().status == "failed"
