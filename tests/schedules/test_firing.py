"""Firing: once for each slot, by three statements for all that is due; what is missed, what overlaps."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from django_steps import Schedule, workflow
from django_steps.core import clock
from django_steps.definitions import scheduling
from django_steps.ledger import schedules as ledger
from django_steps.ledger import timers
from django_steps.models import WorkflowRun, WorkflowSchedule
from tests.plans import analyze, is_scan, plan_of, recorded_statements, rows_looked_at
from tests.wire import counted

from .conftest import now, schedule

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = 1_000_000
HOUR = 3600 * SECOND  # between two slots: in seconds, real time would make another one now and then


def often(**options):
    """A workflow that is scheduled every hour, and written into the table."""

    @workflow(name="often", schedule=Schedule(every="1h", **options))
    def body(input, step):
        step.define("work", lambda: None).run()

    scheduling.sync()
    return body


def slots_of(name="often"):
    return [
        clock.to_microseconds(moment)
        for moment in WorkflowRun.objects.filter(schedule=name)
        .order_by("scheduled_for")
        .values_list("scheduled_for", flat=True)
    ]


def test_it_fires_when_its_time_has_come_and_not_before(fire, pass_time):
    often(input={"shop": 7})
    assert fire() == 0
    pass_time("1h")
    assert fire() == 1
    assert fire() == 0
    [run] = WorkflowRun.objects.all()
    moment = run.scheduled_for
    assert clock.to_microseconds(moment) % HOUR == 0
    assert run.schedule == "often"
    assert run.key == f"schedule:often:{moment:%Y-%m-%dT%H:%M:%S}Z"
    assert (run.workflow, run.input, run.status) == ("often", {"shop": 7}, "pending")
    row = schedule("often")
    assert (row.last_slot, row.last_run) == (moment, run)
    assert row.next_at == moment + timedelta(hours=1)


def test_run_gets_queue_and_priority_of_the_schedule_or_of_the_workflow(fire, pass_time):
    @workflow(
        name="w",
        version="2",
        queue="mail",
        priority=5,
        schedule=[Schedule(every="1h", name="a"), Schedule(every="1h", name="b", queue="bulk", priority=-5)],
    )
    def body(step):
        pass

    scheduling.sync()
    pass_time("1h")
    assert fire() == 2
    a, b = WorkflowRun.objects.order_by("schedule")
    assert (a.version, a.queue, a.priority) == ("2", "mail", 5)
    assert (b.version, b.queue, b.priority) == ("2", "bulk", -5)


def test_schedule_of_the_database_follows_the_latest_version_of_its_workflow(fire, pass_time):
    @workflow(name="w", version="1", queue="old")
    def first(input, step):
        pass

    WorkflowSchedule.objects.create(name="x", workflow="w", every="1h", input={"a": 1})

    @workflow(name="w", version="2", queue="new", priority=3)
    def second(input, step):
        pass

    pass_time("1h")
    fire()
    [run] = WorkflowRun.objects.all()
    assert (run.version, run.queue, run.priority, run.input) == ("2", "new", 3, {"a": 1})


def test_two_who_fire_at_once_start_one_run(pass_time):
    often()
    pass_time("1h")
    row = schedule("often")
    before = row.next_at_us
    assert ledger.fire(connection, scheduling.targets()).runs == 1
    # As if the other's snapshot were older, or the clock had been put back: the key decides.
    WorkflowSchedule.objects.update(next_at_us=before)
    ledger.fire(connection, scheduling.targets())
    assert WorkflowRun.objects.count() == 1


def test_process_that_does_not_know_the_workflow_leaves_it_alone(pass_time):
    often()
    pass_time("1h")
    targets = {name: target for name, target in scheduling.targets().items() if name != "often"}
    assert ledger.fire(connection, targets).runs == 0
    assert ledger.fire(connection, {}).runs == 0
    assert timers.next_due(connection, [*targets]).schedule is None
    assert timers.next_due(connection, ["often"]).schedule == 0


# -- Missed -----------------------------------------------------------------------------------------


def test_of_several_missed_slots_the_latest_fires(fire, pass_time):
    often()
    first = schedule("often").next_at_us
    pass_time("1h")
    pass_time("4h")
    assert fire() == 1
    assert slots_of() == [first + 4 * HOUR]
    said = schedule("often").skipped
    assert said["counts"] == {"missed": 4}
    assert said["last"] == [{"slot": clock.to_datetime(first + 3 * HOUR), "reason": "missed"}]
    assert timezone.now() - timedelta(minutes=1) < said["since"] < timezone.now() + timedelta(hours=5, minutes=2)


def test_missed_slots_are_left_out_if_the_schedule_says_so(fire, pass_time):
    @workflow(schedule=Schedule("@hourly", missed="skip"))
    def hourly(step):
        pass

    scheduling.sync()
    first = schedule("hourly").next_at_us
    clock.offset_us += first - now() + 61 * SECOND
    assert fire() == 0
    assert schedule("hourly").skipped["counts"] == {"missed": 1}
    assert schedule("hourly").next_at_us == first + 3600 * SECOND
    pass_time("1h")
    clock.offset_us -= 30 * SECOND
    assert fire() == 1, "half a minute late is not missed"
    assert slots_of("hourly") == [first + 3600 * SECOND]


# -- Overlap ----------------------------------------------------------------------------------------


def end(run, status="succeeded"):
    """As a worker ends it."""
    moves = WorkflowRun.objects.filter(pk=run.pk)
    if status == "canceled":
        run.cancel()
    else:
        moves.update(status=status, phase=2, finished_at=timezone.now(), open_schedule=None)


@pytest.mark.parametrize("status", ["pending", "running", "sleeping", "waiting", "canceling"])
def test_slot_is_skipped_while_a_run_is_active(fire, pass_time, status):
    often()
    pass_time("1h")
    fire()
    WorkflowRun.objects.update(status=status)
    pass_time("1h")
    assert fire() == 0
    assert len(slots_of()) == 1
    assert schedule("often").skipped["counts"] == {"overlap": 1}
    pass_time("1h")
    fire()
    assert schedule("often").skipped["counts"] == {"overlap": 2}
    end(WorkflowRun.objects.get())
    pass_time("1h")
    assert fire() == 1


def test_only_what_is_kept_of_the_skips_is_the_last_ones(fire, pass_time):
    often()
    pass_time("1h")
    fire()
    for _ in range(25):
        pass_time("1h")
        fire()
    said = schedule("often").skipped
    assert said["counts"] == {"overlap": 25} and len(said["last"]) == 20
    assert said["last"][0]["slot"] > said["last"][-1]["slot"]


def test_any_number_of_runs_is_active_where_overlap_is_allowed(fire, pass_time):
    often(overlap="allow")
    for _ in range(3):
        pass_time("1h")
        assert fire() == 1
    assert len(slots_of()) == 3 and schedule("often").skipped["counts"] == {}


def test_run_of_another_schedule_of_the_same_workflow_is_no_overlap(fire, pass_time):
    body = often()
    WorkflowSchedule.objects.create(name="other", workflow="often", every="1h")
    body.start()
    pass_time("1h")
    assert fire() == 2


@pytest.mark.parametrize("how", ["succeeded", "canceled"])
def test_run_that_has_ended_is_not_active(fire, pass_time, work, how):
    often()
    pass_time("1h")
    fire()
    run = WorkflowRun.objects.get()
    work() if how == "succeeded" else run.cancel()
    run.refresh_from_db()
    assert (run.status, run.open_schedule) == (how, None)
    pass_time("1h")
    assert fire() == 1


def test_run_that_is_retried_is_active_again(fire, pass_time, work):
    @workflow(schedule=Schedule(every="1h"))
    def failing(step):
        raise ValueError

    scheduling.sync()
    pass_time("1h")
    work()
    run = WorkflowRun.objects.get(schedule="failing")
    assert run.status == "failed"
    run.retry()
    pass_time("1h")
    assert fire() == 0


def test_run_that_has_continued_as_another_is_active_as_long_as_that_one_is(pass_time, work):
    @workflow(schedule=Schedule(every="1h"))
    def going_on(input, step):
        if input is None:
            return step.continue_as_new({"round": 2})
        return step.sleep("long", "1h")

    scheduling.sync()
    pass_time("1h")
    work()
    first, second = WorkflowRun.objects.order_by("pk")
    assert (first.schedule, second.schedule) == ("going_on", "going_on")
    assert first.scheduled_for == second.scheduled_for
    assert (first.open_schedule, second.open_schedule) == (None, "going_on")
    assert second.key == f"schedule:going_on:{second.scheduled_for:%Y-%m-%dT%H:%M:%S}Z"


# -- Many -------------------------------------------------------------------------------------------


def many(count, **options):
    """Rows of schedules, written as `bulk_create` does."""
    rows = [
        WorkflowSchedule(name=f"s{number:05}", workflow="tidy", every="1h", next_at_us=now() + HOUR, **options)
        for number in range(count)
    ]
    WorkflowSchedule.objects.bulk_create(rows, batch_size=500)


def test_a_hundred_are_fired_by_three_statements_of_one_transaction(pass_time, tidy, monkeypatch):
    monkeypatch.setattr("django_steps.ledger.notify.INTERVAL", 1e9)
    many(100)
    targets = scheduling.targets()
    pass_time("1h")
    connection.ensure_connection()
    with counted(connection) as wire:
        fired = ledger.fire(connection, targets)
    assert (fired.runs, fired.is_more) == (100, True)
    # SQLite looks before it takes the lock on the file, and takes so many parameters only.
    expected = {"postgresql": 3, "mysql": 3, "sqlite": 5}[connection.vendor]
    assert wire.statements <= expected and wire.transactions == (2 if connection.vendor == "sqlite" else 1)


def test_what_is_more_than_a_hundred_comes_with_the_next_transaction(fire, pass_time, tidy):
    many(250)
    pass_time("1h")
    assert [fire(), fire(), fire(), fire()] == [100, 100, 50, 0]
    assert WorkflowRun.objects.count() == 250


def test_a_look_beside_ten_thousand_schedules_reads_a_few_rows_by_an_index(tidy):
    many(10_000)
    WorkflowSchedule.objects.update(next_at_us=F("next_at_us") + 3600 * SECOND)
    analyze("django_steps_workflowschedule")
    with counted(connection) as wire:
        timers.next_due(connection, ["tidy"])
    assert wire.statements == 1
    with rows_looked_at() as looked, recorded_statements() as statements:
        due = timers.next_due(connection, ["tidy"])
    assert due.schedule is not None and due.schedule > 3000 * SECOND
    assert looked[0] <= (
        200 if connection.vendor == "sqlite" else 5
    )  # of SQLite's steps: some dozens for each of four indexes
    [(statement, params)] = statements
    plan = plan_of(statement, params)
    assert "django_steps_next" in plan and not is_scan(plan), plan


# -- What is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken", [{"every": "", "cron": "not cron"}, {"every": "", "cron": "@daily", "timezone": "Mars"}]
)
def test_row_that_is_damaged_is_disabled_and_holds_up_no_other(fire, pass_time, tidy, broken, caplog):
    many(3)
    WorkflowSchedule.objects.filter(name="s00001").update(**broken)
    WorkflowSchedule.objects.filter(name="s00002").update(skipped_text="damaged")
    pass_time("1h")
    assert fire() == 2
    row = schedule("s00001")
    assert row.is_disabled and row.next_at is None
    assert "Schedule 's00001' can't be fired any more" in caplog.text
    assert fire() == 0


def test_ids_of_runs_are_kept_as_the_database_keeps_ids(fire, pass_time, tidy):
    many(1)
    pass_time("1h")
    fire()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id FROM django_steps_workflowrun r, django_steps_workflowschedule s WHERE s.last_run_id = r.id"
        )
        assert len(cursor.fetchall()) == 1


def test_statements_do_not_hold_what_people_entered(fire, pass_time, tidy):
    WorkflowSchedule.objects.create(name="x", workflow="tidy", every="1h", input={"token": "top-secret"})
    pass_time("1h")
    with recorded_statements() as statements:
        fire()
    assert not any("top-secret" in statement for statement, _ in statements)


# -- By a worker ------------------------------------------------------------------------------------


def test_worker_writes_the_schedules_of_the_code_fires_and_executes(work, pass_time):
    @workflow(schedule=Schedule(every="1h"))
    def ticking(run, step):
        return step.define("which", lambda: run.scheduled_for.isoformat()).run()

    work()
    assert WorkflowRun.objects.count() == 0
    pass_time("1h")
    work()
    [run] = WorkflowRun.objects.all()
    assert (run.status, datetime.fromisoformat(run.output)) == ("succeeded", run.scheduled_for)


def test_schedule_that_is_due_later_does_not_keep_a_worker_from_being_idle(work, tidy):
    WorkflowSchedule.objects.create(name="x", workflow="tidy", every="1d")
    work()
    assert WorkflowRun.objects.count() == 0


def test_worker_says_which_schedules_its_code_has(work, monkeypatch):
    @workflow(schedule=[Schedule(every="1h"), Schedule("@daily", name="daily")])
    def ticking(step):
        pass

    from django_steps.models import Worker as Row

    work()
    assert set(Row.objects.get().schedules) >= {"ticking", "daily"}
