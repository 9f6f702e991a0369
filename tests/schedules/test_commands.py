"""`syncschedules` is tested with what it writes; here is what `showschedules` shows, and cron expressions in words."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError
from django.utils.translation import override

from django_steps.models import WorkflowRun, WorkflowSchedule
from django_steps.presentation.cron import in_words
from tests.commands.conftest import run_command  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def rows(tidy, pass_time, fire):
    WorkflowSchedule.objects.create(name="hourly", workflow="tidy", every="1h")
    WorkflowSchedule.objects.create(name="nightly", workflow="tidy", cron="30 2 * * *", timezone="Europe/Berlin").pause(
        "holidays", by="eve"
    )
    WorkflowSchedule.objects.create(name="strange", workflow="tidy", cron="0 3 1,2,3,4,5 * *", timezone="UTC")
    WorkflowSchedule.objects.filter(name="strange").update(disabled_reason="no live code has it", next_at_us=None)
    pass_time("1h")
    fire()
    pass_time("1h")
    fire()


def test_list(rows, run_command):  # noqa: F811
    header, hourly, nightly, strange = run_command("showschedules").out.splitlines()
    assert header.split() == ["SCHEDULE", "WORKFLOW", "WHEN", "NEXT", "LAST", "RUN"]
    assert hourly.startswith("hourly    tidy      every 1h ")
    assert hourly.endswith("pending   1 skipped: 1 while a run was active")
    assert "every day at 02:30 (Europe/Berlin)" in nightly and nightly.endswith("paused by eve: holidays")
    assert "days 1, 2, 3, 4, 5 of each month at 03:00 (UTC)" in strange
    assert strange.endswith("disabled: no live code has it")


def test_one(rows, run_command):  # noqa: F811
    out = run_command("showschedules", "nightly").out
    assert "every day at 02:30 (Europe/Berlin)" in out and "paused by eve: holidays" in out
    assert sum(line.split()[-2].startswith("02:30") for line in out.splitlines() if line.startswith("next")) == 5
    run = WorkflowRun.objects.get()
    assert str(run.pk) in run_command("showschedules", "hourly").out


def test_json(rows, run_command):  # noqa: F811
    hourly, nightly, strange = json.loads(run_command("showschedules", "--json").out)
    assert (hourly["name"], hourly["every"], hourly["cron"], hourly["overlap"]) == ("hourly", "1h", None, "skip")
    assert hourly["last_run"] == {"id": str(WorkflowRun.objects.get().pk), "status": "pending"}
    assert hourly["skipped"]["counts"] == {"overlap": 1} and len(hourly["skipped"]["last"]) == 1
    assert len(hourly["next_times"]) == 5
    assert (nightly["paused_by"], nightly["pause_reason"], nightly["next_at"]) == ("eve", "holidays", None)
    assert strange["disabled_reason"] == "no live code has it"
    assert [item["name"] for item in json.loads(run_command("showschedules", "hourly", "--json").out)] == ["hourly"]


def test_nothing_to_show(run_command):  # noqa: F811
    assert run_command("showschedules").out == "There are no schedules.\n"
    with pytest.raises(CommandError, match="There is no schedule with the name 'x'"):
        run_command("showschedules", "x")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/15 * * * 1-5", "Monday to Friday, every 15 minutes"),
        ("0 * * * *", "every hour"),
        ("5 * * * *", "every hour, 5 minutes past"),
        ("0 */6 * * *", "every 6 hours"),
        ("30 2 * * *", "every day at 02:30"),
        ("0,30 9,17 * * *", "every day at 09:00, 09:30, 17:00, 17:30"),
        ("30 2 * * 1-5", "Monday to Friday at 02:30"),
        ("30 2 * * SUN,3", "Wednesday, Sunday at 02:30"),
        ("0 0 1 * *", "day 1 of each month at 00:00"),
        ("0 0 1,15 * *", "days 1, 15 of each month at 00:00"),
        ("0 0 L * *", "the last day of each month at 00:00"),
        ("0 12 24 12 *", "day 24 of December at 12:00"),
        ("0 12 * JUN *", "every day in June at 12:00"),
        ("@daily", "every day at 00:00"),
        ("@yearly", "day 1 of January at 00:00"),
        ("not cron", "not cron"),
        ("61 * * * *", "61 * * * *"),
    ],
)
def test_cron_in_words(expression, words):
    assert in_words(expression) == words


@pytest.mark.parametrize("expression", ["*/7 * * * *", "0 0 13 * 5", "10-20/5 4 * * *", "0 0 * * 5L", "0 9 * * 1#2"])
def test_what_is_rare_is_explained_by_the_library(expression):
    assert len(in_words(expression).split()) > 5


def test_names_of_days_are_those_of_the_language():
    with override("de"):
        assert "Montag" in in_words("30 2 * * 1-5")


# -- backfillschedule -------------------------------------------------------------------------------


@pytest.fixture
def nightly(tidy):
    return WorkflowSchedule.objects.create(
        name="nightly", workflow="tidy", cron="30 2 * * *", timezone="Europe/Berlin", input={"a": 1}
    )


def test_backfill_starts_what_is_missing_and_nothing_twice(nightly, run_command):  # noqa: F811
    dry = run_command("backfillschedule", "nightly", "--from", "2026-03-28", "--to", "2026-03-31", "--dry-run").out
    assert dry.splitlines() == [
        "2026-03-28 02:30:00 CET  would be started",
        "2026-03-29 03:00:00 CEST  would be started",
        "2026-03-30 02:30:00 CEST  would be started",
        "3 of 3: would be started.",
    ]
    assert not WorkflowRun.objects.exists()
    run_command("backfillschedule", "nightly", "--from", "2026-03-29", "--to", "2026-03-30T02:30")
    [run] = WorkflowRun.objects.all()
    assert (run.schedule, run.key, run.input) == ("nightly", "schedule:nightly:2026-03-29T01:00:00Z", {"a": 1})
    again = run_command("backfillschedule", "nightly", "--from", "2026-03-28", "--to", "2026-03-31").out
    assert [line.rpartition("  ")[2] for line in again.splitlines()] == [
        "started",
        "has a run",
        "started",
        "2 of 3: started.",
    ]
    assert WorkflowRun.objects.count() == 3


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("other", "--from", "2026-03-28", "--to", "2026-03-31"), "There is no schedule with the name 'other'"),
        (("nightly", "--from", "2026-03-28", "--to", "2100-01-01"), "lies in the future"),
        (("nightly", "--from", "yesterday", "--to", "2026-03-31"), "'yesterday' is no time"),
        (("nightly", "--from", "2026-02-30", "--to", "2026-03-31"), "out of range|day is out"),
        (("nightly", "--from", "1970-01-01", "--to", "2026-03-31"), "more than 10000 times"),
    ],
)
def test_backfill_says_what_is_wrong(nightly, run_command, arguments, what):  # noqa: F811
    with pytest.raises(CommandError, match=what):
        run_command("backfillschedule", *arguments)


def test_backfill_of_a_disabled_schedule_is_refused(nightly, run_command):  # noqa: F811
    WorkflowSchedule.objects.update(disabled_reason="no live code has workflow 'tidy'")
    with pytest.raises(CommandError, match="Schedule 'nightly' is disabled"):
        run_command("backfillschedule", "nightly", "--from", "2026-03-28", "--to", "2026-03-31")


def test_schedules_are_paused_and_resumed_by_the_commands_for_that(rows, run_command):  # noqa: F811
    said = run_command(
        "pauseworkflows", "--schedule", "hourly", "--schedule", "nightly", "--reason", "down", "--by", "bob"
    ).out
    assert said == "Schedule hourly is paused.\nSchedule nightly is paused already.\n"
    hourly, nightly = WorkflowSchedule.objects.filter(name__in=["hourly", "nightly"]).order_by("name")
    assert (hourly.is_paused, hourly.pause_reason, hourly.paused_by) == (True, "down", "bob")
    assert nightly.pause_reason == "holidays"
    assert run_command("resumeworkflows", "--schedule", "hourly").out == "Schedule hourly is resumed.\n"
    hourly.refresh_from_db()
    assert not hourly.is_paused
    with pytest.raises(CommandError, match="Schedule hourly is not paused"):
        run_command("resumeworkflows", "--schedule", "hourly")
    for command in ("pauseworkflows", "resumeworkflows"):
        with pytest.raises(CommandError, match="no schedule missing: see showschedules"):
            run_command(command, "--schedule", "nightly", "--schedule", "missing")
