"""How an idle worker learns of work: at once where the database can tell, by looking elsewhere."""

import time

import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections, transaction

from django_steps import workflow
from django_steps.ledger import dialect, notify
from django_steps.worker import Worker, wakeups
from tests.app import effects
from tests.app.workflows import several_at_once, three_steps, tiny
from tests.staging import Background, eventually, make_terms, status_of

pytestmark = pytest.mark.django_db(transaction=True)

# Long enough that finding a run by looking would be noticed; on MySQL a worker asks 40 times in it.
POLL = 4 if settings.DATABASE == "mysql" else 30


@pytest.fixture
def idle_worker():
    worker = Worker(concurrency=2, poll_interval=POLL)
    working = Background(worker.run)
    if settings.DATABASE != "mysql":
        eventually(lambda: worker._wakeups.is_reliable)
    time.sleep(0.1)  # for its first looks
    yield worker
    worker.stop()
    working.result()


def test_an_idle_worker_starts_a_new_run_at_once(idle_worker):
    for _ in range(3):
        began = time.monotonic()
        tiny.start({}).result(timeout=5)
        assert time.monotonic() - began < 1
        time.sleep(0.06)


def test_runs_that_were_started_right_after_each_other_are_all_found(idle_worker):
    runs = [tiny.start({}) for _ in range(5)]
    began = time.monotonic()
    for run in runs:
        run.result(timeout=5)
    assert time.monotonic() - began < 1.5


def test_a_run_is_found_when_its_transaction_is_over(idle_worker):
    with transaction.atomic():
        run = tiny.start({})
        time.sleep(0.1)
        assert status_of(run) == "pending"
    run.result(timeout=5)
    with pytest.raises(RuntimeError), transaction.atomic():
        tiny.start({})
        raise RuntimeError
    assert effects.count("once") == 1


def test_an_idle_worker_learns_when_a_delayed_run_is_due(idle_worker):
    began = time.monotonic()
    tiny.start({}, delay="800ms").result(timeout=8)
    assert 0.7 < time.monotonic() - began < 4


def test_a_retry_wakes_an_idle_worker(idle_worker):
    run = three_steps.start({}, delay="1h")
    run.cancel()
    run.retry()
    run.result(timeout=5)


def test_an_idle_worker_asks_rarely(idle_worker, monkeypatch):
    from django_steps.ledger import claims

    time.sleep(0.3)
    asked = []
    original = claims.claim
    monkeypatch.setattr(claims, "claim", lambda *given, **options: asked.append(1) or original(*given, **options))
    time.sleep(1)
    # The worker's own row is brought up to date now and then, which SQLite can't tell from news.
    assert len(asked) <= (6 if settings.DATABASE == "mysql" else 3)


class TestWhereTheDatabaseTellsNothing:
    """It is asked what is ready, some times in a poll interval."""

    def waits(self, *answers):
        remaining = list(answers)
        return wakeups._AskedWakeups("default", lambda: remaining.pop(0) if remaining else [], 0.04)

    def test_another_run_that_is_ready_is_news(self):
        waits = self.waits([], [], [1], [1], [2])
        assert waits.wait(5) and waits.notifications == 1
        assert waits.wait(5) and waits.notifications == 2

    def test_run_that_nobody_gets_is_no_news(self):
        waits = self.waits([1], *[[1]] * 1000)
        assert waits.wait(5)
        waits.clear()
        assert not waits.wait(0.1) and waits.notifications == 1

    def test_run_that_is_ready_once_more_is_news(self):
        waits = self.waits([1], [], [1])
        assert waits.wait(5) and waits.wait(5)
        assert waits.notifications == 2

    def test_thread_of_this_process_ends_the_wait(self):
        waits = self.waits()
        waits.wake()
        assert waits.wait(60) and not waits.is_notified

    def test_database_that_is_away_ends_the_wait(self):
        def ask():
            raise OperationalError("away")

        assert not wakeups._AskedWakeups("default", ask, 0.04).wait(60)

    def test_question_that_takes_long_is_asked_rarely(self, monkeypatch):
        now, asked = [0.0], []
        monkeypatch.setattr(wakeups.time, "monotonic", lambda: now[0])

        def ask():
            asked.append(now[0])
            now[0] += 0.1
            return []

        waits = wakeups._AskedWakeups("default", ask, 1.0)
        monkeypatch.setattr(waits._event, "wait", lambda seconds: now.__setitem__(0, now[0] + seconds))
        waits.wait(9)
        assert asked == pytest.approx([0.025, 2.125, 4.225, 6.325, 8.425, 9.0])


