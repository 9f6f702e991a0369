"""Polls: a check is executed again and again until it finds something, with one record, and nothing is held in between."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.dispatch import receiver

from django_steps import (
    PollTimedOut,
    RetryAfter,
    RetryPolicy,
    StepsError,
    TimedOut,
    current_step,
    signals,
    workflow,
)
from django_steps.core import clock
from django_steps.core.context import active_pass
from django_steps.engine.execution import run_claim
from django_steps.engine.host import Direct
from django_steps.ledger import database
from django_steps.ledger.records import Outcome, StepWrite
from django_steps.models import StepRecord, WorkflowRun
from django_steps.testing import FakeStep, run_workflow
from django_steps.testing.errors import DoesNotEnd
from tests.app.models import Person
from tests.looking import error_of, names_of
from tests.staging import Background, claim, make_terms, recover, status_of

MINUTE = timedelta(minutes=1)


class Parcel:
    """What a check looks at: it gives one answer after the other, and the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.checks = list(answers), 0

    def look(self, *args: Any) -> Any:
        self.checks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def polling(parcel: Parcel, **options: Any) -> Any:
    """A workflow that polls, and tells what it caught."""

    @workflow(name="polling")
    def body(step):
        try:
            return step.poll("shipped", parcel.look, **{"every": "10m", **options}).run(7)
        except PollTimedOut as error:
            return ["timed out", error.step, error.checks, error.value]

    return body


@pytest.fixture
def over_time(work, pass_time) -> Callable[..., None]:
    """Let a worker execute what is due, again after each of so many minutes."""

    def go_on(*minutes: int) -> None:
        work()
        for span in minutes:
            pass_time(f"{span}m")
            work()

    return go_on


def record_of(run: WorkflowRun) -> StepRecord:
    return run.steps.get(name="shipped")


def waits(record: StepRecord) -> timedelta:
    """From its last write until the next check, about."""
    assert record.wakes_at is not None
    return record.wakes_at - clock.to_datetime(database.read_clock(connection))


# -- Checking ----------------------------------------------------------------------------------------


def test_first_check_is_made_at_once_and_its_result_returned(work):
    parcel = Parcel({"state": "shipped"})
    run = polling(parcel).start()
    work()
    assert run.result(timeout=0) == {"state": "shipped"}
    record = record_of(run)
    assert (record.kind, record.status, record.checks, parcel.checks) == ("poll", "succeeded", 1, 1)
    assert record.output == {"state": "shipped"} and record.finished_at is not None


def test_it_checks_until_the_result_is_true_and_has_one_record_for_all_checks(over_time):
    parcel = Parcel(None, 0, "", {"state": "shipped"})
    run = polling(parcel).start()
    over_time(11, 11)
    assert (status_of(run), parcel.checks) == ("sleeping", 3)
    over_time(11)
    assert run.result(timeout=0) == {"state": "shipped"}
    assert names_of(run) == ["shipped"]
    assert (record_of(run).checks, record_of(run).attempts) == (4, 4)


def test_until_says_what_is_waited_for(over_time):
    parcel = Parcel({"state": "packed"}, {"state": "shipped"})
    run = polling(parcel, until=lambda found: found["state"] == "shipped").start()
    over_time()
    assert (status_of(run), record_of(run).output) == ("sleeping", {"state": "packed"})
    over_time(11)
    assert run.result(timeout=0) == {"state": "shipped"}


def test_until_may_wait_for_what_is_false(work):
    run = polling(Parcel([]), until=lambda found: not found).start()
    work()
    assert run.result(timeout=0) == []


def test_check_gets_the_arguments_of_run_and_may_be_async(work):
    seen = []

    async def look(number: int, *, carrier: str) -> str:
        seen.append((number, carrier, current_step().name))
        return "there"

    @workflow
    def asking(step):
        return step.poll("shipped", look, every="10m").run(7, carrier="post")

    run = asking.start()
    work()
    assert run.result(timeout=0) == "there"
    assert seen == [(7, "post", "shipped")]


def test_it_is_recorded_as_waiting_when_it_is_reached(work):
    seen = []

    def look() -> bool:
        record = StepRecord.objects.get(name="shipped")
        seen.append((record.status, record.checks, record.attempts, record.output, record.finished_at))
        return True

    @workflow
    def asking(step):
        step.poll("shipped", look, every="10m").run()

    asking.start()
    work()
    assert seen == [("waiting", 0, 0, None, None)]


