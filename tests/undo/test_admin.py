"""Cancel and undo in the admin: a page that lists what will be undone, one press that does it, and undos beside their steps."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.urls import reverse

from django_steps.ledger import unknown
from tests.changing import deploy
from tests.undo.journal import Journal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def url(name: str, run: Any) -> str:
    return reverse(f"admin:django_steps_workflowrun_{name}", args=[run.pk])


def said(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.content.decode()))


@pytest.fixture
def make(work, journal):
    """A run that has booked two days and waits."""

    def start(name: str, **options: Any) -> Any:
        def body(step):
            step.define("flight", journal.book, undo=journal.cancel).run("monday")
            step.map("rooms", journal.book, ["tuesday"], undo=journal.cancel)
            step.define("mail", journal.send).run()
            step.wait_for_event("approval")

        run = deploy(name, body).start(**options)
        work()
        run.refresh_from_db()
        return run

    return start


def test_button_leads_to_a_page_that_lists_what_will_be_undone(root, make):
    run = make("asked_tour")
    assert url("undo", run) in root.get(url("change", run)).content.decode()
    page = text_of(root.get(url("undo", run)))
    assert "these steps will be undone, in this order: “rooms#tuesday”, “flight”." in page
    assert "mail" not in page.split("in this order")[1].split(".")[0]
    assert "can't be known" in page or "can&#x27;t be known" in page
    run.refresh_from_db()
    assert run.status == "waiting"


def test_press_cancels_with_undo_and_is_logged(root, make, work, journal):
    run = make("pressed_tour")
    response = root.post(url("undo", run), {"reason": "rain"})
    assert response.url == url("change", run)
    assert said(response) == ["Canceling: what its steps have done is being undone."]
    run.refresh_from_db()
    assert (run.status, run.cancel_reason, run.canceled_by) == ("canceling", "rain", "root")
    assert LogEntry.objects.get(object_id=str(run.pk)).get_change_message() == "Canceled with undo. rain"
    assert "undoes what its steps have done" in text_of(root.get(url("change", run)))
    assert said(root.post(url("undo", run))) == ["Nothing was done: the run is canceling already."]
    work()
    assert journal[-2:] == ["cancel tuesday's", "cancel monday's"]
    assert "can't be undone" in said(root.get(url("undo", run)))[-1]


def test_undos_are_shown_beside_their_steps(root, make, work):
    run = make("shown_tour")
    run.cancel(undo=True)
    work()
    page = text_of(root.get(url("change", run)))
    table = page[page.index("Steps") :]
    places = [table.index(name) for name in ("flight ", "flight#undo", "rooms ")]
    assert places == sorted(places)
    assert "1 succeeded" in page  # of the map, in which the undo counts for nothing
    assert page.count("rooms#tuesday#undo") >= 1


def test_undone_run_offers_no_retry(root, make, work):
    run = make("undone_tour")
    run.cancel(undo=True)
    work()
    page = root.get(url("change", run)).content.decode()
    assert url("retry", run) not in page
    assert url("undo", run) not in page
    assert said(root.get(url("retry", run))) == ["A run that is undone can't be retried."]


def test_retry_of_one_that_could_not_be_undone_says_that_it_goes_on(root, make, work, journal):
    journal.fails_to_cancel = {"tuesday"}
    run = make("stuck_tour")
    run.cancel(undo=True)
    work()
    page = text_of(root.get(url("retry", run)))
    assert "The run goes on undoing what its steps have done." in page
    assert "Executed again: “rooms#tuesday#undo”." in page
    assert said(root.post(url("retry", run))) == ["Retried: the run goes on undoing."]
    run.refresh_from_db()
    assert run.status == "canceling"


def test_selection_of_runs_to_retry_leaves_out_those_that_are_undone(root, make, work):
    run = make("selected_tour")
    run.cancel(undo=True)
    work()
    changelist = reverse("admin:django_steps_workflowrun_changelist")
    asked = root.post(changelist, {"action": "retry", "_selected_action": [str(run.pk)]})
    assert "1 (undone) will be skipped." in text_of(asked)


def test_undo_of_a_run_whose_workflow_is_gone_can_be_given_up(root, make):
    run = make("holiday_gone")
    run.cancel(undo=True)
    assert url("cancel", run) not in root.get(url("change", run)).content.decode()
    unknown.set_aside(connection, [("another", "")])
    assert url("cancel", run) in root.get(url("change", run)).content.decode()
    assert "nothing more can be undone" in root.get(url("cancel", run)).content.decode()
    root.post(url("cancel", run))
    run.refresh_from_db()
    assert (run.status, run.canceled_by) == ("canceled", "root")


def test_undo_takes_the_permission_to_cancel(make):
    run = make("forbidden_tour")
    client = Client()
    user = User.objects.create_user("eve", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_workflowrun"))
    client.force_login(user)
    assert url("undo", run) not in client.get(url("change", run)).content.decode()
    assert client.get(url("undo", run)).status_code == 403
    assert client.post(url("undo", run)).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="cancel_workflowrun"))
    assert client.get(url("undo", run)).status_code == 200


def test_run_without_anything_to_undo_has_no_button(root, work):
    run = deploy("plain_tour", lambda step: step.wait_for_event("approval")).start()
    work()
    assert url("undo", run) not in root.get(url("change", run)).content.decode()
    assert "No step is recorded that is known to have an undo." in text_of(root.get(url("undo", run)))
