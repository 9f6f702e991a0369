"""What some worker does for all: pruning in small batches, beside everything else and never in its way."""

import time

import pytest
from django.db import connection

from django_steps.core import clock
from django_steps.ledger import claims, database, pruning, tables, unknown, workers
from django_steps.models import StepRecord, Worker, WorkflowRun
from django_steps.worker.maintenance import Maintenance
from tests.app.workflows import sleeper, three_steps, tiny
from tests.staging import Background, claim, eventually, locked, make_terms

pytestmark = pytest.mark.django_db(transaction=True)


def test_finished_runs_are_pruned_with_their_steps_when_they_are_old(work, pass_time, settings):
    settings.DJANGO_STEPS = {"RETENTION": "30d"}
    old = three_steps.start({}, key="order-7")
    canceled = tiny.start({})
    canceled.cancel()
    work()
    asleep = sleeper.start({"duration": "90d"})
    work()
    pass_time("31d")
    fresh = tiny.start({})
    work()
    # An in-process worker ends before it would begin, so that the round is asked for here.
    WorkflowRun.objects.filter(pk=fresh.pk).update(finished_at=clock.to_datetime(database.read_clock(connection)))
    Maintenance("default")._do()
    assert set(WorkflowRun.objects.values_list("pk", flat=True)) == {asleep.pk, fresh.pk}
    assert set(StepRecord.objects.values_list("run_id", flat=True)) == {asleep.pk, fresh.pk}
    assert three_steps.start({}, key="order-7").created  # the key is free again
    assert old.pk


def test_without_retention_everything_is_kept(work, pass_time):
    tiny.start({})
    work()
    pass_time("1000d")
    Maintenance("default")._do()
    assert WorkflowRun.objects.count() == 1


def test_pruning_goes_in_small_batches(work, pass_time):
    tiny.start_many([{}] * 5)
    work()
    pass_time("1h")
    now = database.read_clock(connection)
    assert pruning.count(connection, now) == 5
    assert [pruning.prune(connection, now, limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_batch_is_smaller_where_runs_have_many_steps(work, pass_time, monkeypatch):
    monkeypatch.setattr(pruning, "STEPS_AT_ONCE", 4)
    for _ in range(4):
        three_steps.start({})
    work()
    pass_time("1h")
    now = database.read_clock(connection)
    counts = []
    while count := pruning.prune(connection, now):
        counts.append(count)
    assert counts == [1, 1, 1, 1]
    assert not StepRecord.objects.exists()


def test_a_locked_run_is_pruned_another_time(work, pass_time):
    runs = tiny.start_many([{}] * 3)
    work()
    pass_time("1h")
    now = database.read_clock(connection)
    with locked(runs[0]):
        pruning_ = Background(lambda: pruning.prune(connection, now))
        pruning_.join(0.3)
    assert pruning_.result() == (3 if connection.vendor == "sqlite" else 2)
    assert pruning.prune(connection, now) == (0 if connection.vendor == "sqlite" else 1)


def test_a_pruned_runs_restart_stays_and_forgets_where_it_came_from(work, pass_time):
    run = tiny.start({})
    work()
    new = run.restart()
    pruning.prune(connection, database.read_clock(connection) + 1)
    new.refresh_from_db()
    assert new.restart_of_id is None


def test_an_error_puts_housekeeping_off_and_ends_nothing(monkeypatch, caplog):
    from django_steps.worker import maintenance

    monkeypatch.setattr(maintenance, "_INTERVAL", 0.05)
    monkeypatch.setattr(maintenance, "_FIRST_ROUND_AFTER", 0.01)
    rounds = []

    def bring_back(*given):
        rounds.append(1)
        if len(rounds) == 1:
            raise RuntimeError("a mistake")
        return 0

    monkeypatch.setattr(unknown, "bring_back", bring_back)
    ended = []
    keeping = Maintenance("default", lambda: ended.append(len(rounds)))
    keeping.start()
    try:
        eventually(lambda: len(rounds) > 2)
    finally:
        keeping.stop()
    assert any("Maintenance could not be done" in record.getMessage() for record in caplog.records)
    assert ended[:2] == [1, 2]  # after a round that failed, too


def test_housekeeping_stops_between_two_batches(monkeypatch, settings):
    from django_steps.worker import maintenance

    settings.DJANGO_STEPS = {"RETENTION": "1d"}
    monkeypatch.setattr(maintenance, "_FIRST_ROUND_AFTER", 0.01)
    batches = []
    monkeypatch.setattr(pruning, "prune", lambda *given, **named: batches.append(1) or time.sleep(0.01) or 200)
    keeping = Maintenance("default")
    keeping.start()
    eventually(lambda: len(batches) > 3)
    began = time.monotonic()
    keeping.stop()
    assert time.monotonic() - began < 2
    count = len(batches)
    time.sleep(0.05)
    assert len(batches) == count


def test_rows_of_workers_that_are_long_gone_are_forgotten_and_what_they_held_is_taken_over(pass_time):
    make_terms()
    run = tiny.start({})
    claim(run, make_terms())
    pass_time("8d")
    alive = make_terms()
    workers.delete_old(connection)
    assert set(Worker.objects.values_list("pk", flat=True)) == {alive.worker_id}
    assert not claims.claim(connection, alive, 1).runs  # only suspected so far
    pass_time("1m")
    assert [found.run_id for found in claims.claim(connection, alive, 1).runs] == [run.pk]


def test_workers_that_stopped_or_fell_silent_know_nothing(pass_time):
    first, second = make_terms(), make_terms()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.WORKER} SET workflows = %s WHERE id = %s", ['[["a", ""]]', first.worker_id])
        cursor.execute(f"UPDATE {tables.WORKER} SET workflows = %s WHERE id = %s", ['[["b", "2"]]', second.worker_id])
    assert workers.known_kinds(connection) == {("a", ""), ("b", "2")}
    workers.say_stopped(connection, first.worker_id)
    assert workers.known_kinds(connection) == {("b", "2")}
    pass_time("1h")
    assert workers.known_kinds(connection) == set()


def test_looking_for_parked_runs_walks_over_no_others():
    """A worker asks every few seconds whether some are to be brought back."""
    tiny.start_many([{}] * 3000)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.RUN} SET phase = {tables.ENDED}, status = 'succeeded'")
        cursor.execute({"mysql": f"ANALYZE TABLE {tables.RUN}"}.get(connection.vendor, f"ANALYZE {tables.RUN}"))
        cursor.execute(
            f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}SELECT 1 FROM {tables.RUN}"
            f" WHERE phase = {tables.UNKNOWN} AND (version = '' AND workflow IN ('tiny')) LIMIT 1"
        )
        plan = str(cursor.fetchall())
    # MySQL has full indexes on the phase, and any of them will do.
    assert ("django_steps_" if connection.vendor == "mysql" else "django_steps_ready") in plan, plan
    assert "'ALL'" not in plan, plan
