"""The worker's loop: who executes what, once, in which order, and what must not hold it up."""

import threading
import time

import pytest
from django.db import OperationalError, ProgrammingError, connection, connections, transaction
from django.db.backends.signals import connection_created

from django_steps import workflow
from django_steps.core import clock
from django_steps.ledger import claims, database, histories, tables
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import sleeper, spawner, tiny
from tests.staging import SECOND, Background, eventually, locked, lose_connection, status_of

pytestmark = pytest.mark.django_db(transaction=True)


# -- Each run once -------------------------------------------------------------------------------


def test_many_runs_and_four_workers_execute_each_run_once(start_worker):
    tiny.start_many([{}] * 300)
    workers = [start_worker("--until-idle", "--concurrency", "4") for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}
    runs = list(effects.Effect.objects.values_list("run", flat=True))
    assert len(runs) == len(set(runs)) == 300


def test_until_idle_executes_what_runs_start_and_leaves_sleepers(start_worker):
    spawner.start({"children": 3})
    asleep = sleeper.start({"duration": "1h"})
    assert start_worker("--until-idle").wait() == 0
    assert effects.count("spawner") == 1 + 3 + 3 * 2 + 3 * 2 * 1
    assert status_of(asleep) == "sleeping"
    assert not WorkflowRun.objects.exclude(pk=asleep.pk).exclude(status="succeeded").exists()


def test_max_runs_claims_no_more(work):
    tiny.start_many([{}] * 5)
    work(max_runs=3, until_idle=False)
    assert WorkflowRun.objects.filter(status="succeeded").count() == 3
    assert WorkflowRun.objects.filter(status="pending").count() == 2


def test_a_worker_serves_its_queues_only(work):
    mine, other = tiny.start({}, queue="mine"), tiny.start({}, queue="other")
    third = tiny.start({}, queue="third")
    work(queues=["mine", "third"])
    assert [status_of(run) for run in (mine, other, third)] == ["succeeded", "pending", "succeeded"]


def test_larger_priorities_come_first_then_older_runs(work):
    @workflow(name="ordered")
    def ordered(input, step):
        step.define("leave", effects.leave).run(input)

    for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -5)):
        ordered.start(name, priority=priority)
    work(concurrency=1)
    assert effects.names() == ["b", "d", "a", "c", "e"]


# -- Nobody waits for nothing --------------------------------------------------------------------


def test_one_slow_run_keeps_no_other_thread_idle(running):
    go_on = threading.Event()

    @workflow(name="slow_one")
    def slow_one(input, step):
        step.define("slow", lambda: go_on.wait(10)).run()

    slow = slow_one.start({})
    running(concurrency=2)
    eventually(lambda: status_of(slow) == "running")
    runs = tiny.start_many([{}] * 20)
    eventually(lambda: not WorkflowRun.objects.filter(workflow="tiny").exclude(status="succeeded"), timeout=5)
    assert status_of(slow) == "running" and len(runs) == 20
    go_on.set()


def test_a_busy_worker_hides_no_runs_from_an_idle_one(running):
    """What was claimed ahead, when passes were quick, is given back when no thread gets free for it."""
    go_on = threading.Event()

    @workflow(name="slow_all")
    def slow_all(input, step):
        step.define("slow", lambda: go_on.wait(20)).run()

    busy = running(concurrency=1)
    first = slow_all.start({})
    busy._place.threads._prefetch.usual = 0.001
    eventually(lambda: status_of(first) == "running")
    behind = tiny.start({})
    eventually(lambda: len(busy._place.threads.held()) == 2)
    running(concurrency=1)
    behind.result(timeout=6)
    assert len(busy._place.threads.held()) == 1
    go_on.set()


def test_a_full_worker_leaves_new_runs_to_an_idle_one(running):
    """It doesn't take them ahead, give them back and take them again before anybody else can."""
    go_on = threading.Event()

    @workflow(name="long_one")
    def long_one(input, step):
        step.define("long", lambda: go_on.wait(30)).run()

    try:
        busy = running(concurrency=8)
        long_ones = long_one.start_many([{}] * 8)
        eventually(lambda: all(status_of(run) == "running" for run in long_ones))
        busy._place.threads._prefetch.usual = 0.001
        running(concurrency=1)
        for _ in range(4):
            tiny.start({}).result(timeout=5)
    finally:
        go_on.set()