def test_each_check_brings_the_record_up_to_date(over_time):
    parcel = Parcel({}, [], None)
    run = polling(parcel).start()
    for number, value in enumerate([{}, [], None], 1):
        over_time(*([11] if number > 1 else []))
        record = record_of(run)
        assert (record.status, record.checks, record.output) == ("waiting", number, value)
        assert 9.5 * MINUTE < waits(record) <= 10 * MINUTE
        run.refresh_from_db()
        assert run.wakes_at == record.wakes_at


def test_recorded_outcome_is_replayed_without_a_check(over_time):
    parcel = Parcel("there")

    @workflow
    def asking(step):
        found = step.poll("shipped", parcel.look, every="10m").run()
        step.sleep("night", "8h")
        return found

    run = asking.start()
    over_time(500)
    assert (run.result(timeout=0), parcel.checks) == ("there", 1)


def test_waits_grow_by_backoff_up_to_the_longest(over_time):
    run = polling(Parcel(None), every="10m", backoff=2.0, max_interval="30m").start()
    for passed, expected in ((0, 10), (10.1, 20), (20.1, 30), (30.1, 30)):
        clock.offset_us += int(passed * 60_000_000)
        over_time()
        assert (expected - 0.5) * MINUTE < waits(record_of(run)) <= expected * MINUTE


def test_endless_growth_ends_at_a_hundred_years():
    rules = FakeStep().poll("shipped", print, every="10m", backoff=1000.0)._polling
    assert rules.interval_us(10**6) == timedelta(days=36525) // timedelta(microseconds=1)


@pytest.mark.counts_passes
def test_between_checks_nothing_is_held(over_time):
    passes = []
    parcel = Parcel(None, "there")

    @workflow
    def asking(step):
        passes.append(1)
        step.poll("shipped", parcel.look, every="10m").run()

    run = asking.start()
    over_time()
    run.refresh_from_db()
    assert (run.status, run.worker_id, run.claim_token, run.current_step) == ("sleeping", None, None, "")
    over_time(11)
    assert status_of(run) == "succeeded" and len(passes) == 2


@pytest.mark.counts_passes
def test_short_waits_are_waited_in_place(work):
    passes = []
    parcel = Parcel(None, None, "there")

    @workflow
    def asking(step):
        passes.append(1)
        return step.poll("shipped", parcel.look, every="10ms").run()

    run = asking.start()
    work()
    assert run.result(timeout=0) == "there"
    assert (len(passes), record_of(run).checks) == (1, 3)


# -- The end -----------------------------------------------------------------------------------------


def test_timeout_ends_it_after_a_last_check(over_time):
    parcel = Parcel({}, {}, [])
    run = polling(parcel, timeout="15m").start()
    over_time(11)
    record = record_of(run)
    assert (record.status, record.checks) == ("waiting", 2)
    assert 3 * MINUTE < waits(record) < 4 * MINUTE  # the deadline comes before the next check would
    over_time(5)
    assert run.result(timeout=0) == ["timed out", "shipped", 3, []]
    record = record_of(run)
    assert (record.status, record.error_type) == ("failed", "django_steps.errors.PollTimedOut")


def test_what_is_there_at_the_deadline_is_found_however_late_it_is(over_time):
    run = polling(Parcel(None, "there"), timeout="15m").start()
    over_time(10_000)
    assert run.result(timeout=0) == "there"


def test_poll_timed_out_is_the_same_on_every_pass(over_time):
    caught = []
    value = {"state": ("packed", 1)}

    @workflow
    def asking(step):
        try:
            step.poll("shipped", lambda: value, every="10m", timeout="15m", until=lambda found: False).run()
        except PollTimedOut as error:
            caught.append((type(error), str(error), error.step, error.checks, error.value))
        step.sleep("night", "8h")
        step.sleep("day", "8h")

    run = asking.start()
    over_time(11, 11, 500, 500)
    assert status_of(run) == "succeeded"
    assert len(caught) >= 3 and all(found == caught[0] for found in caught)
    assert caught[0][2:] == ("shipped", 3, value)
    assert "in 3 checks." in caught[0][1] and "packed" not in caught[0][1]


