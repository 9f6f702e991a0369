"""Events, waits and the nets under them cost the same whatever else is in the tables: plans, and rows that are looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from django_steps import workflow
from django_steps.core import clock
from django_steps.definitions import registered_kinds
from django_steps.ledger import claims, database, dialect, events, pruning, tables, taking, waits
from django_steps.ledger.events import NewEvent, To
from django_steps.ledger.terms import Terms
from django_steps.ledger.waits import Waiting
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.plans import NUMBERS, analyze, analyzed, id_of, is_scan, plan_of, recorded_statements, rows_looked_at

pytestmark = pytest.mark.django_db(transaction=True)

# So many waiting runs; and so many events each: those that other runs took, that one run took, that were sent by one key
# before its run existed, and that nobody ever took. PostgreSQL reads through what is not larger, and is right.
WAITING, OLD, OF_ONE, UNCLAIMED = (
    (10_000, 30_000, 5_000, 3_000) if connection.vendor == "postgresql" else (3_000, 6_000, 2_000, 1_500)
)
# A row that is looked at is at least an entry of an index, and the row; SQLite's machine makes about 20 steps of it.
STEPS_PER_ROW = 30


def fill() -> None:
    """Runs that wait and are not due, and old events."""
    now, key = dialect.now(connection), connection.ops.quote_name("key")
    yes, no = ("TRUE", "FALSE") if connection.vendor != "sqlite" else ("1", "0")
    text = {"postgresql": "n.n::text", "mysql": "CAST(n.n AS CHAR)", "sqlite": "CAST(n.n AS TEXT)"}[connection.vendor]
    keyed = f"CONCAT('k', {text})" if connection.vendor == "mysql" else f"'k' || {text}"
    moment = dialect.date_value(connection, time.time_ns() // 1000 - 30 * 24 * 3600 * 1_000_000)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {tables.RUN} (id, workflow, {key}, status, phase, input, created_at, available_at_us, waits_for)"
            f" SELECT {id_of('n.n')}, 'waited', {keyed}, 'waiting', 1, '{{}}', %s, {now} + 3600000000 + n.n, %s"
            f" FROM {NUMBERS} WHERE n.n < {WAITING}",
            [moment, "\npaid\n"],
        )
        cursor.execute(
            f"INSERT INTO {tables.STEP} (run_id, name, kind, position, status, started_at, claim_token, write_id) SELECT"
            f" {id_of('n.n')}, 'paid', 'event', 0, 'waiting', %s, 1, n.n FROM {NUMBERS} WHERE n.n < {WAITING}",
            [moment],
        )
        columns = f"run_id, workflow, {key}, name, payload, sent_at, told, consumed_by, consumed_at"
        cursor.execute(  # each fourth was sent by its key before the run existed
            f"INSERT INTO {tables.EVENT} ({columns}) SELECT"
            f" CASE WHEN n.n %% 4 = 0 THEN NULL ELSE {id_of(f'n.n %% {WAITING}')} END,"
            f" 'waited', {keyed}, 'paid', '1', %s, {yes}, 'paid', %s FROM {NUMBERS} WHERE n.n < {OLD}",
            [moment, moment],
        )
        for run_id, its_key, name, consumed_by, count in [
            (id_of("7"), "'k7'", "paid", "paid", OF_ONE),
            ("NULL", "'k8'", "paid", "paid", OF_ONE),
            (id_of("7"), "'k7'", "other", None, OF_ONE),
            ("NULL", keyed.replace("k", "nobody"), "paid", None, UNCLAIMED),
        ]:
            cursor.execute(
                f"INSERT INTO {tables.EVENT} ({columns}) SELECT {run_id}, 'waited', {its_key}, %s, '1', %s,"
                f" {yes if name else no}, %s, %s FROM {NUMBERS} WHERE n.n < {count}",
                [name, moment, consumed_by, moment if consumed_by else None],
            )
        # Of other runs: a table with nothing in it is read as a whole.
        cursor.execute(
            f"INSERT INTO {tables.LOG} (run_id, number, total, at, level, text)"
            f" SELECT {id_of('n.n')}, 1, 1, %s, 20, 'line' FROM {NUMBERS} WHERE n.n >= 100 AND n.n < {WAITING}",
            [moment],
        )
        cursor.execute(
            f"INSERT INTO {tables.TAG} (run_id, name, value)"
            f" SELECT {id_of('n.n')}, 'tenant', %s FROM {NUMBERS} WHERE n.n >= 100 AND n.n < {WAITING}",
            ["acme"],
        )
    analyze(tables.RUN, tables.EVENT, tables.STEP, tables.LOG, tables.TAG)


def run_of(number: int) -> Any:
    """The id of a waiting run."""
    return WorkflowRun.objects.get(key=f"k{number}").pk


def event(name: str = "paid", event_id: str | None = None) -> NewEvent:
    return NewEvent(name=name, payload="1", event_id=event_id, by="", sent_at=clock.host_time())


def wait_again(*ids: Any, is_due: bool = False) -> None:
    """Let runs wait as they did."""
    WorkflowRun.objects.filter(pk__in=ids).update(
        status="waiting", phase=1, available_at_us=0 if is_due else clock.NEVER_US
    )


@pytest.fixture
def costs(pass_time: None) -> Callable[..., Any]:
    """Call something, and see that it looks at so many rows at most, and through indexes: `costs(rows, function, *indexes)`."""
    fill()

    def check(most: int, function: Callable[[], Any], *indexes: str) -> Any:
        with rows_looked_at() as looked_at, recorded_statements() as statements:
            found = function()
        asked = [(text, given) for text, given in statements if text.lstrip().startswith(_EXPLAINED)]
        limit = most * STEPS_PER_ROW if connection.vendor == "sqlite" else most
        told = "\n".join(analyzed(*statement) for statement in asked)
        assert looked_at[0] <= limit, f"{looked_at[0]}\n{told}"
        with transaction.atomic():
            plans = [(text, plan_of(text, given)) for text, given in asked]
        for text, plan in plans:
            assert not is_scan(plan), f"{text}\n{plan}"
        for index in indexes:
            assert any(index in plan for _, plan in plans), (index, plans)
        return found

    return check


_EXPLAINED = ("SELECT", "WITH", "UPDATE", "INSERT", "DELETE", "(SELECT")


def test_look_finds_the_first_event_at_once(costs):
    one, keyed, other = run_of(7), run_of(8), run_of(9)
    new = "django_steps_event_new"
    assert costs(14, lambda: taking.look(connection, one, ["paid"]), new, "django_steps_event_keyed") is None
    assert costs(14, lambda: taking.look(connection, keyed, ["paid"]), new, "django_steps_event_keyed") is None
    events.send(connection, To(run_id=one), event())
    for _ in range(3):
        events.send(connection, To(workflow="waited", key="k9"), event("expired"))
    assert costs(14, lambda: taking.look(connection, one, ["paid", "expired"])).name == "paid"
    assert costs(14, lambda: taking.look(connection, one, ["other", "paid"])).name == "other"
    assert costs(14, lambda: taking.look(connection, other, ["paid", "expired"])).name == "expired"


def test_event_costs_the_same_among_many(costs):
    for to in (To(run_id=run_of(7)), To(workflow="waited", key="k8"), To(workflow="waited", key="new")):
        costs(18, lambda to=to: events.send(connection, to, event(event_id="evt_1")))
        costs(18, lambda to=to: events.send(connection, to, event(event_id="evt_1")))
    statuses = WorkflowRun.objects.filter(key__in=["k7", "k8"]).values_list("status", flat=True)
    assert list(statuses) == ["pending", "pending"]


def test_events_that_nobody_was_told_of_are_found_at_once(costs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(events, "tell", lambda *arguments: None)
        for to in (To(run_id=run_of(7)), To(workflow="waited", key="new")):
            events.send(connection, to, event())
    assert costs(20, lambda: events.tell_untold(connection), "django_steps_event_untold") == (2, None)
    assert costs(3, lambda: events.tell_untold(connection)) == (0, None)


def test_looking_at_waiting_runs_costs_a_few_rows_each(costs):
    ids = [run_of(number) for number in range(10, 110)]
    keys = [dialect.key(connection, run_id) for run_id in ids]
    events.send(connection, To(run_id=ids[0]), event())
    wait_again(*ids, is_due=True)
    # The run, its two kinds of events, its records; and each that is written to.
    costs(100 * 8, lambda: waits.check(connection, keys), "django_steps_event_new", "django_steps_event_keyed")
    assert WorkflowRun.objects.filter(pk__in=ids, status="pending").count() == 1
    assert costs(12, lambda: waits.look_again(connection, ids[1])) is False
    calls = {run_id: [Waiting(("paid", "expired"))] for run_id in ids}
    assert costs(100 * 6, lambda: waits.news(connection, calls)) == {ids[0]}


def test_claim_costs_the_same_beside_waiting_runs(costs):
    workflow(name="waited")(lambda: None).start_many([None] * 100)
    analyze(tables.RUN)
    terms = Terms(worker_id=1, kinds=registered_kinds(), lease_us=30_000_000, max_recoveries=3)
    assert len(costs(80, lambda: claims.claim(connection, terms, 8)).runs) == 8


def test_old_events_are_pruned_in_batches_that_walk_over_no_others(costs):
    now = database.read_clock(connection)
    # The event's entry and its row, its run's entry, which is asked for again where it is deleted, and two to delete.
    deleted, place = costs(500 * 6, lambda: pruning.prune_events(connection, now), "django_steps_event_old")
    assert deleted == 500 and place is not None
    while place is not None:
        _, place = pruning.prune_events(connection, now, place)
    assert not WorkflowEvent.objects.filter(key__startswith="nobody").exists()
    assert WorkflowEvent.objects.count() == OLD + 3 * OF_ONE
    analyze(tables.EVENT)
    assert costs(4, lambda: pruning.prune_events(connection, now)) == (0, None)


def test_events_of_pruned_runs_are_found_at_once(costs):
    WorkflowRun.objects.filter(key__in=["k8", "k9"]).update(
        status="succeeded", phase=2, finished_at=clock.to_datetime(time.time_ns() // 1000 - 1_000_000_000)
    )
    now = database.read_clock(connection)
    assert costs(4 * OF_ONE, lambda: pruning.prune(connection, now)) == 2
    assert not WorkflowEvent.objects.filter(key__in=["k8", "k9"]).exists()