def test_what_was_claimed_ahead_of_long_runs_is_soon_given_back(running):
    go_on = threading.Event()

    @workflow(name="long_first", priority=1)
    def long_first(input, step):
        step.define("long", lambda: go_on.wait(30)).run()

    try:
        busy = running(concurrency=2, poll_interval=30)
        tiny.start({}).result(timeout=5)
        busy._place.threads._prefetch.usual = 0.001
        with transaction.atomic():
            long_ones = long_first.start_many([{}] * 2)
            quick = tiny.start_many([{}] * 2)  # so few that the worker has room for more
        eventually(lambda: all(status_of(run) == "running" for run in long_ones))
        running(concurrency=1)
        for run in quick:
            run.result(timeout=5)
    finally:
        go_on.set()


def test_what_a_worker_with_a_limit_has_no_thread_for_goes_to_others(running):
    go_on = threading.Event()

    @workflow(name="long_limited", priority=1)
    def long_limited(input, step):
        step.define("long", lambda: go_on.wait(30)).run()

    try:
        with transaction.atomic():
            long_limited.start_many([{}] * 2)
            quick = tiny.start_many([{}] * 4)
        limited = Worker(concurrency=2, max_runs=6, poll_interval=0.1)
        limited._place.threads._prefetch.usual = 0.001
        working = Background(limited.run)
        eventually(lambda: len(limited._place.threads.held()) == 6)
        running(concurrency=1)
        for run in quick:
            run.result(timeout=5)
        assert limited.claimed == 2
    finally:
        go_on.set()
        limited.stop()
        working.result()


def test_slow_passes_are_not_claimed_ahead(running):
    @workflow(name="not_quick")
    def not_quick(input, step):
        step.define("slow", lambda: time.sleep(0.4)).run()

    worker = running(concurrency=1)
    for _ in range(3):
        not_quick.start({})
    eventually(lambda: len(worker._place.threads.held()) == 1)
    for _ in range(20):
        assert len(worker._place.threads.held()) <= 1
        time.sleep(0.02)


def test_due_runs_are_not_starved_by_a_backlog(work):
    @workflow(name="backlog")
    def backlog(input, step):
        step.define("leave", effects.leave).run("backlog")

    due = sleeper.start({"duration": "2s"})
    work()
    assert status_of(due) == "sleeping"
    backlog.start_many([{}] * 120)
    clock.offset_us += 3 * SECOND
    work(concurrency=2, max_runs=10, until_idle=False)
    assert status_of(due) == "succeeded"
    assert WorkflowRun.objects.filter(workflow="backlog", status="pending").count() >= 100


def test_a_sleep_put_down_beside_a_slow_run_ends_in_time(running):
    """The loop is already waiting for something later when a thread puts the run down."""
    go_on = threading.Event()

    @workflow(name="slow_beside")
    def slow_beside(input, step):
        step.define("slow", lambda: go_on.wait(20)).run()

    slow = slow_beside.start({})
    running(concurrency=4, poll_interval=30)
    eventually(lambda: status_of(slow) == "running")
    time.sleep(0.1)
    napping = sleeper.start({"duration": "1500ms"})
    if connection.vendor == "mysql":  # which isn't told of the new run
        eventually(lambda: effects.count("before", napping), timeout=10)
    began = time.monotonic()
    napping.result(timeout=8)
    assert time.monotonic() - began < 4
    go_on.set()


def test_a_due_run_that_somebody_has_locked_does_not_make_the_worker_spin(running, monkeypatch):
    run = sleeper.start({"duration": "1s"}, delay="1ms")
    time.sleep(0.01)
    asked = []
    original = claims.claim
    monkeypatch.setattr(claims, "claim", lambda *given, **options: asked.append(1) or original(*given, **options))
    with locked(run):
        running(concurrency=1)
        time.sleep(1)
        count = len(asked)
    assert count < 30
    eventually(lambda: effects.count("before", run))


