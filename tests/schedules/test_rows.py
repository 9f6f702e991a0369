"""`WorkflowSchedule`: rows that people make; pausing, resuming, running now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ValidationError

from django_steps import InvalidState, Schedule, StartOutsideStep, workflow
from django_steps.core import clock
from django_steps.definitions import scheduling
from django_steps.models import WorkflowRun, WorkflowSchedule

from .conftest import now, schedule

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Customer:
    customer: int


@pytest.fixture
def syncing():
    def body(input, step):
        pass

    body.__annotations__["input"] = Customer
    return workflow(name="syncing")(body)


def create(**options):
    given = {"name": "customer-7", "workflow": "syncing", "cron": "0 * * * *", "input": {"customer": 7}}
    return WorkflowSchedule.objects.create(**{**given, **options})


# -- Saving -----------------------------------------------------------------------------------------


def test_row_is_made_as_any_other_row(syncing, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    create()
    row = schedule("customer-7")
    assert (row.source, row.timezone, row.overlap, row.missed) == ("database", "Europe/Berlin", "skip", "latest")
    assert row.input == Customer(7), "checked, and of the type that the workflow takes"
    assert row.next_at.minute == 0 and row.next_at > timezone_now()
    assert str(row) == "customer-7"


def timezone_now():
    return clock.to_datetime(now())


@pytest.mark.parametrize(
    ("options", "field", "what"),
    [
        ({"workflow": "sincing"}, "workflow", "Unknown workflow 'sincing'"),
        ({"version": "9"}, "workflow", "Unknown workflow 'syncing' version '9'"),
        ({"input": {"custmer": 7}}, "__all__", "does not fit Customer"),
        ({"cron": "0 25 * * *"}, "cron", "Bad hour"),
        ({"cron": ""}, "cron", "either"),
        ({"every": "10s"}, "every", "either"),
        ({"cron": "", "every": "ten"}, "every", "Not a duration"),
        ({"cron": "", "every": "10s", "timezone": "UTC"}, "timezone", "is for cron"),
        ({"timezone": "Mars/Olympus"}, "timezone", "Unknown time zone"),
        ({"overlap": "queue"}, "overlap", "is not a valid choice"),
        ({"missed": "all"}, "missed", "is not a valid choice"),
        ({"name": ""}, "name", "cannot be blank"),
        ({"name": "x" * 201}, "name", "at most 200 characters"),
        ({"name": "a\nb"}, "name", "can't contain"),
        ({"pause_after": 0}, "pause_after", "At least 1"),
        ({"pause_after": -1}, "pause_after", "greater than or equal to 0"),
        ({"spread": "soon"}, "spread", "Not a duration"),
        ({"priority": 1000}, "priority", "-100 to 100"),
        ({"queue": " q"}, "queue", "white space"),
    ],
)
def test_save_validates(syncing, options, field, what):
    with pytest.raises(ValidationError) as raised:
        create(**options)
    assert what in " ".join(raised.value.message_dict[field])
    assert not WorkflowSchedule.objects.exists()


def test_names_are_taken_once(syncing):
    create()
    with pytest.raises(ValidationError, match="already exists"):
        create()


def test_durations_are_kept_as_text(syncing):
    row = create(cron="", every=timedelta(minutes=90), spread=30)
    assert (row.every, row.spread) == ("1h30m", "30s")


def test_changed_time_counts_from_now_on(syncing, pass_time, fire):
    create(cron="", every="1h")
    pass_time("3h")
    row = schedule("customer-7")
    row.every = "2h"
    row.save()
    assert schedule("customer-7").next_at_us > now()
    assert fire() == 0


def test_save_does_not_put_back_what_workers_and_operators_have_written(syncing, pass_time, fire):
    create(cron="", every="1h")
    read_before = schedule("customer-7")
    pass_time("1h")
    assert fire() == 1
    after = schedule("customer-7")
    read_before.overlap = "allow"
    read_before.save()
    row = schedule("customer-7")
    assert (row.overlap, row.next_at_us, row.last_slot_us) == ("allow", after.next_at_us, after.last_slot_us)

    read_before = schedule("customer-7")
    schedule("customer-7").pause()
    read_before.every = "5h"
    read_before.save()
    row = schedule("customer-7")
    assert (row.every, row.is_paused, row.next_at) == ("5h", True, None)


def test_name_stays(syncing):
    row = create()
    row.name = "other"
    with pytest.raises(ValidationError, match="keeps its name"):
        row.save()


def test_what_the_code_defines_is_not_changed_here():
    @workflow(schedule=Schedule("@daily"))
    def nightly(step):
        pass

    scheduling.sync()
    row = schedule("nightly")
    row.cron = "@hourly"
    with pytest.raises(TypeError, match="is defined in code"):
        row.save()


# -- What people read -------------------------------------------------------------------------------


def test_next_times_are_in_the_zone_of_the_schedule(syncing):
    row = create(cron="30 2 * * *", timezone="Europe/Berlin")
    found = row.next_times(3, after=datetime(2026, 3, 27, 12, tzinfo=UTC))
    berlin = ZoneInfo("Europe/Berlin")
    assert [moment.isoformat() for moment in found] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert found[0].tzinfo == berlin
    assert len(row.next_times()) == 5


# -- Pause ------------------------------------------------------------------------------------------


def test_paused_schedule_does_not_fire_and_makes_up_for_nothing(syncing, pass_time, fire):
    row = create(cron="", every="1h")
    row.pause("too much", by="eve")
    assert (row.is_paused, row.pause_reason, row.paused_by, row.next_at) == (True, "too much", "eve", None)
    at = row.paused_at
    row.pause("again", by="bob")
    assert (row.pause_reason, row.paused_by, row.paused_at) == ("too much", "eve", at)
    pass_time("5h")
    assert fire() == 0
    row.resume()
    assert (row.is_paused, row.pause_reason, row.paused_by, row.paused_at) == (False, "", "", None)
    assert row.next_at_us > now()
    assert fire() == 0
    pass_time("1h")
    assert fire() == 1
    before = row.next_at_us
    row.resume()
    assert schedule("customer-7").next_at_us != before, "it has fired meanwhile; nothing else has changed"


def test_twins_for_async_code(syncing):
    row = create()

    async def verbs():
        await row.apause("x")
        paused = row.is_paused
        await row.aresume()
        return paused, row.is_paused, await row.arun_now()

    paused, still, run = async_to_sync(verbs)()
    assert (paused, still, run.schedule) == (True, False, "customer-7")


# -- Run now ----------------------------------------------------------------------------------------


def test_run_now_starts_a_run_whatever_else_is_active(syncing, pass_time, fire):
    row = create(cron="", every="1h", queue="bulk")
    pass_time("1h")
    fire()
    row.pause()
    run = row.run_now(by="eve")
    again = row.run_now()
    assert run.pk != again.pk
    assert (run.schedule, run.queue, run.key, run.input) == ("customer-7", "bulk", None, Customer(7))
    assert abs(clock.to_microseconds(run.scheduled_for) - now()) < 60_000_000
    assert row.runs.count() == 3


def test_run_now_is_refused_while_nothing_knows_the_workflow(syncing):
    row = create()
    WorkflowSchedule.objects.update(disabled_reason="no live code has workflow 'syncing'")
    with pytest.raises(InvalidState, match="'customer-7' is disabled: no live code"):
        row.run_now()


def test_run_now_is_an_overlap_for_the_next_slot(syncing, pass_time, fire):
    row = create(cron="", every="1h")
    row.run_now()
    pass_time("1h")
    assert fire() == 0


@pytest.mark.parametrize("verb", ["pause", "resume", "run_now", "save"])
def test_verbs_are_refused_in_a_body_outside_steps(syncing, work, verb):
    row = create()

    @workflow
    def calling(step):
        getattr(row, verb)()

    run = calling.start()
    work()
    run.refresh_from_db()
    assert run.error["type"].endswith(StartOutsideStep.__name__)


def test_runs_of_a_schedule_newest_first(syncing, pass_time, fire):
    row = create(cron="", every="1h", overlap="allow")
    for _ in range(3):
        pass_time("1h")
        fire()
    slots = list(row.runs.values_list("scheduled_for", flat=True))
    assert len(slots) == 3 and slots == sorted(slots, reverse=True)
    assert WorkflowRun.objects.filter(schedule="customer-7").count() == 3
