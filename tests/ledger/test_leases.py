"""Keeping what is held: renewals, foreign locks, and what a worker learns from them."""

import threading
import time

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from django_steps import workflow
from django_steps.core import clock
from django_steps.ledger import database, dialect, leases, tables, timers
from django_steps.ledger.leases import Holding
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from django_steps.worker.heartbeat import Heartbeat
from tests.app import effects
from tests.app.workflows import holds_the_interpreter, slow_middle, three_steps, wires_once
from tests.staging import SECOND, Background, claim, eventually, locked, make_terms, recover, status_of
from tests.wire import Wire, counted

pytestmark = pytest.mark.django_db(transaction=True)


def holdings(*claims, **details):
    return {claimed.run_id: Holding(claimed.token, **details) for claimed in claims}


def claim_all(runs, terms):
    from django_steps.ledger import claims

    found = claims.claim(connection, terms, len(runs)).runs
    assert len(found) == len(runs)
    return found


def test_all_leases_are_renewed_by_two_statements_and_one_commit():
    runs = [three_steps.start({}) for _ in range(5)]
    terms = make_terms(lease=30 * SECOND)
    claims = claim_all(runs, terms)
    clock.offset_us += 10 * SECOND
    with CaptureQueriesContext(connection) as queries:
        found = leases.renew(connection, holdings(*claims), terms.lease_us)
    statements = [query["sql"] for query in queries if not query["sql"].startswith(("BEGIN", "COMMIT"))]
    assert len(statements) == 2
    assert found.renewed == {run.pk for run in runs} and not found.lost | found.halted
    for run in runs:
        run.refresh_from_db()
        assert run.available_at_us > claims[0].claimed_at + 39 * SECOND


def test_a_worker_without_runs_asks_nothing():
    with CaptureQueriesContext(connection) as queries:
        assert not leases.renew(connection, {}, SECOND).renewed
        assert not leases.check(connection, {}).renewed
    assert len(queries) == 0


def test_a_renewal_carries_the_step_and_the_progress():
    runs = [three_steps.start({}) for _ in range(2)]
    first, second = claim_all(runs, make_terms())
    held = {**holdings(first, current_step="pay", progress=(3, 10)), **holdings(second)}
    leases.renew(connection, held, SECOND)
    for run in runs:
        run.refresh_from_db()
    assert (runs[0].current_step, runs[0].progress_done, runs[0].progress_total) == ("pay", 3, 10)
    assert (runs[1].current_step, runs[1].progress_done) == ("", None)


def test_a_renewal_tells_of_cancels_and_of_lost_runs():
    runs = [three_steps.start({}) for _ in range(3)]
    terms = make_terms()
    claims = claim_all(runs, terms)
    runs[0].cancel()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.RUN} SET claim_token = 1 WHERE id = %s", [dialect.key(connection, runs[1].pk)])
    for look in (
        leases.renew(connection, holdings(*claims), terms.lease_us),
        leases.check(connection, holdings(*claims)),
    ):
        assert look.halted == {runs[0].pk}
        assert look.lost == {runs[1].pk}
        assert look.renewed == {runs[0].pk, runs[2].pk}  # a canceled run is held until its pass lets go


def test_somebodys_lock_on_a_run_costs_the_others_no_lease():
    runs = [three_steps.start({}) for _ in range(3)]
    terms = make_terms()
    claims = claim_all(runs, terms)
    with locked(runs[1]):
        renewing = Background(lambda: leases.renew(connection, holdings(*claims), terms.lease_us))
        renewing.join(0.3)
        # SQLite knows no locks of rows: there the renewal waits until the writer is done.
        assert renewing.is_alive() == (connection.vendor == "sqlite")
    expected = set(runs) if connection.vendor == "sqlite" else {runs[0], runs[2]}
    assert renewing.result().renewed == {run.pk for run in expected}


def test_a_locked_run_is_not_taken_over_and_goes_on_afterwards():
    run = three_steps.start({})
    terms = make_terms()
    claimed = claim(run, terms)
    clock.offset_us += 31 * SECOND
    with locked(run):
        looking = Background(lambda: _wake(terms))
        looking.join(0.3)
    looking.result()
    assert leases.renew(connection, holdings(claimed), terms.lease_us).renewed == {run.pk}
    assert status_of(run) == "running"


def _wake(terms):
    with database.writing(connection):
        timers.wake(connection, terms)


def test_a_users_lock_on_one_run_delays_that_run_only(transactional_db):
    """The whole worker, with shared commits: four runs of several steps, one of them locked by somebody."""
    reached, go_on = threading.Event(), threading.Event()

    @workflow(name="locked_out")
    def locked_out(input, step):
        if input:
            step.define("wait", lambda: reached.set() or go_on.wait(10)).run()
        for number in range(3):
            step.define(f"step {number}", effects.leave).run("step")
            time.sleep(0.01)

    runs = [locked_out.start(number == 0) for number in range(4)]
    worker = Worker(concurrency=4, until_idle=True, poll_interval=0.05, lease=1)
    working = Background(worker.run)
    assert reached.wait(10)
    if connection.vendor == "sqlite":  # any writer holds up all others there, as briefly as it can
        go_on.set()
    else:
        with locked(runs[0]):
            go_on.set()
            for run in runs[1:]:
                run.result(timeout=5)
            time.sleep(1.2)  # longer than the lease
            another = three_steps.start({})
            another.result(timeout=5)
            assert status_of(runs[0]) == "running"
    runs[0].result(timeout=10)
    working.result()
    assert effects.count("step") == 12
    assert not any(run.recovery_log for run in runs)


# -- The thread that renews ----------------------------------------------------------------------


