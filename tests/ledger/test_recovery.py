"""What happens to the runs of workers that die, stop answering, or are only suspected of it."""

import json
import random
import signal
import time

import pytest
from django.db import connection

from django_steps import RunFailed
from django_steps.core import clock
from django_steps.ledger import controls, database, leases, records, tables, timers, transitions, workers
from django_steps.ledger.leases import Holding
from django_steps.ledger.waits import Suspension
from django_steps.models import WorkflowRun
from tests.app import effects
from tests.app.workflows import atomic_steps, kills_its_worker, slow_middle, three_steps
from tests.staging import SECOND, claim, eventually, make_terms, recover, status_of, step_write
from tests.standing_still import stand_still

pytestmark = pytest.mark.django_db(transaction=True)


def wake(terms):
    with database.writing(connection):
        return timers.wake(connection, terms)


# -- Real processes, real signals ----------------------------------------------------------------


def test_killed_workers_run_goes_on_from_the_step_it_was_in(start_worker):
    run = slow_middle.start({"seconds": 0.8})
    first = start_worker("--lease", "1")
    eventually(lambda: effects.count("slow begins"))
    second = start_worker("--lease", "1", "--poll-interval", "0.1")
    first.kill()
    assert run.result(timeout=20) is None
    assert effects.names(run) == ["before", "slow begins", "slow begins", "slow ends", "after"]
    run.refresh_from_db()
    assert len(run.recovery_log) == 1 and str(first.pid) in run.recovery_log[0]["worker"]
    assert set(effects.Effect.objects.filter(name="after").values_list("pid", flat=True)) == {second.pid}


def test_stopped_worker_finds_its_run_taken_over_and_goes_on_working(start_worker):
    run = slow_middle.start({"seconds": 1})
    stopped = start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: effects.count("slow begins"))
    stand_still(stopped.process)
    second = start_worker("--lease", "1", "--poll-interval", "0.1")
    run.result(timeout=20)
    assert second.stop() == 0
    steps = list(run.steps.values())
    stopped.process.send_signal(signal.SIGCONT)
    eventually(lambda: effects.count("slow ends") == 2)  # the end of the step that it was in
    another = three_steps.start({})
    another.result(timeout=15)
    assert set(effects.Effect.objects.filter(run=another.pk).values_list("pid", flat=True)) == {stopped.pid}
    run.refresh_from_db()
    assert run.status == "succeeded" and list(run.steps.values()) == steps
    assert effects.count("after", run) == 1
    assert stopped.stop() == 0


def test_a_step_that_kills_each_worker_fails_its_run_until_it_is_repaired(start_worker, tmp_path):
    run = kills_its_worker.start({"alive": str(tmp_path / "alive")})
    environment = {"DJANGO_STEPS": json.dumps({"MAX_RECOVERIES": 1})}
    for _ in range(3):
        start_worker("--lease", "1", "--poll-interval", "0.1", environment=environment)
    with pytest.raises(RunFailed, match="deadly"):
        run.result(timeout=20)
    assert run.error["type"].endswith("WorkerDied") and run.error["step"] == "deadly"
    assert json.loads(run.error_text)["steps"] == []  # it has no record of a failure
    assert effects.names(run) == ["before", "deadly", "deadly"]
    (tmp_path / "alive").touch()
    run.retry()
    run.result(timeout=15)  # by the worker that is left
    assert effects.names(run) == ["before", "deadly", "deadly", "deadly"]


def test_every_run_ends_whatever_workers_are_killed(start_worker):
    """Twelve kills at random moments, with the workers' plain and atomic steps under way."""
    seed = int(time.time())
    print("seed", seed)
    chance = random.Random(seed)
    runs = [atomic_steps.start({"steps": 6, "seconds": 0.04}) for _ in range(16)]
    environment = {"DJANGO_STEPS": json.dumps({"MAX_RECOVERIES": 100})}

    def start():
        return start_worker("--lease", "1", "--poll-interval", "0.1", "--concurrency", "2", environment=environment)

    alive = [start(), start()]
    eventually(lambda: effects.Effect.objects.exists())
    for _ in range(6):
        time.sleep(chance.uniform(0.05, 0.5))
        alive.pop(chance.randrange(len(alive))).kill()
        alive.append(start())
    for run in runs:
        run.result(timeout=30)
        names = effects.names(run)
        for number in range(6):
            if number % 2 == 0:
                assert names.count(f"atomic {number}") == 1
            else:
                assert names.count(f"plain {number}") >= 1


# -- Suspicion -----------------------------------------------------------------------------------


