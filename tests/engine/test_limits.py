"""What one run may hold, so that it costs the others nothing: progress, attempt logs, kept histories, server binding."""

from __future__ import annotations

import json

import pytest
from django.db import connection, connections

from django_steps import RetryPolicy, workflow
from django_steps.engine.history_cache import HistoryCache
from django_steps.failures import append_attempt
from django_steps.ledger import claims, leases
from django_steps.ledger.histories import Recorded
from django_steps.ledger.leases import Holding
from tests.app.workflows import tiny
from tests.staging import claim, make_terms


@pytest.mark.parametrize(("done", "total"), [(0, 10**30), (5, float("inf")), (1.5, 3), (3, 2), (-1, 2), ("1", "2")])
def test_progress_that_no_column_holds_is_refused_where_it_is_set(work, done, total):
    refused = []

    @workflow
    def reports(input, run):
        try:
            run.set_progress(done, total)
        except (TypeError, ValueError) as error:
            refused.append(type(error))

    reports.start({})
    work()
    assert len(refused) == 1


def test_attempt_log_keeps_the_first_attempt_and_the_latest_and_what_people_are_shown_of_them():
    error = json.dumps(
        {"type": "ValueError", "message": "m" * 100_000, "traceback": "t" * 100_000, "nodes": ["n" * 9999]}
    )
    log = ""
    for number in range(1, 500):
        log = append_attempt(log, number, 0, 1, error)
    entries = json.loads(log)
    assert [entry["attempt"] for entry in entries] == [1, *range(471, 500)]
    assert len(log) < 500_000
    assert json.loads(entries[0]["error"])["type"] == "ValueError"


def test_step_with_many_attempts_shows_its_first_and_its_latest(work):
    tries = []

    @workflow
    def polls(input, step):
        def poll():
            tries.append(1)
            if len(tries) < 40:
                raise ValueError("not ready")

        step.define("poll", poll, retry=RetryPolicy(max_attempts=50, initial_interval=0, jitter=False)).run()

    run = polls.start({})
    work()
    record = run.steps.get()
    assert (record.status, record.attempts) == ("succeeded", 40)
    assert [attempt["attempt"] for attempt in record.earlier_attempts] == [1, *range(11, 40)]


def test_kept_histories_are_bounded_in_what_they_hold(transactional_db):
    cache = HistoryCache()
    tiny.start_many([{}] * 4)
    claimed = claims.claim(connection, make_terms(), 4).runs
    recorded = [
        Recorded(f"s{number}", "step", number, number - 1, "succeeded", 1, "x" * 40_000, None, "", None)
        for number in range(100)
    ]
    for item in claimed:
        cache.keep(item, recorded)
    assert len(cache.take(claimed)) == 1  # four megabytes each


def test_deleted_run_is_lost_to_its_worker(transactional_db):
    run = tiny.start({})
    claimed = claim(run)
    type(run).objects.filter(pk=run.pk).delete()
    holdings = {claimed.run_id: Holding(claimed.token)}
    assert leases.renew(connection, holdings, 1_000_000).lost == set()  # it could be locked
    assert leases.check(connection, holdings).lost == {claimed.run_id}


@pytest.fixture
def server_binding(transactional_db):
    """Parameters that the server binds: an option of Django's for PostgreSQL, and nothing elsewhere."""
    if connection.vendor != "postgresql":
        yield
        return
    options = connections.settings["default"]["OPTIONS"]
    connection.close()
    options["server_side_binding"] = True
    yield
    del options["server_side_binding"]
    connection.close()


def test_parameters_that_the_server_binds_make_no_difference(server_binding, work):
    tries = []

    @workflow
    def bound(input, step):
        def fail_once():
            tries.append(1)
            if len(tries) == 1:
                raise ValueError("once")
            return input

        step.define("plain", lambda: None).run()
        step.sleep("nap", "10ms")
        return step.define("again", fail_once, retry=RetryPolicy(initial_interval=0), atomic=True).run()

    runs = bound.start_many([{"number": 1}, {"number": 2}])
    later = bound.start({"number": 3}, key="three", delay="10ms")
    work(concurrency=2)
    assert [run.result(timeout=1) for run in [*runs, later]] == [{"number": 1}, {"number": 2}, {"number": 3}]
