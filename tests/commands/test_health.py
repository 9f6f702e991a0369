"""`showworkflows --check`: what it calls healthy, and a line for each thing that isn't."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from django_steps import workflow
from django_steps.ledger import database, dialect
from django_steps.ledger.tables import RUN
from django_steps.models import Worker, WorkflowRun
from tests.app.workflows import sleeper, three_steps

pytestmark = pytest.mark.django_db


def check() -> tuple[bool, list[str]]:
    """Whether all is well, and the lines that were printed."""
    out = StringIO()
    try:
        call_command("showworkflows", "--check", "--no-color", stdout=out, skip_checks=True)
    except CommandError as error:
        lines = out.getvalue().splitlines()
        assert f"{len(lines)} problem" in str(error)
        return False, lines
    return True, out.getvalue().splitlines()


def seen_ago(seconds: int) -> int:
    return database.read_clock(connection) - seconds * 1_000_000


def test_a_live_worker_and_nothing_overdue_is_healthy(live_worker):
    live_worker()
    three_steps.start({})
    assert check() == (True, ["OK: 1 live worker, nothing overdue."])


def test_json_says_the_same(live_worker, run_command):
    live_worker()
    assert json.loads(run_command("showworkflows", "--check", "--json").out) == {"ok": True, "problems": []}


@pytest.mark.parametrize("fields", [None, {"stopped_at": "now"}, {"seen_ago": 91}], ids=["none", "stopped", "silent"])
def test_no_live_worker_is_a_problem(live_worker, fields):
    if fields == {"stopped_at": "now"}:
        live_worker(stopped_at=timezone.now())
    elif fields:
        live_worker(last_seen_us=seen_ago(fields["seen_ago"]))
    is_well, lines = check()

    assert not is_well
    assert len(lines) == 1
    assert lines[0].startswith("No worker is running. Start one with:   ")


def test_a_worker_is_live_within_three_of_its_leases(live_worker):
    live_worker(last_seen_us=seen_ago(80))
    assert check()[0]


def test_runs_that_have_been_ready_for_too_long_are_overdue(live_worker, pass_time):
    three_steps.start({}, queue="bulk")
    pass_time("61s")
    live_worker(queues=["default"])
    is_well, lines = check()

    assert not is_well
    assert lines[0].startswith("1 run in queue 'bulk' has been ready for more than 60 s, since ")
    assert lines[0].endswith("No live worker serves this queue.")


def test_a_run_that_was_just_retried_is_not_overdue(live_worker, pass_time):
    run = three_steps.start({})
    run.cancel()
    pass_time("2h")
    run.retry()
    live_worker()
    assert check()[0]


def test_a_delayed_run_is_overdue_only_after_its_time(live_worker, pass_time):
    three_steps.start({}, delay="1h")
    pass_time("50m")
    live_worker()
    assert check()[0]
    pass_time("12m")
    Worker.objects.update(last_seen_us=database.read_clock(connection))
    assert "1 sleeping or delayed run is overdue by more than 60 s" in check()[1][0]


def test_a_run_whose_dead_worker_nobody_replaces_is_a_problem(live_worker):
    run = sleeper.start({"duration": "1h"})
    worker = live_worker()
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {RUN} SET phase = 1, status = 'running', worker_id = %s, available_at_us = %s WHERE id = %s",
            [worker.pk, seen_ago(61), dialect.key(connection, run.pk)],
        )
    assert "1 run of a dead worker was not recovered within 60 s" in check()[1][0]


@pytest.mark.parametrize("phase", [WorkflowRun.Phase.READY, WorkflowRun.Phase.UNKNOWN])
def test_runs_that_no_live_worker_knows_are_a_problem(live_worker, phase):
    @workflow(version="2")
    def renamed(input): ...

    live_worker()
    renamed.start({})
    WorkflowRun.objects.update(phase=phase)
    is_well, lines = check()

    assert not is_well
    assert lines == [
        "1 run of workflow 'renamed' version '2' waits, which no live worker knows: was it renamed or removed?"
    ]


def test_where_only_the_version_is_missing_the_known_ones_are_named(live_worker):
    @workflow(version="2")
    def renewed(input): ...

    live_worker(workflows=[["renewed", "1"], ["renewed", ""]])
    renewed.start({})
    assert check()[1] == [
        "1 run of workflow 'renewed' in version '2' waits: live workers know it only without a version, in version '1'."
    ]


def test_a_missing_migration_is_the_only_problem_told(live_worker):
    MigrationRecorder(connection).record_unapplied("django_steps", "0001_initial")
    is_well, lines = check()
    assert not is_well
    assert len(lines) == 1
    assert "Database 'default' lacks tables of django_steps. Create them with:" in lines[0]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", [["showworkflows", "--check"], ["showworkflows"], ["runworkflows"]])
def test_a_database_that_cannot_be_reached_is_told_in_one_line(monkeypatch, command):
    database = connections["default"]
    database.close()
    unreachable = {"sqlite": {"NAME": "/nowhere/at/all.sqlite3"}}.get(connection.vendor, {"PORT": "1"})
    for key, value in unreachable.items():
        monkeypatch.setitem(database.settings_dict, key, value)
    out = StringIO()
    try:
        with pytest.raises(CommandError) as caught:
            call_command(*command, stdout=out, skip_checks=True)
    finally:
        database.close()
    told = out.getvalue() or str(caught.value)
    assert "Database 'default' can't be reached: " in told
    assert len(told.strip().splitlines()) == 1


def test_the_check_takes_few_queries(live_worker, django_assert_max_num_queries):
    live_worker()
    three_steps.start_many([{}] * 5)
    with django_assert_max_num_queries(13):
        assert check()[0]
