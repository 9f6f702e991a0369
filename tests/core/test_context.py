"""What code can ask while it is executed: `current_step()`, and the `run` of a body."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from django_steps import RetryPolicy, StepsError, current_step, workflow
from tests.looking import error_of

QUICKLY = RetryPolicy(max_attempts=3, initial_interval="10ms")


# -- current_step() ----------------------------------------------------------------------------------


def test_current_step_tells_run_name_attempt_and_a_key_that_stays(work):
    seen: list[Any] = []

    @workflow
    def charging(step):
        @step.define("charge", retry=QUICKLY)
        def charge():
            seen.append(current_step())
            if len(seen) < 3:
                raise OSError

        with pytest.raises(StepsError, match="inside a step"):
            current_step()
        charge.run()
        step.define("other", lambda: seen.append(current_step())).run()

    run = charging.start()
    work()
    run.result(timeout=0)
    assert [(context.name, context.attempt) for context in seen] == [
        ("charge", 1),
        ("charge", 2),
        ("charge", 3),
        ("other", 1),
    ]
    assert {context.run_id for context in seen} == {run.pk}
    keys = [context.idempotency_key for context in seen]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert uuid.UUID(keys[0])


def test_idempotency_key_is_the_same_after_a_retry_and_differs_between_runs(work):
    keys: list[str] = []

    @workflow
    def charging(step):
        @step.define("charge")
        def charge():
            keys.append(current_step().idempotency_key)
            raise OSError

        charge.run()

    first, second = charging.start(), charging.start()
    work(concurrency=1)
    assert error_of(second)
    first.retry()
    work()
    assert keys[0] == keys[2] != keys[1]


def test_current_step_outside_a_run_is_a_clear_error():
    with pytest.raises(StepsError, match="inside a step"):
        current_step()


# -- run and progress --------------------------------------------------------------------------------


def test_body_takes_the_run_and_says_how_far_it_is(work):
    @workflow
    def importing(run, step):
        run.set_progress(1, 2)
        return str(run.pk), run.workflow, run.status, run.input, (run.progress_done, run.progress_total)

    run = importing.start({"file": "a.csv"})
    work()
    assert run.result(timeout=0) == (str(run.pk), "importing", "running", {"file": "a.csv"}, (1, 2))


@pytest.mark.parametrize("progress", [(-1, 2), (3, 2)])
def test_impossible_progress_is_refused(work, progress):
    @workflow
    def importing(run):
        run.set_progress(*progress)

    run = importing.start()
    work()
    assert error_of(run)["type"] == "ValueError"


def test_progress_is_for_the_body_of_the_run_only(work):
    @workflow
    def importing(run):
        pass

    run = importing.start()
    with pytest.raises(StepsError, match="body of this run"):
        run.set_progress(1, 2)


def test_run_of_a_body_can_be_used_as_a_foreign_key_and_read_in_full(work):
    @workflow
    def reading(run):
        return run.priority, run.created_at.year, run.created

    run = reading.start(priority=3)
    work()
    assert run.result(timeout=0)[0] == 3
