"""What a step is: what it runs, what comes back, and what it looks like afterwards."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from django_steps import current_step, workflow
from django_steps.errors import RunFailed
from django_steps.models import StepRecord
from tests.app import effects
from tests.app.models import Effect, Person
from tests.looking import error_of, names_of

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


def test_async_methods_are_steps_too(work):
    @workflow
    def calling(step):
        step.get(Person.objects.acreate).run(name="Ann")
        return step.get(Person, "acount").run()

    run = calling.start()
    work()
    assert run.result(timeout=0) == 1


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


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_interrupt_in_a_step_ends_the_run_and_not_the_worker(work, error):
    def interrupt():
        raise error

    @workflow
    def interrupted(step):
        step.define("interrupt", interrupt).run()

    run, following = interrupted.start(), workflow(name="following")(lambda: "fine").start()
    work(concurrency=1)
    assert error_of(run)["type"] == error.__name__
    assert names_of(run) == []
    assert following.result(timeout=0) == "fine"


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


def test_connections_of_a_workers_threads_are_closed_when_it_is_done(work):
    seen: list[Any] = []

    @workflow
    def looking(step):
        step.define("look", lambda: seen.append(connections["default"])).run()

    looking.start()
    work()
    assert seen[0].connection is None
