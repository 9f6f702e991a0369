"""Steps called where none may be, and the signal that ends a pass getting lost: never quietly."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import transaction

from django_steps import workflow
from django_steps.errors import PassEnded
from django_steps.models import WorkflowRun
from tests.app.models import Person
from tests.looking import error_of, names_of

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
    assert "'charge'" in error["message"] and ".bind()" in error["message"]
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
    assert "a parameter named step" in error["message"]
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


# -- Other threads, and signals that get lost --------------------------------------------------------


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
    assert "step.map()" in error_of(run)["message"]
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


# -- Mistakes can't be swallowed ---------------------------------------------------------------------


def _twice(step):
    step.define("same", lambda: 1).run()
    step.define("same", lambda: 2).run()


def _nested(step):
    step.define("outer", lambda: step.define("inner", lambda: 1).run()).run()


def _in_transaction(step):
    with transaction.atomic():
        step.define("inside", lambda: 1).run()


def _on_another_thread(step):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(step.define("elsewhere", lambda: 1).run).result()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_twice, "DuplicateStepName"),
        (_nested, "NestedStep"),
        (_in_transaction, "StepInTransaction"),
        (_on_another_thread, "WrongThread"),
    ],
)
@pytest.mark.parametrize("then", ["return", "raise"])
def test_mistake_that_the_body_catches_fails_the_run_all_the_same(work, make, error, then):
    executed = []

    @workflow
    def careless(step):
        try:
            make(step)
        except Exception:
            if then == "raise":
                raise ValueError("something else") from None
        step.define("after", lambda: executed.append(1)).run()

    run = careless.start()
    work()
    assert error_of(run)["type"] == f"django_steps.errors.{error}"
    assert executed == []


def test_history_mismatch_that_the_body_catches_fails_the_run_all_the_same(work, pass_time):
    @workflow(name="changing")
    def before(step):
        step.define("wait", lambda: 1).run()
        step.sleep("rest", "1h")

    run = before.start()
    work()

    @workflow(name="changing", version="new")
    def after(step):
        with contextlib.suppress(Exception):
            step.sleep("wait", "1s")
        return "went on"

    WorkflowRun.objects.filter(pk=run.pk).update(version="new")
    pass_time("2h")
    work()
    assert error_of(run)["type"] == "django_steps.errors.HistoryMismatch"
