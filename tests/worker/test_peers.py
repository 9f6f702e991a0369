"""Workers that are woken together: about two look at once, the others a moment later."""

from __future__ import annotations

import time
from statistics import mean

import pytest
from django.db import connection

from django_steps.models import Worker as WorkerRow
from django_steps.worker import Worker, wakeups
from django_steps.worker.peers import Peers
from tests.app.workflows import tiny
from tests.staging import Background, eventually

pytestmark = pytest.mark.django_db(transaction=True)


def peers_of(count):
    peers = Peers([])
    peers.count = count
    return peers


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_look_at_once(count):
    assert {peers_of(count).waits_for() for _ in range(100)} == {0.0}


@pytest.mark.parametrize("count", [4, 16, 64])
def test_two_of_many_look_at_once_and_one_of_the_others_soon(count):
    peers = peers_of(count)
    rounds = [sorted(peers.waits_for() for _ in range(count)) for _ in range(400)]
    assert 1.5 < mean(sum(not wait for wait in waits) for waits in rounds) < 2.5
    assert mean(waits[0] for waits in rounds) < 0.005
    assert max(waits[-1] for waits in rounds) <= 0.25


def test_workers_of_the_same_queues_are_counted(live_worker):
    for queues in ([], [], ["bulk"], ["quick", "bulk"], ["bulk", "quick"]):
        live_worker(queues=queues)
    live_worker(queues=[], last_seen_us=1)  # is dead
    live_worker(queues=[], claims=False)  # executes what others claim
    found = {}
    for queues in ((), ("bulk",), ("bulk", "quick"), ("other",)):
        peers = Peers(queues)
        peers.look(connection)
        found[queues] = peers.count
    assert found == {(): 2, ("bulk",): 1, ("bulk", "quick"): 2, ("other",): 1}


def test_damaged_row_of_a_worker_counts_nothing(live_worker):
    worker = live_worker()
    WorkerRow.objects.filter(pk=worker.pk).update(queues={"not": "a list"})
    peers = Peers([])
    peers.look(connection)
    assert peers.count == 1


def test_thread_of_the_process_ends_the_rest():
    waits = wakeups.wakeups_of("default", list, 1.0)
    waits.clear()
    waits.wake()
    began = time.monotonic()
    waits.rest(30)
    assert time.monotonic() - began < 10
    waits.close()


def test_run_begins_also_where_a_worker_leaves_it_to_others_that_are_not_there(monkeypatch):
    monkeypatch.setattr(Peers, "look", lambda peers, connection: None)
    worker = Worker(concurrency=2, poll_interval=30)
    worker._peers.count = 1000
    working = Background(worker.run)
    try:
        eventually(lambda: WorkerRow.objects.exists())
        for _ in range(5):
            tiny.start({}).result(timeout=10)
    finally:
        worker.stop()
        working.result()
