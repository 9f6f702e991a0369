"""What a step is: what it runs and returns, its names, where it may be called, and what it may leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections, transaction
from django.test import override_settings
from django.utils.safestring import mark_safe

from django_steps import RetryPolicy, StepsError, current_step, workflow
from django_steps.errors import PassEnded, RunFailed
from django_steps.models import StepRecord, WorkflowRun
from tests.app import effects
from tests.app.models import Effect, Person

QUICKLY = RetryPolicy(max_attempts=3, initial_interval="10ms")


def error_of(run: WorkflowRun) -> dict[str, Any]:
    """The recorded error of a run, which has to have failed."""
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error is not None
    return run.error


def names_of(run: WorkflowRun) -> list[str]:
    return list(run.steps.values_list("name", flat=True))


# -- Running -----------------------------------------------------------------------------------------


def test_arguments_pass_through_and_the_result_comes_back(work):
    def fetch(user_id, *, limit):
        return [user_id] * limit

    @workflow
    def pipeline(step):
        data = step.define("fetch_data", fetch).run(7, limit=2)
        return step.define("transform", lambda: [item + 1 for item in data]).run()

    run = pipeline.start()
    work()
    assert run.result(timeout=0) == [8, 8]
    assert names_of(run) == ["fetch_data", "transform"]


def test_decorator_form_defines_a_step_of_several_lines(work):
    @workflow
    def mail(step):
        @step.define("send")
        def send(to):
            subject = "Hello"
            return f"{subject} {to}"

        return send.run("Ann")

    run = mail.start()
    work()
    assert run.result(timeout=0) == "Hello Ann"


def test_empty_body_succeeds_with_none(work):
    @workflow
    def nothing():
        pass

    run = nothing.start()
    work()
    assert run.result(timeout=0) is None
    assert run.status == "succeeded"
    assert not run.steps.exists()


def test_recorded_step_is_passed_over_on_later_passes(work, pass_time):
    executed, seen = [], []

    @workflow
    def resumed(step):
        seen.append(step.define("none", lambda: executed.append(1)).run())
        step.sleep("pause", "1h")
        return "end"

    run = resumed.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == "end"
    assert executed == [1]
    assert seen == [None, None]  # a recorded None counts as done


def test_only_the_failed_step_executes_again_on_retry(work):
    executed: list[str] = []
    broken = [True]

    @workflow
    def order(step):
        step.define("validate", lambda: executed.append("validate")).run()
        step.define("reserve", lambda: executed.append("reserve")).run()

        @step.define("ship")
        def ship():
            executed.append("ship")
            if broken[0]:
                raise OSError("no truck")

        ship.run()
        step.define("mail", lambda: executed.append("mail")).run()

    run = order.start()
    work()
    assert error_of(run)["step"] == "ship"
    broken[0] = False
    run.retry()
    work()
    run.result(timeout=0)
    assert executed == ["validate", "reserve", "ship", "ship", "mail"]
    assert run.steps.get(name="ship").attempts == 1
    assert [entry["error"]["message"] for entry in run.steps.get(name="ship").earlier_attempts] == ["no truck"]


def test_body_that_raised_outside_a_step_is_called_again_with_all_steps_kept(work):
    executed: list[str] = []

    @workflow
    def flaky_body(step):
        step.define("only", lambda: executed.append("step")).run()
        executed.append("body")
        if executed.count("body") == 1:
            raise RuntimeError("between steps")

    run = flaky_body.start()
    work()
    assert error_of(run)["step"] is None
    run.retry()
    work()
    run.result(timeout=0)
    assert executed == ["step", "body", "body"]


def test_result_is_a_fresh_object_that_the_step_can_no_longer_change(work):
    kept: list[Any] = []

    @workflow
    def aliasing(step):
        @step.define("make")
        def make():
            kept.append({"items": [1]})
            return kept[0]

        value = make.run()
        kept[0]["items"].append(2)
        return value

    run = aliasing.start()
    work()
    assert run.result(timeout=0) == {"items": [1]}


def test_state_kept_in_a_closure_is_lost_when_the_run_is_put_down(work, pass_time):
    @workflow
    def forgetful(step):
        state = []
        step.define("collect", lambda: state.append("collected")).run()
        step.sleep("pause", "1h")
        return state

    run = forgetful.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == []


# -- async -------------------------------------------------------------------------------------------


def test_async_step_function_is_run_to_its_end(work):
    async def fetch(number):
        await asyncio.sleep(0)
        return number + 1, current_step().name

    @workflow
    def with_async(step):
        first = step.define("coroutine", fetch).run(1)
        second = step.define("awaitable", lambda: fetch(2)).run()
        return [first, second]

    run = with_async.start()
    work()
    assert run.result(timeout=0) == [(2, "coroutine"), (3, "awaitable")]


def test_async_step_uses_the_database_through_the_async_orm(work):
    async def create(name):
        await Person.objects.acreate(name=name)
        return await Person.objects.acount()

    @workflow
    def async_orm(step):
        return step.define("create", create).run("Ann")

    run = async_orm.start()
    work()
    assert run.result(timeout=0) == 1


def test_writes_of_an_async_atomic_step_commit_with_its_record(work):
    failing = [True]

    async def create():
        await Person.objects.acreate(name="Ann")
        if failing[0]:
            raise ValueError("rolled back")

    @workflow
    def async_atomic(step):
        step.define("create", create, atomic=True).run()

    run = async_atomic.start()
    work()
    assert error_of(run)["type"] == "ValueError"
    assert Person.objects.count() == 0
    failing[0] = False
    run.retry()
    work()
    run.result(timeout=0)
    assert Person.objects.count() == 1


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
def test_base_exception_in_an_async_step_is_its_failure(work, error):
    async def leave():
        raise error

    @workflow
    def leaving(step):
        step.define("leave", leave).run()

    run = leaving.start()
    work()
    assert error_of(run)["step"] == "leave"
    assert error_of(run)["type"].endswith(type(error).__name__)


# -- Names -------------------------------------------------------------------------------------------


def test_second_step_of_one_name_is_a_clear_error_and_not_the_first_value(work):
    @workflow
    def twice(step):
        step.define("process", lambda: 1).run()
        step.define("process", lambda: 2).run()

    run = twice.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.DuplicateStepName"
    assert 'f"process_{i}"' in error["message"]


def test_running_one_call_twice_is_a_duplicate(work):
    @workflow
    def run_twice(step):
        call = step.define("process", lambda: 1)
        call.run()
        call.run()

    run = run_twice.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"
    assert names_of(run) == ["process"]


def test_duplicate_is_noticed_on_a_later_pass_too(work, pass_time):
    @workflow
    def late(step):
        step.define("process", lambda: 1).run()
        step.sleep("pause", "1h")
        step.define("process", lambda: 2).run()

    run = late.start()
    work()
    pass_time("2h")
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"


@pytest.mark.parametrize("sleep_first", [True, False])
def test_step_and_sleep_of_one_name_are_a_clear_error(work, sleep_first):
    @workflow
    def mixed(step):
        calls = [lambda: step.sleep("pause", 0), lambda: step.define("pause", lambda: 1).run()]
        for call in calls if sleep_first else reversed(calls):
            call()

    run = mixed.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.DuplicateStepName"


def test_names_that_differ_in_case_and_accents_are_different_steps(work, pass_time):
    names = [
        "name",
        "Name",
        "NAME",
        "nàme",
        "ñame",
        "straße",
        "strasse",
        "ﬁ",
        "fi",
        "e\u0301",
        "é",
        "ss",
        "ß",
        "😀",
        "😁",
    ]
    executed: list[str] = []

    @workflow
    def close_names(step):
        results = [step.define(name, lambda name=name: executed.append(name) or name).run() for name in names]
        step.sleep("pause", "1h")
        return results

    run = close_names.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) == names
    assert executed == names
    assert names_of(run) == [*names, "pause"]


@pytest.mark.parametrize(
    "name",
    ["", " ", "padded ", " padded", "tab\t", "a#2", "new\nline", "nul\0", "\ud800", "\u2028", "x" * 256, None, 7, b"x"],
    ids=repr,
)
def test_unusable_step_name_is_refused_before_anything_runs(work, name):
    executed: list[int] = []

    @workflow
    def bad_name(step):
        step.define(name, lambda: executed.append(1)).run()

    run = bad_name.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.InvalidName"
    assert executed == []
    assert names_of(run) == []


def test_longest_name_is_kept_whole(work):
    longest = "😀" * 255

    @workflow
    def long_name(step):
        step.define(longest, lambda: 1).run()

    run = long_name.start()
    work()
    run.result(timeout=0)
    assert names_of(run) == [longest]


def test_name_of_a_string_subclass_is_kept_as_its_text(work):
    class Names(str, Enum):  # noqa: UP042
        CHARGE = "charge"

    @workflow
    def named_by_enum(step):
        step.define(Names.CHARGE, lambda: 1).run()
        step.define(mark_safe("refund"), lambda: current_step().name).run()

    run = named_by_enum.start()
    work()
    run.result(timeout=0)
    assert names_of(run) == ["charge", "refund"]


# -- Mistakes ----------------------------------------------------------------------------------------


def test_step_defined_and_never_run_fails_the_run(work):
    @workflow
    def forgotten(step):
        step.define("charge", lambda: 1)
        step.define("ship", lambda: 2).run()

    run = forgotten.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.StepNotRun"
    assert "'charge'" in error["message"]
    assert "'ship'" not in error["message"]


def test_step_without_a_function_is_a_clear_error(work):
    @workflow
    def without_function(step):
        step.define("send").run()

    run = without_function.start()
    work()
    error = error_of(run)
    assert error["type"] == "TypeError"
    assert "step.define('send', function)" in error["message"]


@pytest.mark.parametrize(
    "define",
    [
        lambda step: step.define("x", 7),
        lambda step: step.define("x", print()),  # called instead of passed: no function, and run without one
        lambda step: step.define("x", len, atomic=1),
        lambda step: step.define("x", len, retry=True),
        lambda step: step.define("x", len, retry="3"),
    ],
)
def test_wrong_arguments_of_define_are_type_errors_that_name_the_step(work, define):
    @workflow
    def wrong(step):
        define(step).run()

    run = wrong.start()
    work()
    error = error_of(run)
    assert error["type"] == "TypeError"
    assert "'x'" in error["message"]


def test_step_inside_a_step_fails_the_run_and_records_nothing_of_the_inner_one(work):
    executed: list[str] = []

    @workflow
    def nested(step):
        @step.define("outer")
        def outer():
            step.define("inner", lambda: executed.append("inner")).run()

        outer.run()

    run = nested.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.NestedStep"
    assert "'inner'" in error["message"]
    assert "'outer'" in error["message"]
    assert executed == []
    assert [(record.name, record.status) for record in run.steps.all()] == [("outer", "failed")]


@pytest.mark.parametrize("call", ["sleep", "define", "async"])
def test_nested_step_whose_error_is_swallowed_fails_its_step_all_the_same(work, call):
    @workflow
    def swallowing(step):
        def nest():
            with contextlib.suppress(Exception):
                step.sleep("inner", 0) if call == "sleep" else step.define("inner", lambda: 1).run()

        async def nest_async():
            nest()

        step.define("outer", nest_async if call == "async" else nest, retry=3).run()

    run = swallowing.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.NestedStep"
    assert names_of(run) == ["outer"]
    assert run.steps.get().attempts == 1  # a mistake in the code is not tried again


def test_step_in_an_atomic_block_of_the_body_is_a_clear_error(work):
    executed: list[str] = []

    @workflow
    def in_atomic(step):
        with transaction.atomic():
            step.define("charge", lambda: executed.append("charge")).run()

    run = in_atomic.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.StepInTransaction"
    assert "atomic=True" in error["message"]
    assert executed == []


def test_sleep_in_an_atomic_block_of_the_body_is_a_clear_error(work):
    @workflow
    def sleeping_in_atomic(step):
        with transaction.atomic():
            step.sleep("pause", "1h")

    run = sleeping_in_atomic.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.StepInTransaction"


def test_step_after_the_body_switched_autocommit_off_is_a_clear_error(work):
    @workflow
    def by_hand(step):
        transaction.set_autocommit(False)
        step.define("charge", lambda: 1).run()

    run = by_hand.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.StepInTransaction"


def test_atomic_block_that_the_body_leaves_open_does_not_take_the_end_of_the_run_with_it(work, caplog):
    @workflow
    def left_open(step):
        step.define("first", lambda: 1).run()
        transaction.atomic().__enter__()
        Person.objects.create(name="lost")
        raise ValueError("after all")

    run = left_open.start()
    work()
    assert error_of(run)["type"] == "ValueError"
    assert Person.objects.count() == 0
    assert f"The body of run {run.pk} left an atomic() block open" in caplog.text


# -- Other threads, and signals that get lost ---------------------------------------------------------


def test_step_from_another_thread_is_a_clear_error_there(work):
    caught: list[BaseException] = []

    @workflow
    def threaded(step):
        def call():
            try:
                step.define("elsewhere", lambda: 1).run()
            except BaseException as error:
                caught.append(error)
                raise

        with ThreadPoolExecutor(1) as pool:
            pool.submit(call).result()

    run = threaded.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.WrongThread"
    assert len(caught) == 1
    assert names_of(run) == []


@pytest.mark.parametrize("call", ["sleep", "define"])
def test_step_whose_error_got_lost_in_a_future_fails_the_run(work, call):
    @workflow
    def lost_in_a_future(step):
        def elsewhere():
            step.sleep("pause", "1h") if call == "sleep" else step.define("charge", lambda: 1).run()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(elsewhere)  # nobody asks for its result
        return "done"

    run = lost_in_a_future.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.WrongThread"


def swallow_all(pause):
    with contextlib.suppress(BaseException):
        pause()
    return "swallowed"


def swallow_in_finally(pause):
    try:
        pause()
    finally:
        return "swallowed"  # noqa: B012


def turn_into_value_error(pause):
    try:
        pause()
    finally:
        raise ValueError("in finally")


def turn_into_group(pause):
    try:
        pause()
    except BaseException as error:
        raise BaseExceptionGroup("group", [error, ValueError()]) from None


def put_into_a_future(pause):
    from concurrent.futures import Future

    future: Future[Any] = Future()
    try:
        pause()
    except BaseException as error:
        future.set_exception(error)
    return "swallowed"


def go_on_with_steps(pause):
    for _ in range(3):
        try:
            pause()
        except BaseException:
            continue
    return "swallowed"


@pytest.mark.filterwarnings("ignore:'return' in a 'finally' block")
@pytest.mark.parametrize(
    "swallow",
    [swallow_all, swallow_in_finally, turn_into_value_error, turn_into_group, put_into_a_future, go_on_with_steps],
)
def test_sleep_whose_signal_the_body_swallows_is_slept_all_the_same(work, pass_time, swallow):
    executed: list[str] = []

    @workflow
    def swallowing(step):
        outcome = swallow(lambda: step.sleep("pause", "1h")) if not executed else step.sleep("pause", "1h")
        step.define("after", lambda: executed.append("after")).run()
        return outcome

    @workflow
    def only_sleeping(step):
        return swallow(lambda: step.sleep("pause", "1h"))

    runs = [swallowing.start(), only_sleeping.start()]
    work()
    assert executed == []
    for run in runs:
        run.refresh_from_db()
        assert run.status == "sleeping"
        assert names_of(run) == ["pause"]
    if swallow in (swallow_all, swallow_in_finally, put_into_a_future):
        pass_time("2h")
        work()
        for run in runs:
            run.refresh_from_db()
            assert run.status == "succeeded"
        assert executed == ["after"]


def test_signal_raised_by_the_body_itself_is_a_failure_and_no_endless_loop(work):
    passes: list[int] = []

    @workflow
    def impostor(step):
        passes.append(1)
        raise PassEnded("by hand")

    run = impostor.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.PassEnded"
    assert passes == [1]


def test_step_object_of_an_earlier_pass_is_of_no_use_in_a_later_one(work, pass_time):
    kept: list[Any] = []

    @workflow
    def keeper(step):
        kept.append(step)
        step.sleep("pause", "1h")
        kept[0].define("late", lambda: 1).run()

    run = keeper.start()
    work()
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert run.status == "failed"
    assert names_of(run) == ["pause"]


def test_step_starting_threads_of_its_own_is_fine(work):
    @workflow
    def parallel(step):
        @step.define("fan_out")
        def fan_out():
            with ThreadPoolExecutor(4) as pool:
                return list(pool.map(str.upper, "abcd"))

        return fan_out.run()

    run = parallel.start()
    work()
    assert run.result(timeout=0) == ["A", "B", "C", "D"]


# -- Failures of steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(1), SystemExit("bye")], ids=repr)
def test_system_exit_in_a_step_is_its_failure_and_not_the_end_of_the_worker(work, error):
    @workflow
    def exiting(step):
        step.define("exit", lambda: sys.exit(error.code)).run()

    @workflow
    def other(step):
        return step.define("fine", lambda: "fine").run()

    run, following = exiting.start(), other.start()
    work(concurrency=1)
    assert error_of(run)["type"] == "SystemExit"
    assert error_of(run)["step"] == "exit"
    assert following.result(timeout=0) == "fine"


def test_system_exit_of_a_body_is_the_failure_of_the_run(work):
    @workflow
    def exiting_body():
        sys.exit(1)

    run = exiting_body.start()
    work()
    assert error_of(run)["type"] == "SystemExit"


def test_result_that_cannot_be_recorded_fails_the_step_naming_the_path(work):
    @workflow
    def unserializable(step):
        step.define("fetch", lambda: {"users": [{"avatar": threading.Lock()}]}, retry=5).run()

    run = unserializable.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.UnserializableResult"
    assert 'result["users"][0]["avatar"]' in error["message"]
    assert error["step"] == "fetch"
    assert run.steps.get().attempts == 1


def test_queryset_is_no_result(work):
    @workflow
    def lazy(step):
        step.define("fetch", lambda: Person.objects.all()).run()

    run = lazy.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.UnserializableResult"


def test_return_value_of_the_body_that_cannot_be_recorded_fails_the_run(work):
    @workflow
    def returns_a_lock():
        return {"lock": threading.Lock()}

    run = returns_a_lock.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.UnserializableResult"
    assert error["step"] is None


def test_result_over_the_limit_fails_its_step_and_the_run_can_be_retried(work):
    size = [5000]

    @workflow
    def large(step):
        return len(step.define("download", lambda: "x" * size[0]).run())

    with override_settings(DJANGO_STEPS={"MAX_VALUE_BYTES": 2000}):
        run = large.start()
        work()
        error = error_of(run)
        assert error["type"] == "django_steps.errors.ValueTooLarge"
        assert "MAX_VALUE_BYTES" in error["message"]
        assert "reference" in error["message"]
        assert error["step"] == "download"
        assert len(run.steps.get().error["message"]) < 500
        size[0] = 100
        run.retry()
        work()
    assert run.result(timeout=0) == 100


def test_large_results_come_back_whole_on_later_passes(work, pass_time):
    text = "é" * 150_000  # more than is loaded with the other records

    @workflow
    def large(step):
        value = step.define("download", lambda: text).run()
        step.sleep("pause", "1h")
        return value == text

    run = large.start()
    work()
    pass_time("2h")
    work()
    assert run.result(timeout=0) is True


# -- What a step leaves behind -----------------------------------------------------------------------


def raw_begin():
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    Person.objects.create(name="lost")


def atomic_left_open():
    transaction.atomic().__enter__()
    Person.objects.create(name="lost")


def autocommit_off():
    transaction.set_autocommit(False)
    Person.objects.create(name="lost")


def failing_in_an_open_transaction():
    raw_begin()
    raise ValueError("in the middle")


def raw_begin_and_rollback_to_savepoint():
    with connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("SAVEPOINT a")
        cursor.execute("ROLLBACK TO SAVEPOINT a")
    Person.objects.create(name="lost")


@pytest.mark.parametrize(
    "leave",
    [raw_begin, raw_begin_and_rollback_to_savepoint, atomic_left_open, autocommit_off, failing_in_an_open_transaction],
)
def test_transaction_that_a_step_leaves_open_is_rolled_back_and_logged(work, caplog, leave):
    @workflow
    def careless(step):
        with contextlib.suppress(ValueError):
            step.define("careless", leave).run()
        step.define("next", lambda: Person.objects.create(name="kept").name).run()
        return connection.get_autocommit()

    run = careless.start()
    work(concurrency=1)
    assert run.result(timeout=0) is True
    assert list(Person.objects.values_list("name", flat=True)) == ["kept"]
    assert "Step 'careless' left" in caplog.text
    assert "Step 'next' left" not in caplog.text
    assert names_of(run) == ["careless", "next"]


def test_transaction_that_a_step_ends_itself_is_nothing_to_tell(work, caplog):
    @workflow
    def careful(step):
        @step.define("by_hand")
        def by_hand():
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("INSERT INTO app_person (name, greeted) VALUES ('kept', 0)")
                cursor.execute("COMMIT")
            with transaction.atomic(), transaction.atomic():
                Person.objects.create(name="kept, too")
            with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                Person.objects.create(name="undone")
                1 / 0  # noqa: B018

        by_hand.run()

    run = careful.start()
    work()
    run.result(timeout=0)
    assert Person.objects.count() == 2
    assert "left" not in caplog.text


def break_connection():
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        connection.connection.close()
        Person.objects.count()
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        else:
            cursor.execute("SELECT CONNECTION_ID()")
            cursor.execute(f"KILL {cursor.fetchone()[0]}")


def test_broken_connection_is_replaced_for_the_next_step(work, caplog):
    @workflow
    def breaking(step):
        with contextlib.suppress(Exception):
            step.define("break", break_connection).run()
        return step.define("next", Person.objects.count).run()

    run = breaking.start()
    work(concurrency=1)
    assert run.result(timeout=0) == 0
    assert "Step 'break' left a broken connection" in caplog.text
    assert [(record.name, record.status) for record in run.steps.all()] == [("break", "failed"), ("next", "succeeded")]


def test_what_a_body_leaves_open_does_not_reach_the_next_run_on_its_thread(work, caplog):
    @workflow
    def careless():
        transaction.set_autocommit(False)
        Person.objects.create(name="lost")

    @workflow
    def following(step):
        return step.define("count", Person.objects.count).run()

    first, second = careless.start(), following.start()
    work(concurrency=1)
    assert first.result(timeout=0) is None
    assert second.result(timeout=0) == 0
    assert f"The body of run {first.pk} left autocommit switched off" in caplog.text


# -- atomic=True -------------------------------------------------------------------------------------


def test_writes_of_an_atomic_step_and_its_record_commit_together(work):
    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            Person.objects.create(name="booked")
            assert connection.in_atomic_block
            return Person.objects.count()

        return book.run()

    run = booking.start()
    work()
    assert run.result(timeout=0) == 1


def test_failed_atomic_step_leaves_no_writes_and_is_recorded_as_failed(work):
    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            Person.objects.create(name="booked")
            raise ValidationError("full")

        book.run()

    run = booking.start()
    work()
    assert error_of(run)["step"] == "book"
    assert Person.objects.count() == 0
    assert run.steps.get().status == "failed"


def test_atomic_step_whose_result_cannot_be_recorded_leaves_no_writes(work):
    @workflow
    def booking(step):
        step.define("book", lambda: (Person.objects.create(name="booked"), threading.Lock()), atomic=True).run()

    run = booking.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.UnserializableResult"
    assert Person.objects.count() == 0


def test_atomic_step_that_leaves_a_block_open_fails_instead_of_losing_its_record(work, caplog):
    executed: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            executed.append(1)
            transaction.atomic().__enter__()
            Person.objects.create(name="lost")

        book.run()

    run = booking.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.StepInTransaction"
    assert "'book'" in error["message"]
    assert executed == [1]
    assert Person.objects.count() == 0
    assert run.steps.get().status == "failed"


def test_callback_that_raises_after_an_atomic_step_is_reported_and_the_step_is_done(work, caplog):
    executed: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            executed.append(1)
            Person.objects.create(name="booked")
            transaction.on_commit(lambda: 1 / 0)
            return "booked"

        return book.run()

    run = booking.start()
    work()
    assert run.result(timeout=0) == "booked"
    assert executed == [1]
    assert Person.objects.count() == 1
    assert run.steps.get().status == "succeeded"
    assert "ZeroDivisionError" in caplog.text


def test_callback_of_an_atomic_step_that_failed_is_not_called(work):
    called: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            transaction.on_commit(lambda: called.append(1))
            raise ValueError

        book.run()

    run = booking.start()
    work()
    assert error_of(run)["type"] == "ValueError"
    assert called == []


def test_atomic_step_with_attempts_keeps_only_the_writes_of_the_last_one(work):
    attempts: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True, retry=QUICKLY)
        def book():
            attempts.append(current_step().attempt)
            Person.objects.create(name=f"attempt {current_step().attempt}")
            if current_step().attempt < 3:
                raise OSError

        book.run()

    run = booking.start()
    work()
    run.result(timeout=0)
    assert attempts == [1, 2, 3]
    assert list(Person.objects.values_list("name", flat=True)) == ["attempt 3"]


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


# -- Model instances ---------------------------------------------------------------------------------


def test_model_instance_comes_back_as_the_row_is_now(work, pass_time):
    seen: list[str] = []

    @workflow
    def renaming(step):
        person = step.get(Person.objects.create).run(name="Ann")
        seen.append(person.name)
        step.sleep("pause", "1h")
        return person.pk

    run = renaming.start()
    work()
    Person.objects.update(name="Anna")
    pass_time("2h")
    work()
    run.result(timeout=0)
    assert seen == ["Ann", "Anna"]


def test_instance_whose_row_is_gone_names_step_model_and_key(work, pass_time):
    @workflow
    def vanishing(step):
        step.get(Person.objects.create).run(name="Ann")
        step.sleep("pause", "1h")

    run = vanishing.start()
    work()
    person = Person.objects.get()
    key = person.pk
    person.delete()
    pass_time("2h")
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.RecordedInstanceGone"
    for part in ("'Person.objects.create'", "Person", repr(key)):
        assert part in error["message"]


# -- Looking at runs ---------------------------------------------------------------------------------


def test_steps_are_listed_in_the_order_in_which_they_were_first_reached(work):
    broken = [True]

    @workflow
    def ordered(step):
        for name in ("b", "a"):
            step.define(name, lambda: 1).run()

        @step.define("c")
        def c():
            if broken[0]:
                raise OSError

        c.run()
        step.define("0", lambda: 1).run()

    run = ordered.start()
    work()
    broken[0] = False
    run.retry()
    work()
    run.result(timeout=0)
    assert names_of(run) == ["b", "a", "c", "0"]
    assert [record.position for record in run.steps.all()] == [0, 1, 2, 3]


def test_records_are_not_changed_by_save(work):
    @workflow
    def one(step):
        step.define("only", lambda: {"a": 1}).run()

    run = one.start()
    work()
    record = StepRecord.objects.get(run=run)
    assert record.output == {"a": 1}
    with pytest.raises(TypeError, match="retry the run"):
        record.save()


def test_run_failed_error_carries_the_run_and_its_error(work):
    @workflow
    def failing(step):
        step.define("charge", lambda: {}["card"]).run()

    run = failing.start()
    work()
    with pytest.raises(RunFailed) as raised:
        run.result(timeout=0)
    assert raised.value.run == run
    assert raised.value.error["type"] == "KeyError"
    assert "step 'charge'" in str(raised.value)
    assert "KeyError: 'card'" in str(raised.value)


def test_effects_of_a_step_are_there_once(work):
    @workflow
    def leaving(step):
        for name in ("one", "two"):
            step.define(name, effects.leave).run(name)

    run = leaving.start()
    work()
    run.result(timeout=0)
    assert effects.names(run) == ["one", "two"]
    assert Effect.objects.count() == 2


def test_connections_of_a_worker_are_closed_when_it_is_done(work):
    seen: list[Any] = []

    @workflow
    def looking():
        seen.append(connections["default"])

    looking.start()
    work()
    assert seen[0].connection is None
    assert logging.getLogger("django_steps").name
