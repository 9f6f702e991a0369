"""What each event costs in statements and commits, counted on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from django_steps import RetryPolicy, current_step, workflow
from django_steps.definitions import registered_kinds
from django_steps.engine.ending import Ended, Ending
from django_steps.engine.history_cache import HistoryCache, load_histories
from django_steps.engine.host import Limits
from django_steps.ledger import claims, leases
from django_steps.ledger.claims import Claim
from django_steps.ledger.terms import Terms
from django_steps.models import Worker, WorkflowRun
from django_steps.worker.group_commit import GroupCommit
from django_steps.worker.heartbeat import Heartbeat
from django_steps.worker.host import WorkerHost
from django_steps.worker.task import Task
from tests.wire import Wire, counted

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = 30_000_000


def terms(**options: Any) -> Terms:
    kinds = registered_kinds()
    return Terms(**{"worker_id": 1, "kinds": kinds, "lease_us": LEASE, "max_recoveries": 3, **options})


def claim(limit: int = 8) -> list[Claim]:
    return claims.claim(connection, terms(), limit).runs


def execute(claimed: Claim, cache: HistoryCache | None = None) -> tuple[Ending, Wire]:
    """One pass as a worker makes it, on this thread, and what it cost; its history was loaded with the claim."""
    records = load_histories(connection, [claimed], cache or HistoryCache())[claimed.run_id]
    job = Task(claimed, records, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    with counted(connection) as wire:
        ending = job.run()
    if cache is not None:
        cache.keep(claimed, job.recorded)
    return ending, wire


def start_and_execute(body: Any) -> tuple[Ending, Wire]:
    body.start()
    (claimed,) = claim()
    return execute(claimed)


def fails_once() -> Callable[[], None]:
    """A step's function that raises when it is called for the first time."""
    calls = iter([ValueError()])

    def function() -> None:
        for error in calls:
            raise error

    return function


def putting_down() -> Wire:
    """A record, and the run: one statement where the database takes both as one."""
    return Wire(statements=1 if connection.vendor == "postgresql" else 2, transactions=1)


def notifications() -> int:
    """PostgreSQL's NOTIFY after a commit: outside the budget."""
    return 1 if connection.vendor == "postgresql" else 0


@pytest.fixture(autouse=True)
def warmed_up(monkeypatch):
    """Every NOTIFY is sent, and what is done once on a connection (preparing a statement) is done already."""
    monkeypatch.setattr("django_steps.ledger.notify.INTERVAL", 0)

    @workflow
    def warming_up(step):
        for number in range(3):
            step.define(f"one {number}", lambda: 1).run()
            step.define(f"flaky {number}", fails_once(), retry=RetryPolicy(initial_interval="1ms")).run()

    @workflow
    def falling_asleep(step):
        step.sleep("pause", "1h")

    for _ in range(3):
        start_and_execute(warming_up)
        start_and_execute(falling_asleep)
        WorkflowRun.objects.active().cancel()


# -- The counting itself -----------------------------------------------------------------------------


def test_wire_counts_statements_and_transactions():
    with counted(connection) as wire:
        WorkflowRun.objects.count()
        with transaction.atomic():
            WorkflowRun.objects.count()
            WorkflowRun.objects.update(priority=1)
        WorkflowRun.objects.update(priority=2)
    assert wire == Wire(statements=4, transactions=3)


# -- Steps -------------------------------------------------------------------------------------------


def steps(count: int) -> Callable[..., Any]:
    def body(step: Any) -> None:
        for i in range(count):
            step.define(f"step_{i}", lambda i=i: {"number": i}).run()

    return workflow(name=f"steps_{count}")(body)


@pytest.mark.parametrize("count", [0, 1, 20])
def test_successful_step_is_one_statement_and_one_commit_and_so_is_the_end(count):
    ending, wire = start_and_execute(steps(count))
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=count + 1, transactions=count + 1)


def test_step_that_fails_for_good_is_one_statement_and_one_commit():
    @workflow
    def optional(step):
        for i in range(5):
            with contextlib.suppress(ZeroDivisionError):
                step.define(f"step_{i}", lambda: 1 / 0).run()

    ending, wire = start_and_execute(optional)
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=6, transactions=6)


def test_run_that_fails_ends_with_one_statement():
    @workflow
    def failing():
        raise ValueError

    ending, wire = start_and_execute(failing)
    assert ending.how is Ended.FAILED
    assert wire == Wire(statements=1, transactions=1)


