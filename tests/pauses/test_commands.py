"""`pauseworkflows` and `resumeworkflows`, and what the others say of what is paused."""

from __future__ import annotations

import getpass
import json
from datetime import timedelta

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from django_steps.models import WorkflowPause, WorkflowRun
from tests.app.workflows import sleeper, three_steps
from tests.commands.conftest import run_command  # noqa: F401
from tests.staging import status_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_runs_are_paused_and_resumed(run_command):  # noqa: F811
    run, other = three_steps.start({}), three_steps.start({})
    assert run_command("pauseworkflows", str(run.pk), "--reason", "why not").out == "1 run is paused.\n"
    run.refresh_from_db()
    assert (run.status, run.pause_reason, run.paused_by) == ("paused", "why not", getpass.getuser())
    assert status_of(other) == "pending"
    assert run_command("resumeworkflows", str(run.pk), "--by", "eve").out == "1 run is resumed.\n"
    assert status_of(run) == "pending"


def test_a_rehearsal_changes_nothing(run_command):  # noqa: F811
    run = three_steps.start({})
    assert "1 run would be paused." in run_command("pauseworkflows", str(run.pk), "--dry-run").out
    assert status_of(run) == "pending"
    run.pause()
    assert "1 run would be resumed." in run_command("resumeworkflows", str(run.pk), "--dry-run").out
    assert status_of(run) == "paused"


def test_what_can_not_be_paused_is_named(run_command):  # noqa: F811
    run = three_steps.start({})
    run.cancel()
    for command, verb in (("pauseworkflows", "paused"), ("resumeworkflows", "resumed")):
        with pytest.raises(CommandError, match=f"can't be {verb}: it is canceled"):
            run_command(command, str(run.pk))


def test_queues_and_workflows_are_paused_and_resumed(run_command):  # noqa: F811
    printed = run_command("pauseworkflows", "--queue", "mail", "--workflow", "three_steps", "--reason", "down").out
    assert printed == "Queue mail is paused.\nWorkflow three_steps is paused.\n"
    assert set(WorkflowPause.objects.values_list("kind", "name", "reason", "by")) == {
        ("queue", "mail", "down", getpass.getuser()),
        ("workflow", "three_steps", "down", getpass.getuser()),
    }
    again = run_command("pauseworkflows", "--queue", "mail", "--by", "bob").out
    assert again.startswith("Queue mail is paused already, since ") and "down" in again
    assert run_command("resumeworkflows", "--queue", "mail").out == "Queue mail is resumed.\n"
    with pytest.raises(CommandError, match=r"Queue mail is not paused\."):
        run_command("resumeworkflows", "--queue", "mail")
    assert run_command("resumeworkflows", "--workflow", "three_steps").out == "Workflow three_steps is resumed.\n"


@pytest.mark.parametrize("command", ["pauseworkflows", "resumeworkflows"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say what"),
        (["0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f", "--queue", "mail"], "not both"),
        (["--queue", "mail", "--dry-run"], "--dry-run is for RUN_IDs"),
        (["0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f"], "There is no run"),
    ],
)
def test_what_makes_no_sense_is_refused(run_command, command, arguments, said):  # noqa: F811
    with pytest.raises(CommandError, match=said):
        run_command(command, *arguments)


def test_a_workflow_that_nobody_knows_is_not_paused(run_command):  # noqa: F811
    with pytest.raises(CommandError, match="three_stepz"):
        run_command("pauseworkflows", "--queue", "mail", "--workflow", "three_stepz")
    assert not WorkflowPause.objects.exists()


def test_showworkflows_says_who_has_paused_a_run_and_what_holds_it(run_command, work):  # noqa: F811
    run, held = three_steps.start({}), sleeper.start({"duration": "1h"}, queue="mail")
    work()
    (run := three_steps.start({})).pause(reason="closed", by="eve")
    run_command("pauseworkflows", "--queue", "mail")
    listed = run_command("showworkflows").out
    assert "by eve: closed" in listed and "queue mail is paused; waits until" in listed
    one = run_command("showworkflows", str(run.pk)).out
    assert "paused, by eve: closed" in one
    assert "queue mail is paused" in run_command("showworkflows", str(held.pk)).out
    shown = json.loads(run_command("showworkflows", str(run.pk), "--json").out)
    assert (shown["status"], shown["pause_reason"], shown["paused_by"]) == ("paused", "closed", "eve")
    assert shown["paused_at"]
    assert str(run.pk) in run_command("showworkflows", "--status", "paused").out


def test_the_health_check_reports_old_pauses_and_not_what_they_hold(run_command, live_worker, pass_time):  # noqa: F811
    live_worker()
    run = three_steps.start({}, queue="mail")
    WorkflowPause.objects.pause_queue("mail", "down", "eve")
    old = timezone.now() - timedelta(days=2)
    WorkflowRun.objects.update(created_at=old, phase=0)  # nobody has parked it
    assert run_command("showworkflows", "--check").out.startswith("OK")
    WorkflowPause.objects.update(since=old)
    with pytest.raises(CommandError):
        run_command("showworkflows", "--check")
    from io import StringIO

    from django.core.management import call_command

    out = StringIO()
    with pytest.raises(CommandError):
        call_command("showworkflows", "--check", stdout=out, skip_checks=True)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("Queue mail is paused for more than 24 hours: since ") and "by eve: down" in line
    assert run.queue == "mail"


def test_what_is_left_paused_is_told_by_until_idle(run_command, transactional_db):  # noqa: F811
    three_steps.start({}).pause()
    three_steps.start({}, queue="mail")
    WorkflowPause.objects.pause_queue("mail")
    out = run_command("runworkflows", "--until-idle", "--poll-interval", "0.05").out
    assert "Left paused: 2 runs." in out


def test_waiting_for_what_is_paused_says_how_to_resume_it(live_worker):
    from django.db import connection

    from django_steps.models.diagnosis import why_unclaimed

    live_worker(workflows=[["three_steps", ""]])
    run = three_steps.start({}, queue="mail")
    assert why_unclaimed(connection, run) is None
    three_steps.pause()
    assert why_unclaimed(connection, run).text() == (
        "The workflow 'three_steps' is paused. Resume it with:   manage.py resumeworkflows --workflow three_steps"
    )
    WorkflowPause.objects.pause_queue("mail")
    assert "resumeworkflows --queue mail" in why_unclaimed(connection, run).text()
    run.resume()
    assert why_unclaimed(connection, run) is None
    run.pause()
    assert why_unclaimed(connection, run).command == f"resumeworkflows {run.pk}"