def test_an_expired_lease_is_only_a_suspicion_at_first():
    run = three_steps.start({})
    terms = make_terms(lease=30 * SECOND)
    claimed = claim(run, terms)
    clock.offset_us += 31 * SECOND
    wake(terms)
    run.refresh_from_db()
    assert run.status == "running" and run.suspect_since_us is not None
    clock.offset_us += 14 * SECOND  # less than half of the lease
    wake(terms)
    assert records.record(connection, step_write(claimed, "first")) is records.Outcome.WRITTEN
    clock.offset_us += 2 * SECOND
    wake(terms)
    assert status_of(run) == "pending"


def test_a_renewal_wipes_the_suspicion():
    run = three_steps.start({})
    terms = make_terms()
    claimed = claim(run, terms)
    clock.offset_us += 31 * SECOND
    wake(terms)
    assert leases.renew(connection, {run.pk: Holding(claimed.token)}, terms.lease_us).renewed == {run.pk}
    clock.offset_us += 20 * SECOND
    wake(terms)
    run.refresh_from_db()
    assert run.status == "running" and run.suspect_since_us is None


def test_the_holder_has_half_of_its_own_lease_to_object():
    """A worker with a short lease doesn't hurry one with a long lease."""
    run = three_steps.start({})
    claim(run, make_terms(lease=60 * SECOND))
    hasty = make_terms(lease=1 * SECOND)
    clock.offset_us += 61 * SECOND
    wake(hasty)
    clock.offset_us += 25 * SECOND
    wake(hasty)
    assert status_of(run) == "running"
    clock.offset_us += 6 * SECOND
    wake(hasty)
    assert status_of(run) == "pending"


def test_the_runs_of_a_worker_whose_row_is_gone_are_taken_over():
    run = three_steps.start({})
    terms = make_terms()
    claim(run, terms)
    clock.offset_us += 31 * SECOND
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {tables.WORKER} WHERE id = %s", [terms.worker_id])
    recover()
    assert status_of(run) == "pending"
    assert run.recovery_log[0]["worker"] == "a worker"


def test_an_idle_worker_that_waits_for_nothing_else_sees_the_suspicion_through():
    """What --until-idle asks: a run whose worker is gone is something to wait for."""
    run = three_steps.start({})
    terms = make_terms()
    claim(run, terms)
    ask = (connection, terms.kinds, (), 0)
    assert not workers.is_anything_left(*ask)
    clock.offset_us += 31 * SECOND
    assert workers.is_anything_left(*ask)
    wake(terms)
    assert workers.is_anything_left(*ask)


# -- Counting ------------------------------------------------------------------------------------


def die(run, terms, step=""):
    """A worker claims the run, enters a step, and is heard of no more."""
    claimed = claim(run, terms)
    if step:
        assert leases.enter_step(connection, run.pk, claimed.token, step)
    clock.offset_us += 31 * SECOND
    return claimed, recover(terms).ended


def test_a_run_without_progress_fails_after_max_recoveries():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=2)
    assert [die(run, terms, "first")[1] for _ in range(3)] == [[], [], [run.pk]]
    run.refresh_from_db()
    assert run.status == "failed" and run.recoveries == 3 and run.finished_at is not None
    assert run.error["step"] == "first" and "3 times while executing step 'first'" in run.error["message"]
    assert [entry["step"] for entry in run.recovery_log] == ["first"] * 3


def test_a_crash_outside_the_steps_is_named_so():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=1)
    die(run, terms)
    die(run, terms)
    run.refresh_from_db()
    assert run.error["step"] is None and "outside its steps, before any step" in run.error["message"]


def test_a_crash_before_the_first_renewal_names_the_step_before():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=0)
    claimed = claim(run, terms)
    for number, name in enumerate(("first", "second")):
        clock.offset_us += SECOND
        records.record(connection, step_write(claimed, name, number))
    records.record(connection, step_write(claimed, "third", 2, status="retrying", output=None, attempts=1))
    clock.offset_us += 31 * SECOND
    recover(terms)
    run.refresh_from_db()
    (entry,) = run.recovery_log
    assert (entry["step"], entry["after"]) == ("", "second")
    assert run.error["step"] is None
    assert run.error["message"].startswith(
        "The worker died once after step 'second', in the next step or in the body, "
    )


@pytest.mark.parametrize("status", ["succeeded", "canceled"])
def test_a_step_that_is_recorded_is_not_where_the_worker_died(status):
    """The last renewal came during a step, and the crash after it."""
    run = three_steps.start({})
    terms = make_terms(max_recoveries=0)
    claimed = claim(run, terms)
    assert leases.enter_step(connection, run.pk, claimed.token, "first")
    records.record(connection, step_write(claimed, "first", 0, status=status))
    clock.offset_us += 31 * SECOND
    recover(terms)
    run.refresh_from_db()
    assert run.recovery_log[0]["step"] == "" and run.recovery_log[0]["after"] == "first"
    assert run.error["step"] is None and "once after step 'first', " in run.error["message"]


