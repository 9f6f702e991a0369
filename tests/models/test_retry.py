"""`run.retry()`: what executes again, what is kept, and what is refused."""

import contextlib
import threading

import pytest
from django.db import connection

from django_steps import RetryPolicy, workflow
from django_steps.errors import FailureWasHandled, InvalidState, UnknownStep
from django_steps.ledger import records, transitions
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.app import effects
from tests.app.workflows import sleeper, three_steps
from tests.staging import Background, at_once, claim, eventually, status_of, step_write

pytestmark = pytest.mark.django_db(transaction=True)


def failing(name, error=OSError, while_=1):
    """A step's function that leaves a trace, and raises as long as it was executed at most `while_` times."""

    def function():
        effects.leave(name)
        if effects.count(name) <= while_:
            raise error(f"{name} failed")
        return f"{name} done"

    return function


def define_failing_in_the_middle(name="fails_in_the_middle"):
    @workflow(name=name)
    def fails_in_the_middle(input, step):
        step.define("first", effects.leave).run("first")
        step.define("second", failing("second")).run()
        step.define("third", effects.leave).run("third")

    return fails_in_the_middle


def test_retry_executes_the_failed_step_and_what_comes_after_it_only(work):
    run = define_failing_in_the_middle().start({})
    work()
    assert status_of(run) == "failed" and run.error["step"] == "second"
    run.retry()
    assert run.status == "pending" and run.error is None and run.finished_at is None
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["first", "second", "second", "third"]
    step = run.steps.get(name="second")
    assert step.attempts == 1 and [entry["attempt"] for entry in step.earlier_attempts] == [1]


def test_a_retried_step_has_all_its_attempts_ahead(work):
    @workflow(name="three_attempts")
    def three_attempts(input, step):
        step.define("flaky", failing("flaky", while_=5), retry=RetryPolicy(max_attempts=3, initial_interval=0)).run()

    run = three_attempts.start({})
    work()
    assert status_of(run) == "failed" and effects.count("flaky") == 3
    run.retry()
    work()
    assert status_of(run) == "succeeded" and effects.count("flaky") == 6
    assert len(run.steps.get().earlier_attempts) == 6 - 1


def test_handled_failures_stay_handled(work):
    @workflow(name="handles_one")
    def handles_one(input, step):
        with contextlib.suppress(OSError):
            step.define("optional", failing("optional", while_=9)).run()
        step.define("needed", failing("needed")).run()

    run = handles_one.start({})
    work()
    assert status_of(run) == "failed" and run.error["step"] == "needed"
    run.retry()
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["optional", "needed", "needed"]


def test_a_body_that_raised_outside_its_steps_is_called_again_with_all_steps_kept(work):
    @workflow(name="raises_outside")
    def raises_outside(input, step):
        step.define("first", effects.leave).run("first")
        effects.leave("body")
        if effects.count("body") == 1:
            raise RuntimeError("outside")
        step.define("second", effects.leave).run("second")

    run = raises_outside.start({})
    work()
    assert status_of(run) == "failed" and run.error["step"] is None
    run.retry()
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run).count("first") == 1


def define_compensates():
    @workflow(name="compensates")
    def compensates(input, step):
        step.define("charge", effects.leave).run("charge")
        try:
            step.define("ship", failing("ship", while_=9)).run()
        except OSError:
            step.define("refund", effects.leave).run("refund")
            raise

    return compensates


def test_a_retry_after_a_compensation_is_refused_and_says_what_to_choose(work):
    run = define_compensates().start({})
    work()
    assert status_of(run) == "failed" and run.error["step"] == "ship"
    with pytest.raises(FailureWasHandled, match=r"'ship' was handled: 'refund' ran after it.*from_step=.*restart\(\)"):
        run.retry()
    assert status_of(run) == "failed" and run.error["step"] == "ship"
    assert run.steps.count() == 3
    run.retry(from_step="ship")
    work()
    assert effects.names(run) == ["charge", "ship", "refund", "ship", "refund"]