def test_poll_timed_out_can_be_pickled():
    error = pickle.loads(pickle.dumps(PollTimedOut("shipped", 1, "packed")))
    assert (error.step, error.checks, error.value) == ("shipped", 1, "packed")
    assert str(error) == "Poll 'shipped' has not found what it waits for in 1 check."


def test_poll_timed_out_is_a_timeout_of_python(over_time):
    assert (
        issubclass(PollTimedOut, TimedOut) and issubclass(TimedOut, StepsError) and issubclass(TimedOut, TimeoutError)
    )

    @workflow
    def asking(step):
        try:
            step.poll("shipped", lambda: None, every="10m", max_checks=1).run()
        except TimeoutError as error:
            return error.errno

    run = asking.start()
    over_time()
    assert run.result(timeout=0) is None


def test_uncaught_timeout_is_the_failure_of_the_run(work):
    @workflow
    def asking(step):
        step.poll("shipped", lambda: None, every="10m", max_checks=1).run()

    run = asking.start()
    work()
    error = error_of(run)
    assert (error["type"], error["step"]) == ("django_steps.errors.PollTimedOut", "shipped")
    assert run.failed_step == "shipped"


def test_it_times_out_at_once_after_the_last_of_max_checks(over_time):
    parcel = Parcel({}, [])
    run = polling(parcel, max_checks=2).start()
    over_time(11)
    assert run.result(timeout=0) == ["timed out", "shipped", 2, []]
    assert parcel.checks == 2


def test_deadline_is_fixed_when_the_poll_is_first_reached(over_time):
    parcel = Parcel(None)
    run = polling(parcel, timeout="15m").start()
    over_time()
    polling(parcel, timeout="10d")  # a deploy
    over_time(16)
    assert run.result(timeout=0) == ["timed out", "shipped", 2, None]


class Died(BaseException):
    """The end of the process, as far as a pass can tell."""


class DyingHost(Direct):
    """Only the first record is written."""

    lets_through = (Died,)

    def record(self, write: StepWrite) -> Outcome:
        return self.write(None) if write.replaces else super().record(write)

    def write(self, statement: Any) -> Any:
        raise Died


def test_recorded_deadline_outlasts_a_crash_in_the_first_check(over_time):
    run = polling(Parcel(None), timeout="15m").start()
    terms = make_terms(lease=1)
    with pytest.raises(Died):
        run_claim(claim(run, terms), DyingHost("default"), [])
    recover(terms)
    record = record_of(run)
    assert (record.status, record.checks, record.attempts) == ("waiting", 0, 0)
    over_time()
    assert record_of(run).checks == 1
    assert record_of(run).context["deadline_us"] == record.context["deadline_us"]


def test_last_value_that_can_not_be_read_any_more_keeps_the_timeout_what_it_was(work, pass_time):
    caught = []

    @workflow
    def asking(step):
        person = step.define("person", Person.objects.create).run(name="ada")
        try:
            step.poll("shipped", lambda: person, every="10m", max_checks=1, until=lambda found: False).run()
        except PollTimedOut as error:
            caught.append((error.value, getattr(error, "__notes__", [])))
        step.sleep("night", "8h")

    run = asking.start()
    work()
    assert caught[-1] == (Person.objects.get(), [])
    # The body would not come so far again if it read what `person` was.
    StepRecord.objects.filter(name="person").update(output_text="null")
    Person.objects.all().delete()
    pass_time("9h")
    work()
    assert status_of(run) == "succeeded"
    value, (note,) = caught[-1]
    assert value is None and "can't be read any more" in note and "no longer exists" in note


# -- Checks that raise -------------------------------------------------------------------------------


def test_check_that_raises_fails_the_poll_without_a_policy(work):
    run = polling(Parcel(OSError("no line"))).start()
    work()
    assert (error_of(run)["type"], error_of(run)["step"]) == ("OSError", "shipped")
    assert (record_of(run).status, record_of(run).checks, record_of(run).attempts) == ("failed", 0, 1)