class Held:
    """A job as the keeper knows it."""

    def __init__(self, claimed):
        self.claim, self.reasons, self.step = claimed, [], ""

    def holding(self):
        return Holding(self.claim.token, self.step)

    def silent_for(self):
        return 0.0

    def stop(self, reason):
        self.reasons.append(reason.name)


def test_the_keeper_goes_on_after_any_error(monkeypatch):
    run = three_steps.start({})
    terms = make_terms(lease=SECOND)
    job = Held(claim(run, terms))
    errors = [ValueError("a mistake"), OperationalError("the database is away"), KeyError("another")]
    original = leases.renew
    monkeypatch.setattr(leases, "renew", lambda *given: _raise(errors.pop()) if errors else original(*given))
    keeper = Heartbeat("default", terms.worker_id, 0.3, lambda: {run.pk: job})
    before = run.available_at_us
    keeper.start()
    try:
        eventually(lambda: not errors and _available_at(run) > before)
    finally:
        keeper.stop()


def _raise(error):
    raise error


def _available_at(run):
    run.refresh_from_db()
    return run.available_at_us if run.suspect_since_us is None else 0


def test_the_keeper_interrupts_what_was_canceled_or_lost():
    runs = [three_steps.start({}) for _ in range(2)]
    terms = make_terms(lease=SECOND)
    jobs = {claimed.run_id: Held(claimed) for claimed in claim_all(runs, terms)}
    runs[0].cancel()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.RUN} SET claim_token = 1 WHERE id = %s", [dialect.key(connection, runs[1].pk)])
    keeper = Heartbeat("default", terms.worker_id, 0.3, lambda: jobs)
    keeper.start()
    try:
        eventually(lambda: all(job.reasons for job in jobs.values()))
    finally:
        keeper.stop()
    assert jobs[runs[0].pk].reasons[0] == "CANCELED" and jobs[runs[1].pk].reasons[0] == "LOST"


def test_the_keeper_writes_a_step_that_lasts_and_its_end_before_the_next_renewal():
    runs = [three_steps.start({}) for _ in range(2)]
    terms = make_terms()
    jobs = {claimed.run_id: Held(claimed) for claimed in claim_all(runs, terms)}
    pay, other = (jobs[run.pk] for run in runs)
    keeper = Heartbeat("default", terms.worker_id, 3600, lambda: jobs)

    def written():
        return [WorkflowRun.objects.get(pk=run.pk).current_step for run in runs]

    pay.step, other.step = "pay", "short 1"
    keeper._check(connection)
    assert written() == ["", ""]  # neither has lasted yet
    other.step = "short 2"
    keeper._check(connection)
    assert written() == ["pay", ""]
    assert jobs[runs[0].pk].claim.held_until > time.monotonic() + 3000
    other.step = "short 3"
    with counted(connection) as wire:
        keeper._check(connection)
    assert wire == Wire(statements=1, transactions=1)
    pay.step, other.step = "", "short 4"
    keeper._check(connection)
    assert written() == ["", ""]


def test_the_keeper_renews_nothing_early_whose_connection_is_silent():
    run = three_steps.start({})
    terms = make_terms()
    job = Held(claim(run, terms))
    job.step, job.silent_for = "pay", lambda: 10_000.0
    keeper = Heartbeat("default", terms.worker_id, 30, lambda: {run.pk: job})
    due = _available_at(run)
    for _ in range(3):
        keeper._check(connection)
    assert _available_at(run) == due and run.current_step == ""


def test_what_a_worker_executes_is_named_long_before_its_lease_is_renewed(start_worker):
    run = wires_once.start({"seconds": 30})
    start_worker("--lease", "3600", "--poll-interval", "0.1")
    eventually(lambda: WorkflowRun.objects.get(pk=run.pk).current_step == "wire", timeout=15)


def test_a_keeper_with_nothing_to_keep_says_that_the_worker_lives():
    terms = make_terms()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {tables.WORKER} SET last_seen_us = 0")
    keeper = Heartbeat("default", terms.worker_id, 0.3, dict)
    keeper.start()
    try:
        eventually(lambda: _last_seen() > 0)
    finally:
        keeper.stop()


def _last_seen():
    from django_steps.models import Worker as WorkerRow

    return WorkerRow.objects.get().last_seen_us


# -- Steps that take longer than the lease -------------------------------------------------------


def test_a_long_atomic_step_under_a_short_lease_is_not_stolen(start_worker):
    """On SQLite its transaction keeps every renewal out for as long as it takes."""
    from tests.app.workflows import atomic_steps

    run = atomic_steps.start({"steps": 1, "seconds": 2})
    for _ in range(2):
        start_worker("--lease", "1", "--poll-interval", "0.1")
    run.result(timeout=20)
    run.refresh_from_db()
    assert run.recovery_log == [] and effects.names(run) == ["atomic 0"]


def test_a_step_that_holds_the_interpreter_is_not_stolen(start_worker):
    run = holds_the_interpreter.start({"length": 25})
    start_worker()
    eventually(lambda: effects.count("search begins"))
    start_worker("--poll-interval", "0.1")
    run.result(timeout=40)
    run.refresh_from_db()
    assert run.recovery_log == [] and effects.count("search begins") == 1


def test_a_step_longer_than_its_lease_is_renewed(start_worker):
    run = slow_middle.start({"seconds": 2.2})
    for _ in range(2):
        start_worker("--lease", "1", "--poll-interval", "0.1")
    run.result(timeout=20)
    run.refresh_from_db()
    assert run.recovery_log == [] and run.suspect_since_us is None
    assert effects.count("slow begins") == 1


def test_take_over_needs_the_worker_to_be_gone(pass_time):
    """What the other tests of recovery_log rely on: without renewals the run is another's."""
    run = three_steps.start({})
    claim(run)
    pass_time("31s")
    recover()
    assert status_of(run) == "pending"
