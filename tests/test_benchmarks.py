"""The benchmarks measure what they say: a tiny run of each kind of figure, on SQLite, with real processes."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from benchmarks import beside_queues, idle_memory, many_workers, report, snapshots, summary, targets, workloads
from benchmarks.__main__ import chosen_peers, parse
from benchmarks.install import prepare
from benchmarks.lab import Finished, Lab
from benchmarks.mariadb import MariaDB, NoMariaDB
from benchmarks.peers import PEERS, Setting
from benchmarks.plan import WORKLOADS, measurements
from benchmarks.postgres import Cluster, NoPostgres
from benchmarks.scale import Scale
from benchmarks.store import Store

BY_KEY = {peer.key: peer for peer in PEERS}
OURS = BY_KEY["ours-sqlite"]
TINY = Scale(runs=5, steps=3, patience=20)


@pytest.fixture
def lab(tmp_path):
    installed = prepare(tmp_path / "home", [OURS], print)
    return Lab(tmp_path, None, installed.runtimes)


def test_draining_counts_the_steps_that_were_executed_in_the_time_that_the_database_says(lab, tmp_path):
    workloads._idle_costs[OURS.key, OURS.default.name] = 0.0  # what a worker costs that only starts
    began = time.time()
    figures = workloads.drain(lab, OURS, OURS.default, TINY)
    took = time.time() - began
    with sqlite3.connect(tmp_path / "ours-sqlite.sqlite3") as connection:
        (steps,) = connection.execute("SELECT COUNT(*) FROM django_steps_steprecord").fetchone()
        statuses = connection.execute("SELECT DISTINCT status FROM django_steps_workflowrun").fetchall()
        # julianday() has a resolution of a millisecond.
        (seconds,) = connection.execute(
            "SELECT 86400 * (MAX(julianday(finished_at)) - MIN(julianday(started_at))) FROM django_steps_workflowrun"
        ).fetchone()
    connection.close()
    assert (steps, statuses) == (15, [("succeeded",)])
    assert figures["seconds"] == pytest.approx(seconds, abs=0.003)
    assert 0 < figures["seconds"] < took
    assert figures["steps_per_second"] == pytest.approx(15 / figures["seconds"])
    assert 0 < figures["cpu_ms_per_step"] < 1000 * took * 2 / 15


def test_the_steps_of_async_runs_wait_side_by_side(lab, tmp_path):
    workloads._idle_costs[OURS.key, OURS.default.name] = 0.0
    figures = workloads.drain_naps(lab, OURS, OURS.crowded[0], TINY)
    with sqlite3.connect(tmp_path / "ours-sqlite.sqlite3") as connection:
        steps = connection.execute(
            "SELECT 86400 * (julianday(finished_at) - julianday(started_at)) FROM django_steps_steprecord"
        ).fetchall()
        (last_start, first_end) = connection.execute(
            "SELECT MAX(julianday(started_at)), MIN(julianday(finished_at)) FROM django_steps_workflowrun"
        ).fetchone()
    connection.close()
    assert len(steps) == 15
    assert all(seconds >= 0.048 for (seconds,) in steps)
    assert last_start < first_end
    assert figures["seconds"] >= 3 * 0.048
    assert figures["steps_per_second"] == pytest.approx(15 / figures["seconds"])
    assert figures["connections"] == 0  # of SQLite


def test_an_event_is_timed_from_its_commit_to_the_return_of_the_wait(lab, tmp_path):
    began = time.time()
    figures = workloads.event_latency(lab, OURS, Setting("default"), replace(TINY, slow_starts=3, gap=0.1))
    took = time.time() - began
    with sqlite3.connect(tmp_path / "ours-sqlite.sqlite3") as connection:
        waits = connection.execute(
            "SELECT status, consumed_by FROM django_steps_workflowevent e JOIN"
            " django_steps_workflowrun r ON r.id = e.run_id"
        ).fetchall()
    connection.close()
    assert waits == [("succeeded", "go")] * 3
    assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["max_ms"] < 1000 * took


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server here")
def test_runs_on_celery_are_measured_beside_its_tasks(lab, tmp_path):
    (measurement,) = measurements(["W13"], PEERS, 1)
    began = time.time()
    figures = measurement.measure(lab, OURS, measurement.setting, replace(TINY, runs=10, turns=1, patience=60))
    took = time.time() - began
    with sqlite3.connect(tmp_path / "ours-sqlite.sqlite3") as connection:
        executed = connection.execute(
            "SELECT executor, claims, COUNT(*) FROM django_steps_worker GROUP BY executor, claims ORDER BY claims"
        ).fetchall()
        (steps,) = connection.execute("SELECT COUNT(*) FROM django_steps_steprecord").fetchone()
    connection.close()
    assert [(executor, claims) for executor, claims, _ in executed] == [("celery", 0), ("celery", 1)]
    assert steps == 40 + 10
    assert sum(event == "task" for event, _ in lab.notes()) == 8
    assert min(figures["runs_per_second"], figures["tasks_per_second"]) > 10 / took
    assert figures["runs_x_tasks"] == pytest.approx(figures["runs_per_second"] / figures["tasks_per_second"])


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server here")
def test_runs_of_one_step_are_drained_beside_tasks_of_a_celery_that_has_nothing_set(lab, tmp_path):
    began = time.time()
    scale = replace(TINY, one_step_runs=100, queue_turns=1, patience=60)
    figures = beside_queues.one_step_runs(lab, OURS, OURS.default, scale)
    took = time.time() - began
    assert len(lab.notes()) == 2 * 32  # of the 100 tasks, the first and the last ones
    assert min(figures["runs_per_second"], figures["celery_per_second"]) > 100 / took
    assert figures["runs_x_celery"] == pytest.approx(figures["runs_per_second"] / figures["celery_per_second"])
    assert "runs_x_jobs" not in figures  # not installed in this lab


def test_an_idle_worker_is_weighed_beside_what_its_django_needs(lab):
    figures = idle_memory.idle_memory(lab, OURS, OURS.default, TINY)
    assert 10 < figures["django_mib"] < figures["project_mib"] < figures["worker_mib"] < 500
    assert 0 < figures["worker_pss_mib"] <= figures["worker_mib"]
    assert figures["threads"] >= 3


@pytest.fixture
def postgresql(tmp_path):
    installed = prepare(tmp_path / "home", [OURS], print)
    try:
        with Cluster() as cluster:
            yield Lab(tmp_path, cluster, installed.runtimes)
    except NoPostgres as error:
        pytest.skip(str(error))


def test_a_snapshot_is_old_and_open_while_runs_are_drained_beside_it(postgresql):
    ours = BY_KEY["ours"]
    figures = snapshots.beside_old_snapshot(
        postgresql, ours, ours.default, replace(TINY, held_runs=40, held_turns=1, patience=60)
    )
    assert figures["held_x_free"] == pytest.approx(figures["free_per_second"] / figures["held_per_second"])
    xmins = "SELECT backend_xmin FROM pg_stat_activity WHERE datname = 'ours' AND backend_xmin IS NOT NULL"
    with postgresql.cluster.connect("postgres") as connection:
        with snapshots._snapshot(postgresql, ours, is_held=True):
            (before,) = connection.execute(xmins).fetchone()
            postgresql.call(ours, ours.default, "start", workflow="steps", size=1, count=1)
            assert connection.execute(xmins).fetchall() == [(before,)]
        with snapshots._snapshot(postgresql, ours, is_held=False):
            assert connection.execute(xmins).fetchall() == []


def test_a_drain_that_slows_down_shows_in_its_last_quarter():
    even = [Finished(str(number), 0.0, float(number)) for number in range(1, 41)]
    assert snapshots._last_quarter_x_first(even) == pytest.approx(1, abs=0.1)
    slow = [*even[:30], *(Finished("x", 0.0, 30 + 3.0 * number) for number in range(1, 11))]
    assert snapshots._last_quarter_x_first(slow) == pytest.approx(3, rel=0.1)


def test_many_workers_are_measured_idle_and_under_load(capsys):
    arguments = ["--levels", "2", "--idle", "1", "--load", "2", "--rate", "20"]
    if many_workers.main(arguments) == 1:
        pytest.skip(capsys.readouterr().out)
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"]
    headings = rows[0]
    found = [dict(zip(headings, row, strict=True)) for row in rows[2:] if len(row) == len(headings)]
    levels = [(row["workers"], row[""], row["starts/s"]) for row in found]
    assert levels == [
        ("2", "processes", "0"),
        ("2", "processes", "20"),
        ("2", "simulated", "0"),
        ("2", "simulated", "20"),
    ]
    for row in found:
        assert int(row["connections"]) >= int(row["workers"])
        assert row["deadlocks"] == "0"
        if row["starts/s"] == "20":
            assert row["unfinished"] == "0"
            assert 0 < float(row["p50 ms"].replace(",", "")) <= float(row["p95 ms"].replace(",", ""))
            assert float(row["transactions/s"]) > 20


@pytest.fixture
def mariadb(tmp_path):
    installed = prepare(tmp_path / "home", [OURS], print)
    try:
        with MariaDB() as server:
            yield Lab(tmp_path, None, installed.runtimes, server)
    except NoMariaDB as error:
        pytest.skip(str(error))


def test_runs_are_drained_on_mariadb_in_a_database_of_their_own(mariadb):
    ours = BY_KEY["ours-mysql"]
    workloads._idle_costs[ours.key, ours.default.name] = 0.0
    began = time.time()
    for _ in range(2):  # the second time on tables that were in use
        figures = workloads.drain(mariadb, ours, ours.default, TINY)
        with closing(mariadb.mariadb.connect()) as connection:
            (runs,) = connection.execute("SELECT COUNT(*) FROM django_steps_workflowrun").fetchone()
            (steps,) = connection.execute("SELECT COUNT(*) FROM django_steps_steprecord").fetchone()
        assert (runs, steps) == (5, 15)
        assert 0 < figures["seconds"] < time.time() - began
    assert mariadb.raw_mysql(0.1) > 1
    assert re.search(r"innodb_flush_log_at_trx_commit=\d, sync_binlog=\d+", mariadb.mariadb.version())
    name = mariadb.mariadb.place()["name"]
    mariadb.mariadb.__exit__(None, None, None)
    with closing(mariadb.mariadb._connect("")) as connection:
        assert connection.execute("SHOW DATABASES LIKE %s", [name]).fetchall() == ()


def test_a_mariadb_that_cannot_be_reached_is_left_out_with_a_reason(monkeypatch):
    pytest.importorskip("MySQLdb")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MYSQL_HOST", "127.0.0.1")
        monkeypatch.setenv("MYSQL_PORT", str(taken.getsockname()[1]))
        with pytest.raises(NoMariaDB, match=r"Can't connect|Connection refused"), MariaDB():
            pass


def test_mariadb_has_some_of_the_workloads_and_a_raw_limit_of_its_own():
    plan = list(measurements([workload.name for workload in WORKLOADS], [BY_KEY["ours-mysql"]], 1))
    assert {measurement.workload for measurement in plan} == {"W1", "W2", "W4"}
    figures = {"round": 1, "raw": 4000, "raw_mysql": 1000, "steps_per_second": 1500}
    (row,) = summary.rows([{"workload": "W1", "peer": "ours-mysql", "setting": "default", **figures}])
    assert row.get("steps_per_second_x_raw") == 1.5


def test_each_target_is_of_something_that_is_measured_and_shown():
    plan = list(measurements([workload.name for workload in WORKLOADS], PEERS, 1))
    for target in targets.TARGETS:
        settings = [
            measurement.setting.name
            for measurement in plan
            if (measurement.workload, measurement.peer.key) == (target.workload, target.peer)
        ]
        assert any(target.setting in setting for setting in settings), target
        assert target.figure in {figure for _, figure in report.columns(target.workload)}, target


def test_async_runs_are_drained_by_those_that_have_async_bodies():
    plan = list(measurements(["W1a", "W9"], PEERS, 1))
    assert {measurement.peer.key for measurement in plan} == {"ours", "absurd", "ow", "dbos", "ours-sqlite"}
    figures = {"round": 1, "raw": 1000, "steps_per_second": 2600, "connections": 9}
    lines = [{"workload": "W9", "peer": "ours", "setting": plan[0].setting.name, **figures}]
    found = summary.rows(lines)
    judged = {target.figure: target.judge(found)[1] for target in targets.TARGETS if target.workload == "W9"}
    assert judged == {"steps_per_second_x_raw": "yes", "connections": "**no**"}


def test_ratios_are_to_the_raw_limit_of_the_same_measurement():
    line = {"workload": "W1", "peer": "ours", "setting": "default"}
    lines = [
        {**line, "round": 1, "raw": 1000, "steps_per_second": 900},
        {**line, "round": 2, "raw": 3000, "steps_per_second": 3000},
        {**line, "round": 3, "raw": 2000, "steps_per_second": 1000},
        {**line, "round": 4, "error": "it rained"},
    ]
    (row,) = summary.rows(lines)
    assert row.get("steps_per_second") == 1000
    assert row.get("steps_per_second_x_raw") == 0.9
    assert (row.rounds, row.errors) == (3, ("it rained",))
    assert "it rained" in report.markdown(lines, [], {})


def test_an_interrupted_run_goes_on_where_it_ended(tmp_path):
    options = parse(["--quick", "--peers", "ours", "--databases", "sqlite", "--workloads", "W1"])
    plan = list(measurements(options.workloads, chosen_peers(options), options.rounds))
    first, second, third = plan
    store = Store(tmp_path / "results.jsonl", resume=False, sizes="quick")
    store.add(first, {"steps_per_second": 1})
    store.add(second, {"error": "no room"})
    resumed = Store(tmp_path / "results.jsonl", resume=True, sizes="quick")
    assert [resumed.has(measurement) for measurement in plan] == [True, False, False]
    resumed.add(second, {"steps_per_second": 2})
    again = Store(tmp_path / "results.jsonl", resume=True, sizes="quick")
    assert [again.has(measurement) for measurement in (first, second, third)] == [True, True, False]
    assert Store(tmp_path / "results.jsonl", resume=True, sizes="full").lines == []
    assert Store(tmp_path / "results.jsonl", resume=False, sizes="quick").lines == []


def test_an_alternative_that_cannot_be_installed_is_reported_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    peer = next(peer for peer in PEERS if peer.key == "ow")
    said = []
    installed = prepare(tmp_path, [peer, OURS], said.append)
    assert installed.missing == {"openworkflow": "npm is not installed."}
    assert list(installed.versions) == ["django-steps"]
    assert said == ["OpenWorkflow can't be measured here: npm is not installed."]
    assert "openworkflow: npm is not installed." in report.markdown([], [], installed.missing)


def test_latency_is_the_end_in_the_database_less_the_time_before_the_start():
    finished = [Finished(f"a-{number}", 0.0, 100 * number + 0.001 * number) for number in range(1, 21)]
    figures = workloads.waits({f"a{number}": 100.0 * number for number in range(1, 21)}, finished)
    assert figures == pytest.approx({"p50_ms": 10.5, "p95_ms": 19, "max_ms": 20}, abs=0.01)