def test_a_step_that_is_tried_again_is_where_the_worker_died():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=0)
    claimed = claim(run, terms)
    assert leases.enter_step(connection, run.pk, claimed.token, "first")
    records.record(connection, step_write(claimed, "first", 0, status="retrying", output=None, attempts=1))
    clock.offset_us += 31 * SECOND
    recover(terms)
    run.refresh_from_db()
    assert run.error["step"] == "first" and "once while executing step 'first'" in run.error["message"]
    assert "after" not in run.recovery_log[0]


def test_progress_resets_the_count():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=1)
    for number in range(4):
        claimed = claim(run, terms)
        records.record(connection, step_write(claimed, f"step {number}", number))
        clock.offset_us += 31 * SECOND
        recover(terms)
        run.refresh_from_db()
        assert (run.status, run.recoveries) == ("pending", 1)


def test_a_failed_attempt_is_progress_too():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=1)
    for number in range(1, 4):
        claimed = claim(run, terms)
        write = step_write(claimed, "first", status="retrying", output=None, attempts=number, replaces=number > 1)
        assert records.record(connection, write) is records.Outcome.WRITTEN
        clock.offset_us += 31 * SECOND
        recover(terms)
    assert status_of(run) == "pending"


def test_an_operator_may_retry_what_killed_its_workers():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=0)
    die(run, terms, "first")
    assert status_of(run) == "failed"
    run.retry()
    assert run.recoveries == 0 and run.status == "pending" and run.worker_id is None
    claim(run, terms)


def test_a_pass_after_a_crash_says_which_step_it_enters(work, monkeypatch):
    entered = []
    original = leases.enter_step
    monkeypatch.setattr(leases, "enter_step", lambda *given: entered.append(given[-1]) or original(*given))
    run = three_steps.start({})
    die(run, make_terms())
    work()
    assert status_of(run) == "succeeded"
    assert entered == ["first"]  # once it gets on, nothing is written before a step


# -- Runs that were not running ------------------------------------------------------------------


def test_a_canceling_run_whose_worker_died_is_canceled_without_calling_its_body(work):
    run = three_steps.start({})
    claimed = claim(run)
    run.cancel(reason="enough", by="eve")
    assert (run.status, run.phase, run.finished_at) == ("canceling", WorkflowRun.Phase.TIMED, None)
    clock.offset_us += 31 * SECOND
    recover()
    assert status_of(run) == "canceled" and run.phase == WorkflowRun.Phase.ENDED
    assert run.finished_at > clock.to_datetime(claimed.claimed_at + 31 * SECOND)
    assert (run.cancel_reason, run.canceled_by) == ("enough", "eve")
    assert [entry["worker"] for entry in run.recovery_log] == ["a-host:4711"]
    work()
    assert not run.steps.exists()
    assert not transitions.release(connection, run.pk, claimed.token)  # the dead one comes back, and is told of nothing
    run.retry()
    work()
    assert status_of(run) == "succeeded"


def test_a_sleep_that_was_recorded_before_the_crash_is_still_slept():
    """Crash between recording a sleep and putting the run down: the record alone carries the time."""
    run = three_steps.start({})
    claimed = claim(run)
    wakes_at_us = claimed.now() + 3600 * SECOND
    records.record(
        connection, step_write(claimed, "nap", kind="sleep", finished_at=wakes_at_us, wakes_at_us=wakes_at_us)
    )
    clock.offset_us += 31 * SECOND
    recover()
    again = claim(run)
    assert (
        transitions.suspend_again(connection, run.pk, again.token, Suspension(wakes_at_us)) is records.Outcome.WRITTEN
    )
    run.refresh_from_db()
    assert run.status == "sleeping" and run.available_at_us == wakes_at_us


def test_a_sleep_is_not_extended_by_a_crash(work):
    from django_steps import workflow

    @workflow(name="naps")
    def naps(input, step):
        step.sleep("nap", "1h")

    run = naps.start({})
    claimed = claim(run)
    wakes_at_us = claimed.now() + 3600 * SECOND
    records.record(
        connection, step_write(claimed, "nap", kind="sleep", finished_at=wakes_at_us, wakes_at_us=wakes_at_us)
    )
    clock.offset_us += 31 * SECOND
    recover()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping" and run.available_at_us == wakes_at_us
    clock.offset_us += 3600 * SECOND
    work()
    assert status_of(run) == "succeeded"


def test_failures_that_kill_workers_are_not_looked_for_by_a_retry():
    run = three_steps.start({})
    terms = make_terms(max_recoveries=0)
    claimed = claim(run, terms)
    records.record(connection, step_write(claimed, "first", status="failed", output=None, error='{"steps": []}'))
    clock.offset_us += 31 * SECOND
    recover(terms)
    controls.retry(connection, run.pk)
    assert list(run.steps.values_list("name", "status")) == [("first", "failed")]