def test_atomic_step_is_one_transaction():
    @workflow
    def booking(step):
        step.define("book", lambda: Worker.objects.filter(pk=0).update(pid=1), atomic=True).run()

    ending, wire = start_and_execute(booking)
    assert ending.how is Ended.SUCCEEDED
    held_first = 2 if connection.vendor == "sqlite" else 0  # makes the transaction a writer from its beginning on
    assert wire == Wire(statements=3 + held_first, transactions=2)


def test_passing_over_recorded_steps_costs_nothing(pass_time):
    @workflow
    def long(step):
        for i in range(50):
            step.define(f"step_{i}", lambda i=i: i).run()
        step.sleep("pause", "1h")

    run = long.start()
    (claimed,) = claim()
    ending, _ = execute(claimed)
    assert ending.how is Ended.SUSPENDED
    pass_time("2h")
    (claimed,) = claim()
    ending, wire = execute(claimed)
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=1, transactions=1)  # the end
    assert run.steps.count() == 51


def test_putting_a_run_down_to_sleep_is_one_transaction_of_two_statements_at_most():
    @workflow
    def overnight(step):
        step.sleep("pause", "1h")

    ending, wire = start_and_execute(overnight)
    assert ending.how is Ended.SUSPENDED
    assert wire == putting_down()


def test_putting_a_run_down_between_two_attempts_is_one_transaction_of_two_statements_at_most():
    @workflow
    def retrying(step):
        step.define("flaky", lambda: 1 / 0, retry=RetryPolicy(initial_interval="1h")).run()

    ending, wire = start_and_execute(retrying)
    assert ending.how is Ended.SUSPENDED
    assert wire == putting_down()


def test_attempt_after_one_that_failed_is_one_transaction():
    @workflow
    def retrying(step):
        step.define("flaky", fails_once(), retry=RetryPolicy(initial_interval="1ms")).run()

    ending, wire = start_and_execute(retrying)
    assert ending.how is Ended.SUCCEEDED
    # The record of the first attempt, the second one's (which locks the run and then writes, if not by one statement),
    # and the end.
    locks = {"postgresql": 0, "mysql": 1, "sqlite": 2}[connection.vendor]
    assert wire == Wire(statements=3 + locks, transactions=3)


def test_sleep_that_is_waited_out_in_place_is_one_statement():
    @workflow
    def brief(step):
        step.sleep("brief", "1ms")

    ending, wire = start_and_execute(brief)
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=2, transactions=2)


def test_poll_is_a_record_when_it_is_reached_and_one_transaction_for_each_check(pass_time):
    found = iter([None, None, "there"])

    @workflow
    def asking(step):
        step.poll("shipped", lambda: next(found), every="1h").run()

    locks = {"postgresql": 0, "mysql": 1, "sqlite": 2}[connection.vendor]
    ending, wire = start_and_execute(asking)
    assert ending.how is Ended.SUSPENDED
    assert wire == Wire(statements=3 + locks, transactions=2)  # it is reached; the check, and the suspension
    pass_time("2h")
    ending, wire = execute(*claim())
    assert ending.how is Ended.SUSPENDED
    assert wire == Wire(statements=2 + locks, transactions=1)
    pass_time("2h")
    ending, wire = execute(*claim())
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=2 + locks, transactions=2)  # the outcome, and the end of the run


def test_checkpoints_cost_nothing_in_a_pass():
    @workflow
    def counting(step):
        def count() -> None:
            for number in range(100):
                current_step().checkpoint(number)

        step.define("count", count).run()

    _, wire = start_and_execute(counting)
    assert wire == Wire(statements=2, transactions=2)


def test_what_a_body_says_is_two_statements_more_of_the_next_record_and_none_of_the_end():
    @workflow
    def telling(step, run):
        run.update_details(stage="first")
        run.update_details(more=1)
        step.define("one", lambda: 1).run()
        step.define("two", lambda: 2).run()
        run.update_details(stage="over")

    ending, wire = start_and_execute(telling)
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=3 + 2, transactions=3)


def test_what_a_body_says_again_when_it_is_replayed_costs_nothing(pass_time):
    @workflow
    def telling(step, run):
        for i in range(20):
            run.update_details(at=i)
            step.define(f"step_{i}", lambda i=i: i).run()
        step.sleep("pause", "1h")
        step.define("last", lambda: None).run()

    run = telling.start()
    execute(*claim())
    run.refresh_from_db()
    assert run.details == {"at": 19}
    pass_time("2h")
    ending, wire = execute(*claim())
    assert ending.how is Ended.SUCCEEDED
    assert wire == Wire(statements=2, transactions=2)


def test_run_and_logger_in_a_body_cost_nothing():
    @workflow
    def looking(run, logger, input, step):
        logger.info("%s", run.pk)
        run.set_progress(1, 2)
        return run.workflow, run.input, run.status

    _, wire = start_and_execute(looking)
    assert wire == Wire(statements=1, transactions=1)