def test_attempts_are_counted_anew_for_each_check(over_time):
    attempts = []
    answers = Parcel(OSError("a"), OSError("b"), None, OSError("c"), OSError("d"), None, "there")

    def look() -> Any:
        attempts.append(current_step().attempt)
        return answers.look()

    @workflow
    def asking(step):
        retry = RetryPolicy(max_attempts=3, initial_interval="1m", backoff_coefficient=1, jitter=False)
        return step.poll("shipped", look, every="10m", retry=retry).run()

    run = asking.start()
    over_time(2)
    record = record_of(run)
    assert (record.status, record.checks, record.attempts) == ("retrying", 0, 2)
    over_time(2, 11, 2, 2, 11)
    assert run.result(timeout=0) == "there"
    assert attempts == [1, 2, 3, 1, 2, 3, 1]
    record = record_of(run)
    assert (record.checks, record.attempts) == (3, 7)
    logged = [(entry["attempt"], entry["error"]["message"]) for entry in record.earlier_attempts]
    assert logged == [(1, "a"), (2, "b"), (4, "c"), (5, "d")]
    assert not any(entry["before_retry"] for entry in record.earlier_attempts)


def test_attempts_and_their_time_are_counted_anew_for_each_check_within_a_pass(work):
    attempts = []
    answers = Parcel(OSError("a"), None, OSError("b"), None, "there")

    def look() -> Any:
        attempts.append(current_step().attempt)
        active_pass.get().claim.claimed_at += 40 * 60_000_000  # as the clock of a pass has it
        return answers.look()

    @workflow
    def asking(step):
        retry = RetryPolicy(max_attempts=2, initial_interval=0, give_up_after="50m")
        return step.poll("shipped", look, every=0, retry=retry).run()

    run = asking.start()
    work()
    assert run.result(timeout=0) == "there"
    assert attempts == [1, 2, 1, 2, 1]


def test_it_has_begun_when_it_was_reached(over_time):
    run = polling(Parcel(None, "there")).start()
    over_time()
    began = record_of(run).started_at
    over_time(11)
    record = record_of(run)
    assert record.started_at == began and record.finished_at - began > 10 * MINUTE


def test_check_that_raises_too_often_fails_the_poll(over_time):
    parcel = Parcel(None, OSError("a"), OSError("b"))
    run = polling(parcel, retry=RetryPolicy(max_attempts=2, initial_interval="1m")).start()
    over_time(11, 2)
    assert error_of(run)["message"] == "b"
    assert (record_of(run).checks, record_of(run).output) == (1, None)


def test_policy_of_the_workflow_for_its_steps_applies(over_time):
    parcel = Parcel(OSError("a"), "there")

    @workflow(step_retry=RetryPolicy(max_attempts=2, initial_interval="1m"))
    def asking(step):
        return step.poll("shipped", parcel.look, every="10m").run()

    run = asking.start()
    over_time(2)
    assert run.result(timeout=0) == "there"


def test_last_value_stays_while_a_check_is_tried_again(over_time):
    parcel = Parcel({"state": "packed"}, OSError("no line"))
    run = polling(parcel, until=lambda found: False, retry=RetryPolicy(initial_interval="1m")).start()
    over_time(11)
    record = record_of(run)
    assert (record.status, record.output, record.checks) == ("retrying", {"state": "packed"}, 1)


def test_long_last_value_stays_while_a_check_is_tried_again(over_time):
    value = ["x" * database.LONG_VALUE, "y"]
    parcel = Parcel(value, OSError("no line"))
    run = polling(parcel, timeout="15m", until=lambda found: False, retry=RetryPolicy(initial_interval="1m")).start()
    over_time(11)
    assert (record_of(run).status, record_of(run).output) == ("retrying", value)
    over_time(5)
    assert run.result(timeout=0) == ["timed out", "shipped", 1, value]


def test_retries_end_at_the_deadline_with_the_timeout(over_time):
    parcel = Parcel(None, OSError("no line"))
    policy = RetryPolicy(max_attempts=9, initial_interval="1h", jitter=False)
    run = polling(parcel, timeout="15m", retry=policy).start()
    over_time(11)
    assert 3 * MINUTE < waits(record_of(run)) < 4 * MINUTE
    over_time(5)
    assert run.result(timeout=0) == ["timed out", "shipped", 1, None]
    traceback = record_of(run).error["traceback"]
    assert "OSError: no line" in traceback


def test_what_the_last_check_raised_is_the_cause_on_every_pass(over_time):
    causes = []

    def look() -> None:
        raise OSError("no line")

    @workflow
    def asking(step):
        try:
            step.poll("shipped", look, every="10m", timeout=0, retry=5).run()
        except PollTimedOut as error:
            causes.append(str(error.__cause__))
        step.sleep("night", "8h")

    asking.start()
    over_time(500)
    assert len(causes) >= 2 and set(causes) == {"no line"}