class Deploys:
    """A body to whose beginning a later deploy adds a step; it fails at `ship`, which comes after `charge`."""

    def __init__(self, failures=9, **options):
        self.has_new_step = False

        @workflow(name="grows", **options)
        def grows(input, step):
            step.define("charge", effects.leave).run("charge")
            if self.has_new_step:
                step.define("weigh", effects.leave).run("weigh")
            step.define("ship", failing("ship", while_=failures)).run()
            step.define("thank", effects.leave).run("thank")

        self.workflow = grows


def test_a_step_that_a_later_deploy_added_before_the_failing_one_does_not_handle_the_failure(work):
    deploys = Deploys(failures=3)
    run = deploys.workflow.start({})
    work()
    deploys.has_new_step = True
    for _ in range(3):
        assert status_of(run) == "failed" and run.error["step"] == "ship"
        run.retry()
        work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["charge", "ship", "weigh", "ship", "ship", "ship", "thank"]
    # In the order in which the outcomes were recorded.
    assert list(run.steps.values_list("name", flat=True)) == ["charge", "weigh", "ship", "thank"]


def test_an_added_step_does_not_stop_automatic_retries_of_the_run(work, pass_time):
    policy = RetryPolicy(max_attempts=4, initial_interval="1h", jitter=False, backoff_coefficient=1.0)
    deploys = Deploys(failures=3, retry=policy)
    run = deploys.workflow.start({})
    work()
    deploys.has_new_step = True
    for _ in range(3):
        assert status_of(run) == "sleeping"
        pass_time("61m")
        work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["charge", "ship", "weigh", "ship", "ship", "ship", "thank"]


def test_retry_from_the_failed_step_keeps_a_step_that_was_added_before_it(work):
    deploys = Deploys(failures=2)
    run = deploys.workflow.start({})
    work()
    deploys.has_new_step = True
    run.retry()
    work()
    run.retry(from_step="ship")
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["charge", "ship", "weigh", "ship", "ship", "thank"]


def test_retry_from_an_added_step_executes_what_came_after_it_only(work):
    deploys = Deploys(failures=2)
    run = deploys.workflow.start({})
    work()
    deploys.has_new_step = True
    run.retry()
    work()
    run.retry(from_step="weigh")
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["charge", "ship", "weigh", "ship", "weigh", "ship", "thank"]


def test_restart_from_a_step_copies_what_did_not_come_later(work):
    deploys = Deploys(failures=2)
    run = deploys.workflow.start({})
    work()
    deploys.has_new_step = True
    run.retry()
    work()
    assert status_of(run) == "failed"
    assert sorted(run.restart(from_step="ship").steps.values_list("name", flat=True)) == ["charge", "weigh"]
    assert list(run.restart(from_step="weigh").steps.values_list("name", flat=True)) == ["charge"]


def test_each_record_says_what_the_body_knew_when_it_called_the_step(work, pass_time):
    deploys = Deploys(failures=1, retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False))
    run = deploys.workflow.start({})
    work()
    assert list(run.steps.values_list("name", "position", "after")) == [("charge", 0, -1), ("ship", 1, 0)]
    deploys.has_new_step = True
    pass_time("2h")
    work()
    assert list(run.steps.values_list("name", "position", "after")) == [
        ("charge", 0, -1),
        ("weigh", 2, 0),
        ("ship", 3, 2),
        ("thank", 4, 3),
    ]


@pytest.mark.parametrize("how", ["itself", "cause", "context", "group", "cause in a group"])
def test_the_step_whose_failure_ended_the_run_is_found(work, how):
    def reraise(error):
        if how == "itself":
            raise error
        if how == "cause":
            raise RuntimeError("wrapped") from error
        if how == "context":
            raise RuntimeError("while handling")
        if how == "group":
            raise ExceptionGroup("several", [ValueError("mine"), error])
        try:
            raise RuntimeError("wrapped") from error
        except RuntimeError as wrapped:
            raise ExceptionGroup("several", [wrapped]) from None

    @workflow(name="reraises")
    def reraises(input, step):
        step.define("first", effects.leave).run("first")
        try:
            step.define("failing", failing("failing")).run()
        except OSError as error:
            reraise(error)

    run = reraises.start({})
    work()
    assert status_of(run) == "failed" and run.error["step"] == "failing"
    run.retry()
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["first", "failing", "failing"]