# -- Starting ----------------------------------------------------------------------------------------


def test_start_is_one_statement_and_one_commit():
    body = steps(0)
    with counted(connection) as wire:
        body.start({"order_id": 7})
    assert wire == Wire(1 + notifications(), 1 + notifications())


def test_start_with_a_key_is_one_statement_and_one_commit():
    body = steps(0)
    body.start({"order_id": 6}, key="order-6")  # PostgreSQL prepares the statement
    with counted(connection) as wire:
        body.start({"order_id": 7}, key="order-7")
    assert wire == Wire(1 + notifications(), 1 + notifications())


def test_start_in_a_transaction_is_one_statement_of_it():
    body = steps(0)
    with counted(connection) as wire, transaction.atomic():
        body.start({"order_id": 7})
        body.start({"order_id": 8})
    assert wire.statements in (2 + notifications(), 2 + 2 * notifications())
    assert wire.transactions == wire.statements - 1


def test_start_many_is_one_statement_for_hundreds():
    body = steps(0)
    with counted(connection) as wire:
        body.start_many([{"n": n} for n in range(80)])
    assert wire == Wire(1 + notifications(), 1 + notifications())


# -- Claiming ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 30])
def test_claim_is_at_most_four_statements_and_one_commit_however_many_runs(count):
    steps(1).start_many([None] * count)
    with counted(connection) as wire:
        claimed = claim(count)
    assert len(claimed) == count
    assert wire.statements <= 4
    assert wire.transactions <= (2 if connection.vendor == "sqlite" else 1)  # which looks first, without the lock


def test_claim_of_sleepers_that_are_due_is_at_most_four_statements(pass_time):
    body = steps(1)
    body.start_many([None] * 30, delay="1h")
    body.start_many([None] * 10)
    pass_time("2h")
    with counted(connection) as wire:
        claimed = claim(40)
    assert len(claimed) == 40
    assert wire.statements <= 4
    assert wire.transactions <= (2 if connection.vendor == "sqlite" else 1)


def test_further_queue_is_one_statement_more():
    body = steps(1)
    for queue in ("a", "b", "c"):
        body.start(queue=queue)
    costs = []
    for queues in (["a"], ["b", "c"]):
        with counted(connection) as wire:
            claimed = claims.claim(connection, terms(queues=queues), 8).runs
        assert len(claimed) == len(queues)
        costs.append(wire.statements)
    further = 1 if connection.vendor == "postgresql" else 2  # the others select, and then take
    assert costs[1] - costs[0] <= further


def test_history_of_fresh_runs_is_not_asked_for():
    steps(1).start_many([None] * 10)
    claimed = claim(10)
    with counted(connection) as wire:
        histories = load_histories(connection, claimed, HistoryCache())
    assert wire == Wire(0, 0)
    assert [len(records) for records in histories.values()] == [0] * 10


def test_histories_of_all_resumed_runs_of_a_claim_are_one_query(pass_time):
    @workflow
    def resumed(step):
        step.define("one", lambda: 1).run()
        step.sleep("pause", "1h")

    resumed.start_many([None] * 10)
    for claimed in claim(10):
        execute(claimed)
    pass_time("2h")
    claimed_again = claim(10)
    with counted(connection) as wire:
        histories = load_histories(connection, claimed_again, HistoryCache())
    assert wire == Wire(1, 1)
    assert [len(records) for records in histories.values()] == [2] * 10


def test_idle_claim_takes_no_write_and_at_most_two_statements():
    with counted(connection) as wire:
        assert claim() == []
    assert wire.statements <= 2


# -- Leases ------------------------------------------------------------------------------------------


def test_renewal_is_two_statements_in_one_transaction_for_all_runs_of_a_worker():
    steps(1).start_many([None] * 20)
    jobs = {
        item.run_id: Task(item, [], WorkerHost(GroupCommit("default"), Limits.from_settings())) for item in claim(20)
    }
    with counted(connection) as wire:
        found = leases.renew(connection, {run_id: job.holding() for run_id, job in jobs.items()}, LEASE)
    assert found.renewed == set(jobs)
    assert wire == Wire(statements=2, transactions=1)


def test_keeper_adds_one_statement_for_the_worker_itself():
    steps(1).start_many([None] * 20)
    jobs = {
        item.run_id: Task(item, [], WorkerHost(GroupCommit("default"), Limits.from_settings())) for item in claim(20)
    }
    keeper = Heartbeat("default", 1, LEASE / 1_000_000, lambda: jobs)
    with counted(connection) as wire:
        assert keeper._renew(connection)
    assert wire.statements == 3
    assert wire.transactions <= 2
