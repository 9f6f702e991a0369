"""Workers behind PgBouncer in transaction mode: more clients than connections to the server, and none of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from django_steps.ledger.postgresql import prepared
from django_steps.worker import wakeups
from tests.app.models import Effect
from tests.app.workflows import tiny
from tests.looking import error_of
from tests.staging import Background, eventually

from . import evidence, workflows
from .bouncers import POOL_SIZE, Bouncer, bouncing, prepared_limits
from .expectations import KINDS, Started
from .processes import Workers

PLAIN, ATOMIC = KINDS[0], KINDS[1]
ECHO = prepared.Statement("SELECT %s + 1", ["int"])
# What PgBouncer itself keeps as each client has it.
TRACKED = {
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "IntervalStyle",
}


@pytest.fixture
def bouncer(transactional_db: None) -> Iterator[Bouncer]:
    with bouncing() as running:
        yield running


def start_workers(workers: Workers, bouncer: Bouncer, count: int, *arguments: str, **environment: str) -> None:
    for _ in range(count):
        workers.start(*arguments, environment={**bouncer.environment(), **environment})


# -- Runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", prepared_limits())
def test_runs_of_every_kind_end_with_nothing_repeated(limit: int, workers: Workers, started: Started) -> None:
    """And nothing is prepared on connections to the server, which serve others later."""
    with bouncing(limit) as bouncer:
        start_workers(workers, bouncer, 2, "--lease", "10")
        with bouncer.used_by_new_connections():
            Background(lambda: started.start_mixed(2 * len(KINDS))).result()
        started.finish()
        workers.assert_none_died()
        workers.stop()
        assert bouncer.ask_every_server("SELECT name FROM pg_prepared_statements") == []
    assert started.check().repeated == 0


def test_a_pool_of_the_client_in_front_of_a_bouncer_makes_no_difference(
    bouncer: Bouncer, workers: Workers, started: Started
) -> None:
    start_workers(workers, bouncer, 1, "--lease", "10", FAULTS_POOL="13")
    started.start_mixed(len(KINDS))
    started.finish()
    workers.assert_none_died()
    workers.stop()
    assert started.check().repeated == 0


def test_more_atomic_steps_than_connections_to_the_server_take_turns(
    bouncer: Bouncer, workers: Workers, started: Started
) -> None:
    """Each holds one for as long as it takes, and what its end needs is no other one."""
    start_workers(workers, bouncer, 3, "--lease", "10")
    for _ in range(12):
        started.start(ATOMIC)
    started.finish()
    assert len(bouncer.show("SERVERS")) == POOL_SIZE < len(bouncer.show("CLIENTS"))
    assert sum(row["total_wait_time"] for row in bouncer.show("STATS"))
    workers.assert_none_died()
    workers.stop()
    assert started.check().repeated == 0


def test_runs_of_a_killed_worker_go_on_in_another_one(bouncer: Bouncer, workers: Workers, started: Started) -> None:
    """What its atomic step has written is rolled back: PgBouncer does not keep the transaction of a client that has gone."""
    started.pause = 0.2
    victim = workers.start(environment=bouncer.environment())
    for _ in range(2):
        started.start(PLAIN)
        started.start(ATOMIC)
    eventually(lambda: len(evidence.read(started.path)) == 4)  # it is in the middle of all of them
    eventually(lambda: any(row["sv_active"] for row in bouncer.show("POOLS")))  # and of a transaction
    victim.kill()
    victim.wait()
    started.pause = 0.01
    start_workers(workers, bouncer, 1)
    started.finish()
    workers.assert_none_died()
    workers.stop()
    assert started.check().runs == 4


# -- News ------------------------------------------------------------------------------------------


def test_worker_that_hears_of_nothing_says_so_once_and_polls(
    bouncer: Bouncer, workers: Workers, started: Started
) -> None:
    """PgBouncer drops what comes while a client is idle. Work that comes in before the worker has noticed is no proof."""
    said, interval = "PostgreSQL notifications don't arrive here", 0.4
    start_workers(workers, bouncer, 1, "--poll-interval", str(interval))
    started.pause = 0
    with bouncer.used_by_new_connections():
        Background(lambda: started.start_mixed(len(KINDS))).result()
    started.finish()
    eventually(lambda: said in workers.log(), timeout=20)
    for _ in range(3):
        time.sleep(interval)  # idle again: each look comes later than the one before
        run = started.start(PLAIN)
        eventually(started.are_finished)
        run.refresh_from_db()
        # Where it is told, a worker looks ten times more seldom.
        assert (run.started_at - run.created_at).total_seconds() < interval + 1
    workers.stop()
    assert workers.log().count(said) == 1


def test_worker_that_connects_directly_hears_of_runs_that_are_started_through_a_bouncer(bouncer: Bouncer) -> None:
    connection.ensure_connection()
    waits = wakeups.wakeups_of("default", list, 1.0)
    waits.clear()
    assert waits.wait(10) and waits.is_reliable  # its own ping
    waits.clear()
    waits.is_notified = False
    with bouncer.used_by_new_connections():
        Background(lambda: tiny.start({})).result()
        assert waits.wait(10) and waits.is_notified
    waits.close()


# -- Sessions --------------------------------------------------------------------------------------


def test_time_limits_and_settings_of_the_worker_reach_no_other_client(bouncer: Bouncer, workers: Workers) -> None:
    start_workers(workers, bouncer, 1)
    runs = [workflows.timed.start() for _ in range(POOL_SIZE)]
    for run in runs:
        assert run.result(timeout=30) == "late", error_of(run)
    assert Effect.objects.filter(name="in time").count() == len(runs)
    workers.stop()
    assert set(bouncer.ask_every_server("SHOW statement_timeout")) == {ask(connection, "SHOW statement_timeout")}
    left = bouncer.ask_every_server("SELECT name FROM pg_settings WHERE source = 'session'")
    assert {name for (name,) in left} <= TRACKED
    locks = "SELECT COUNT(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    assert set(bouncer.ask_every_server(locks)) == {(0,)}


def ask(client: Any, statement: str) -> tuple[Any, ...]:
    with client.cursor() as cursor:
        cursor.execute(statement)
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def execute(client: Any, number: int) -> int:
    with client.cursor() as cursor:
        prepared.execute(client, cursor, ECHO, [number])
        return int(cursor.fetchone()[0])


def test_behind_a_bouncer_nothing_is_prepared(bouncer: Bouncer) -> None:
    """The server would write each name that it doesn't know into its log, with the values that were sent along."""
    with bouncer.client() as client:
        for number in range(4):
            assert execute(client, number) == number + 1
        assert ask(client, "SELECT COUNT(*)::int FROM pg_prepared_statements") == (0,)


@pytest.fixture
def unrecognized(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pooler tells clients of the server's process, so that statements are prepared."""
    monkeypatch.setattr(prepared._Session, "is_direct", lambda session, cursor: True)


def test_statement_prepared_on_another_connection_to_the_server_is_sent_as_it_is(
    bouncer: Bouncer, unrecognized: None
) -> None:
    with bouncer.client() as first, bouncer.client() as second:
        for number in range(4):
            assert execute(first, number) == number + 1
        second.set_autocommit(False)  # and so it holds what the first one had
        assert ask(second, f"SELECT COUNT(*)::int FROM pg_prepared_statements WHERE name = '{ECHO.name}'") == (1,)
        for number in range(4):
            assert execute(first, number) == number + 1
        assert ask(first, "SELECT pg_backend_pid()") != ask(second, "SELECT pg_backend_pid()")


def test_statement_that_another_client_has_prepared_is_used(bouncer: Bouncer, unrecognized: None) -> None:
    with bouncer.client() as first, bouncer.client() as second:
        for client in (first, second):
            for number in range(4):
                assert execute(client, number) == number + 1
        assert ask(first, "SELECT pg_backend_pid()") == ask(second, "SELECT pg_backend_pid()")
