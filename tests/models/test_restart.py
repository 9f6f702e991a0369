"""`run.restart()`: a new run with the same input, from the beginning or from a step."""

import pytest

from django_steps import workflow
from django_steps.errors import StartOutsideStep, UnknownStep
from tests.app import effects
from tests.app.workflows import three_steps
from tests.staging import claim, status_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_restart_is_a_new_run_with_the_same_input(work):
    run = three_steps.start({"order": 7}, key="order-7", priority=5, queue="bulk")
    work()
    new = run.restart()
    assert new.pk != run.pk and new.restart_of == run and new.status == "pending"
    assert (new.input, new.priority, new.queue) == ({"order": 7}, 5, "bulk")
    assert new.input_search == {"order": 7}
    assert new.key is None
    work()
    assert status_of(new) == "succeeded" and effects.names(new) == ["first", "second", "third"]
    assert list(run.restarts.all()) == [new]


@pytest.mark.parametrize("status", ["pending", "running", "canceled"])
def test_a_run_is_restarted_in_any_status(work, status):
    run = three_steps.start({})
    if status == "running":
        claim(run)
    elif status == "canceled":
        run.cancel()
    new = run.restart()
    assert status_of(run) == status
    work(queues=[new.queue])
    assert status_of(new) == "succeeded"


def test_a_restart_from_a_step_copies_the_steps_before_it(work):
    run = three_steps.start({})
    work()
    new = run.restart(from_step="second")
    assert list(new.steps.values_list("name", flat=True)) == ["first"]
    work()
    assert status_of(new) == "succeeded" and effects.names(new) == ["second", "third"]
    assert effects.names(run) == ["first", "second", "third"] and run.steps.count() == 3


def test_a_copied_sleep_and_a_copied_failure_are_passed_over(work, pass_time):
    @workflow(name="sleeps_and_fails")
    def sleeps_and_fails(input, step):
        step.sleep("nap", "1h")
        try:
            step.define("optional", lambda: effects.leave("optional") or 1 / 0).run()
        except ZeroDivisionError:
            effects.leave("caught")
        step.define("last", effects.leave).run("last")

    run = sleeps_and_fails.start({})
    work()
    pass_time("61m")
    work()
    assert status_of(run) == "succeeded"
    new = run.restart(from_step="last")
    work()
    assert status_of(new) == "succeeded" and effects.names(new) == ["last"]
    assert effects.count("caught") == 2


def test_a_restart_from_an_unknown_step_starts_nothing(work):
    run = three_steps.start({})
    work()
    with pytest.raises(UnknownStep, match="Recorded are: 'first', 'second', 'third'"):
        run.restart(from_step="fourth")
    assert not run.restarts.exists()


def test_a_restart_in_a_body_outside_a_step_is_an_error(work):
    other = three_steps.start({})
    work()

    @workflow(name="restarts_another")
    def restarts_another(input):
        try:
            other.restart()
        except StartOutsideStep as error:
            return str(error)

    run = restarts_another.start({})
    work()
    assert status_of(run) == "succeeded" and "restart() in a body" in run.output
    assert not other.restarts.exists()
