"""The PostgreSQL server is restarted and killed under load: workers go on by themselves, and what is recorded stands."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from django.db import connections

from django_steps.models import StepRecord
from django_steps.models import Worker as WorkerRow
from tests.staging import eventually

from . import evidence
from .databases import default_database
from .expectations import Started, Tally, check_seen, writing_kind
from .processes import Workers
from .servers import Cluster, private_cluster

STEPS = 20


@pytest.fixture
def cluster(django_db_blocker) -> Iterator[Cluster]:
    """A server of its own, as the default database of this process and of its workers."""
    with django_db_blocker.unblock(), private_cluster() as running, default_database(**running.settings()):
        yield running


@pytest.fixture
def workers(cluster, directory) -> Iterator[Workers]:
    running = Workers(directory)
    yield running
    running.end()
    print(running.log()[-5000:])


def test_workers_go_on_by_themselves_after_a_killed_server(cluster, workers, started, chance):
    restarts(cluster, workers, started, chance, modes=["kill"], runs=4)


@pytest.mark.faults
def test_thirty_restarts_lose_nothing_and_repeat_nothing(cluster, workers, started, chance, report):
    modes = ["fast", "immediate", "kill"] * 10
    began = time.monotonic()
    tally = restarts(cluster, workers, started, chance, modes=modes, runs=300)
    report(
        "restarts",
        restarts=len(modes),
        runs=tally.runs,
        steps=tally.steps,
        repeated=tally.repeated,
        seconds=round(time.monotonic() - began),
    )


def test_no_body_goes_on_before_its_record_is_committed(cluster, workers, started):
    """The server is killed while bodies go on from step to step; what they saw is held against what it recovers."""
    assert crash(cluster, workers, started) == []


@pytest.mark.faults
def test_a_body_that_went_on_too_early_would_be_noticed(cluster, workers, started):
    """The same with commits that don't wait for the disk, which no user should do: shows that the comparison works."""
    assert crash(cluster, workers, started, environment={"SYNCHRONOUS_COMMIT": "off"})


@pytest.mark.faults
def test_no_body_goes_on_before_its_record_is_committed_in_twenty_crashes(cluster, workers, started, report):
    for _ in range(20):
        assert crash(cluster, workers, started) == []
        cluster.start()
    cluster.kill()
    tally = restart_and_finish(cluster, workers, started)
    seen = sum(line.event == "saw" for lines in evidence.read(started.path).values() for line in lines)
    report("crashes", crashes=20, runs=tally.runs, steps=tally.steps, compared=seen)


def restarts(
    cluster: Cluster, workers: Workers, started: Started, chance: random.Random, *, modes: list[str], runs: int
) -> Tally:
    """Restart the server in each of these modes, at random moments of a load."""
    started.pause = 0.01
    for _ in range(2):
        workers.start(environment=cluster.environment())
    for number, mode in enumerate(modes):
        for _ in range(runs * (number + 1) // len(modes) - len(started.kinds)):
            started.start(writing_kind(STEPS), steps=STEPS)
        eventually(lambda number=number: WorkerRow.objects.count() == 2 or number)
        time.sleep(chance.uniform(0.2, 1.5))
        cluster.stop(mode)
        connections["default"].close()
        time.sleep(chance.uniform(0, 1))
        cluster.start()
    eventually(started.are_finished, timeout=120)
    workers.assert_none_died()
    workers.stop()
    return started.check()


def crash(cluster: Cluster, workers: Workers, started: Started, environment: dict[str, str] | None = None) -> list[str]:
    """Kill the server under load, then the workers; what bodies saw that the server, recovered, knows nothing of.

    Leaves the server stopped.
    """
    started.pause = 0
    for _ in range(8 - started.unfinished()):
        started.start(writing_kind(STEPS * 10), steps=STEPS * 10)
    already = sum(map(len, evidence.read(started.path).values()))
    process = workers.start(environment={**cluster.environment(), **(environment or {})})
    eventually(lambda: sum(map(len, evidence.read(started.path).values())) > already + 200)
    cluster.kill()
    connections["default"].close()
    process.kill()
    process.wait()
    cluster.start()
    missing = check_seen(recorded_tokens(started), evidence.read(started.path))
    connections["default"].close()
    cluster.kill()
    return missing


def recorded_tokens(started: Started) -> dict[tuple[str, str], str]:
    labels = {pk: label for label, pk in started.ids.items()}
    records = StepRecord.objects.filter(run__in=list(labels))
    return {(labels[record.run_id], record.name): record.output for record in records}


def restart_and_finish(cluster: Cluster, workers: Workers, started: Started) -> Tally:
    """Start the server again, and let new workers do the rest."""
    cluster.start()
    workers.start("--concurrency", "8", environment=cluster.environment())
    eventually(started.are_finished, timeout=90)
    workers.stop()
    return started.check()