def test_a_suppressed_context_is_not_why_the_run_failed(work):
    @workflow(name="suppresses")
    def suppresses(input, step):
        try:
            step.define("failing", failing("failing", while_=9)).run()
        except OSError:
            raise RuntimeError("unrelated") from None

    run = suppresses.start({})
    work()
    assert status_of(run) == "failed" and run.error["step"] is None
    run.retry()
    work()
    assert effects.names(run) == ["failing"]


def test_all_failures_of_a_group_are_tried_again(work):
    @workflow(name="collects")
    def collects(input, step):
        errors = []
        for name in ("a", "b", "c"):
            try:
                step.define(name, failing(name) if name != "b" else effects.leave).run(*([] if name != "b" else ["b"]))
            except OSError as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("some failed", errors)

    run = collects.start({})
    work()
    assert status_of(run) == "failed"
    with pytest.raises(FailureWasHandled, match="'b'"):
        run.retry()
    run.retry(from_step="a")
    work()
    assert status_of(run) == "succeeded"


def test_retry_from_a_step_forgets_it_and_all_after_it(work):
    failed = define_failing_in_the_middle().start({})
    work()
    failed.retry(from_step="first")
    assert not failed.steps.exists()
    work()
    assert status_of(failed) == "succeeded"
    assert effects.names(failed) == ["first", "second", "first", "second", "third"]


def test_retry_from_an_unknown_step_lists_the_recorded_ones(work):
    run = define_failing_in_the_middle().start({})
    work()
    with pytest.raises(UnknownStep, match=r"no step 'nowhere'\. Recorded are: 'first', 'second'"):
        run.retry(from_step="nowhere")
    with pytest.raises(UnknownStep, match="'SECOND'"):
        run.retry(from_step="SECOND")
    assert status_of(run) == "failed" and run.steps.count() == 2


def test_a_long_history_that_a_worker_keeps_is_forgotten_with_its_steps(transactional_db, pass_time):
    """A run of many steps sleeps twice in one worker; in between it is canceled and retried from a step."""

    @workflow(name="long_and_sleepy")
    def long_and_sleepy(input, step):
        for number in range(80):
            step.define(f"step {number}", effects.leave).run(f"step {number}")
        step.sleep("nap", "1h")
        return step.define("last", effects.leave).run("last")

    run = long_and_sleepy.start({})
    worker = Worker(concurrency=1, poll_interval=0.1)
    working = Background(worker.run)
    try:
        eventually(lambda: status_of(run) == "sleeping")
        eventually(lambda: run.pk in worker._place._histories._kept)
        run.cancel()
        run.retry(from_step="step 78")
        eventually(lambda: status_of(run) == "sleeping")
        assert effects.count("step 77") == 1 and effects.count("step 78") == effects.count("step 79") == 2
        pass_time("61m")
        run.result(timeout=10)
        assert effects.count("step 79") == 2 and effects.count("last") == 1
    finally:
        worker.stop()
        working.result()


def test_a_worker_keeps_long_histories_of_which_records_move(transactional_db, pass_time):
    """A step that waits for its next attempt is overtaken by steps that a deploy puts before it."""
    has_new_steps = False

    @workflow(name="long_and_overtaken")
    def long_and_overtaken(input, step):
        for number in range(80):
            step.define(f"step {number}", effects.leave).run(f"step {number}")
        if has_new_steps:
            step.define("weigh", effects.leave).run("weigh")
            step.sleep("before", "1h")
        policy = RetryPolicy(max_attempts=3, initial_interval="1h", backoff_coefficient=1.0, jitter=False)
        step.define("ship", failing("ship", while_=2), retry=policy).run()
        step.sleep("after", "1h")
        step.define("last", effects.leave).run("last")

    run = long_and_overtaken.start({})
    worker = Worker(concurrency=1, poll_interval=0.05)
    working = Background(worker.run)
    try:
        eventually(lambda: status_of(run) == "sleeping")
        has_new_steps = True
        for name, count in (("weigh", 1), ("ship", 2), ("ship", 3), ("last", 1)):
            pass_time("61m")
            worker._wakeups.wake()
            eventually(lambda name=name, count=count: effects.count(name) == count)
            eventually(lambda: status_of(run) in ("sleeping", "succeeded"))
    finally:
        worker.stop()
        working.result()
    assert status_of(run) == "succeeded"
    assert effects.names(run)[80:] == ["ship", "weigh", "ship", "ship", "last"]
    names = list(run.steps.values_list("name", flat=True))
    assert names[80:] == ["weigh", "before", "ship", "after", "last"]


