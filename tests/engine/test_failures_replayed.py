"""What a body caught is what it catches on every later pass, and the step that failed does not execute again."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from django_steps import RetryPolicy, StepFailed, workflow
from django_steps.errors import FailureWasHandled, NonRetryableError
from tests.app.models import Person


class Declined(Exception):
    """Has an `__init__` that its `args` don't fit."""

    def __init__(self, *, card: str, code: int) -> None:
        super().__init__(f"{card} declined")
        self.card, self.code = card, code


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unpicklable(Exception):
    def __init__(self, thing: Any) -> None:
        super().__init__("has a lambda")
        self.thing = thing


def raising(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


# -- The guide's loops -------------------------------------------------------------------------------


def test_retry_loop_executes_its_attempts_one_two_three(work, pass_time):
    executed: list[int] = []
    warnings: list[str] = []

    def unreliable(attempt):
        executed.append(attempt)
        if attempt < 3:
            raise ConnectionError(f"attempt {attempt}")
        return "data"

    @workflow
    def retry_loop(step):
        for i in range(3):
            try:
                return step.define(f"attempt_{i + 1}", unreliable).run(i + 1)
            except ConnectionError as error:
                warnings.append(str(error))
                if i == 2:
                    raise
                step.sleep("retry_delay", "5s")
        return None

    run = retry_loop.start()
    for _ in range(3):
        work()
        pass_time("6s")
    assert run.result(timeout=0) == "data"
    assert executed == [1, 2, 3]
    assert [record.name for record in run.steps.all()] == [
        "attempt_1",
        "retry_delay",
        "attempt_2",
        "retry_delay#2",
        "attempt_3",
    ]


def test_retry_loop_that_fails_for_good_executes_each_attempt_once(work, pass_time):
    executed: list[int] = []

    @workflow
    def hopeless(step):
        for i in range(3):
            try:

                @step.define(f"attempt_{i + 1}")
                def attempt(number=i + 1):
                    executed.append(number)
                    raise ConnectionError

                attempt.run()
                break
            except ConnectionError:
                if i == 2:
                    raise
                step.sleep("retry_delay", "5s")

    run = hopeless.start()
    for _ in range(4):
        work()
        pass_time("6s")
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["step"] == "attempt_3"
    assert executed == [1, 2, 3]


def test_after_charge_and_a_failed_shipment_only_the_refund_follows(work, pass_time):
    executed: list[str] = []

    def ship():
        executed.append("ship")
        raise OSError("no carrier")

    @workflow
    def order(step):
        step.define("charge", lambda: executed.append("charge")).run()
        try:
            step.define("ship", ship).run()
        except OSError:
            step.sleep("wait_for_bank", "1h")
            step.define("refund", lambda: executed.append("refund")).run()
            step.sleep("cool_off", "1h")
            return "refunded"
        return "shipped"

    run = order.start()
    for _ in range(3):
        work()
        pass_time("2h")
    assert run.result(timeout=0) == "refunded"
    assert executed == ["charge", "ship", "refund"]


@pytest.mark.counts_passes
def test_optional_step_that_failed_executes_once_also_after_a_sleep(work, pass_time):
    executed: list[str] = []

    def optional():
        executed.append("optional")
        raise ValueError

    @workflow
    def with_optional(step):
        try:
            step.define("optional", optional).run()
        except Exception:
            executed.append("caught")
        step.sleep("pause", "1h")
        return step.define("last", lambda: "success").run()

    run = with_optional.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == "success"
    assert executed == ["optional", "caught", "caught"]


# -- The same exception ------------------------------------------------------------------------------


EXCEPTIONS = {
    "missing file": FileNotFoundError(2, "No such file", "/tmp/a", None, "/tmp/b"),
    "key error": KeyError("user"),
    "undecodable": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "syntax": SyntaxError("invalid", ("f.py", 1, 2, "a b", 1, 3)),
    "process": subprocess.CalledProcessError(3, ["ls", "-l"], output=b"out", stderr=b"err"),
    "validation": ValidationError({"name": ["Too long."]}),
    "does not exist": Person.DoesNotExist("no such person"),
    "own init": Declined(card="4242", code=7),
    "unprintable": Unprintable("a", 1),
    "group": ExceptionGroup("several", [ValueError(1), OSError(2, "two")]),
    "exit": SystemExit(3),
    "not retryable": NonRetryableError("never"),
}


def described(error: BaseException) -> Any:
    """All that a body can ask of an exception."""
    details = {key: repr(value) for key, value in vars(error).items() if key != "error_list" and key != "error_dict"}
    for name in ("errno", "filename", "filename2", "object", "start", "code", "returncode", "stderr", "lineno"):
        if hasattr(error, name):
            details[name] = repr(getattr(error, name))
    members = [described(member) for member in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    args = [] if members else list(error.args)
    if isinstance(error, ValidationError):
        args, details = [], {"messages": error.message_dict}
    return type(error), repr(args), details, members


@pytest.mark.filterwarnings("error")
@pytest.mark.counts_passes
def test_body_catches_the_same_exception_on_every_pass(work, pass_time):
    passes: list[list[Any]] = []

    @workflow
    def catching(step):
        caught = []
        for name, error in EXCEPTIONS.items():
            try:
                step.define(name, raising(error)).run()
            except BaseException as raised:
                caught.append(described(raised))
                del raised
        passes.append(caught)
        step.sleep("pause", "1h")

    run = catching.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) is None
    expected = [described(error) for error in EXCEPTIONS.values()]
    for seen in passes:
        assert seen == expected
    assert len(passes) == 2


def test_specific_except_clause_matches_on_every_pass(work, pass_time):
    caught: list[tuple[str, int]] = []

    @workflow
    def paying(step):
        try:
            step.define("charge", raising(Declined(card="4242", code=51))).run()
        except Declined as error:
            caught.append((error.card, error.code))
        step.sleep("pause", "1h")
        return "declined"

    run = paying.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == "declined"
    assert caught == [("4242", 51)] * 2


def test_exception_that_cannot_be_rebuilt_is_step_failed_from_the_first_pass_on(work, pass_time):
    class Local(Exception):
        pass

    caught: list[Any] = []

    @workflow
    def catching(step):
        try:
            step.define("local", raising(Local("hidden"))).run()
        except Local:
            caught.append("itself")
        except StepFailed as error:
            caught.append((error.type_name.rpartition(".")[2], error.message))
        step.sleep("pause", "1h")

    run = catching.start()
    work()
    pass_time("2h")
    work()
    run.result(timeout=0)
    assert caught == [("Local", "hidden")] * 2


@pytest.mark.parametrize("error", [Unprintable(1), Unpicklable(lambda: 1), Unpicklable(open)], ids=["text", "a", "b"])
def test_odd_exception_still_ends_the_run_in_a_final_state(work, error):
    @workflow
    def failing(step):
        step.define("odd", raising(error)).run()

    @workflow
    def failing_body():
        raise error

    runs = [failing.start(), failing_body.start()]
    work()
    for run in runs:
        run.refresh_from_db()
        assert run.status == "failed"
        assert run.finished_at is not None
        assert run.error["type"].endswith(type(error).__name__)
        assert isinstance(run.error["message"], str)
        assert "test_failures_replayed" in run.error["traceback"]


def test_cause_of_a_failure_is_kept(work, pass_time):
    causes: list[Any] = []

    def fail():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    @workflow
    def chained(step):
        try:
            step.define("fail", fail).run()
        except ValueError as error:
            causes.append((str(error), repr(error.__cause__)))
        step.sleep("pause", "1h")

    run = chained.start()
    work()
    pass_time("2h")
    work()
    run.result(timeout=0)
    assert causes == [("outer", "KeyError('inner')")] * 2


# -- Which step ended the run ------------------------------------------------------------------------


def reraise(call):
    call()


def as_cause(call):
    try:
        call()
    except OSError as error:
        raise RuntimeError("wrapped") from error


def as_context(call):
    try:
        call()
    except OSError:
        raise RuntimeError("wrapped")  # noqa: B904


def in_a_group(call):
    try:
        call()
    except OSError as error:
        raise ExceptionGroup("group", [ValueError(), error]) from None


@pytest.mark.parametrize("shape", [reraise, as_cause, as_context, in_a_group])
def test_step_whose_failure_ended_the_run_executes_again_on_retry(work, shape):
    executed: list[str] = []

    def flaky():
        executed.append("flaky")
        if len(executed) < 3:
            raise OSError("not yet")

    @workflow
    def wrapping(step):
        step.define("before", lambda: executed.append("before")).run()
        shape(step.define("flaky", flaky).run)

    run = wrapping.start()
    work()
    run.refresh_from_db()
    assert run.error["step"] == "flaky"
    run.retry()
    work()
    run.result(timeout=0)
    assert executed == ["before", "flaky", "flaky"]


def test_failure_that_was_suppressed_is_not_the_one_that_ended_the_run(work):
    executed: list[str] = []

    def optional():
        executed.append("optional")
        raise OSError

    @workflow
    def suppressing(step):
        try:
            step.define("optional", optional).run()
        except OSError:
            raise RuntimeError("another matter") from None

    run = suppressing.start()
    work()
    run.refresh_from_db()
    assert run.error["step"] is None
    run.retry()
    work()
    assert executed == ["optional"]


def test_handled_failures_stay_handled_when_another_step_is_retried(work):
    executed: list[str] = []
    broken = [True]

    def optional():
        executed.append("optional")
        raise OSError

    def last():
        executed.append("last")
        if broken[0]:
            raise ValueError

    @workflow
    def mixed(step):
        try:
            step.define("optional", optional).run()
        except OSError:
            step.define("note", lambda: executed.append("note")).run()
        step.define("last", last).run()

    run = mixed.start()
    work()
    broken[0] = False
    run.retry()
    work()
    run.result(timeout=0)
    assert executed == ["optional", "note", "last", "last"]


def test_retry_after_a_compensation_is_refused_and_by_policy_it_stops(work):
    executed: list[str] = []

    def ship():
        executed.append("ship")
        raise OSError

    @workflow(retry=RetryPolicy(max_attempts=5, initial_interval="1ms"))
    def compensating(step):
        try:
            step.define("ship", ship).run()
        except OSError:
            step.define("refund", lambda: executed.append("refund")).run()
            raise

    run = compensating.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert executed == ["ship", "refund"]
    with pytest.raises(FailureWasHandled, match="'refund' ran after it"):
        run.retry()
    run.retry(from_step="refund")
    work()
    assert executed == ["ship", "refund", "refund"]


def test_compensation_between_two_failures_of_a_group_stops_the_policy_too(work):
    executed: list[str] = []

    def fail(name):
        executed.append(name)
        raise OSError(name)

    @workflow(retry=RetryPolicy(max_attempts=5, initial_interval="1ms"))
    def compensating(step):
        errors = []
        for name in ("first", "second"):
            try:
                step.define(name, fail).run(name)
            except OSError as error:
                errors.insert(0, error)
                if name == "first":
                    step.define("undo", lambda: executed.append("undo")).run()
        raise ExceptionGroup("both", errors)

    run = compensating.start()
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert executed == ["first", "undo", "second"]
    with pytest.raises(FailureWasHandled, match="'undo'"):
        run.retry()