def test_retry_after_says_when_to_check_again_and_uses_up_no_attempt(over_time):
    parcel = Parcel(RetryAfter("30m"), RetryAfter("30m"), "there")
    run = polling(parcel).start()
    over_time()
    record = record_of(run)
    assert (record.status, record.attempts, record.checks) == ("retrying", 0, 0)
    assert 29 * MINUTE < waits(record) < 34 * MINUTE
    over_time(34, 34)
    assert run.result(timeout=0) == "there"
    assert (record_of(run).checks, record_of(run).attempts) == (1, 1)


def test_give_up_after_is_counted_anew_for_each_check(over_time):
    policy = RetryPolicy(max_attempts=9, initial_interval="4m", backoff_coefficient=1, jitter=False, give_up_after="6m")
    parcel = Parcel(OSError("a"), None, OSError("b"), None, OSError("c"), OSError("d"))
    run = polling(parcel, retry=policy).start()
    over_time(5, 11, 5, 11)
    assert (status_of(run), record_of(run).checks, record_of(run).status) == ("sleeping", 2, "retrying")
    over_time(5)
    assert error_of(run)["message"] == "d"


def test_until_that_raises_is_a_failed_check(work):
    run = polling(Parcel({}), until=lambda found: found["state"]).start()
    work()
    assert error_of(run)["type"] == "KeyError" and error_of(run)["step"] == "shipped"


def test_value_that_can_not_be_recorded_fails_the_poll(work):
    run = polling(Parcel(object()), retry=5).start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.UnserializableResult"
    assert record_of(run).attempts == 1


# -- Controls, crashes -------------------------------------------------------------------------------


def failed_after_a_timeout(over_time, parcel, **options):
    @workflow(name="failing")
    def body(step):
        step.define("before", lambda: None).run()
        return step.poll("shipped", parcel.look, **{"every": "10m", **options}).run()

    run = body.start()
    over_time(11, 11)
    assert status_of(run) == "failed"
    return run


def test_retry_checks_anew(over_time):
    parcel = Parcel(None, None, "there")
    run = failed_after_a_timeout(over_time, parcel, max_checks=2)
    run.retry()
    over_time()
    assert run.result(timeout=0) == "there"
    assert record_of(run).checks == 1 and parcel.checks == 3


def test_retry_counts_the_checks_anew(over_time):
    parcel = Parcel(None)
    run = failed_after_a_timeout(over_time, parcel, max_checks=2)
    run.retry()
    assert (record_of(run).status, record_of(run).checks) == ("retrying", None)
    over_time(11)
    assert error_of(run) and parcel.checks == 4
    assert record_of(run).checks == 2


def test_clock_goes_on_over_a_retry(over_time):
    parcel = Parcel(None)
    run = failed_after_a_timeout(over_time, parcel, timeout="15m")
    run.retry()
    over_time()
    assert error_of(run)["type"] == "django_steps.errors.PollTimedOut" and parcel.checks == 4  # one more look


def test_retry_before_the_deadline_has_what_is_left_of_the_time(over_time):
    parcel = Parcel(OSError("no line"), None)
    run = failed_after_a_timeout(over_time, parcel, timeout="40m")
    run.retry()
    over_time(11)
    assert (status_of(run), record_of(run).checks) == ("sleeping", 2)
    over_time(11)
    assert error_of(run)["type"] == "django_steps.errors.PollTimedOut"


def test_retry_from_the_poll_has_a_new_clock(over_time):
    parcel = Parcel(None)
    run = failed_after_a_timeout(over_time, parcel, timeout="15m")
    run.retry(from_step="shipped")
    over_time()
    record = record_of(run)
    assert (status_of(run), record.status, record.checks) == ("sleeping", "waiting", 1)
    over_time(11, 11)
    assert error_of(run)["type"] == "django_steps.errors.PollTimedOut" and parcel.checks == 6


def test_run_that_was_canceled_between_two_checks_goes_on_after_a_retry(over_time):
    parcel = Parcel(None, "there")
    run = polling(parcel, timeout="1h").start()
    over_time()
    deadline = record_of(run).context["deadline_us"]
    run.cancel()
    run.retry()
    over_time(11)
    assert run.result(timeout=0) == "there"
    assert (record_of(run).checks, record_of(run).context["deadline_us"]) == (2, deadline)


