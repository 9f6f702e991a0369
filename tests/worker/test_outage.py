"""The database goes away under load, and comes back: workers reconnect and go on."""

import threading
import time
from collections import defaultdict

import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections

from django_steps import RetryPolicy, workflow
from django_steps.models import Worker as WorkerRow
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import three_steps, tiny
from tests.staging import Background, eventually, lose_connection, second_connection, status_of

pytestmark = pytest.mark.django_db(transaction=True)

STEPS = 8


def define_busy():
    @workflow(name="busy", step_retry=RetryPolicy(max_attempts=20, initial_interval="20ms"))
    def busy(input, step):
        for number in range(STEPS):
            step.define(f"step {number}", effects.leave, atomic=number % 2 == 0).run(f"step {number}")
            time.sleep(0.01)

    return busy


def others_connections():
    """The ids of all connections to the test database but this thread's."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        else:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
        return [row[0] for row in cursor.fetchall()]


def disturb():
    """Do to the workers what a restart of the database does: end all of their connections. On SQLite: hold the file."""
    if connection.vendor == "sqlite":
        with second_connection() as other:
            other.set_autocommit(False)
            with other.cursor() as cursor:
                cursor.execute("BEGIN IMMEDIATE")
            time.sleep(0.2)
            other.rollback()
        return
    statement = "SELECT pg_terminate_backend(%s)" if connection.vendor == "postgresql" else "KILL CONNECTION %s"
    for number in others_connections():
        with connection.cursor() as cursor:
            try:
                cursor.execute(statement, [number])
            except OperationalError:
                assert connection.vendor == "mysql"  # it has ended by itself meanwhile


def assert_each_step_came_after_the_one_before(runs):
    """Once a step was executed, the one before it was recorded: it must not be seen again."""
    executed = defaultdict(list)
    for run, name in effects.Effect.objects.order_by("id").values_list("run", "name"):
        executed[run].append(int(name.removeprefix("step ")))
    for run in runs:
        numbers = executed[str(run.pk)]
        assert numbers == sorted(numbers) and set(numbers) == set(range(STEPS))
        for number in range(0, STEPS, 2):
            assert numbers.count(number) == 1, "an atomic step took effect twice"


def test_workers_go_on_when_the_database_comes_back_and_repeat_nothing(transactional_db):
    runs = define_busy().start_many([{}] * 12)
    workers = [Worker(concurrency=3, poll_interval=0.1) for _ in range(2)]
    threads = [Background(worker.run) for worker in workers]
    try:
        # A worker whose connection is lost while it registers does not begin at all.
        eventually(lambda: effects.Effect.objects.exists() and WorkerRow.objects.count() == 2)
        for _ in range(4):
            disturb()
            time.sleep(0.15)
        for run in runs:
            run.result(timeout=20)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.result()
    assert_each_step_came_after_the_one_before(runs)
    assert not WorkflowRun.objects.exclude(status="succeeded").exists()


def test_a_step_does_not_begin_on_a_connection_that_was_closed_meanwhile(transactional_db):
    """The worker's threads are idle while the database restarts: the next run notices nothing."""
    worker = Worker(concurrency=1, poll_interval=0.1)
    working = Background(worker.run)
    try:
        tiny.start({}).result(timeout=10)
        disturb()
        run = three_steps.start({})
        run.result(timeout=10)
    finally:
        worker.stop()
        working.result()
    assert [step.attempts for step in run.steps.all()] == [1, 1, 1]


if settings.DATABASE != "sqlite":  # whose file is always there

    def test_an_outage_is_a_few_lines_in_the_log(transactional_db, monkeypatch, caplog):
        """However many threads meet it, and however often they try: what failed, and that it works again."""
        is_away, refused = threading.Event(), []
        kind = type(connections["default"])
        original = kind.get_new_connection

        def connect(self, parameters):
            if is_away.is_set():
                refused.append(threading.current_thread().name)
                raise OperationalError("sorry, too many clients already")
            return original(self, parameters)

        @workflow(name="eight")
        def eight(input, step):
            step.define("wait", is_away.wait).run(10)

        runs = eight.start_many([{}] * 8)
        worker = Worker(concurrency=8, poll_interval=0.1, lease=0.6)
        working = Background(worker.run)
        try:
            eventually(lambda: len(worker.in_progress()) == 8)
            # Connected meanwhile, so that this test can go on.
            assert WorkflowRun.objects.count() == 8
            monkeypatch.setattr(kind, "get_new_connection", connect)
            is_away.set()
            disturb()
            eventually(lambda: len([name for name in refused if name.startswith("django-steps-")]) > 30)
            is_away.clear()
            for run in runs:
                run.result(timeout=10)
        finally:
            is_away.clear()
            worker.stop()
            working.result()
        lines = [message.partition(":")[0] for message in caplog.messages]
        assert len(lines) == len(set(lines)), lines
        assert "The database could not be written to, trying again" in lines
        assert any(line.startswith("The database can be written to again.") for line in lines)