@pytest.mark.parametrize("status", ["pending", "running", "sleeping", "succeeded"])
def test_retry_is_refused_with_the_status_in_the_message(work, status):
    run = sleeper.start({"duration": "1h"}) if status == "sleeping" else three_steps.start({})
    if status == "running":
        claim(run)
    elif status != "pending":
        work()
    with pytest.raises(InvalidState, match=f"can't be retried: it is {status}. Only failed and canceled"):
        run.retry()
    assert status_of(run) == status


def test_of_ten_retries_at_once_one_wins(work):
    run = define_failing_in_the_middle().start({})
    work()

    def retry():
        WorkflowRun.objects.get(pk=run.pk).retry()
        return "done"

    answers = at_once([retry] * 10)
    assert answers.count("done") == 1
    assert all(isinstance(answer, InvalidState) for answer in answers if answer != "done"), answers
    work()
    assert effects.count("second") == 2
    run.refresh_from_db()
    assert run.generation == 1


def test_a_retry_of_a_canceled_run_does_not_look_at_an_earlier_attempts_error(work, pass_time):
    """The whole run was tried again, got on, and was canceled: nothing that failed before is why it ended."""

    @workflow(name="tried_again", retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False))
    def tried_again(input, step):
        step.define("flaky", failing("flaky")).run()
        step.define("second", effects.leave).run("second")
        step.sleep("nap", "1h")

    run = tried_again.start({})
    work()
    pass_time("61m")
    work()
    assert status_of(run) == "sleeping" and run.error is not None
    run.cancel()
    assert run.error is None
    run.retry()
    pass_time("61m")
    work()
    assert status_of(run) == "succeeded"
    assert effects.names(run) == ["flaky", "flaky", "second"]


def test_many_runs_are_retried_at_once_and_the_others_are_named(work):
    workflow_ = define_failing_in_the_middle()
    failed = workflow_.start({})
    work()
    fine = three_steps.start({})
    work()
    compensated = define_compensates().start({})
    work()
    done, skipped = WorkflowRun.objects.all().retry()
    assert done == [failed.pk]
    assert {entry.run_id for entry in skipped} == {fine.pk, compensated.pk}
    assert "succeeded" in next(entry.reason for entry in skipped if entry.run_id == fine.pk)


def test_a_retry_has_to_wait_until_the_old_pass_lets_go(transactional_db):
    """Cancel, then retry, while the old worker is still inside the step: never two bodies at once."""
    inside, go_on = threading.Event(), threading.Event()
    bodies, most = [0], [0]

    @workflow(name="one_body")
    def one_body(input, step):
        bodies[0] += 1
        most[0] = max(most[0], bodies[0])
        try:

            def wait():
                effects.leave("wait")
                inside.set()
                go_on.wait(10)

            step.define("wait", wait).run()
            step.define("after", effects.leave).run("after")
        finally:
            bodies[0] -= 1

    run = one_body.start({})
    workers = [Worker(concurrency=2, poll_interval=0.05) for _ in range(2)]
    threads = [Background(worker.run) for worker in workers]
    try:
        assert inside.wait(10)
        run.cancel()
        with pytest.raises(InvalidState, match="still executes"):
            run.retry()
        for worker in workers:
            worker._wakeups.wake()
        threads[0].join(0.5)
        assert effects.count("wait") == 1
        go_on.set()
        eventually(lambda: status_of(run) == "canceled")
        run.retry()
        run.result(timeout=10)
    finally:
        go_on.set()
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.result()
    assert most[0] == 1
    assert effects.names(run) == ["wait", "after"]  # the step in flight was recorded


def test_an_atomic_step_of_a_pass_that_was_retried_away_leaves_nothing(transactional_db):
    run = three_steps.start({})
    claimed = claim(run)
    run.cancel()
    transitions.release(connection, run.pk, claimed.token)
    run.retry()
    assert records.record(connection, step_write(claimed, "first")) is records.Outcome.LOST
    assert not run.steps.exists()