def test_runs_that_nobody_knows_are_put_aside_and_come_back(work, running, pass_time):
    from django_steps.definitions import registry
    from django_steps.worker.maintenance import Maintenance

    @workflow(name="of_a_later_deploy")
    def of_a_later_deploy(input, step):
        step.define("leave", effects.leave).run("known by now")

    unknown = of_a_later_deploy.start_many([{}] * 600)
    pass_time("1h")  # the workers of other tests are not heard of any more
    forgotten = registry._registry.pop(("of_a_later_deploy", ""))
    Maintenance("default")._do()
    assert set(WorkflowRun.objects.values_list("phase", "status")) == {(WorkflowRun.Phase.UNKNOWN, "pending")}
    known = tiny.start({})
    work()
    assert status_of(known) == "succeeded"
    assert WorkflowRun.objects.filter(phase=WorkflowRun.Phase.UNKNOWN).count() == len(unknown)
    registry._registry[("of_a_later_deploy", "")] = forgotten
    work(concurrency=4)
    assert effects.count("known by now") == 600


def test_runs_that_another_worker_knows_are_not_put_aside(pass_time):
    from django_steps.worker.maintenance import Maintenance
    from tests.staging import make_terms

    terms = make_terms()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.WORKER} SET workflows = %s", ['[["of_another_deploy", "2"]]'])
    run = tiny.start({})
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.RUN} SET workflow = 'of_another_deploy', version = '2'")
    Maintenance("default")._do()
    assert status_of(run) == "pending" and run.phase == WorkflowRun.Phase.READY
    assert terms.worker_id


# -- What goes wrong around it -------------------------------------------------------------------


def test_a_claim_that_fails_is_tried_again(running, monkeypatch):
    """A missing table, a permission, a full disk: neither the end of the worker, nor a loop without a pause."""
    errors = [ProgrammingError("no such table"), OperationalError("disk full"), ProgrammingError("denied")]
    asked = []
    original = claims.claim

    def failing(*given, **options):
        asked.append(time.monotonic())
        if errors:
            raise errors.pop()
        return original(*given, **options)

    monkeypatch.setattr(claims, "claim", failing)
    run = tiny.start({})
    running()
    run.result(timeout=10)
    assert asked[2] - asked[0] > 0.1


def test_claimed_runs_are_executed_even_if_histories_cannot_be_loaded_together(running, monkeypatch):
    runs = [sleeper.start({"duration": "1100ms"}) for _ in range(2)]
    running(concurrency=2)
    original = histories.load
    failed = []

    def failing(connection, known):
        if not failed and threading.current_thread().name.startswith("Thread"):
            failed.append(len(known))
            raise OperationalError("the connection broke")
        return original(connection, known)

    eventually(lambda: WorkflowRun.objects.filter(status="sleeping").count() == 2)
    monkeypatch.setattr(histories, "load", failing)
    for run in runs:
        run.result(timeout=10)
        assert effects.names(run) == ["before", "after"]
    assert failed


def test_a_write_that_fails_for_a_while_is_written_again(running, monkeypatch):
    """Whatever the database says: the step is executed once, and recorded in the end."""
    from django_steps.ledger import batches, records

    errors = [ProgrammingError("permission denied"), OperationalError("disk full")]
    original = records.record
    monkeypatch.setattr(records, "record", lambda *given: _raise(errors.pop()) if errors else original(*given))
    monkeypatch.setattr(batches, "write_many", lambda *given: _raise(ProgrammingError("permission denied")))
    run = tiny.start({})
    running()
    run.result(timeout=10)
    assert effects.count("once") == 1 and not errors


def _raise(error):
    raise error


def test_a_run_that_was_canceled_while_it_waited_for_a_thread_does_not_begin(running):
    go_on = threading.Event()

    @workflow(name="occupies")
    def occupies(input, step):
        step.define("occupy", lambda: go_on.wait(10)).run()

    worker = running(concurrency=1)
    first = occupies.start({})
    worker._place.threads._prefetch.usual = 0.001
    eventually(lambda: status_of(first) == "running")
    waiting = tiny.start({})
    eventually(lambda: len(worker._place.threads.held()) == 2)
    time.sleep(0.25)
    waiting.cancel()
    go_on.set()
    first.result(timeout=5)
    eventually(lambda: WorkflowRun.objects.get(pk=waiting.pk).phase == WorkflowRun.Phase.ENDED)
    assert status_of(waiting) == "canceled" and effects.count("once") == 0


