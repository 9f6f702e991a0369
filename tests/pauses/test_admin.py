"""Pausing and resuming in the admin: runs, selections, queues and workflows; asked for first, logged, permitted."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.utils import timezone

from django_steps.ledger import reports
from django_steps.models import Worker, WorkflowPause, WorkflowRun
from tests.admin.conftest import make_run, root, staff, url, waiting_run  # noqa: F401
from tests.admin.test_bulk import answer, ask, report
from tests.admin.test_controls import logged, messages_of
from tests.staging import status_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_run_is_paused_with_a_reason_and_resumed(root):  # noqa: F811
    run = make_run("sleeping")
    page = root.get(url("pause", run.pk)).content.decode()
    assert "no further step begins until somebody resumes it" in page and 'name="reason"' in page
    response = root.post(url("pause", run.pk), {"reason": "the bank is closed"})
    assert response.url == url("change", run.pk) and messages_of(response) == ["Paused."]
    run.refresh_from_db()
    assert (run.status, run.pause_reason, run.paused_by) == ("paused", "the bank is closed", "root")
    page = root.get(url("change", run.pk)).content.decode()
    assert "steps-status-paused" in page and "the bank is closed" in page and "by root" in page
    assert url("resume", run.pk) in page and url("pause", run.pk) not in page and url("cancel", run.pk) in page
    assert "The run will go on." in root.get(url("resume", run.pk)).content.decode()
    assert messages_of(root.post(url("resume", run.pk))) == ["Resumed."]
    assert status_of(run) == "pending"
    assert logged(run) == ["Paused. the bank is closed", "Resumed."]


def test_a_running_run_says_that_it_is_pausing(root):  # noqa: F811
    worker = Worker.objects.create(
        host="h", pid=1, concurrency=1, lease_us=1, started_at=timezone.now(), last_seen_us=1
    )
    run = make_run("running", worker=worker, claim_token=1)
    assert "A worker is executing it now" in root.get(url("pause", run.pk)).content.decode()
    response = root.post(url("pause", run.pk), {"reason": "enough"})
    assert messages_of(response) == [
        "Pausing: the step that a worker executes now will end, and no further one begins."
    ]
    page = root.get(url("change", run.pk)).content.decode()
    assert "pausing by root: enough" in page and url("pause", run.pk) not in page and url("resume", run.pk) in page
    assert "pausing by root: enough" in root.get(url("changelist")).content.decode()
    root.post(url("resume", run.pk))
    assert not WorkflowRun.objects.get(pk=run.pk).is_pausing


def test_the_second_press_finds_it_done(root):  # noqa: F811
    run = make_run("pending")
    root.post(url("pause", run.pk))
    assert messages_of(root.post(url("pause", run.pk)))[-1] == "Nothing was done: the run is paused already."
    root.post(url("resume", run.pk))
    assert messages_of(root.post(url("resume", run.pk)))[-1] == "Nothing was done: the run is pending, and not paused."
    assert logged(run) == ["Paused.", "Resumed."]


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "canceling"])
def test_what_has_ended_has_no_such_buttons(root, status):  # noqa: F811
    run = make_run(status)
    page = root.get(url("change", run.pk)).content.decode()
    assert url("pause", run.pk) not in page and url("resume", run.pk) not in page
    assert "can't be paused" in messages_of(root.get(url("pause", run.pk)))[0]
    assert root.post(url("pause", run.pk)).status_code == root.post(url("resume", run.pk)).status_code == 302
    assert status_of(run) == status and logged(run) == []


@pytest.mark.parametrize("page", ["pause", "resume"])
def test_it_takes_the_permission(staff, page):  # noqa: F811
    run = make_run("pending")
    without, having = staff("view", "cancel", "retry"), staff("view", "pause")
    assert without.get(url(page, run.pk)).status_code == without.post(url(page, run.pk)).status_code == 403
    assert url("pause", run.pk) not in without.get(url("change", run.pk)).content.decode()
    assert url("pause", run.pk) in having.get(url("change", run.pk)).content.decode()
    assert having.post(url(page, run.pk)).status_code == 302


def test_a_selection_is_paused_and_resumed(root):  # noqa: F811
    runs = [make_run("pending"), make_run("sleeping"), make_run("succeeded")]
    page = ask(root, "pause", runs)
    text = page.content.decode()
    assert (
        "2 runs will be paused." in text and 'name="reason"' in text and "1 (already succeeded) will be skipped" in text
    )
    assert report(answer(root, page)) == "2 paused, 1 skipped: already succeeded"
    assert [status_of(run) for run in runs] == ["paused", "paused", "succeeded"]
    other = make_run("pending")
    page = ask(root, "resume", [*runs, other])
    assert "2 runs will be resumed." in page.content.decode()
    assert report(answer(root, page)) == "2 resumed, 1 skipped: already succeeded, 1 skipped: not paused"
    assert [status_of(run) for run in runs] == ["pending", "pending", "succeeded"]
    assert LogEntry.objects.filter(object_id=str(other.pk)).count() == 0


def test_the_list_counts_and_filters_paused_runs(root):  # noqa: F811
    run, held = make_run("pending"), make_run("pending", queue="mail")
    other = make_run("pending")
    run.pause(reason="closed", by="eve")
    WorkflowPause.objects.pause_queue("mail")
    counts = reports.count_by_status(connection, 100)
    assert (counts["paused"], counts["pending"]) == (1, 2)
    page = root.get(url("changelist"), {"status__exact": "paused"}).content.decode()
    assert f'value="{run.pk}"' in page and f'value="{other.pk}"' not in page and "by eve: closed" in page
    assert "queue mail is paused" in root.get(url("changelist")).content.decode()
    page = root.get(url("change", held.pk)).content.decode()
    assert "queue mail is paused" in page and url("resume", held.pk) in page
    assert "will not hold this run any more" in root.get(url("resume", held.pk)).content.decode()
    root.post(url("resume", held.pk))
    assert "queue mail is paused" not in root.get(url("change", held.pk)).content.decode()


def test_a_paused_run_still_takes_events_on_its_page(root):  # noqa: F811
    run = waiting_run("approval")
    run.pause()
    assert url("send_event", run.pk) in root.get(url("change", run.pk)).content.decode()


@pytest.mark.parametrize(("kind", "name"), [("queue", "mail"), ("workflow", "three_steps")])
def test_a_queue_or_a_workflow_is_paused_and_resumed_in_the_overview(root, kind, name):  # noqa: F811
    assert url("pause_more") in root.get(url("overview")).content.decode()
    assert "Workers take no more runs of it" in root.get(url("pause_more")).content.decode()
    response = root.post(url("pause_more"), {"kind": kind, "name": name, "reason": "down"})
    assert response.url == url("overview") and messages_of(response) == [f"Paused: {kind} {name}."]
    pause = WorkflowPause.objects.get()
    assert (pause.kind, pause.name, pause.reason, pause.by) == (kind, name, "down", "root")
    page = root.get(url("overview")).content.decode()
    assert name in page and "down" in page and url("resume_more", pause.pk) in page
    again = root.post(url("pause_more"), {"kind": kind, "name": name})
    assert messages_of(again)[-1] == "Nothing was done: it is paused already."
    assert f"{kind.title()} {name} is paused, since" in root.get(url("resume_more", pause.pk)).content.decode()
    assert messages_of(root.post(url("resume_more", pause.pk)))[-1] == f"Resumed: {kind} {name}."
    assert not WorkflowPause.objects.exists()
    assert "not paused any more" in messages_of(root.post(url("resume_more", pause.pk)))[-1]
    entries = LogEntry.objects.filter(object_id=str(pause.pk)).order_by("pk")
    assert [entry.get_change_message() for entry in entries] == ["Paused. down", "Resumed."]


@pytest.mark.parametrize(
    "data",
    [{"kind": "workflow", "name": "three_stepz"}, {"kind": "queue", "name": ""}, {"kind": "queue", "name": "a\x01"}],
)
def test_a_name_that_makes_no_sense_is_refused(root, data):  # noqa: F811
    assert root.post(url("pause_more"), data).status_code == 200
    assert not WorkflowPause.objects.exists()


def test_the_overview_takes_the_permission(staff):  # noqa: F811
    pause = WorkflowPause.objects.pause_queue("mail")
    without, having = staff("view"), staff("view", "pause")
    page = without.get(url("overview")).content.decode()
    assert "mail" in page and url("resume_more", pause.pk) not in page and url("pause_more") not in page
    for address in (url("pause_more"), url("resume_more", pause.pk)):
        assert without.get(address).status_code == without.post(address).status_code == 403
        assert having.get(address).status_code == 200