class TestWhatAWorkerAsks:
    """Where the database tells nothing."""

    @pytest.fixture
    def worker(self):
        worker = Worker()
        worker._terms = make_terms()
        yield worker
        worker._place.close()

    def test_only_what_it_has_room_for(self, worker, monkeypatch):
        plain, asynchronous = tiny.start({}), several_at_once.start({})
        threads, event_loop = worker._lanes
        assert [dialect.run_id(key) for (key,) in worker._first_ready()] == [plain.pk]
        monkeypatch.setattr(threads.executor, "room", lambda: 0)
        assert [dialect.run_id(key) for (key,) in worker._first_ready()] == [asynchronous.pk]
        event_loop.rests_until = time.monotonic() + 60  # nor by a claim
        assert worker._first_ready() == []

    def test_nothing_on_a_connection_that_was_lost(self, worker):
        """Asking would try to connect 40 times in a poll interval while the database is away, and make the loop do so, too."""
        tiny.start({})
        connection.close()
        assert worker._first_ready() == []
        assert connection.connection is None


if settings.DATABASE == "mysql":

    def test_what_is_ready_and_nobody_gets_does_not_make_a_worker_claim_all_the_time(idle_worker, monkeypatch):
        from django_steps.ledger import claims

        asked = []
        nothing = claims.Claimed([], [], [], set())  # as if somebody else held its row
        monkeypatch.setattr(claims, "claim", lambda *given, **options: asked.append(1) or nothing)
        tiny.start({})
        time.sleep(1)
        assert 1 <= len(asked) <= 8  # its own looks, and one for the news


