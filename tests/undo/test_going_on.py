"""Retries and restarts of runs in which steps are undone: none goes on as if they were not."""

from __future__ import annotations

from typing import Any

import pytest

from django_steps import InvalidState, RetryPolicy
from django_steps.errors import FailureWasHandled
from django_steps.models import StepRecord, WorkflowRun
from tests.changing import deploy
from tests.undo.journal import Journal

pytestmark = pytest.mark.django_db(transaction=True)

IN_A_MINUTE = RetryPolicy(max_attempts=3, initial_interval="1m", max_interval="1m", jitter=False)


class Weather:
    """What makes a body or a step of these tests fail."""

    is_bad = True


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def weather() -> Weather:
    return Weather()


def names(run: Any) -> list[str]:
    return [record.name for record in StepRecord.objects.filter(run=run).order_by("position")]


def ended(run: Any) -> Any:
    run.refresh_from_db()
    return run.status


def own_error(journal: Journal, weather: Weather) -> Any:
    """A body that raises an error of its own, and undoes what it has done before it fails by that."""

    def body(step: Any) -> None:
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        try:
            if weather.is_bad:
                raise OSError("a storm")
        except OSError:
            step.undo()
            raise
        step.define("mail", journal.send).run()

    return body


def failed_step(journal: Journal, weather: Weather) -> Any:
    """One in which a step fails, and what is done before is undone."""

    def rent() -> None:
        if weather.is_bad:
            raise OSError("no car left")
        journal.append("rent")

    def body(step: Any) -> None:
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        try:
            step.define("car", rent).run()
        except OSError:
            step.undo()
            raise

    return body


def plan_b(journal: Journal, weather: Weather) -> Any:
    """One that undoes for a step that has failed, and then does something else, which fails, too."""

    def rent() -> None:
        raise OSError("no car left")

    def take_train() -> None:
        if weather.is_bad:
            raise OSError("no train")
        journal.append("train")

    def body(step: Any) -> None:
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        try:
            step.define("car", rent).run()
        except OSError:
            step.undo()
            step.define("train", take_train).run()

    return body


def test_retry_after_an_error_of_the_body_does_not_go_on_over_what_is_undone(work, journal, weather):
    run = deploy("goes_on_own", own_error(journal, weather)).start()
    work()
    weather.is_bad = False
    with pytest.raises(FailureWasHandled, match=r"'flight#undo'.*from_step='flight'.*restart\(\)") as refused:
        run.retry()
    assert refused.value.later == ["flight#undo"]
    assert ended(run) == "failed"
    run.retry(from_step="flight")
    work()
    assert ended(run) == "succeeded"
    assert journal == ["book monday", "cancel monday's", "book monday", "send"]


def test_policy_of_the_run_does_not_go_on_over_what_is_undone(work, pass_time, journal, weather):
    run = deploy("goes_on_policy", own_error(journal, weather), retry=IN_A_MINUTE).start()
    work()
    weather.is_bad = False
    assert ended(run) == "failed"
    pass_time("1h")
    work()
    assert (ended(run), journal) == ("failed", ["book monday", "cancel monday's"])


@pytest.mark.parametrize("retry", [None, IN_A_MINUTE], ids=["by hand", "by policy"])
def test_branch_that_has_failed_by_an_error_of_its_own_does_not_go_on(work, journal, weather, retry):
    leg = own_error(journal, weather)

    def body(step):
        step.gather(step.define("hotel", journal.book).bind("tuesday"), step.branch("leg", leg).bind())

    run = deploy(f"goes_on_leg_{'hand' if retry is None else 'policy'}", body, retry=retry).start()
    work()
    weather.is_bad = False
    assert ended(run) == "failed"
    with pytest.raises(FailureWasHandled) as refused:
        run.retry()
    assert refused.value.later == ["leg#/flight#undo"]
    run.retry(from_step="leg#/flight")
    work()
    assert ended(run) == "succeeded"
    assert journal.count("book monday") == 2


def test_what_fails_after_an_undo_is_retried(work, journal, weather):
    run = deploy("goes_on_plan_b", plan_b(journal, weather)).start()
    work()
    weather.is_bad = False
    run.retry()
    work()
    assert ended(run) == "succeeded"
    assert journal == ["book monday", "cancel monday's", "train"]


@pytest.mark.parametrize("how", ["canceled", "timed out"])
def test_run_that_ended_by_no_error_of_its_body_goes_on_after_an_undo(work, pass_time, journal, how):
    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.undo()
        step.sleep("night", "1h")

    run = deploy(f"goes_on_{how[:5]}", body, timeout="30m").start()
    work()
    if how == "canceled":
        run.cancel()
    pass_time("2h")
    work()
    assert ended(run) == ("canceled" if how == "canceled" else "failed")
    run.retry()
    work()
    assert ended(run) == "succeeded"
    assert journal == ["book monday", "cancel monday's"]


@pytest.mark.parametrize("make", [failed_step, plan_b])
def test_retry_from_a_step_that_keeps_what_is_undone_is_refused(work, journal, weather, make):
    run = deploy(f"goes_on_from_{make.__name__}", make(journal, weather)).start()
    work()
    weather.is_bad = False
    before = names(run)
    with pytest.raises(InvalidState, match=r"'flight' is undone.*restart\(\)"):
        run.retry(from_step="car" if make is failed_step else "train")
    assert (ended(run), names(run)) == ("failed", before)


def test_refused_retry_names_a_step_that_it_can_begin_from(work, journal, weather):
    run = deploy("goes_on_told", failed_step(journal, weather)).start()
    work()
    weather.is_bad = False
    with pytest.raises(FailureWasHandled, match="from_step='flight'") as refused:
        run.retry()
    assert refused.value.from_steps == ["flight"]
    run.retry(from_step="flight")
    work()
    assert ended(run) == "succeeded"
    assert journal == ["book monday", "cancel monday's", "book monday", "rent"]


@pytest.mark.parametrize("make", [failed_step, plan_b])
def test_restart_from_a_step_copies_nothing_that_is_undone(work, journal, weather, make):
    run = deploy(f"goes_on_anew_{make.__name__}", make(journal, weather)).start()
    work()
    weather.is_bad = False
    new = run.restart(from_step="car" if make is failed_step else "train")
    assert names(new) == []
    work()
    assert ended(new) == "succeeded"
    assert journal[:3] == ["book monday", "cancel monday's", "book monday"]


def test_restart_of_a_canceled_and_undone_run_keeps_what_was_not_undone(work, journal):
    def body(step):
        step.define("seat", journal.book).run("sunday")
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        step.define("mail", journal.send).run()
        step.sleep("night", "1h")

    run = deploy("goes_on_from_undone", body).start()
    work()
    run.cancel(undo=True)
    work()
    new = WorkflowRun.objects.get(pk=run.pk).restart(from_step="mail")
    assert names(new) == ["seat"]
    work()
    assert journal == ["book sunday", "book monday", "send", "cancel monday's", "book monday", "send"]