def test_check_ends_and_is_recorded_when_the_run_is_canceled_meanwhile(over_time):
    parcel = Parcel(None, "there")
    runs = []

    def look() -> Any:
        if runs:
            Background(runs.pop().cancel).join()
        return parcel.look()

    @workflow
    def asking(step):
        return step.poll("shipped", look, every="10m").run()

    run = asking.start()
    runs.append(run)
    over_time()
    assert (status_of(run), record_of(run).status, record_of(run).checks) == ("canceled", "waiting", 1)
    run.retry()
    over_time(11)
    assert run.result(timeout=0) == "there"


def test_check_is_executed_again_where_its_worker_died(over_time):
    parcel = Parcel(None, "there")
    run = polling(parcel).start()
    over_time()
    clock.offset_us += 11 * 60_000_000
    terms = make_terms(lease=1)
    claim(run, terms)  # and it dies while it checks
    recover(terms)
    over_time()
    assert (run.result(timeout=0), parcel.checks, record_of(run).checks) == ("there", 2, 2)


def test_each_check_counts_as_progress_so_that_any_number_of_workers_may_die(over_time):
    parcel = Parcel(*[None] * 6, "there")
    run = polling(parcel).start()
    over_time()
    for _ in range(5):
        clock.offset_us += 11 * 60_000_000
        terms = make_terms(lease=1, max_recoveries=1)
        claim(run, terms)
        recover(terms)
        over_time()
        assert status_of(run) == "sleeping"
    over_time(11)
    assert run.result(timeout=0) == "there"


def test_restart_from_a_later_step_copies_it(work):
    parcel = Parcel("there")

    @workflow
    def asking(step):
        found = step.poll("shipped", parcel.look, every="10m").run()
        return step.define("after", lambda: found).run()

    run = asking.start()
    work()
    new = run.restart(from_step="after")
    work()
    assert (new.result(timeout=0), parcel.checks) == ("there", 1)
    assert record_of(new).checks == 1


def test_failed_poll_that_the_body_handled_is_handled(over_time):
    @workflow
    def asking(step):
        try:
            step.poll("shipped", lambda: None, every="10m", max_checks=1).run()
        except PollTimedOut:
            step.define("refund", lambda: None).run()
            raise

    run = asking.start()
    over_time()
    assert error_of(run)["step"] == "shipped"
    with pytest.raises(StepsError, match="refund"):
        run.retry()


def test_polls_that_are_gathered_wait_side_by_side(over_time):
    fast, slow = Parcel(None, "Berlin"), Parcel(None, None, "Rome")

    @workflow
    def gathering(step):
        return step.gather(
            step.poll("fast", fast.look, every="10m").bind(1),
            step.poll("slow", slow.look, every="10m").bind(2),
            step.define("other", lambda: "at once").bind(),
        )

    run = gathering.start()
    over_time()
    assert (status_of(run), [fast.checks, slow.checks]) == ("sleeping", [1, 1])
    over_time(10, 10)
    assert run.result(timeout=0) == ("Berlin", "Rome", "at once")
    assert [fast.checks, slow.checks] == [2, 3]


def test_name_of_a_poll_is_used_once_in_a_pass(work):
    @workflow
    def twice(step):
        step.poll("same", lambda: True, every="1s").run()
        step.define("same", lambda: True).run()

    run = twice.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"


def test_recorded_poll_is_no_step(work):
    deploys = []

    @workflow
    def changing(step):
        if deploys:
            step.define("same", lambda: True).run()
        step.poll("same", lambda: True, every="1s").run()
        deploys.append(1)
        raise OSError

    run = changing.start()
    work()
    run.retry()
    work()
    assert "has recorded 'same' as a poll, and the code now asks for a step" in error_of(run)["message"]


# -- What is said of it ------------------------------------------------------------------------------


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """The signals of steps."""
    found: list[tuple[str, Any]] = []
    connected = []
    for name in ("step_started", "step_succeeded", "step_failed"):

        def hear(step: str, name: str = name, **kwargs: Any) -> None:
            found.append((name, kwargs.get("attempt")))

        connected.append(hear)
        receiver(getattr(signals, name), sender=WorkflowRun)(hear)
    yield found
    for name, hear in zip(("step_started", "step_succeeded", "step_failed"), connected, strict=True):
        getattr(signals, name).disconnect(hear, sender=WorkflowRun)


