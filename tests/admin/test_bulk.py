"""Actions on a selection: they ask first, skip what can't be done, and report."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.messages import get_messages

from django_steps.admin.actions import bulk
from django_steps.models import WorkflowRun

from .conftest import add_step, error_of, failed_run, handled_run, make_run, url


def ask(client, action, runs, **more):
    data = {"action": action, "_selected_action": [str(run.pk) for run in runs], "index": "0", **more}
    return client.post(url("changelist"), data)


def answer(client, page):
    """Press the button of the page that asks."""
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.content.decode())
    return client.post(url("changelist"), {name: unescape(value) for name, value in fields})


def report(response):
    return str(list(get_messages(response.wsgi_request))[-1])


def test_retry_says_what_will_happen_and_reports_what_was_skipped(root):
    failed = [failed_run() for _ in range(3)]
    runs = [*failed, make_run("succeeded"), make_run("succeeded")]
    page = ask(root, "retry", runs)
    text = page.content.decode()
    assert "3 runs will be retried" in text
    assert "3 runs of three_steps continue with step “charge”." in text
    assert 'value="Retry 3 runs"' in text
    assert "2 (already succeeded) will be skipped" in text
    assert WorkflowRun.objects.filter(status="pending").count() == 0
    assert report(answer(root, page)) == "3 retried (from step “charge”), 2 skipped: already succeeded"
    assert set(WorkflowRun.objects.filter(status="pending")) == set(failed)
    assert LogEntry.objects.filter(action_flag=CHANGE).count() == 3


def test_retry_skips_a_handled_failure_and_says_why(root):
    page = ask(root, "retry", [failed_run(), handled_run()])
    reason = "its failure was handled: open it to choose a step"
    assert "1 run will be retried" in page.content.decode()
    assert f"1 ({reason}) will be skipped" in page.content.decode()
    assert report(answer(root, page)) == f"1 retried (from step “charge”), 1 skipped: {reason}"


def test_retry_of_a_handled_failure_only_has_no_button(root):
    text = ask(root, "retry", [handled_run()]).content.decode()
    assert "There is nothing to do" in text
    assert 'name="runs"' not in text


def test_retry_names_the_steps_from_which_the_runs_continue(root):
    raised = make_run("failed", error_text=error_of(ValueError("by the body")))
    add_step(raised, "charge")
    runs = [
        failed_run("ship", workflow="order"),
        failed_run("ship", workflow="order"),
        failed_run('odd "name"] } <b>', error=ValueError('"step": null, "steps": ["fake"]}')),
        raised,
        make_run("canceled"),
        make_run("failed", error_text="{damaged"),
    ]
    page = ask(root, "retry", runs)
    text = page.content.decode()
    assert "2 runs of order continue with step “ship”." in text
    assert "1 run of three_steps continues with step “odd &quot;name&quot;] } &lt;b&gt;”." in text
    assert "3 runs of three_steps have their bodies called again, and no recorded step is executed again." in text
    note = '3 without executing a recorded step again, 2 from step “ship”, 1 from step “odd "name"] } <b>”'
    assert report(answer(root, page)) == f"6 retried ({note})"
    entries = {entry.object_id: entry.get_change_message() for entry in LogEntry.objects.all()}
    assert entries[str(runs[0].pk)] == "Retried: the run continues with step “ship”."
    assert entries[str(raised.pk)] == "Retried: the body is called again, and no recorded step is executed again."


def test_retry_after_dead_workers_names_the_step_that_was_reached(root):
    error = json.dumps({"type": "WorkerDied", "message": "", "traceback": "", "step": "crash", "steps": []})
    page = ask(root, "retry", [make_run("failed", error_text=error)])
    assert "1 run of three_steps continues with step “crash”." in page.content.decode()
    assert report(answer(root, page)) == "1 retried (from step “crash”)"


def test_retry_of_many_steps_names_the_first(root):
    page = ask(root, "retry", [failed_run(f"step_{number}") for number in range(8)])
    text = page.content.decode()
    assert text.count("1 run of three_steps continues with step") == 5
    assert "3 runs continue with other steps." in text
    assert report(answer(root, page)).endswith(", …)")


def test_number_of_queries_does_not_depend_on_the_number_of_runs(root, django_assert_max_num_queries):
    counts = []
    for number in (1, 20):
        runs = [failed_run(f"step_{index}") for index in range(number)]
        with django_assert_max_num_queries(30) as queries:
            ask(root, "retry", runs)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_pressed_twice_the_second_press_skips_everything(root):
    page = ask(root, "retry", [failed_run()])
    answer(root, page)
    assert report(answer(root, page)) == "0 retried, 1 skipped: already pending"


def test_cancel_ends_those_that_have_not_ended(root):
    page = ask(root, "cancel", [make_run("sleeping"), make_run("pending"), failed_run()])
    assert report(answer(root, page)) == "2 canceled, 1 skipped: already failed"
    assert WorkflowRun.objects.filter(status="canceled").count() == 2


def test_restart_starts_new_runs_and_logs_both(root):
    page = ask(root, "restart", [make_run("succeeded"), make_run("failed"), make_run("running")])
    assert report(answer(root, page)) == "2 restarted, 1 skipped: already running"
    assert WorkflowRun.objects.exclude(restart_of=None).count() == 2
    assert LogEntry.objects.filter(action_flag=ADDITION).count() == 2


def test_delete_keeps_those_that_have_not_ended(root):
    kept = make_run("running")
    page = ask(root, "delete", [failed_run(), kept])
    assert report(answer(root, page)) == "1 deleted, 1 skipped: already running"
    assert list(WorkflowRun.objects.all()) == [kept]
    assert LogEntry.objects.filter(action_flag=DELETION).count() == 1


def test_everything_that_the_filter_finds_can_be_selected_up_to_a_limit(root, monkeypatch):
    monkeypatch.setattr(bulk, "AT_MOST", 3)
    runs = [make_run("failed") for _ in range(5)]
    page = ask(root, "retry", runs[:1], select_across="1")
    assert "Only the newest 3 of the selected runs" in page.content.decode()
    answer(root, page)
    assert set(WorkflowRun.objects.filter(status="pending")) == set(runs[2:])


def test_when_nothing_can_be_done_there_is_no_button(root):
    page = ask(root, "cancel", [make_run("succeeded")])
    assert "There is nothing to do" in page.content.decode()
    assert 'type="submit"' not in page.content.decode().split('id="content-main"')[1]


@pytest.mark.parametrize("action", ["retry", "cancel", "restart", "delete"])
def test_actions_need_their_permission(staff, action):
    run = failed_run()
    client = staff("view")
    ask(client, action, [run])
    client.post(
        url("changelist"),
        {"action": action, "_selected_action": str(run.pk), "runs": str(run.pk), "select_across": "1"},
    )
    assert list(WorkflowRun.objects.values_list("status", flat=True)) == ["failed"]
