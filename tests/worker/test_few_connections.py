"""How many connections a worker takes: few of its own, and one for each thread whose steps use the ORM."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections
from django.db.backends.signals import connection_created

from django_steps import RetryPolicy, workflow
from django_steps.ledger import notify
from django_steps.models import WorkflowRun
from django_steps.worker import Worker, maintenance, station, thread_connections, writers
from django_steps.worker.group_commit import GroupCommit
from tests.app.models import Person
from tests.app.workflows import tiny, without_database
from tests.staging import Background, claim, eventually, locked, make_terms, recover, status_of
from tests.worker.test_outage import disturb

pytestmark = pytest.mark.django_db(transaction=True)


def has_connection():
    """Whether the calling thread has a connection of its own."""
    return connections["default"].connection is not None


@pytest.fixture
def opened():
    """All connections that are opened meanwhile, with the names of the threads that open them."""
    found = []

    def created(connection, **others):
        found.append((threading.current_thread().name, connection))

    connection_created.connect(created)
    yield found
    connection_created.disconnect(created)


# -- Threads without connections -----------------------------------------------------------------


def test_thread_needs_no_connection_for_what_the_engine_writes_and_reads(work, settings, pass_time):
    """Records, ends, retries in place and later, sleeps, long outputs, another attempt of the run."""
    settings.DJANGO_STEPS = {"INLINE_WAIT": "1s"}
    had, fails = [], iter([True, True, False, True, False])

    def look():
        had.append(has_connection())
        return "x" * 100_000

    def fail():
        had.append(has_connection())
        if next(fails):
            raise ValueError

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="10ms"))
    def engine_only(step):
        step.define("plain", look).run()
        step.sleep("short", "1ms")
        # It fails for good in the first attempt of the run, and succeeds in the second.
        step.define("tried at once", fail, retry=RetryPolicy(max_attempts=2, initial_interval="1ms")).run()
        step.sleep("long", "1m")
        step.define("tried later", fail, retry=RetryPolicy(max_attempts=2, initial_interval="1m")).run()
        had.append(has_connection())

    run = engine_only.start()
    for _ in range(4):
        work(concurrency=1)
        pass_time("2m")
    assert status_of(run) == "succeeded"
    assert next(fails, None) is None
    assert not any(had)


def test_thread_needs_no_connection_for_a_run_whose_worker_died(work, pass_time):
    had = []

    @workflow
    def recovered(step):
        step.define("one", lambda: had.append(has_connection())).run()

    run = recovered.start()
    terms = make_terms(lease=1)
    claim(run, terms)
    recover(terms)
    work(concurrency=1)
    run.refresh_from_db()
    assert (run.status, run.recoveries, had) == ("succeeded", 1, [False])


def test_thread_needs_no_connection_to_release_a_canceled_run_and_to_notify_others(work):
    had = []

    @workflow
    def canceled(step):
        step.define("cancel", lambda: Background(run.cancel).result()).run()
        step.define("not executed", time.sleep).run(0)

    @workflow
    def after(step):
        step.define("look", lambda: had.append(has_connection())).run()

    run = canceled.start(priority=1)
    after.start()
    work(concurrency=1)
    assert (status_of(run), had) == ("canceled", [False])


def test_notification_goes_by_the_connection_that_is_lent():
    commits = GroupCommit("default")

    def notify_others():
        with commits.connection() as lent:
            notify._last_sent.clear()
            notify.workers(lent)
        return has_connection()

    try:
        assert Background(notify_others).result() is False
    finally:
        commits.close()


def test_connections_of_a_worker_are_closed_at_its_end(opened):
    without_database.start_many([{"steps": 1}] * 20)
    tiny.start_many([{}] * 20)
    Background(Worker(concurrency=4, until_idle=True, poll_interval=0.05).run).result()
    assert any(name.startswith("django-steps-") for name, _ in opened)
    left = [name for name, one in opened if one.connection is not None and name != threading.current_thread().name]
    assert left == []


def test_atomic_step_waits_for_a_connection_of_its_thread(work, monkeypatch):
    """The writers have theirs, and the server takes no more: that uses up no attempts."""
    from django_steps.engine.drivers import execute

    monkeypatch.setattr(execute, "_DATABASE_ATTEMPTS", 2)
    kind = type(connections["default"])
    original, refused = kind.get_new_connection, []

    def connect(self, parameters):
        is_own = threading.current_thread().name == "django-steps-1" and not self.allow_thread_sharing
        if is_own and len(refused) < 8:
            refused.append(1)
            raise OperationalError("sorry, too many clients already")
        return original(self, parameters)

    monkeypatch.setattr(kind, "get_new_connection", connect)

    @workflow
    def crowded(step):
        step.define("plain", time.sleep).run(0)
        step.define("atomic", lambda: Person.objects.create(name="one").name, atomic=True).run()

    run = crowded.start()
    work(concurrency=1)
    assert status_of(run) == "succeeded" and len(refused) == 8
    assert Person.objects.count() == 1


# -- Idle threads --------------------------------------------------------------------------------


def test_idle_thread_closes_its_connections(running, opened, monkeypatch):
    monkeypatch.setattr(thread_connections, "LONG_IDLE", 0.1)
    running(concurrency=2)
    tiny.start({}).result(timeout=10)
    own = [one for name, one in opened if name in ("django-steps-1", "django-steps-2") and not one.allow_thread_sharing]
    assert own
    eventually(lambda: all(one.connection is None for one in own))
    tiny.start({}).result(timeout=10)


def test_idle_worker_closes_its_writers_connections(running, opened, monkeypatch):
    monkeypatch.setattr(station, "LONG_IDLE", 0.05)
    monkeypatch.setattr(maintenance, "_FIRST_ROUND_AFTER", 0.05)
    monkeypatch.setattr(maintenance, "_INTERVAL", 0.05)
    running(concurrency=2)
    without_database.start({"steps": 0}).result(timeout=10)
    lent = [one for _, one in opened if one.allow_thread_sharing]
    assert lent
    eventually(lambda: all(one.connection is None for one in lent))
    without_database.start({"steps": 0}).result(timeout=10)


def test_record_after_an_idle_time_goes_by_a_good_connection(running, monkeypatch, caplog):
    """The database restarts while a worker is idle: the next run notices nothing."""
    monkeypatch.setattr(writers, "_TRUSTED", 0.0)
    running(concurrency=1)
    without_database.start({"steps": 0}).result(timeout=10)
    disturb()
    caplog.clear()
    run = without_database.start({"steps": 1})
    run.result(timeout=10)
    assert not any("could not be written to" in message for message in caplog.messages)


if settings.DATABASE != "sqlite":  # which has no locks on rows

    def test_runs_that_somebody_has_locked_hold_up_no_other_run(running):
        """More of them than there are writers, whose connections wait for the locks."""
        go_on = threading.Event()

        @workflow
        def waiting(step):
            step.define("wait", go_on.wait).run(10)

        @workflow
        def quick(step):
            for number in range(3):
                step.define(f"step {number}", time.sleep).run(0)

        runs = waiting.start_many([None] * 4)
        running(concurrency=6)
        eventually(lambda: {status_of(run) for run in runs} == {"running"})
        with contextlib.ExitStack() as locks:
            for run in runs:
                locks.enter_context(locked(run))
            go_on.set()
            for run in quick.start_many([None] * 10):
                run.result(timeout=10)
            assert {status_of(run) for run in runs} == {"running"}
        for run in runs:
            run.result(timeout=10)


if settings.DATABASE == "postgresql":

    def connections_of_others():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return cursor.fetchone()[0]

    def test_worker_of_32_threads_takes_five_connections(start_worker):
        """Counted in the server, while 32 threads execute steps that don't use the ORM."""
        without_database.start_many([{"steps": 10}] * 300)
        worker = start_worker("--concurrency", "32", "--until-idle")
        counted = []
        while worker.process.poll() is None:
            counted.append(connections_of_others())
            time.sleep(0.005)
        assert worker.wait() == 0
        assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}
        assert max(counted) <= 5, counted
