"""`at_most_once`: each attempt is recorded before it begins, and one of whose end nothing is known is not repeated."""

from __future__ import annotations

import pytest
from django.db import connection

from django_steps import NonRetryableError, RetryAfter, RetryPolicy, StepInterrupted, workflow
from django_steps.ledger import records
from django_steps.models import StepRecord
from django_steps.testing import FakeStep
from tests.app import effects
from tests.app.workflows import wires_once
from tests.looking import error_of
from tests.staging import Background, claim, eventually, make_terms, recover, status_of, step_write

AT_ONCE = RetryPolicy(max_attempts=2, initial_interval=0)


@workflow
def _wire(step):
    return step.define("wire", effects.leave, at_most_once=True).run("wire")


def begun_and_left(run, **fields):
    """The run was claimed, its step began, and its worker died."""
    terms = make_terms(lease=1)
    claimed = claim(run, terms)
    write = step_write(claimed, "wire", status="begun", output=None, finished_at=None, **fields)
    assert records.record(connection, write) is records.Outcome.WRITTEN
    recover(terms)


def test_killed_workers_step_is_not_executed_again_until_the_run_is_retried(start_worker):
    run = wires_once.start({"seconds": 30})
    first = start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: effects.count("wire", run))
    record = run.steps.get()
    assert (record.status, record.attempts, record.finished_at) == ("begun", 1, None)
    first.kill()

    start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: status_of(run) == "failed", timeout=20)
    assert error_of(run)["type"] == "django_steps.errors.StepInterrupted" and error_of(run)["step"] == "wire"
    assert "may have happened" in error_of(run)["message"]
    assert effects.count("wire", run) == 1
    interrupted = run.steps.get()
    assert (interrupted.status, interrupted.attempts) == ("failed", 1)
    assert interrupted.started_at == record.started_at

    run.retry()
    eventually(lambda: effects.count("wire", run) == 2)


def test_step_that_ends_has_one_record_with_its_outcome(work):
    run = _wire.start()
    work()
    record = run.steps.get()
    assert (status_of(run), record.status, record.attempts) == ("succeeded", "succeeded", 1)
    assert effects.count("wire", run) == 1


def test_body_can_handle_what_may_have_happened(work):
    @workflow
    def careful(step):
        try:
            return step.define("wire", effects.leave, at_most_once=True).run("wire")
        except StepInterrupted as error:
            assert isinstance(error, NonRetryableError)
            return step.define("ask the bank", "about {}".format).run(error.step)

    run = careful.start()
    begun_and_left(run)
    work()
    assert run.result(timeout=0) == "about wire"
    assert effects.count("wire") == 0


def test_no_policy_repeats_an_attempt_of_whose_end_nothing_is_known(work, pass_time):
    @workflow(retry=AT_ONCE, step_retry=AT_ONCE)
    def eager(step):
        step.define("wire", effects.leave, at_most_once=True, retry=5).run("wire")

    run = eager.start()
    begun_and_left(run)
    work()
    pass_time("10m")
    work()
    assert status_of(run) == "failed" and effects.count("wire") == 0
    run.retry()
    work()
    assert status_of(run) == "succeeded" and effects.count("wire") == 1


def test_attempt_that_raised_has_ended_and_follows_the_steps_own_policy(work):
    @workflow(step_retry=5)
    def refused(step):
        seen = []

        def fail():
            effects.leave("tried")
            seen.append(StepRecord.objects.get(name="wire").status)
            raise OSError("no line")

        step.define("wire", fail, at_most_once=True, retry=AT_ONCE).run()

    run = refused.start()
    work()
    assert effects.count("tried") == 2 and error_of(run)["type"] == "OSError"
    assert run.steps.get().attempts == 2


def test_policy_of_the_workflow_for_its_steps_does_not_apply(work):
    @workflow(step_retry=AT_ONCE)
    def refused(step):
        def fail():
            effects.leave("tried")
            raise OSError("no line")

        step.define("wire", fail, at_most_once=True).run()

    run = refused.start()
    work()
    assert effects.count("tried") == 1 and status_of(run) == "failed"


def test_each_attempt_is_recorded_before_it_begins(work, pass_time):
    seen = []

    def look():
        record = StepRecord.objects.get(name="wire")
        seen.append((record.status, record.attempts, len(record.earlier_attempts)))
        if len(seen) == 1:
            raise OSError("no line")
        if len(seen) == 2:
            raise RetryAfter("1h")

    @workflow
    def tried(step):
        step.define("wire", look, at_most_once=True, retry=RetryPolicy(initial_interval="1h", jitter=False)).run()

    run = tried.start()
    for _ in range(3):
        work()
        pass_time("2h")
    assert status_of(run) == "succeeded"
    assert seen == [("begun", 1, 0), ("begun", 2, 1), ("begun", 2, 2)]


def test_run_that_was_canceled_before_the_step_begins_may_be_retried(work):
    runs = []

    @workflow
    def canceled(step):
        if not step.define("first", lambda: bool(runs)).run():
            runs.append(1)
            Background(run.cancel).join()
        step.define("wire", effects.leave, at_most_once=True).run("wire")

    run = canceled.start()
    work()
    assert status_of(run) == "canceled" and effects.count("wire") == 0
    assert run.steps.get(name="wire").status == "retrying"
    run.retry(from_step="first")
    work()
    assert status_of(run) == "succeeded" and effects.count("wire") == 1


def test_run_that_was_canceled_while_its_step_executed_goes_on_after_it(work):
    @workflow
    def canceled(step):
        def wire():
            effects.leave("wire")
            Background(run.cancel).join()

        step.define("wire", wire, at_most_once=True).run()

    run = canceled.start()
    work()
    assert status_of(run) == "canceled" and run.steps.get().status == "succeeded"
    run.retry()
    work()
    assert status_of(run) == "succeeded" and effects.count("wire") == 1


def test_step_that_is_no_longer_at_most_once_was_begun_as_one(work):
    @workflow
    def changed(step):
        step.define("wire", effects.leave).run("wire")

    run = changed.start()
    begun_and_left(run)
    work()
    assert error_of(run)["type"] == "django_steps.errors.StepInterrupted" and effects.count("wire") == 0


def test_it_does_not_go_with_atomic():
    with pytest.raises(TypeError, match="Step 'wire' can't be both atomic and at_most_once"):
        FakeStep().define("wire", print, atomic=True, at_most_once=True)
