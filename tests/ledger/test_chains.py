"""Long chains of runs that have continued as one another: whoever holds the first one pays for few statements."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from django_steps import RunFinished
from django_steps.callbacks.links import State, look_up
from django_steps.core.ids import uuid7
from django_steps.ledger import chains, database
from django_steps.models import WorkflowEvent, WorkflowRun
from django_steps.models.event_urls import read_token

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 1, tzinfo=UTC)


def make_chain(count, last="running"):
    """Runs that have continued as one another, in order; the last one has this status."""
    ids = [uuid7() for _ in range(count)]
    runs = [
        WorkflowRun(
            id=run_id,
            workflow="counter",
            status="succeeded",
            phase=WorkflowRun.Phase.ENDED,
            input_text="null",
            created_at=START,
            finished_at=START,
            continued_as_id=successor,
        )
        for run_id, successor in zip(ids, [*ids[1:], None], strict=True)
    ]
    runs[-1].status = last
    runs[-1].output_text = '"the last"' if last == "succeeded" else None
    if last == "running":
        runs[-1].phase, runs[-1].finished_at = WorkflowRun.Phase.TIMED, None
    WorkflowRun.objects.bulk_create(reversed(runs), batch_size=500)
    return runs


@pytest.mark.parametrize("count", [1, 2, 500, 501, 502, 1_100])
def test_the_successors_of_a_run_are_found_in_order(count):
    runs = make_chain(count)
    assert chains.successors(database.connection_for("default"), runs[0].pk) == [run.pk for run in runs[1:]]


def test_the_result_of_a_long_chain_is_that_of_its_last_run(django_assert_max_num_queries):
    first = make_chain(1_100, "succeeded")[0]
    with django_assert_max_num_queries(5):
        assert first.result(timeout=0) == "the last"


def test_an_event_for_the_first_run_of_a_long_chain_reaches_the_last(django_assert_max_num_queries):
    runs = make_chain(1_100)
    with django_assert_max_num_queries(14):
        event = runs[0].send_event("paid", 7, id="evt_1")
    assert event.created and WorkflowEvent.objects.get().run_id == runs[-1].pk
    assert not runs[0].send_event("paid", 7, id="evt_1").created


@pytest.mark.parametrize("taker", [0, 1, 700])
def test_an_event_that_a_run_of_the_chain_has_taken_is_not_sent_again(taker):
    runs = make_chain(1_100)
    taken = {"consumed_by": "paid", "consumed_at": START, "told": True, "sent_at": START}
    WorkflowEvent.objects.create(run=runs[taker], name="paid", event_id="evt_1", payload_text="7", **taken)
    event = runs[0].send_event("paid", 7, id="evt_1")
    assert (event.created, WorkflowEvent.objects.count()) == (False, 1)


def test_a_chain_that_has_ended_takes_no_events():
    runs = make_chain(3, "succeeded")
    with pytest.raises(RunFinished):
        runs[0].send_event("paid")


def test_an_address_of_the_first_run_of_a_long_chain_stands_for_the_last(django_assert_max_num_queries):
    runs = make_chain(1_100)
    callback = read_token(runs[0].event_url("approval").rstrip("/").rpartition("/")[2])
    with django_assert_max_num_queries(7):
        link = look_up(callback)
    assert (link.state, link.run) == (State.OPEN, runs[-1])