def test_signals_tell_of_each_check_that_begins_or_raises_and_of_the_end(over_time, heard):
    run = polling(Parcel(None, OSError("no line"), "there"), retry=RetryPolicy(initial_interval="1m")).start()
    over_time(11, 2)
    assert status_of(run) == "succeeded"
    assert heard == [
        ("step_started", 1),
        ("step_started", 1),
        ("step_failed", None),
        ("step_started", 2),
        ("step_succeeded", None),
    ]


def test_signal_tells_of_a_timeout(over_time, heard):
    polling(Parcel(None), max_checks=1).start()
    over_time()
    assert heard == [("step_started", 1), ("step_failed", None)]


@pytest.mark.parametrize(
    "options, error, hint",
    [
        ({"every": "soon"}, ValueError, "Not a duration"),
        ({"every": -1}, ValueError, "negative"),
        ({"every": None}, TypeError, "Not a duration"),
        ({"timeout": "soon"}, ValueError, "Not a duration"),
        ({"max_interval": "soon"}, ValueError, "Not a duration"),
        ({"backoff": 0.5}, ValueError, "backoff of poll 'shipped' must be a number of at least 1"),
        ({"backoff": "2"}, ValueError, "backoff of poll 'shipped'"),
        ({"max_checks": 0}, ValueError, "max_checks of poll 'shipped' must be at least 1"),
        ({"max_checks": 1.5}, TypeError, "max_checks of poll 'shipped' takes a whole number"),
        ({"max_checks": True}, TypeError, "max_checks of poll 'shipped'"),
        ({"until": "ready"}, TypeError, "until of poll 'shipped' takes a function"),
        ({"retry": 0}, ValueError, "retry of step 'shipped'"),
        ({"check": "look"}, TypeError, "Poll 'shipped' takes a function"),
        ({"name": "a#b"}, ValueError, "can't contain '#'"),
        ({"atomic": True}, TypeError, "atomic"),
    ],
    ids=repr,
)
def test_impossible_option_is_an_error_where_it_is_given(options, error, hint):
    given = {"name": "shipped", "check": print, "every": "10m", **options}
    with pytest.raises(error, match=hint):
        FakeStep().poll(**given)


def test_every_has_to_be_given():
    with pytest.raises(TypeError, match="every"):
        FakeStep().poll("shipped", print)


# -- In tests ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_kit_polls_on_its_clock():
    parcel = Parcel(None, None, "there")
    run = run_workflow(polling(parcel, timeout="3d"))
    assert (run.status, run.output, parcel.checks) == ("succeeded", "there", 3)
    assert run.finished_at - run.started_at > 20 * MINUTE


@pytest.mark.django_db
@pytest.mark.parametrize("straight_through", [True, False])
def test_kit_lets_a_poll_time_out_however_many_checks_it_takes(straight_through):
    run = run_workflow(
        polling(Parcel(None), every="1h", timeout="30h"), straight_through=straight_through, max_steps=20
    )
    assert run.output == ["timed out", "shipped", 31, None]


@pytest.mark.django_db
def test_kit_finds_a_poll_that_does_not_end():
    with pytest.raises(DoesNotEnd):
        run_workflow(polling(Parcel(None)), max_steps=20)


@pytest.mark.django_db
def test_stub_takes_the_place_of_the_check():
    assert run_workflow(polling(Parcel(None)), stubs={"shipped": "there"}).output == "there"
    run = run_workflow(polling(Parcel("there"), max_checks=3), stubs={"shipped": lambda number: 0})
    assert run.output == ["timed out", "shipped", 3, 0]


def test_fake_step_checks_without_waiting():
    parcel = Parcel(None, None, "there")
    step = FakeStep()
    assert polling(parcel)(step=step) == "there"
    assert step.names == ["shipped"] and step.calls == [("shipped", (7,), {})]


def test_fake_step_times_out_after_as_many_checks():
    assert polling(Parcel(0), timeout="25m")(step=FakeStep()) == ["timed out", "shipped", 4, 0]
    assert polling(Parcel(0), max_checks=3)(step=FakeStep()) == ["timed out", "shipped", 3, 0]
    with pytest.raises(DoesNotEnd, match="Poll 'shipped' has checked 1,000 times"):
        polling(Parcel(0))(step=FakeStep())
