"""`@workflow(retry=…)`: the whole run is tried again after its body raised."""

import pytest
from django.db import connection

from django_steps import NonRetryableError, RetryAfter, RetryPolicy, StepFailed, signals, workflow
from django_steps.core import clock
from django_steps.ledger import database
from tests.app import effects
from tests.staging import SECOND, claim, recover, status_of

pytestmark = pytest.mark.django_db(transaction=True)


def fail():
    effects.leave("fail")
    raise OSError("again")


def wait_of(run):
    """The seconds from now until the run is due."""
    run.refresh_from_db()
    assert run.status == "sleeping"
    return (run.available_at_us - database.read_clock(connection)) / SECOND


def test_the_waits_double_and_are_capped_and_none_follows_the_last_attempt(work):
    policy = RetryPolicy(max_attempts=5, initial_interval="100s", max_interval="300s", jitter=False)

    @workflow(name="always_fails", retry=policy)
    def always_fails(input, step):
        step.define("before", effects.leave).run("before")
        step.define("fail", fail).run()

    run = always_fails.start({})
    waits = []
    for _ in range(4):
        work()
        waits.append(wait_of(run))
        assert run.error["message"] == "again"
        clock.offset_us += 301 * SECOND
    work()
    assert [round(wait, -1) for wait in waits] == [100, 200, 300, 300]
    assert status_of(run) == "failed" and run.attempts == 5 and run.finished_at is not None
    assert effects.count("fail") == 5 and effects.count("before") == 1


def test_the_waits_are_jittered(work):
    @workflow(name="jittered", retry=RetryPolicy(max_attempts=2, initial_interval="1000s"))
    def jittered(input, step):
        step.define("fail", fail).run()

    runs = [jittered.start({}) for _ in range(4)]
    work()
    waits = {round(wait_of(run)) for run in runs}
    assert all(490 <= wait <= 1000 for wait in waits) and len(waits) > 1


def test_a_number_is_a_number_of_attempts(work):
    @workflow(name="two_attempts", retry=2)
    def two_attempts(input, step):
        effects.leave("body")
        raise RuntimeError

    run = two_attempts.start({})
    work()  # a second is short enough to be waited for
    assert status_of(run) == "failed" and effects.count("body") == 2


def test_without_a_policy_a_run_waits_for_an_operator(work):
    @workflow(name="fails_once_for_all")
    def fails_once_for_all(input, step):
        step.define("fail", fail).run()

    run = fails_once_for_all.start({})
    work()
    assert status_of(run) == "failed" and run.attempts == 1


@pytest.mark.parametrize("where", ["step", "body"])
def test_non_retryable_errors_stop_at_once(work, where):
    @workflow(name="pointless", retry=5, step_retry=5)
    def pointless(input, step):
        def give_up():
            effects.leave("give up")
            raise NonRetryableError("pointless")

        if where == "step":
            step.define("give up", give_up).run()
        give_up()

    run = pointless.start({})
    work()
    assert status_of(run) == "failed" and effects.count("give up") == 1


def test_retry_after_says_when(work):
    @workflow(name="later", retry=3)
    def later(input):
        raise RetryAfter("2h")

    run = later.start({})
    work()
    assert 7190 < wait_of(run) <= 7200


def test_sleeping_and_being_claimed_use_no_attempts_up(work):
    @workflow(name="sleeps_often", retry=RetryPolicy(max_attempts=2, initial_interval="10s", jitter=False))
    def sleeps_often(input, step):
        for _ in range(3):
            step.sleep("nap", "1h")
        step.define("flaky", lambda: fail() if effects.count("fail") == 0 else None).run()

    run = sleeps_often.start({})
    for _ in range(3):
        work()
        assert status_of(run) == "sleeping" and run.attempts == 1
        clock.offset_us += 3601 * SECOND
    work()
    assert status_of(run) == "sleeping" and run.attempts == 2
    clock.offset_us += 11 * SECOND
    work()
    assert status_of(run) == "succeeded"


