"""Tags of schedules reach the runs that they start."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.urls import reverse

from django_steps import Schedule, workflow
from django_steps.definitions import scheduling
from django_steps.ledger import schedules as ledger
from django_steps.models import WorkflowRun, WorkflowSchedule
from tests.commands.conftest import run_command  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def often():
    @workflow(
        name="tags_often", tags={"kind": "sync", "by": "clock"}, schedule=Schedule(every="10s", tags={"by": "code"})
    )
    def often(step):
        return None

    scheduling.sync()
    return often


def fire() -> None:
    ledger.fire(connection, scheduling.targets())


def test_runs_have_the_tags_of_the_workflow_and_of_the_schedule(often, pass_time):
    WorkflowSchedule.objects.create(name="tags-acme", workflow="tags_often", every="10s", tags={"tenant": "acme"})
    WorkflowSchedule.objects.create(name="tags-plain", workflow="tags_often", every="10s")
    pass_time("10s")
    fire()
    tags = {run.schedule: run.tags for run in WorkflowRun.objects.all()}
    assert tags == {
        "tags_often": {"kind": "sync", "by": "code"},
        "tags-acme": {"kind": "sync", "by": "clock", "tenant": "acme"},
        "tags-plain": {"kind": "sync", "by": "clock"},
    }
    assert WorkflowRun.objects.tagged(tenant="acme").count() == 1
    run = WorkflowSchedule.objects.get(name="tags-acme").run_now()
    assert run.tags["tenant"] == "acme"
    assert WorkflowRun.objects.tagged(tenant="acme").count() == 2


def test_tags_are_said_of_the_schedule(often, run_command):  # noqa: F811
    row = WorkflowSchedule.objects.get(name="tags_often")
    assert row.tags == {"by": "code"}
    assert repr(Schedule(every="10s", tags={"a": "b"})) == "Schedule(every='10s', tags={'a': 'b'})"
    assert "by=code" in run_command("showschedules", "tags_often").out
    [shown] = json.loads(run_command("showschedules", "tags_often", "--json").out)
    assert shown["tags"] == {"by": "code"}


@pytest.mark.parametrize(
    "tags", [{"tenant": 7}, ["tenant"], "tenant", {"about": "x"}, {f"t{n}": "x" for n in range(21)}]
)
def test_bad_tags_are_refused(often, tags):
    with pytest.raises(ValidationError) as refused:
        WorkflowSchedule.objects.create(name="tags-bad", workflow="tags_often", every="10s", tags=tags)
    assert list(refused.value.message_dict) == ["tags"]
    with pytest.raises((TypeError, ValueError)):
        Schedule(every="10s", tags=tags)


def test_schedule_whose_runs_would_have_too_many_tags_is_disabled_and_says_why(often, pass_time):
    full = {f"t{number}": "x" for number in range(20)}
    WorkflowSchedule.objects.create(name="tags-full", workflow="tags_often", every="10s", tags=full)
    pass_time("10s")
    fire()
    row = WorkflowSchedule.objects.get(name="tags-full")
    assert "at most 20 tags, these are 22" in row.disabled_reason
    assert not WorkflowRun.objects.filter(schedule="tags-full").exists()
    assert WorkflowRun.objects.filter(schedule="tags_often").exists()


def test_schedule_is_given_tags_in_the_admin(often):
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    data = {
        "name": "tags-typed",
        "workflow": "tags_often",
        "every": "10s",
        "overlap": "skip",
        "missed": "latest",
        "tags": '{"tenant": "acme"}',
    }
    assert root.post(reverse("admin:django_steps_workflowschedule_add"), data).status_code == 302
    row = WorkflowSchedule.objects.get(name="tags-typed")
    assert row.tags == {"tenant": "acme"}
    page = root.get(reverse("admin:django_steps_workflowschedule_change", args=[row.pk])).content.decode()
    assert "tenant=acme" in page
    wrong = root.post(reverse("admin:django_steps_workflowschedule_add"), {**data, "name": "w", "tags": '{"a": 1}'})
    assert "is a text, got 1" in wrong.content.decode()
