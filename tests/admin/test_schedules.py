"""The pages of the schedules: the list, the page of one, its form, pausing and running now."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_steps import Schedule, workflow
from django_steps.definitions import scheduling
from django_steps.ledger import schedules as ledger
from django_steps.models import WorkflowRun, WorkflowSchedule

pytestmark = pytest.mark.django_db


def url(name, *args):
    return reverse(f"admin:django_steps_workflowschedule_{name}", args=args)


def text(response):
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.content.decode())))


@pytest.fixture
def user(django_user_model, client):
    """Somebody who may view; more is given by `may("pause_workflowschedule")`."""
    found = django_user_model.objects.create_user("eve", password="eve", is_staff=True)
    client.force_login(found)

    def may(*names):
        found.user_permissions.add(*Permission.objects.filter(codename__in=names))
        return client

    may("view_workflowschedule")
    return may


@pytest.fixture
def syncing():
    @workflow(mask=("token",))
    def syncing(input, step):
        pass

    return syncing


@pytest.fixture
def of_code():
    @workflow(schedule=Schedule("30 2 * * *", timezone="Europe/Berlin", input={"shop": 7}))
    def nightly(input, step):
        pass

    scheduling.sync()
    return WorkflowSchedule.objects.get(name="nightly")


@pytest.fixture
def row(syncing):
    return WorkflowSchedule.objects.create(
        name="customer-7", workflow="syncing", every="1h", input={"customer": 7, "token": "top-secret"}
    )


# -- The list and the page --------------------------------------------------------------------------


def test_list_says_when_what_next_how_the_last_went_and_why_not(admin_client, row, of_code, pass_time):
    pass_time("1h")
    ledger.fire(connection, scheduling.targets())
    of_code.pause("holidays", by="bob")
    shown = text(admin_client.get(url("changelist")))
    assert "customer-7" in shown and "every 1h" in shown and "pending" in shown
    assert "every day at 02:30 (Europe/Berlin)" in shown and "paused by bob: holidays" in shown
    only = text(admin_client.get(url("changelist"), {"state": "paused"}))
    assert "nightly" in only and "customer-7" not in only


def test_list_costs_as_many_queries_with_more_schedules(admin_client, syncing):
    def cost():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert admin_client.get(url("changelist")).status_code == 200
        return len(queries)

    WorkflowSchedule.objects.create(name="one", workflow="syncing", every="1h")
    admin_client.get(url("changelist"))
    before = cost()
    for number in range(5):
        WorkflowSchedule.objects.create(name=f"s{number}", workflow="syncing", every="1h")
    assert cost() == before


def test_page_shows_next_times_in_both_zones_last_runs_and_skips(admin_client, of_code, pass_time):
    pass_time("1d")
    ledger.fire(connection, scheduling.targets())
    pass_time("1d")
    ledger.fire(connection, scheduling.targets())
    response = admin_client.get(url("change", of_code.pk))
    shown = text(response)
    assert "Europe/Berlin UTC" in shown
    assert len(re.findall(r"\d\d\d\d-\d\d-\d\d 02:30:00", shown)) >= 5
    run = WorkflowRun.objects.get()
    assert reverse("admin:django_steps_workflowrun_change", args=[run.pk]) in response.content.decode()
    assert "while a run was active" in shown
    assert "It is defined in code, and changed there." in shown
    assert '"shop": 7' in shown
    assert url("edit", of_code.pk) not in response.content.decode()


def test_page_masks_what_the_workflow_masks(admin_client, row):
    shown = text(admin_client.get(url("change", row.pk)))
    assert "top-secret" not in shown and '"customer": 7' in shown


def test_page_of_a_disabled_and_damaged_row(admin_client, row):
    WorkflowSchedule.objects.update(disabled_reason="no live code has it", next_at_us=None, every="", cron="damaged")
    shown = text(admin_client.get(url("change", row.pk)))
    assert "disabled: no live code has it" in shown and "Run now" not in shown


def test_page_of_what_is_not_there(admin_client):
    assert admin_client.get(url("change", 7)).status_code == 404


def test_run_says_of_which_schedule_it_is(admin_client, row, pass_time):
    run = row.run_now()
    shown = text(admin_client.get(reverse("admin:django_steps_workflowrun_change", args=[run.pk])))
    assert "Schedule customer-7" in shown and "Scheduled for" in shown


# -- Controls ---------------------------------------------------------------------------------------


def test_pause_with_a_note_and_resume(admin_client, of_code):
    page = admin_client.get(url("pause", of_code.pk))
    assert "A deploy does not resume it" in text(page)
    of_code.refresh_from_db()
    assert not of_code.is_paused, "a GET changes nothing"
    admin_client.post(url("pause", of_code.pk), {"reason": "holidays"})
    of_code.refresh_from_db()
    assert (of_code.pause_reason, of_code.paused_by, of_code.next_at) == ("holidays", "admin", None)
    again = admin_client.post(url("pause", of_code.pk), {"reason": "x"}, follow=True)
    assert "it is paused already" in text(again)
    admin_client.post(url("resume", of_code.pk))
    of_code.refresh_from_db()
    assert not of_code.is_paused and of_code.next_at is not None
    assert "it is not paused" in text(admin_client.post(url("resume", of_code.pk), follow=True))
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == ["Paused: holidays", "Resumed."]


def test_run_now_leads_to_the_run(admin_client, row):
    assert "beside those that are active" in text(admin_client.get(url("run_now", row.pk)))
    assert not WorkflowRun.objects.exists()
    response = admin_client.post(url("run_now", row.pk))
    run = WorkflowRun.objects.get()
    assert response["Location"] == reverse("admin:django_steps_workflowrun_change", args=[run.pk])
    assert str(run.pk) in LogEntry.objects.get().change_message


@pytest.mark.parametrize("name", ["pause", "resume", "run_now", "edit"])
def test_who_may_only_view_can_do_nothing(user, row, name):
    client = user()
    shown = client.get(url("change", row.pk)).content.decode()
    assert url(name, row.pk) not in shown
    assert client.get(url(name, row.pk)).status_code == client.post(url(name, row.pk)).status_code == 403
    assert client.get(url("add")).status_code == 403


@pytest.mark.parametrize(
    ("permission", "name"),
    [("pause_workflowschedule", "pause"), ("run_workflowschedule", "run_now"), ("change_workflowschedule", "edit")],
)
def test_permission_allows_one_thing(user, row, permission, name):
    client = user(permission)
    shown = client.get(url("change", row.pk)).content.decode()
    assert url(name, row.pk) in shown
    assert client.get(url(name, row.pk)).status_code == 200
    others = {"pause", "run_now", "edit"} - {name}
    assert not any(url(other, row.pk) in shown for other in others)


def test_who_may_not_see_runs_is_not_led_to_them(user, row):
    client = user("run_workflowschedule")
    response = client.post(url("run_now", row.pk))
    assert response["Location"] == url("change", row.pk)
    run = WorkflowRun.objects.get()
    assert str(run.pk) not in client.get(url("change", row.pk)).content.decode()


def test_what_the_code_has_is_neither_edited_nor_deleted(admin_client, of_code):
    assert admin_client.get(url("edit", of_code.pk)).status_code == 403
    assert admin_client.get(url("delete", of_code.pk)).status_code == 403
    WorkflowSchedule.objects.update(disabled_reason="no live code has it")
    admin_client.post(url("delete", of_code.pk), {"post": "yes"})
    assert not WorkflowSchedule.objects.exists()


# -- The form ---------------------------------------------------------------------------------------


def fields(**given):
    return {
        "name": "customer-8",
        "workflow": "syncing",
        "input": '{"customer": 8}',
        "cron": "30 2 * * 1-5",
        "timezone": "Europe/Berlin",
        "overlap": "skip",
        "missed": "latest",
        **given,
    }


def test_preview_shows_the_times_and_saves_nothing(admin_client, syncing):
    response = admin_client.post(url("add"), fields(_preview="Preview"))
    shown = text(response)
    assert "Monday to Friday at 02:30 (Europe/Berlin)" in shown
    assert len(re.findall(r"\d\d\d\d-\d\d-\d\d 02:30:00 CES?T", shown)) == 5
    assert not WorkflowSchedule.objects.exists()
    assert 'value="30 2 * * 1-5"' in response.content.decode()


def test_add(admin_client, syncing):
    assert admin_client.get(url("add")).status_code == 200
    response = admin_client.post(url("add"), fields(queue="", priority=""))
    row = WorkflowSchedule.objects.get()
    assert response["Location"] == url("change", row.pk)
    assert (row.name, row.input, row.cron, row.queue, row.priority) == (
        "customer-8",
        {"customer": 8},
        "30 2 * * 1-5",
        None,
        None,
    )
    assert LogEntry.objects.get().change_message == "Added."


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"cron": "61 * * * *"}, "Bad minute"),
        ({"cron": "", "every": "often"}, "Not a duration"),
        ({"timezone": "Mars/Olympus"}, "Unknown time zone"),
        ({"input": "{"}, "This is no JSON"),
        ({"workflow": "other"}, "Select a valid choice"),
        ({"cron": ""}, "either cron"),
        ({"name": ""}, "This field is required"),
        ({"priority": "1000"}, "less than or equal to 100"),
        ({"spread": "soon"}, "Not a duration"),
    ],
)
@pytest.mark.parametrize("button", [{}, {"_preview": "Preview"}])
def test_what_is_wrong_is_said_beside_it(admin_client, syncing, given, what, button):
    response = admin_client.post(url("add"), fields(**given, **button))
    assert response.status_code == 200 and what in text(response)
    assert not WorkflowSchedule.objects.exists()


def test_edit_keeps_what_the_mask_stands_for(admin_client, row):
    page = admin_client.get(url("edit", row.pk)).content.decode()
    assert "top-secret" not in page
    shown = {"customer": 9, "token": "********"}
    admin_client.post(url("edit", row.pk), fields(input=json.dumps(shown), cron="", timezone="", every="2h"))
    row.refresh_from_db()
    assert (row.name, row.every, row.input) == ("customer-7", "2h", {"customer": 9, "token": "top-secret"})
    assert LogEntry.objects.get().change_message == "Changed: every 2h."


def test_mask_of_a_new_schedule_stands_for_nothing(admin_client, syncing):
    response = admin_client.post(url("add"), fields(input='{"token": "********"}'))
    assert "what the mask stands for is not certain" in text(response)


def test_pages_have_no_inline_script_or_style(admin_client, row):
    for page in (url("changelist"), url("change", row.pk), url("add"), url("edit", row.pk), url("pause", row.pk)):
        html = admin_client.get(page).content.decode()
        assert not re.search(
            r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")[^>]*>|\sstyle=|\son\w+=", html
        ), page
