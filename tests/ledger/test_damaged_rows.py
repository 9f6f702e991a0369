"""A row that was damaged (by hand, by a restored backup, by a disk) ends no worker and keeps nobody from the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import CharField, TextField
from django.urls import reverse
from django.utils import timezone

from django_steps import RetryAfter, RetryPolicy, workflow
from django_steps.ledger import tables
from django_steps.models import StepRecord, WorkflowRun
from django_steps.models import Worker as WorkerRow
from tests.app.workflows import three_steps
from tests.staging import claim, make_terms, recover, status_of, step_write

pytestmark = pytest.mark.django_db(transaction=True)

DAMAGED = ["{", "nul", "null", "5", "{}", "[1]", '[{"at": "x"}]', "[[]]", "[" * 100_000, "�"]
if connection.vendor != "postgresql":  # whose text takes no NUL
    DAMAGED.append("[\0]")


def damage(table, column, value, condition="1 = 1"):
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = %s WHERE {condition}", [value])


def undecodable(table, column):
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = CAST(x'5bff5d' AS TEXT)")


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: repr(text[:20]))
def test_recovery_goes_on_whatever_its_log_holds(work, pass_time, text):
    terms = make_terms(lease=1)
    run = three_steps.start({})
    claim(run, terms)
    damage(tables.RUN, "recovery_log", text)
    recover(terms)
    work(concurrency=1)
    assert status_of(run) == "succeeded"
    assert [entry["worker"] for entry in run.recovery_log] == ["a-host:4711"]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: repr(text[:20]))
def test_run_whose_texts_are_damaged_is_shown(admin_client, capsys, text):
    from django_steps.ledger import records

    run = three_steps.start({})
    records.record(connection, step_write(claim(run), "first"))
    for column in ("recovery_log", "input", "output", "error"):
        damage(tables.RUN, column, text)
    for column in ("attempt_log", "output", "error", "context"):
        damage(tables.STEP, column, text)
    for arguments in ([], [str(run.pk)], ["--json"], [str(run.pk), "--json"]):
        call_command("showworkflows", *arguments)
    assert admin_client.get(reverse("admin:django_steps_workflowrun_changelist")).status_code == 200
    url = reverse("admin:django_steps_workflowrun_change", args=[run.pk])
    assert admin_client.get(url, follow=True).status_code == 200


@pytest.mark.parametrize("text", ["{", "nul", "[" * 100_000, "�"], ids=lambda text: repr(text[:20]))
def test_input_that_is_damaged_is_the_failure_of_its_run_alone(work, text):
    damaged = three_steps.start({})
    damage(tables.RUN, "input", text)
    whole = three_steps.start({})
    work(concurrency=1)
    assert (status_of(damaged), status_of(whole)) == ("failed", "succeeded")


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: repr(text[:20]))
def test_log_of_attempts_that_is_damaged_holds_up_no_attempt(work, pass_time, text):
    @workflow
    def flaky(step):
        step.define("flaky", lambda: 1 / 0, retry=RetryPolicy(max_attempts=3, initial_interval="1h")).run()

    run = flaky.start()
    work(concurrency=1)
    for _ in range(2):
        damage(tables.STEP, "attempt_log", text)
        pass_time("2h")
        work(concurrency=1)
    assert status_of(run) == "failed"
    damage(tables.STEP, "attempt_log", text)
    run.retry()
    damage(tables.STEP, "context", text)
    assert run.steps.get().context == {}


def test_run_whose_status_nobody_knows_is_shown_beside_all_others(admin_client, capsys):
    damaged, whole = three_steps.start({}, delay="1h"), three_steps.start({})
    WorkflowRun.objects.filter(pk=damaged.pk).update(status="lost")
    for page in ("changelist", "overview"):
        assert admin_client.get(reverse(f"admin:django_steps_workflowrun_{page}")).status_code == 200
    for page in ("change", "retry", "cancel", "restart"):
        url = reverse(f"admin:django_steps_workflowrun_{page}", args=[damaged.pk])
        assert admin_client.get(url, follow=True).status_code == 200
    call_command("showworkflows")
    call_command("showworkflows", str(damaged.pk))
    assert str(whole.pk) in capsys.readouterr().out


@pytest.mark.parametrize("found", [None, 5, {}, [1], [[]], [["a", 1]], [None], "x"], ids=repr)
def test_worker_whose_row_is_damaged_keeps_no_other_from_working(work, live_worker, found, capsys, admin_client):
    row = live_worker()
    damage(tables.WORKER, "workflows", json.dumps(found))
    damage(tables.WORKER, "queues", json.dumps(found))
    from django_steps.worker.maintenance import Maintenance

    run = three_steps.start({})
    Maintenance("default")._do()
    call_command("showworkflows")
    for page in ("changelist", "overview"):
        assert admin_client.get(reverse(f"admin:django_steps_workflowrun_{page}")).status_code == 200
    work(concurrency=1)
    assert status_of(run) == "succeeded"
    assert WorkerRow.objects.filter(pk=row.pk).exists()


if connection.vendor == "sqlite":

    @pytest.mark.parametrize("column", ["input", "recovery_log", "current_step", "error", "cancel_reason"])
    def test_text_of_a_run_that_cannot_be_decoded_ends_no_worker(work, column):
        terms = make_terms(lease=1)
        damaged = three_steps.start({})
        claim(damaged, terms)
        undecodable(tables.RUN, column)
        recover(terms)
        whole = three_steps.start({})
        work(concurrency=1)
        assert status_of(whole) == "succeeded"
        found = WorkflowRun.objects.values_list("status", flat=True).get(pk=damaged.pk)
        assert found == ("failed" if column == "input" else "succeeded")

    @pytest.mark.parametrize("column", ["output", "error", "attempt_log", "context"])
    def test_text_of_a_step_that_cannot_be_decoded_ends_no_worker(work, column):
        from django_steps.ledger import records

        terms = make_terms(lease=1)
        damaged = three_steps.start({})
        records.record(connection, step_write(claim(damaged, terms), "first"))
        undecodable(tables.STEP, column)
        recover(terms)
        whole = three_steps.start({})
        work(concurrency=1)
        assert status_of(whole) == "succeeded"
        assert status_of(damaged) in ("failed", "succeeded")

    TEXTS = [(tables.RUN, field) for field in WorkflowRun._meta.concrete_fields] + [
        (tables.STEP, field) for field in StepRecord._meta.concrete_fields
    ]
    TEXTS = [(table, field.column) for table, field in TEXTS if isinstance(field, (CharField, TextField))]

    @pytest.mark.parametrize(("table", "column"), TEXTS)
    def test_row_whose_text_cannot_be_decoded_is_shown_beside_all_others(admin_client, capsys, table, column):
        from django_steps.ledger import records

        damaged, whole = three_steps.start({}, key="k"), three_steps.start({})
        records.record(connection, step_write(claim(damaged), "first"))
        condition = f"id = '{damaged.pk.hex}'" if table == tables.RUN else "1 = 1"
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = CAST(x'5bff5d' AS TEXT) WHERE {condition}")
        for page in ("changelist", "overview"):
            answer = admin_client.get(reverse(f"admin:django_steps_workflowrun_{page}"))
            assert answer.status_code == 200
        answer = admin_client.get(reverse("admin:django_steps_workflowrun_changelist"))
        assert str(damaged.pk) in answer.text and str(whole.pk) in answer.text
        for page in ("change", "retry", "cancel", "restart", "history", "delete"):
            url = reverse(f"admin:django_steps_workflowrun_{page}", args=[damaged.pk])
            assert admin_client.get(url, follow=True).status_code in (200, 403)
        for arguments in ([], ["--json"], [str(damaged.pk)], [str(damaged.pk), "--json"]):
            call_command("showworkflows", *arguments)
            assert str(damaged.pk) in capsys.readouterr().out
        assert connection.connection.text_factory is str  # for what follows on this connection

    def test_worker_whose_workflows_cannot_be_decoded_ends_no_other(work, live_worker):
        from django_steps.worker.maintenance import Maintenance

        live_worker()
        undecodable(tables.WORKER, "host")
        run = three_steps.start({})
        Maintenance("default")._do()
        work(concurrency=1)
        assert status_of(run) == "succeeded"


# -- Times ------------------------------------------------------------------------------------------

BEYOND = [2**63 - 1, -(2**63), 253_402_300_799_999_999, -62_135_596_800_000_000]


@pytest.mark.parametrize("time_zone", ["UTC", "Pacific/Auckland", "Pacific/Honolulu"])
@pytest.mark.parametrize("moment", BEYOND)
def test_time_that_no_datetime_can_hold_is_shown_all_the_same(admin_client, settings, capsys, moment, time_zone):
    settings.TIME_ZONE = time_zone
    terms = make_terms()
    run = three_steps.start({}, delay="1h")
    other = three_steps.start({})
    claimed = claim(other, terms)
    from django_steps.ledger import records

    write = step_write(
        claimed, "a sleep", kind="sleep", status="waiting", output=None, finished_at=None, wakes_at_us=moment
    )
    records.record(connection, write)
    WorkflowRun.objects.filter(pk=run.pk).update(available_at_us=moment)
    for shown in (run, other):
        call_command("showworkflows", str(shown.pk))
        call_command("showworkflows", str(shown.pk), "--json")
        url = reverse("admin:django_steps_workflowrun_change", args=[shown.pk])
        assert admin_client.get(url, follow=True).status_code == 200
    call_command("showworkflows")
    call_command("showworkflows", "--json")
    assert admin_client.get(reverse("admin:django_steps_workflowrun_changelist")).status_code == 200
    run.refresh_from_db()
    assert isinstance(run.wakes_at, datetime) and isinstance(StepRecord.objects.get().wakes_at, datetime)


@pytest.mark.parametrize("moment", [datetime.max, datetime.min, datetime(9001, 1, 1), datetime(1899, 12, 31)])
def test_time_that_nothing_can_be_counted_from_is_refused(work, moment):
    moment = moment.replace(tzinfo=UTC)
    with pytest.raises(ValueError, match=r"start_at= takes a datetime of the years 1900 to 9000"):
        three_steps.start({}, start_at=moment)

    @workflow
    def endless(step):
        step.sleep_until("x", moment)

    run = endless.start()
    work(concurrency=1)
    run.refresh_from_db()
    assert (run.status, run.error["type"]) == ("failed", "ValueError")
    assert "sleep_until() takes a datetime of the years 1900 to 9000" in run.error["message"]


@pytest.mark.parametrize("moment", [datetime(9000, 12, 31), datetime(1900, 1, 1)])
def test_farthest_times_are_waited_for_and_shown(work, admin_client, moment):
    @workflow
    def patient(step):
        step.sleep_until("x", moment.replace(tzinfo=UTC))

    run = patient.start()
    three_steps.start({}, start_at=moment.replace(tzinfo=UTC))
    work(concurrency=1)
    assert status_of(run) == ("sleeping" if moment > datetime(2000, 1, 1) else "succeeded")
    assert admin_client.get(reverse("admin:django_steps_workflowrun_changelist")).status_code == 200


class Spoiled(RetryAfter):
    def __init__(self, delay):
        Exception.__init__(self, "later")
        self.delay = delay


@pytest.mark.parametrize("delay", [timedelta.max, timedelta.min, "soon", None, 10**30, float("nan"), timezone.now])
def test_delay_that_nothing_can_be_counted_from_is_the_policys(delay):
    policy = RetryPolicy(max_attempts=3, initial_interval="2s", jitter=False)
    assert policy.delay_after(1, Spoiled(delay)) == timedelta(seconds=2)
    del (error := Spoiled(delay)).delay
    assert policy.delay_after(1, error) == timedelta(seconds=2)
