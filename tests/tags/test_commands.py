"""`--tag` on the command line."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError

from django_steps import workflow
from django_steps.models import WorkflowRun
from tests.app.models import Person
from tests.commands.conftest import run_command  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def failing():
    @workflow(name="tags_failing", tags={"kind": "test"})
    def failing(step):
        raise ValueError("no")

    return failing


def test_runs_are_started_and_shown_by_their_tags(run_command, failing):  # noqa: F811
    run_command("startworkflow", "tags_failing", "--tag", "tenant=acme", "--tag", "note=a=b")
    failing.start(tags={"tenant": "other"})
    run = WorkflowRun.objects.tagged(tenant="acme").get()
    assert run.tags == {"kind": "test", "tenant": "acme", "note": "a=b"}
    out = run_command("showworkflows", "--tag", "tenant=acme", "--tag", "kind=test").out
    assert str(run.pk) in out
    assert out.count("tags_failing") == 1
    assert run_command("showworkflows", "--tag", "tenant=nobody").out == "No runs match.\n"


def test_tags_are_in_the_details_of_a_run_and_in_json(run_command, failing):  # noqa: F811
    person = Person.objects.create(name="Ann")
    run = failing.start(tags={"tenant": "acme"}, about=person)
    out = run_command("showworkflows", str(run.pk)).out
    assert "kind=test, tenant=acme" in out
    assert f"person {person.pk}" in out
    [shown] = json.loads(run_command("showworkflows", "--json", "--tag", f"about=app.person:{person.pk}").out)
    assert shown["tags"] == {"kind": "test", "tenant": "acme"}
    assert shown["about"] == f"app.person:{person.pk}"
    plain = failing.start()
    assert json.loads(run_command("showworkflows", str(plain.pk), "--json").out)["about"] is None


def test_runs_are_retried_and_canceled_by_their_tags(run_command, failing, work):  # noqa: F811
    one = failing.start(tags={"tenant": "acme"})
    failing.start(tags={"tenant": "other"})
    work()
    assert "1 run is retried." in run_command("retryworkflows", "--all-failed", "--tag", "tenant=acme").out
    assert WorkflowRun.objects.active().get() == one
    failing.start(tags={"tenant": "third"})
    assert "1 run would be canceled." in run_command("cancelworkflows", "--tag", "tenant=acme", "--dry-run").out
    assert "1 run is canceled." in run_command("cancelworkflows", "--tag", "tenant=acme").out
    assert WorkflowRun.objects.active().get().tags["tenant"] == "third"
    assert (
        "0 runs are canceled."
        in run_command(
            "cancelworkflows", "--tag", "tenant=third", "--workflow", "tags_failing", "--status", "sleeping"
        ).out
    )
    assert WorkflowRun.objects.active().count() == 1


def test_too_many_tags_are_one_clear_line(run_command, failing):  # noqa: F811
    given = [part for number in range(20) for part in ("--tag", f"t{number}=x")]
    with pytest.raises(CommandError, match="at most 20 tags, these are 21"):
        run_command("startworkflow", "tags_failing", *given)
    assert not WorkflowRun.objects.exists()