if settings.DATABASE == "postgresql":

    def sent(function):
        from django.test.utils import CaptureQueriesContext

        with CaptureQueriesContext(connection) as queries:
            function()
        return [query["sql"] for query in queries if query["sql"].startswith("NOTIFY")]

    def test_notifications_are_throttled(monkeypatch):
        monkeypatch.setattr(notify, "_last_sent", {})
        monkeypatch.setattr(notify, "INTERVAL", 60)
        assert len(sent(lambda: [tiny.start({}) for _ in range(10)])) == 1

    def test_a_transaction_notifies_after_its_commit(monkeypatch):
        monkeypatch.setattr(notify, "_last_sent", {})

        def start():
            with transaction.atomic():
                tiny.start({})
                assert notify._last_sent == {}

        assert len(sent(start)) == 1

    def test_a_worker_has_a_connection_for_each_thread_and_two_more_at_most():
        """The loop, which is also told of news on its own, and the thread that renews leases."""

        @workflow
        def takes_a_while(step):
            step.define("first", time.sleep).run(0.6)

        with connection.cursor() as cursor:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            cursor.execute(f"SELECT array_agg(pid) {others}")
            before = cursor.fetchone()[0] or []
            worker = Worker(concurrency=2, poll_interval=POLL, lease=3)
            working = Background(worker.run)
            try:
                eventually(lambda: worker._wakeups.is_reliable)
                for run in [takes_a_while.start({}) for _ in range(4)]:
                    run.result(timeout=10)
                cursor.execute(f"SELECT COUNT(*) {others} AND pid <> ALL (%s)", [before])
                assert 2 < cursor.fetchone()[0] <= 4  # a thread may have had another one write for it
            finally:
                worker.stop()
                working.result()

    def test_a_notification_that_comes_with_the_answer_to_a_statement_is_heard():
        connection.ensure_connection()
        waiting = wakeups.wakeups_of("default", list, 1.0)
        waiting.clear()
        assert waiting.wait(5)  # its own ping
        waiting.clear()
        waiting.is_notified = False
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {notify.CHANNEL}")
        began = time.monotonic()
        assert waiting.wait(5) and waiting.is_notified
        assert time.monotonic() - began < 1
        waiting.close()

    def test_a_notification_during_a_statement_is_news_but_no_proof_that_others_arrive(monkeypatch):
        """A pooler may pass it on then, and drop those that come while nothing is asked."""
        monkeypatch.setattr(wakeups, "_ping", lambda pinged: None)
        connection.ensure_connection()
        waits = wakeups.wakeups_of("default", list, 1.0)
        waits.clear()
        assert waits.wait(0.01) is False
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {notify.CHANNEL}")
        assert waits.wait(5) and waits.is_notified and not waits.is_reliable
        waits.close()

    def test_a_dropped_connection_that_serves_another_thread_wakes_nobody():
        """In a pool it goes on listening."""
        connection.ensure_connection()
        waits = wakeups.wakeups_of("default", list, 1.0)
        waits.clear()
        waits.wait(5)
        waits.clear()
        waits.is_notified = False
        raw = connection.connection

        def use():
            raw.execute(f"NOTIFY {notify.CHANNEL}")

        Background(use).result()
        assert not waits.is_notified and not waits._event.is_set()
        waits.close()

    def test_a_worker_that_has_ended_listens_no_more():
        """Its connection may go back to a pool."""
        connection.ensure_connection()
        waiting = wakeups.wakeups_of("default", list, 1.0)
        waiting.clear()
        waiting.wait(0)
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM pg_listening_channels()")
            assert cursor.fetchone() == (1,)
            waiting.close()
            cursor.execute("SELECT COUNT(*) FROM pg_listening_channels()")
            assert cursor.fetchone() == (0,)

    def test_a_pooler_that_drops_notifications_is_noticed(monkeypatch, caplog):
        original = wakeups._ping

        def drop_and_ping(pinged):
            with pinged.cursor() as cursor:
                cursor.execute("UNLISTEN *")
            original(pinged)

        monkeypatch.setattr(wakeups, "_ping", drop_and_ping)
        monkeypatch.setattr(wakeups, "_PING_TIMEOUT", 0.1)
        worker = Worker(concurrency=1, poll_interval=0.2)
        working = Background(worker.run)
        try:
            tiny.start({}).result(timeout=5)
            eventually(lambda: any("polls instead" in record.getMessage() for record in caplog.records))
            assert not worker._wakeups.is_reliable
            tiny.start({}).result(timeout=5)
        finally:
            worker.stop()
            working.result()


if settings.DATABASE == "sqlite":

    def test_a_file_that_cannot_be_opened_is_waited_for(monkeypatch):
        """Whoever claims next says what is wrong; waiting goes on."""

        def refused(*given):
            raise connection.Database.OperationalError("unable to open database file")

        waits = wakeups.wakeups_of("default", list, 1.0)
        waits.clear()
        assert waits.is_reliable
        connection.close()
        with monkeypatch.context() as outage:
            outage.setattr(type(connections["default"]), "get_new_connection", refused)
            waits.clear()
            assert waits.wait(0.02) is False and not waits.is_reliable
        waits.clear()
        assert waits.wait(0.02) is False and waits.is_reliable

    def test_a_commit_of_another_connection_ends_the_wait_and_an_own_one_does_not(transactional_db):
        waits = wakeups.wakeups_of("default", list, 1.0)
        waits.clear()
        tiny.start({})
        assert waits.wait(0.05) is False
        Background(lambda: tiny.start({})).result()
        assert waits.wait(5) is True and waits.is_notified