def test_the_worker_has_a_row_that_says_when_it_stopped(work):
    work(queues=["a", "b"], concurrency=3)
    row = WorkerRow.objects.get()
    assert (row.queues, row.concurrency) == (["a", "b"], 3)
    assert ["tiny", ""] in row.workflows
    assert row.stopped_at is not None and row.stopped_at >= row.started_at.replace(microsecond=0)


# -- What a step leaves behind -------------------------------------------------------------------


def _leave_transaction_open():
    connection.set_autocommit(False)
    effects.leave("in an open transaction")


def _leave_atomic_open():
    transaction.atomic().__enter__()
    effects.leave("in an open atomic")


def _break_connection():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    lose_connection(connections["default"])


def _begin():
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        effects.leave("after BEGIN")


@pytest.mark.parametrize("poison", [_leave_transaction_open, _leave_atomic_open, _break_connection, _begin])
def test_what_a_step_leaves_open_or_broken_does_not_reach_the_next_one(work, poison):
    @workflow(name="poisons")
    def poisons(input, step):
        step.define("poison", poison).run()
        step.define("next", effects.leave).run("next")
        step.define("atomic", effects.leave, atomic=True).run("atomic")

    first, second = poisons.start({}), tiny.start({})
    work(concurrency=1)
    assert status_of(first) == "succeeded" and status_of(second) == "succeeded"
    assert effects.names(first)[-2:] == ["next", "atomic"]
    assert [name for name in effects.names(first) if name not in ("next", "atomic")] == []  # it was rolled back


def test_an_on_commit_that_raises_leaves_the_step_done(work, caplog):
    @workflow(name="raises_on_commit")
    def raises_on_commit(input, step):
        def do():
            effects.leave("atomic")
            transaction.on_commit(lambda: 1 / 0)
            return "value"

        return step.define("atomic", do, atomic=True).run()

    run = raises_on_commit.start({})
    work(concurrency=1)
    assert status_of(run) == "succeeded" and run.output == "value"
    assert effects.count("atomic") == 1
    assert any("an on_commit() callback raised" in record.getMessage() for record in caplog.records)


# -- Whose clock ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [3600, -3600])
def test_a_hosts_wrong_clock_changes_nothing(work, monkeypatch, offset):
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + offset * 1_000_000_000)
    run = sleeper.start({"duration": "10m"}, delay="1h")
    work()
    assert status_of(run) == "pending"
    clock.offset_us += 3601 * SECOND
    work()
    assert status_of(run) == "sleeping"
    clock.offset_us += 598 * SECOND
    work()
    assert status_of(run) == "sleeping"
    clock.offset_us += 3 * SECOND
    work()
    assert status_of(run) == "succeeded"
    assert abs(run.finished_at.timestamp() - (real() + 4202)) < 60


ZONES = {"postgresql": "SET TIME ZONE 'Asia/Tokyo'", "mysql": "SET time_zone = '+09:00'"}


def test_a_database_server_in_another_time_zone_changes_nothing(work):
    def far_east(connection, **others):
        if connection.vendor in ZONES:
            with connection.cursor() as cursor:
                cursor.execute(ZONES[connection.vendor])

    connection.close()
    connection_created.connect(far_east)
    try:
        with connection.cursor():
            pass
        assert abs(database.read_clock(connection) - time.time_ns() // 1000) < 60 * SECOND
        run = sleeper.start({"duration": "10m"})
        work()
        assert status_of(run) == "sleeping"
        clock.offset_us += 601 * SECOND
        work()
        assert status_of(run) == "succeeded"
    finally:
        connection_created.disconnect(far_east)
        connection.close()


def test_without_time_zones_everything_is_the_same(start_worker, work, pass_time):
    """USE_TZ = False, in a zone far from UTC, in a process of its own."""
    run = sleeper.start({"duration": "1500ms"})
    worker = start_worker("--poll-interval", "0.1", environment={"USE_TZ": "0", "TIME_ZONE": "America/New_York"})
    eventually(lambda: effects.names(run) == ["before", "after"])
    run.result(timeout=5)
    assert worker.stop() == 0
    step = run.steps.get(name="nap")
    before, after = (effects.Effect.objects.get(name=name).at for name in ("before", "after"))
    assert 1.4 < after - before < 6
    assert step.status == "waiting" and 1.4 < step.wakes_at.timestamp() - before < 4
