"""A run that has failed for good is one record in the log, with its exception: Sentry and `ADMINS` hear of it."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest

from django_steps import RetryPolicy, workflow
from django_steps.testing import run_workflow
from tests.app.workflows import three_steps
from tests.staging import SECOND, claim, make_terms

pytestmark = pytest.mark.django_db(transaction=True)


def fail() -> None:
    raise OSError("no answer")


@workflow
def fails_in_a_step(step):
    step.define("call", fail).run()


def records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == "django_steps" and record.levelno == logging.ERROR]


def test_failed_run_is_logged_once_with_its_exception_and_where(work, caplog):
    run = fails_in_a_step.start()
    work()
    (record,) = records(caplog)
    assert record.getMessage() == f"Run {run.pk} of 'fails_in_a_step' failed in step 'call': OSError: no answer"
    assert record.exc_info[0] is OSError
    assert (record.run_id, record.workflow, record.step) == (str(run.pk), "fails_in_a_step", "call")


def test_failure_that_is_tried_again_is_logged_when_it_is_final(work, caplog):
    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval=0))
    def fails_twice():
        fail()

    fails_twice.start()
    work()
    assert len(records(caplog)) == 1


def test_run_whose_workers_died_is_logged(work, caplog, pass_time, settings):
    settings.DJANGO_STEPS = {"MAX_RECOVERIES": 0}
    run = three_steps.start({})
    claim(run, make_terms(lease=SECOND))
    pass_time("1m")
    work()
    (record,) = records(caplog)
    assert record.getMessage().startswith(f"Run {run.pk} of 'three_steps' failed: django_steps.errors.WorkerDied: ")


def test_kit_logs_no_failure_that_a_test_expects(caplog):
    run_workflow(fails_in_a_step, stubs={"call": ValueError("expected")})
    assert records(caplog) == []


def test_log_of_a_failure_holds_nothing_of_the_input(work, caplog):
    @workflow(mask=("token",))
    def failures_masked(input, step):
        step.define("call", lambda token: fail()).run(input["token"])

    failures_masked.start({"token": "top-secret"})
    work()
    (record,) = records(caplog)
    assert "top-secret" not in logging.Formatter("%(message)s").format(record) + repr(vars(record))
    # What error trackers show beside a line are the variables of its frames: there are only those of users' code.
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(record.exc_info[2])]
    assert frames[0] == __file__


def test_every_executor_logs_a_failure_where_the_pass_is_executed(work, caplog):
    @workflow
    async def failures_awaited(step):
        await step.define("call", fail).run()

    run = failures_awaited.start()
    work()
    (record,) = records(caplog)
    assert (record.run_id, record.step, record.exc_info[0]) == (str(run.pk), "call", OSError)