def test_attempts_survive_a_crash(work):
    @workflow(name="crashes_between", retry=RetryPolicy(max_attempts=3, initial_interval="10s", jitter=False))
    def crashes_between(input, step):
        step.define("fail", fail).run()

    run = crashes_between.start({})
    work()
    clock.offset_us += 11 * SECOND
    assert claim(run).attempts == 2  # a worker that dies with it
    clock.offset_us += 31 * SECOND
    recover()
    work()
    assert status_of(run) == "sleeping" and run.attempts == 3
    clock.offset_us += 21 * SECOND
    work()
    assert status_of(run) == "failed" and effects.count("fail") == 3


def test_a_step_whose_attempts_are_used_up_has_them_again_in_the_next_attempt_of_the_run(work):
    policy = RetryPolicy(max_attempts=2, initial_interval="10s", jitter=False)

    @workflow(name="both", retry=policy, step_retry=RetryPolicy(max_attempts=2, initial_interval=0))
    def both(input, step):
        step.define("fail", fail).run()

    run = both.start({})
    work()
    assert effects.count("fail") == 2
    clock.offset_us += 11 * SECOND
    work()
    assert status_of(run) == "failed" and effects.count("fail") == 4
    assert len(run.steps.get().earlier_attempts) == 3


def test_automatic_retries_stop_where_the_failure_was_handled(work):
    @workflow(name="compensates_by_itself", retry=5)
    def compensates_by_itself(input, step):
        try:
            step.define("ship", fail).run()
        except OSError:
            step.define("refund", effects.leave).run("refund")
            raise

    run = compensates_by_itself.start({})
    work()
    assert status_of(run) == "failed" and run.attempts == 1
    assert effects.names(run) == ["fail", "refund"]


def test_a_body_that_raises_outside_its_steps_is_tried_again(work):
    @workflow(name="body_raises", retry=RetryPolicy(max_attempts=3, initial_interval="10s"))
    def body_raises(input, step):
        step.define("step", effects.leave).run("step")
        effects.leave("body")
        if effects.count("body") < 3:
            raise RuntimeError

    run = body_raises.start({})
    for _ in range(3):
        work()
        clock.offset_us += 30 * SECOND
    assert status_of(run) == "succeeded" and effects.count("step") == 1 and run.error is None


def test_an_operators_retry_begins_to_count_anew(work):
    @workflow(name="counts_anew", retry=RetryPolicy(max_attempts=2, initial_interval="10s"))
    def counts_anew(input, step):
        step.define("fail", fail).run()

    run = counts_anew.start({})
    for _ in range(2):
        work()
        clock.offset_us += 11 * SECOND
    assert status_of(run) == "failed"
    run.retry()
    work()
    assert status_of(run) == "sleeping" and run.attempts == 2


def test_only_the_final_failure_is_told(work):
    heard = []

    def hear(sender, run, **others):
        heard.append((run.pk, run.status))

    @workflow(name="fails_twice", retry=RetryPolicy(max_attempts=2, initial_interval="10s"))
    def fails_twice(input, step):
        step.define("fail", fail).run()

    signals.run_failed.connect(hear)
    try:
        run = fails_twice.start({})
        work()
        assert heard == []
        clock.offset_us += 11 * SECOND
        work()
    finally:
        signals.run_failed.disconnect(hear)
    assert heard == [(run.pk, "failed")]


def test_a_failure_that_is_never_retried_is_not_either_if_it_cannot_be_rebuilt(work):
    class Refused(NonRetryableError):
        """Local, so that the body gets a `StepFailed` in its place."""

    def refuse():
        raise Refused("for good")

    @workflow(name="refused_for_good", retry=RetryPolicy(max_attempts=3, initial_interval=0))
    def refused_for_good(input, step):
        try:
            step.define("refuse", refuse).run()
        except StepFailed as error:
            if input == "wrapped":
                raise RuntimeError("something else") from error
            raise

    run, wrapped = refused_for_good.start("as it is"), refused_for_good.start("wrapped")
    work()
    assert status_of(run) == "failed" and run.attempts == 1
    assert status_of(wrapped) == "failed" and wrapped.attempts == 3  # what the body raised may be tried again
