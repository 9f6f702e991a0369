"""The columns beside a recorded error: they come with it and go with it, by the same statement."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from django_steps import RetryPolicy, failures, workflow
from django_steps.ledger import batches, claims, records, transitions
from django_steps.ledger.records import Outcome
from django_steps.ledger.transitions import Finish
from django_steps.models import WorkflowRun
from tests.app.workflows import three_steps, tiny
from tests.staging import SECOND, claim, make_terms, recover, step_write

NOTHING = (None, "", "")


class Declined(Exception):
    pass


DECLINED = "tests.ledger.test_error_columns.Declined"


def columns(run: WorkflowRun) -> tuple[str | None, str, str]:
    """The type in the record, and what the columns say."""
    run.refresh_from_db()
    return run.error["type"] if run.error else None, run.error_type, run.failed_step


def fail(error: BaseException) -> None:
    raise error


@pytest.fixture
def broken() -> dict[str, Any]:
    return {"is": True}


@pytest.fixture
def order(broken: dict[str, Any]) -> Any:
    @workflow
    def order(input, step):
        step.define("reserve", lambda: None).run()
        step.define("charge", lambda: fail(Declined("no")) if broken["is"] else "paid").run()
        if broken["is"] is None:
            raise KeyError("by the body")

    return order


def test_failed_step_is_named_in_its_record_and_in_the_run(order, work):
    run = order.start({})
    work()
    assert columns(run) == (DECLINED, DECLINED, "charge")
    assert list(run.steps.values_list("name", "error_type")) == [("reserve", ""), ("charge", DECLINED)]
    assert list(WorkflowRun.objects.filter(error_type=DECLINED, failed_step="charge")) == [run]


def test_retry_clears_them(order, work, broken):
    run = order.start({})
    work()
    run.retry()
    assert columns(run) == NOTHING
    assert set(run.steps.values_list("error_type", flat=True)) == {""}
    broken["is"] = False
    work()
    assert (run.result(), columns(run)) == (None, NOTHING)


def test_run_that_its_body_failed_names_no_step(order, work, broken):
    broken["is"] = None
    run = order.start({})
    work()
    assert columns(run) == ("KeyError", "KeyError", "")


def test_group_names_the_first_of_its_steps_and_its_error(work):
    @workflow
    def group(input, step):
        found = []
        for name in ("first", "second"):
            try:
                step.define(name, lambda name=name: fail(Declined(name))).run()
            except Declined as error:
                found.append(error)
        raise ExceptionGroup("both", found)

    run = group.start({})
    work()
    assert columns(run) == ("ExceptionGroup", DECLINED, "first")


def test_group_that_is_a_class_of_its_own_is_what_failed(work):
    class BatchFailed(ExceptionGroup):
        pass

    @workflow
    def own_group(input, step):
        raise BatchFailed("all", [Declined("no")])

    run = own_group.start({})
    work()
    assert columns(run)[1].endswith("BatchFailed")


def test_all_items_of_a_map_have_the_kind_of_the_step_that_failed_them(work):
    @workflow
    def mapped(input, step):
        def order(number, step):
            step.gather(step.define("charge", lambda: fail(Declined(str(number)))).bind())

        step.map("order", order, [input])

    runs = mapped.start_many([17, 18])
    work()
    for run in runs:
        assert columns(run) == ("django_steps.errors.GroupFailed", DECLINED, "order/charge")
        assert run.error["step"] == f"order#{run.input}/charge"
    assert set(run.steps.exclude(kind="step").values_list("error_type", flat=True)) == {
        "django_steps.errors.GroupFailed"
    }


def test_attempt_of_the_whole_run_that_failed_is_named_until_the_run_succeeds(work, pass_time):
    attempts = []

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False))
    def twice(input, step):
        attempts.append(1)
        step.define("charge", lambda: fail(Declined("no")) if len(attempts) == 1 else "paid").run()

    run = twice.start({})
    work()
    assert columns(run) == (DECLINED, DECLINED, "charge")
    assert list(run.steps.values_list("status", "error_type")) == [("retrying", "")]
    pass_time("2h")
    work()
    assert (run.result(), columns(run)) == (None, NOTHING)


def test_attempt_of_a_step_that_is_followed_by_another_leaves_them_empty(work, pass_time):
    @workflow
    def patient(input, step):
        policy = RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False)
        step.define("charge", lambda: fail(Declined("no")), retry=policy).run()

    run = patient.start({})
    work()
    record = run.steps.get()
    assert (record.status, record.error_type, columns(run)) == ("retrying", "", NOTHING)
    pass_time("2h")
    work()
    assert (run.steps.get().error_type, columns(run)) == (DECLINED, (DECLINED, DECLINED, "charge"))


def test_cancel_clears_what_an_attempt_of_the_run_left(transactional_db):
    run = tiny.start({})
    claimed = claim(run)
    text = failures.with_steps(failures.record(Declined("no")), ["once"])
    transitions.attempt_again(connection, run.pk, claimed.token, claimed.now() + 3600 * SECOND, text, ["once"])
    assert columns(run) == (DECLINED, DECLINED, "once")
    run.cancel()
    assert columns(run) == NOTHING


def test_run_whose_workers_died_names_the_step_that_killed_them(transactional_db, pass_time):
    run = tiny.start({})
    claim(run, make_terms(max_recoveries=0))
    WorkflowRun.objects.update(current_step="once")
    pass_time("1m")  # its lease is over
    recover(make_terms(max_recoveries=0))
    died = "django_steps.errors.WorkerDied"
    assert columns(run) == (died, died, "once")
    run.retry()
    assert columns(run) == NOTHING


def test_endings_that_are_written_together_have_them_too(transactional_db):
    runs = tiny.start_many([{}] * 3)
    found = {each.run_id: each for each in claims.claim(connection, make_terms(), 10).runs}
    texts = [failures.with_steps(failures.record(error), ["once"]) for error in (Declined("no"), KeyError("k"))]
    writes = [
        *(
            Finish(run_id=each.run_id, token=each.token, status="failed", error=text, finished_at=each.now())
            for each, text in zip([found[run.pk] for run in runs[:2]], texts, strict=True)
        ),
        step_write(found[runs[2].pk], "once", status="failed", output=None, error=texts[0]),
    ]
    written = batches.write_many(connection, writes)
    for write in writes:  # what was left out is written on its own
        if batches.identity(write) not in written:
            one = records.record if isinstance(write, records.StepWrite) else transitions.finish
            assert one(connection, write) is Outcome.WRITTEN
    assert columns(runs[0]) == (DECLINED, DECLINED, "once")
    assert columns(runs[1]) == ("KeyError", "KeyError", "once")
    assert runs[2].steps.get().error_type == DECLINED


def test_replaced_record_has_them(transactional_db):
    run = tiny.start({})
    claimed = claim(run)
    assert records.record(connection, step_write(claimed, "once", status="retrying", output=None)) is Outcome.WRITTEN
    text = failures.record(Declined("no"))
    failed = step_write(claimed, "once", status="failed", output=None, error=text, replaces=True)
    assert records.record(connection, failed) is Outcome.WRITTEN
    assert run.steps.get().error_type == DECLINED


def test_restart_from_a_step_copies_those_of_the_steps_before_it(order, work, broken):
    run = order.start({})
    work()
    again = run.restart(from_step="charge")
    assert columns(again) == NOTHING
    assert list(again.steps.values_list("name", "error_type")) == [("reserve", "")]


def test_new_run_has_none(transactional_db):
    assert columns(three_steps.start({})) == NOTHING
    assert (three_steps.start({}).error_type, three_steps.start({}).failed_step) == ("", "")


def test_class_with_any_name_fits(work):
    odd = type("Odd", (Exception,), {})
    odd.__qualname__ = "\0\ud800" + "n" * 240

    @workflow
    def odd_one(input, step):
        step.define("charge", lambda: fail(odd("no"))).run()

    run = odd_one.start({})
    work()
    run.refresh_from_db()
    assert run.error_type == run.steps.get().error_type
    assert len(run.error_type) == 255 and run.error_type.endswith("\\x00\\ud800" + "n" * 240)