def test_an_atomic_step_outlasts_an_outage(transactional_db, monkeypatch):
    """The database takes no connections for longer than all attempts would last, were they counted."""
    from django_steps.engine.drivers import execute

    monkeypatch.setattr(execute, "_DATABASE_ATTEMPTS", 3)
    is_away, tried, begun = threading.Event(), [], []
    kind = type(connections["default"])
    original = kind.get_new_connection

    def connect(self, parameters):
        if is_away.is_set() and threading.current_thread().name.startswith("django-steps-1"):
            tried.append(1)
            raise OperationalError("the database is starting up")
        return original(self, parameters)

    monkeypatch.setattr(kind, "get_new_connection", connect)

    @workflow(name="during_an_outage")
    def during_an_outage(input, step):
        def do():
            effects.leave("do")
            begun.append(1)
            if len(begun) == 1:
                is_away.set()
                lose_connection(connections["default"])
                raise OperationalError("database is locked" if connection.vendor == "sqlite" else "connection lost")

        step.define("do", do, atomic=True).run()

    run = during_an_outage.start({})
    worker = Worker(concurrency=1, poll_interval=0.1)
    working = Background(worker.run)
    try:
        if connection.vendor != "sqlite":  # whose file is always there
            eventually(lambda: len(tried) > 4)
            assert status_of(run) == "running"
        is_away.clear()
        run.result(timeout=10)
    finally:
        is_away.clear()
        worker.stop()
        working.result()
    assert effects.count("do") == 1 and len(begun) == 2


def test_a_worker_that_stops_during_an_outage_waits_for_nobody_longer_than_it_may(transactional_db, monkeypatch):
    """Nothing can be given back: what was running is picked up when its lease ends."""
    from django_steps.ledger import batches, records, transitions

    inside, go_on = threading.Event(), threading.Event()

    @workflow(name="cut_off")
    def cut_off(input, step):
        step.define("wait", lambda: inside.set() or go_on.wait(10)).run()

    run = cut_off.start({})
    worker = Worker(concurrency=1, poll_interval=0.1, shutdown_timeout=0.5)
    working = Background(worker.run)
    assert inside.wait(10)

    def away(*given, **options):
        raise OperationalError("the database is away")

    with monkeypatch.context() as outage:
        for module, name in ((records, "record"), (transitions, "release"), (batches, "write_many")):
            outage.setattr(module, name, away)
        go_on.set()
        time.sleep(0.1)
        worker.stop()
        began = time.monotonic()
        assert working.result() is False
        assert time.monotonic() - began < 5
    eventually(lambda: run.steps.exists(), timeout=5)  # the thread, which a process would have taken along


if settings.DATABASE == "postgresql":

    def test_a_worker_that_lost_its_connection_is_told_of_news_again(transactional_db):
        worker = Worker(concurrency=1, poll_interval=30)
        working = Background(worker.run)
        try:
            eventually(lambda: worker._wakeups.is_reliable)
            disturb()
            eventually(lambda: not worker._wakeups.is_reliable)
            eventually(lambda: worker._wakeups.is_reliable)
            tiny.start({}).result(timeout=5)
        finally:
            worker.stop()
            working.result()


if settings.DATABASE == "mysql":

    def test_a_value_over_the_servers_packet_limit_fails_its_step(transactional_db, settings):
        """The real limit of the server, which closes the connection on a longer statement."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@global.max_allowed_packet")
            (limit,) = cursor.fetchone()
        settings.DJANGO_STEPS = {"MAX_VALUE_BYTES": limit * 2}

        @workflow(name="over_the_limit")
        def over_the_limit(input, step):
            try:
                step.define("large", lambda: "x" * (limit + 1)).run()
            except Exception as error:
                return type(error).__name__

        run = over_the_limit.start({})
        Worker(concurrency=1, until_idle=True, poll_interval=0.1).run()
        run.refresh_from_db()
        assert (run.status, run.output) == ("succeeded", "ValueTooLarge")


READ_ONLY = {
    "sqlite": "PRAGMA query_only = 1",
    "postgresql": "SET default_transaction_read_only = on",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}


def test_sessions_that_stay_read_only_after_a_failover_are_replaced(transactional_db):
    """The writer is back, and the sessions of the worker answer, but take no writes any more."""
    from django_steps.engine.host import Limits
    from django_steps.ledger import database
    from django_steps.ledger.records import Outcome
    from django_steps.worker.group_commit import GroupCommit
    from django_steps.worker.host import WorkerHost
    from tests.staging import claim, step_write

    commits = GroupCommit("default", writers=2)
    claimed = claim(three_steps.start({}))
    host = WorkerHost(commits, Limits.from_settings())

    def make_read_only(one):
        with one.cursor() as cursor:
            cursor.execute(READ_ONLY[one.vendor])

    def record(*names):
        return [host.record(step_write(claimed, name, position)) for position, name in enumerate(names)]

    def on_a_thread_without_connections():
        for writer in commits._writers:
            make_read_only(writer.connection())
        return record("one", "two")

    def on_a_thread_with_one():
        make_read_only(database.connection_for("default"))
        return record("three")

    try:
        assert Background(on_a_thread_without_connections).result() == [Outcome.WRITTEN] * 2
        assert Background(on_a_thread_with_one).result() == [Outcome.WRITTEN]
    finally:
        commits.close()
