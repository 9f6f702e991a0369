"""`RetryPolicy`: may it be tried again and when; and what that means for steps and runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_steps import NonRetryableError, RetryAfter, RetryPolicy, current_step, workflow
from django_steps.core.context import active_pass
from django_steps.core.retries import to_policy
from tests.looking import error_of


class CardDeclined(Exception):
    pass


class PermanentlyDeclined(NonRetryableError):
    pass


# -- The policy by itself ----------------------------------------------------------------------------


def test_waits_grow_by_the_coefficient_up_to_the_longest():
    policy = RetryPolicy(max_attempts=7, initial_interval="1s", max_interval="10s", jitter=False)
    delays = [policy.delay_after(attempt, OSError()) for attempt in range(1, 8)]
    assert delays == [*(timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 10, 10)), None]


def test_no_wait_after_the_last_attempt():
    assert RetryPolicy(max_attempts=1).delay_after(1, OSError()) is None
    assert RetryPolicy(max_attempts=3).delay_after(3, RetryAfter("1s")) is None


def test_coefficient_of_one_waits_the_same_each_time():
    policy = RetryPolicy(max_attempts=9, initial_interval=2, backoff_coefficient=1, jitter=False)
    assert {policy.delay_after(attempt, OSError()) for attempt in range(1, 9)} == {timedelta(seconds=2)}


def test_first_wait_is_not_cut_to_the_longest():
    policy = RetryPolicy(max_attempts=4, initial_interval="1h", jitter=False)
    assert [policy.delay_after(attempt, OSError()) for attempt in (1, 2, 3)] == [timedelta(hours=1)] * 3


def test_enormous_attempt_numbers_wait_the_longest_interval():
    policy = RetryPolicy(max_attempts=10**9, jitter=False)
    assert policy.delay_after(10**8, OSError()) == timedelta(minutes=5)


def test_jitter_is_between_half_and_all_of_the_interval():
    policy = RetryPolicy(max_attempts=3, initial_interval="10s")
    delays = [policy.delay_after(1, OSError()) for _ in range(200)]
    assert all(timedelta(seconds=5) <= delay <= timedelta(seconds=10) for delay in delays if delay is not None)
    assert len(set(delays)) > 100


@pytest.mark.parametrize(
    "options, error, again",
    [
        ({}, OSError(), True),
        ({}, SystemExit(), False),
        ({}, KeyboardInterrupt(), False),
        ({}, NonRetryableError(), False),
        ({}, PermanentlyDeclined(), False),
        ({"retry_on": BaseException}, SystemExit(), True),
        ({"retry_on": (IOError,)}, FileNotFoundError(), True),
        ({"retry_on": (IOError,)}, ValueError(), False),
        ({"retry_on": OSError}, OSError(), True),
        ({"retry_on": ()}, OSError(), False),
        ({"give_up_on": (CardDeclined,)}, CardDeclined(), False),
        ({"give_up_on": (CardDeclined,)}, OSError(), True),
        ({"retry_on": (OSError,), "give_up_on": FileNotFoundError}, FileNotFoundError(), False),
        ({"retry_on": lambda error: "again" in str(error)}, ValueError("again"), True),
        ({"retry_on": lambda error: "again" in str(error)}, ValueError("no"), False),
        ({"give_up_on": lambda error: "no" in str(error)}, ValueError("no"), False),
        ({"retry_on": NonRetryableError}, NonRetryableError(), False),
        ({"retry_on": OSError}, RetryAfter("5s"), True),
    ],
    ids=repr,
)
def test_conditions_decide_what_is_tried_again(options, error, again):
    policy = RetryPolicy(max_attempts=3, **options)
    assert (policy.delay_after(1, error) is not None) is again


def test_retry_after_sets_the_wait_itself():
    policy = RetryPolicy(max_attempts=3)
    assert policy.delay_after(1, RetryAfter("90s")) == timedelta(seconds=90)
    assert policy.delay_after(2, RetryAfter(timedelta(hours=1), "busy")) == timedelta(hours=1)
    assert str(RetryAfter("90s")) == "retry after 90s"
    assert str(RetryAfter("90s", "busy")) == "busy"
    with pytest.raises(ValueError, match="negative"):
        RetryAfter(-1)


def test_condition_that_raises_ends_the_attempts_and_is_logged(caplog):
    policy = RetryPolicy(max_attempts=3, retry_on=lambda error: error.missing)  # type: ignore[attr-defined]
    assert policy.delay_after(1, OSError()) is None
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize(
    "options, error, hint",
    [
        ({"max_attempts": 0}, ValueError, "at least 1"),
        ({"max_attempts": True}, TypeError, "number of attempts"),
        ({"max_attempts": 2.0}, TypeError, "number of attempts"),
        ({"initial_interval": "-1s"}, ValueError, None),
        ({"initial_interval": "soon"}, ValueError, "soon"),
        ({"max_interval": None}, TypeError, "Not a duration"),
        ({"give_up_after": "soon"}, ValueError, "soon"),
        ({"give_up_after": -1}, ValueError, "negative"),
        ({"backoff_coefficient": 0.5}, ValueError, "at least 1"),
        ({"backoff_coefficient": float("nan")}, ValueError, "at least 1"),
        ({"backoff_coefficient": True}, ValueError, "at least 1"),
        ({"backoff_coefficient": "2"}, ValueError, "at least 1"),
        ({"retry_on": "OSError"}, TypeError, "retry_on takes exception classes"),
        ({"retry_on": (int,)}, TypeError, "retry_on takes exception classes"),
        ({"give_up_on": int}, TypeError, "give_up_on takes exception classes"),
        ({"give_up_on": OSError()}, TypeError, "give_up_on takes exception classes"),
        ({"attempts": 3}, TypeError, "attempts"),
    ],
    ids=repr,
)
def test_impossible_policy_is_an_error_where_it_is_made(options, error, hint):
    with pytest.raises(error, match=hint):
        RetryPolicy(**options)


def test_policy_from_a_number_of_attempts():
    assert to_policy(None, "retry") is None
    assert to_policy(3, "retry") == RetryPolicy(max_attempts=3)
    policy = RetryPolicy(max_attempts=9)
    assert to_policy(policy, "retry") is policy
    for wrong, error in ((0, ValueError), (-1, ValueError), (True, TypeError), ("3", TypeError), (2.5, TypeError)):
        with pytest.raises(error, match="retry of step 'x'"):
            to_policy(wrong, "retry of step 'x'")


def test_policy_is_immutable_and_comparable():
    assert RetryPolicy(max_attempts=3) == RetryPolicy(max_attempts=3)
    with pytest.raises(AttributeError):
        RetryPolicy().max_attempts = 4  # type: ignore[misc]


def test_policy_gives_up_after_a_time_or_never():
    policy = RetryPolicy(give_up_after="2h")
    assert not policy.is_too_late(timedelta(hours=2))
    assert policy.is_too_late(timedelta(hours=2, microseconds=1))
    assert not RetryPolicy().is_too_late(timedelta(days=1000))
    assert RetryPolicy(give_up_after="2h") == policy != RetryPolicy()
    assert "give_up_after='2h'" in repr(policy)


# -- Steps -------------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"initial_interval": "1ms", "jitter": False}


def flaky(executed: list[int], failures: int, error: Any = OSError) -> Any:
    def function() -> str:
        executed.append(current_step().attempt)
        if len(executed) <= failures:
            raise error(f"attempt {len(executed)}")
        return "data"

    return function


def test_step_has_one_attempt_by_default(work):
    executed: list[int] = []

    @workflow
    def once(step):
        step.define("flaky", flaky(executed, 1)).run()

    run = once.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert executed == [1]


def test_step_is_tried_up_to_its_policy_and_only_the_last_failure_reaches_the_body(work):
    executed: list[int] = []
    caught: list[str] = []

    @workflow
    def trying(step):
        try:
            step.define("flaky", flaky(executed, 9), retry=RetryPolicy(max_attempts=3, **QUICK)).run()
        except OSError as error:
            caught.append(str(error))

    run = trying.start()
    work()
    run.result(timeout=0)
    assert executed == [1, 2, 3]
    assert caught == ["attempt 3"]
    record = run.steps.get()
    assert (record.status, record.attempts) == ("failed", 3)
    assert [entry["error"]["message"] for entry in record.earlier_attempts] == ["attempt 1", "attempt 2"]


def test_planned_wait_before_the_next_attempt_is_kept(work):
    @workflow
    def trying(step):
        step.define("flaky", flaky([], 9), retry=RetryPolicy(initial_interval="90s", jitter=False)).run()

    run = trying.start()
    work()
    record = run.steps.get()
    assert record.status == "retrying" and record.context == {"delay_us": 90_000_000}


def test_step_that_succeeds_at_last_has_no_error(work):
    executed: list[int] = []

    @workflow(step_retry=RetryPolicy(max_attempts=3, **QUICK))
    def trying(step):
        return step.define("flaky", flaky(executed, 2)).run()

    run = trying.start()
    work()
    assert run.result(timeout=0) == "data"
    assert executed == [1, 2, 3]
    assert run.steps.get().error is None


def test_policy_of_a_step_goes_before_the_workflows(work):
    executed: list[int] = []

    @workflow(step_retry=RetryPolicy(max_attempts=9, **QUICK))
    def trying(step):
        step.define("flaky", flaky(executed, 9), retry=1).run()

    trying.start()
    work()
    assert executed == [1]


def test_non_retryable_error_stops_at_once(work):
    executed: list[int] = []

    @workflow
    def trying(step):
        step.define("flaky", flaky(executed, 9, PermanentlyDeclined), retry=5).run()

    run = trying.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert executed == [1]


def test_retry_after_says_when_the_next_attempt_is_due(work, pass_time):
    executed: list[int] = []

    def busy() -> str:
        executed.append(1)
        if len(executed) == 1:
            raise RetryAfter("2h", "busy")
        return "data"

    @workflow
    def trying(step):
        return step.define("busy", busy, retry=3).run()

    run = trying.start()
    work()
    pass_time("119m")
    work()
    assert executed == [1]
    pass_time("14m")  # with jitter it may be a tenth later
    work()
    assert run.result(timeout=0) == "data"


def test_condition_that_raises_leaves_the_failure_recorded(work, pass_time):
    executed: list[int] = []
    policy = RetryPolicy(max_attempts=3, retry_on=lambda error: error.missing)

    @workflow
    def trying(step):
        try:
            step.define("flaky", flaky(executed, 9), retry=policy).run()
        except OSError:
            step.sleep("pause", "1h")
            return "caught"

    run = trying.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == "caught"
    assert executed == [1]


def test_attempts_are_counted_anew_after_a_retry_of_the_run(work):
    executed: list[int] = []

    @workflow
    def trying(step):
        return step.define("flaky", flaky(executed, 3), retry=RetryPolicy(max_attempts=2, **QUICK)).run()

    run = trying.start()
    work()
    run.retry()
    work()
    assert run.result(timeout=0) == "data"
    assert executed == [1, 2, 1, 2]
    assert [entry["attempt"] for entry in run.steps.get().earlier_attempts] == [1, 2, 1]


# -- Runs --------------------------------------------------------------------------------------------


def test_run_is_not_tried_again_by_default(work):
    passes: list[int] = []

    @workflow
    def failing():
        passes.append(1)
        raise OSError

    failing.start()
    work()
    assert passes == [1]


def test_run_is_tried_again_from_the_step_that_failed(work):
    executed: list[str] = []

    @workflow(retry=RetryPolicy(max_attempts=3, **QUICK))
    def trying(step):
        step.define("first", lambda: executed.append("first")).run()

        @step.define("second")
        def second():
            executed.append("second")
            if executed.count("second") < 3:
                raise OSError

        second.run()

    run = trying.start()
    work()
    run.result(timeout=0)
    assert executed == ["first", "second", "second", "second"]
    assert run.attempts == 3


def test_run_that_fails_for_good_has_used_all_its_attempts(work):
    passes: list[int] = []

    @workflow(retry=RetryPolicy(max_attempts=3, **QUICK))
    def failing():
        passes.append(1)
        raise OSError(f"pass {len(passes)}")

    run = failing.start()
    work()
    run.refresh_from_db()
    assert (run.status, run.attempts, len(passes)) == ("failed", 3, 3)
    assert run.error["message"] == "pass 3"


def test_waits_between_attempts_of_a_run_hold_no_thread_and_sleeping_uses_none_up(work, pass_time):
    passes: list[int] = []

    @workflow(retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False))
    def trying(step):
        passes.append(1)
        step.sleep("pause", "1h")
        if len(passes) < 3:
            raise OSError

    run = trying.start()
    work()
    pass_time("61m")
    work()
    run.refresh_from_db()
    assert (run.status, run.attempts) == ("sleeping", 2)
    pass_time("59m")
    work()
    assert len(passes) == 2
    pass_time("2m")
    work()
    assert run.result(timeout=0) is None
    assert run.attempts == 2


def test_non_retryable_error_of_a_body_stops_at_once(work):
    passes: list[int] = []

    @workflow(retry=5)
    def failing():
        passes.append(1)
        raise NonRetryableError("pointless")

    run = failing.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert passes == [1]


def test_condition_that_exits_is_no_further_attempt_and_not_the_end_of_the_worker(work):
    def leave(error: BaseException) -> bool:
        raise SystemExit(3)

    def fail() -> None:
        raise OSError("no answer")

    @workflow
    def leaving(step):
        step.define("one", fail, retry=RetryPolicy(max_attempts=3, retry_on=leave)).run()

    run = leaving.start()
    work()
    error = error_of(run)
    assert (error["type"], error["message"]) == ("OSError", "no answer")
    assert run.steps.get().attempts == 1


# -- RetryAfter ------------------------------------------------------------------------------------


def test_retry_after_uses_up_no_attempt_and_needs_no_policy(work):
    seen: list[int] = []

    def limited() -> str:
        seen.append(current_step().attempt)
        if len(seen) < 4:
            raise RetryAfter("10ms", "slow down") from ConnectionError("429")
        return "data"

    @workflow
    def calling(step):
        return step.define("call", limited).run()

    run = calling.start()
    work()
    assert run.result(timeout=0) == "data"
    assert seen == [1, 1, 1, 1]
    record = run.steps.get()
    assert record.attempts == 1
    logged = list(record.earlier_attempts)
    assert [entry["attempt"] for entry in logged] == [1, 1, 1]
    assert {entry["error"]["type"] for entry in logged} == {"ConnectionError"}  # what is shown is the reason
    assert not any(entry["before_retry"] for entry in logged)


@pytest.mark.counts_passes
def test_attempts_are_counted_over_postponements_and_suspensions(work, pass_time):
    seen: list[int] = []

    def flaky() -> None:
        seen.append(current_step().attempt)
        raise RetryAfter("2h") if len(seen) % 2 else OSError("down")

    @workflow
    def calling(step):
        step.define("call", flaky, retry=RetryPolicy(max_attempts=2, initial_interval="2h", jitter=False)).run()

    run = calling.start()
    for _ in range(6):
        work()
        pass_time("3h")
    assert error_of(run)["type"] == "OSError"
    assert seen == [1, 1, 2, 2]
    assert run.steps.get().attempts == 2


@pytest.mark.counts_passes
def test_a_thousand_postponements_in_succession_are_a_failure(work):
    executed: list[int] = []

    def never() -> None:
        executed.append(1)
        raise RetryAfter(0, "not yet")

    @workflow
    def waiting(step):
        step.define("wait", never, retry=RetryPolicy(jitter=False)).run()

    run = waiting.start()
    work()
    error = error_of(run)
    assert (error["type"], error["message"]) == ("django_steps.errors.RetryAfter", "not yet")
    assert len(executed) == 1001


@pytest.mark.parametrize("give_up_on", [RetryAfter, lambda error: error.delay.total_seconds() > 60])
def test_giving_up_wins_over_retry_after(work, give_up_on):
    executed: list[int] = []

    def busy() -> None:
        executed.append(1)
        raise RetryAfter("2h")

    @workflow
    def calling(step):
        step.define("call", busy, retry=RetryPolicy(give_up_on=give_up_on)).run()

    run = calling.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.RetryAfter"
    assert executed == [1]


def test_wait_of_retry_after_is_never_shorter_and_at_most_a_tenth_longer():
    waits = {RetryPolicy().delay_asked_for(RetryAfter("100s")) for _ in range(200)}
    assert timedelta(seconds=100) <= min(waits) < max(waits) <= timedelta(seconds=110)
    assert RetryPolicy(jitter=False).delay_asked_for(RetryAfter("100s")) == timedelta(seconds=100)
    assert RetryPolicy().delay_asked_for(OSError()) is None


# -- give_up_after ---------------------------------------------------------------------------------

HOURLY: dict[str, Any] = {"max_attempts": 100, "initial_interval": "1h", "backoff_coefficient": 1, "jitter": False}


def test_step_gives_up_when_the_next_attempt_would_begin_too_late(work, pass_time):
    executed: list[int] = []

    @workflow
    def trying(step):
        step.define("flaky", flaky(executed, 99), retry=RetryPolicy(**HOURLY, give_up_after="150m")).run()

    run = trying.start()
    work()
    for _ in range(2):
        pass_time("61m")
        work()
    assert executed == [1, 2, 3]
    assert error_of(run)["message"] == "attempt 3"  # at once: no wait that leads to nothing
    assert "since_us" not in run.steps.get().context


def test_bound_counts_from_the_first_attempt_over_all_passes_and_waits(work, pass_time):
    executed: list[int] = []

    @workflow
    def trying(step):
        step.sleep("before", "10h")  # which doesn't count
        step.define("flaky", flaky(executed, 99), retry=RetryPolicy(**HOURLY, give_up_after="150m")).run()

    run = trying.start()
    work()
    pass_time("601m")
    work()
    pass_time("5h")  # no worker was there
    work()
    assert executed == [1, 2]
    assert error_of(run)["type"] == "OSError"


def test_attempt_that_is_long_counts_too(work):
    executed: list[int] = []

    def slow() -> None:
        executed.append(1)
        active_pass.get().claim.claimed_at += 2 * 3600 * 1_000_000  # as the clock of a pass has it
        raise OSError

    @workflow
    def trying(step):
        step.define("slow", slow, retry=RetryPolicy(**HOURLY, give_up_after="150m")).run()

    trying.start()
    work()
    assert len(executed) == 1


def test_bound_counts_from_the_first_attempt_within_a_pass(work):
    executed: list[int] = []

    def slow() -> None:
        executed.append(1)
        active_pass.get().claim.claimed_at += 40 * 60 * 1_000_000
        raise OSError

    @workflow
    def trying(step):
        step.define("slow", slow, retry=RetryPolicy(max_attempts=9, initial_interval=0, give_up_after="1h")).run()

    trying.start()
    work()
    assert len(executed) == 2


def test_bound_holds_for_waits_that_retry_after_asks_for(work, pass_time):
    executed: list[int] = []

    def busy() -> None:
        executed.append(1)
        raise RetryAfter("1h") from OSError("busy")

    @workflow
    def trying(step):
        step.define("busy", busy, retry=RetryPolicy(jitter=False, give_up_after="150m")).run()

    run = trying.start()
    for _ in range(5):
        work()
        pass_time("61m")
    assert len(executed) == 3
    assert error_of(run)["type"] == "django_steps.errors.RetryAfter"


def test_bound_counts_anew_after_a_retry_of_the_run(work, pass_time):
    executed: list[int] = []

    @workflow
    def trying(step):
        step.define("flaky", flaky(executed, 99), retry=RetryPolicy(**HOURLY, give_up_after="90m")).run()

    run = trying.start()
    work()
    pass_time("61m")
    work()
    assert error_of(run) and executed == [1, 2]
    pass_time("10h")
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    pass_time("61m")
    work()
    assert error_of(run) and executed == [1, 2, 1, 2]


def test_bound_of_the_workflows_policy_for_steps_is_that_of_each_step(work, pass_time):
    executed: list[int] = []

    @workflow(step_retry=RetryPolicy(**HOURLY, give_up_after="90m"))
    def trying(step):
        step.sleep("before", "10h")
        step.define("flaky", flaky(executed, 1)).run()

    run = trying.start()
    work()
    pass_time("601m")
    work()
    pass_time("61m")
    work()
    assert run.result(timeout=0) is None


def test_bound_holds_for_steps_that_are_recorded_before_they_begin(work, pass_time):
    executed: list[int] = []

    @workflow
    def trying(step):
        policy = RetryPolicy(**HOURLY, give_up_after="90m")
        step.define("flaky", flaky(executed, 99), at_most_once=True, retry=policy).run()

    run = trying.start()
    for _ in range(4):
        work()
        pass_time("61m")
    assert error_of(run) and executed == [1, 2]


def test_run_gives_up_when_its_next_attempt_would_begin_too_late(work, pass_time):
    passes: list[int] = []

    @workflow(retry=RetryPolicy(**HOURLY, give_up_after="150m"))
    def trying():
        passes.append(1)
        raise OSError(f"pass {len(passes)}")

    run = trying.start(delay="10h")  # which doesn't count
    pass_time("601m")
    for _ in range(5):
        work()
        pass_time("61m")
    assert error_of(run)["message"] == "pass 3"


def test_bound_of_a_run_counts_from_its_first_attempt_with_all_its_sleeps(work, pass_time):
    passes: list[int] = []

    @workflow(retry=RetryPolicy(**HOURLY, give_up_after="150m"))
    def trying(step):
        passes.append(1)
        step.sleep("pause", "2h")
        raise OSError

    run = trying.start()
    work()
    pass_time("121m")
    work()
    assert error_of(run) and len(passes) == 2


def test_bound_of_a_run_counts_anew_after_a_retry(work, pass_time):
    passes: list[int] = []

    @workflow(retry=RetryPolicy(**HOURLY, give_up_after="90m"))
    def trying():
        passes.append(1)
        raise OSError

    run = trying.start()
    work()
    pass_time("61m")
    work()
    assert error_of(run) and len(passes) == 2
    pass_time("10h")
    run.retry()
    work()
    run.refresh_from_db()
    assert run.status == "sleeping"
    pass_time("61m")
    work()
    assert error_of(run) and len(passes) == 4
