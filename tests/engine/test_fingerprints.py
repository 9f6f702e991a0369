"""A call with other arguments than those it was recorded with: found on the next pass, and ignored, warned of or refused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_steps import AsyncStep, RetryPolicy, workflow
from django_steps.engine import fingerprints
from django_steps.models import StepRecord, WorkflowRun
from django_steps.testing import run_workflow
from tests.staging import status_of

pytestmark = pytest.mark.django_db(transaction=True)

TWICE = RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False)


@pytest.fixture
def set_reaction(settings: Any) -> Callable[[str], None]:
    """Say what a changed call is: `set_reaction("fail")`."""

    def to(reaction: str) -> None:
        settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "ON_CHANGED_ARGUMENTS": reaction}

    return to


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said of changed calls."""
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and "with other arguments than" in record.getMessage()
    ]


@pytest.fixture
def two_passes(work: Callable[..., None], pass_time: Callable[[str], None]) -> Callable[..., WorkflowRun[Any]]:
    """Execute a run up to its sleep, change the list that its body sees, and execute the rest."""

    def execute(body: Any, seen: list[Any], then: list[Any]) -> WorkflowRun[Any]:
        run = body.start()
        work()
        assert status_of(run) == "sleeping"
        seen[:] = then
        pass_time("2h")
        work()
        run.refresh_from_db()
        return run

    return execute


def pay(*args: Any, **kwargs: Any) -> str:
    return "paid"


def mistake_of(run: WorkflowRun[Any]) -> str:
    assert run.status == "failed"
    assert run.error is not None and run.error["type"] == "django_steps.errors.HistoryMismatch"
    return str(run.error["message"])


def recorded_of(run: WorkflowRun[Any], name: str) -> int | None:
    return StepRecord.objects.get(run=run, name=name).arguments


# -- Loops -------------------------------------------------------------------------------------------


@pytest.fixture
def by_index() -> tuple[Any, list[Any]]:
    """A body whose steps are named by the index of the item, and its list."""
    orders: list[Any] = ["a", "b", "c"]

    @workflow(name="fingerprints_by_index")
    def by_index(step):
        for index, order in enumerate(list(orders)):
            step.define(f"pay-{index}", pay).run(order)
        step.sleep("night", "1h")

    return by_index, orders


def test_loop_named_by_index_whose_list_shifted_is_warned_of_once(by_index, two_passes, warnings):
    run = two_passes(*by_index, ["b", "c"])
    assert run.status == "succeeded"
    (warning,) = warnings()
    assert f"The step 'pay-0' of run {run.pk} (fingerprints_by_index) is called with other arguments" in warning
    assert "by the key of the item and not by its index" in warning and "step.patched()" in warning
    assert "random numbers" in warning and "ON_CHANGED_ARGUMENTS" in warning and "version" in warning


def test_list_that_got_longer_at_its_end_is_fine(by_index, two_passes, warnings, set_reaction):
    set_reaction("fail")
    run = two_passes(*by_index, ["a", "b", "c", "d"])
    assert run.status == "succeeded" and warnings() == []
    assert recorded_of(run, "pay-3") not in (None, recorded_of(run, "pay-2"))


def test_changed_call_can_be_a_failure_of_the_run(by_index, two_passes, warnings, set_reaction):
    set_reaction("fail")
    message = mistake_of(two_passes(*by_index, ["b", "c"]))
    assert "'pay-0'" in message and "It gets the recorded outcome of the other call all the same" in message
    assert warnings() == []


def test_changed_call_can_be_ignored_and_then_nothing_is_recorded(by_index, two_passes, warnings, set_reaction):
    set_reaction("ignore")
    run = two_passes(*by_index, ["b", "c"])
    assert run.status == "succeeded" and warnings() == []
    assert set(run.steps.values_list("arguments", flat=True)) == {None}


def test_each_process_warns_of_a_loop_once(by_index, two_passes, warnings):
    for _ in range(2):
        by_index[1][:] = ["a", "b", "c"]
        two_passes(*by_index, ["b", "c"])
    assert len(warnings()) == 1
    fingerprints.warned.clear()  # as another process
    by_index[1][:] = ["a", "b", "c"]
    two_passes(*by_index, ["b", "c"])
    assert len(warnings()) == 2


def test_what_was_warned_of_takes_no_more_and_more_memory(by_index, two_passes):
    fingerprints.warned.update(("other", str(number)) for number in range(1000))
    two_passes(*by_index, ["b"])
    assert len(fingerprints.warned) == 1


def test_body_cannot_swallow_the_mistake(two_passes, set_reaction):
    set_reaction("fail")
    seen: list[Any] = [1]

    @workflow(name="fingerprints_swallows")
    def swallows(step):
        with suppress(BaseException):
            step.define("pay", pay).run(seen[0])
        step.sleep("night", "1h")
        return "done"

    assert "'pay'" in mistake_of(two_passes(swallows, seen, [2]))


# -- What counts as the same -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "is_same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": {"x", "y", "z"}}, {"a": {"z", "y", "x"}}, True),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, True),
        ({"a": object()}, {"a": object()}, True),
        ({"a": "x" * 5000}, {"a": "y" * 5000}, True),
        ({"a": 1}, {"a": object()}, True),
        ({}, {"a": 1}, True),
        ({"a": 1}, {}, True),
        ({"a": None}, {"a": 0}, False),
    ],
)
def test_keyword_arguments(two_passes, set_reaction, first, then, is_same):
    set_reaction("fail")
    seen: list[Any] = [first]

    @workflow(name="fingerprints_keywords")
    def keywords(step):
        step.define("pay", pay).run(**seen[0])
        step.sleep("night", "1h")

    run = two_passes(keywords, seen, [then])
    assert run.status == "succeeded" if is_same else mistake_of(run)


def test_instance_whose_row_has_changed_is_the_same_argument(two_passes, set_reaction):
    set_reaction("fail")
    User.objects.create(username="ann")

    @workflow(name="fingerprints_instance")
    def instance(step):
        user = step.define("fetch", User.objects.get).run(username="ann")
        step.define("pay", pay).run(user)
        step.sleep("night", "1h")
        return user.first_name

    seen: list[Any] = []
    run = instance.start()
    User.objects.update(first_name="Ann")
    run = two_passes(instance, seen, [])
    assert run.status == "succeeded" and recorded_of(run, "pay") is not None


def test_function_that_changes_its_argument_does_not_change_the_fingerprint(two_passes, set_reaction):
    set_reaction("fail")

    @workflow(name="fingerprints_mutated")
    def mutated(step):
        items: list[int] = []
        step.define("fill", items.extend).run([1])
        step.define("add", lambda given: given.append(2)).run(mine := [0])
        step.gather(*(step.define(f"both-{n}", lambda given: given.append(1)).bind(mine[:1]) for n in range(2)))
        step.sleep("night", "1h")

    assert two_passes(mutated, [], []).status == "succeeded"


def test_variable_that_a_step_has_changed_is_found(two_passes, set_reaction):
    set_reaction("fail")

    @workflow(name="fingerprints_lost_state")
    def lost_state(step):
        basket: list[str] = []
        step.define("fill", basket.append).run("apple")
        step.define("pay", pay).run(basket)
        step.sleep("night", "1h")

    assert "'pay'" in mistake_of(two_passes(lost_state, [], []))


# -- Kinds of calls ----------------------------------------------------------------------------------


@workflow
def fingerprints_child(input):
    return input


def _gather(step, value):
    return step.gather(step.define("one", pay).bind("same"), step.define("two", pay).bind(value))


def _map(step, value):
    return step.map("pay", pay, {"first": "same", "second": value}.values(), key=lambda item: "ab"[item == value])


def _branch(step, value):
    def branch(step):
        return step.define("inside", pay).run(value)

    def sleeps(step):
        step.define("inside", pay).run(value)
        step.sleep("night", "1h")

    return step.gather(step.branch("over", branch).bind(), step.branch("sleeps", sleeps).bind())


def _branch_with_arguments(step, value):
    return step.branch("branch", lambda value, step: None).run(value)


def _poll(step, value):
    return step.poll("poll", pay, every="1m").run(value)


def _invoke(step, value):
    return step.invoke("invoke", fingerprints_child).run({"value": value})


def _start(step, value):
    return step.start("start", fingerprints_child).run({"value": value})


CALLS = {
    "gather": (_gather, "'two'"),
    "map": (_map, "'pay#b'"),
    "branch": (_branch, "'sleeps#/inside'"),
    "branch with arguments": (_branch_with_arguments, "The branch 'branch#'"),
    "poll": (_poll, "The poll 'poll'"),
    "invoke": (_invoke, "The invoke 'invoke'"),
    "start": (_start, "The start 'start'"),
}


@pytest.mark.parametrize(("call", "what"), CALLS.values(), ids=CALLS)
def test_every_kind_of_call_is_compared(two_passes, set_reaction, call, what):
    set_reaction("fail")
    seen: list[Any] = [1]

    @workflow(name="fingerprints_kinds")
    def kinds(step):
        call(step, seen[0])
        if call is not _branch:  # which has a sleep of its own
            step.sleep("night", "1h")

    assert two_passes(kinds, seen, [1]).status == "succeeded"
    assert what in mistake_of(two_passes(kinds, seen, [2]))


def test_calls_of_an_async_body_are_compared(two_passes, set_reaction):
    set_reaction("fail")
    seen: list[Any] = [1]

    @workflow(name="fingerprints_async")
    async def several(step: AsyncStep):
        await asyncio.gather(step.define("one", pay).run("same"), step.define("two", pay).run(seen[0]))
        await step.gather(step.define("three", pay).bind("same"), step.define("four", pay).bind(seen[-1]))
        await step.sleep("night", "1h")

    assert two_passes(several, seen, [1]).status == "succeeded"
    assert "'two'" in mistake_of(two_passes(several, seen, [2]))
    seen[:] = [1]
    assert "'four'" in mistake_of(two_passes(several, seen, [1, 2]))


def test_map_that_is_not_over_is_compared_by_its_items(work, pass_time, set_reaction):
    set_reaction("fail")
    seen = [1]

    def item(value, step):
        step.define("inside", pay).run(value)
        step.sleep("night", "1h")

    @workflow(name="fingerprints_map")
    def mapped(step):
        step.map("pay", item, [("a", seen[0]), ("b", 0)], key=lambda item: item[0])

    run = mapped.start()
    work()
    seen[0] = 2
    pass_time("2h")
    work()
    run.refresh_from_db()
    assert "'pay#a/inside'" in mistake_of(run)


# -- Records that are not over -----------------------------------------------------------------------


@pytest.fixture
def declined() -> tuple[Any, list[Any], list[Any]]:
    """A body with a step that fails once, the argument that it is called with, and those that the function got."""
    seen: list[Any] = [1]
    got: list[Any] = []

    def charge(amount):
        got.append(amount)
        if len(got) == 1:
            raise OSError("declined")
        return amount

    @workflow(name="fingerprints_declined")
    def declined(step):
        return step.define("charge", charge, retry=TWICE).run(seen[0])

    return declined, seen, got


def test_step_that_is_tried_again_with_other_arguments_is_warned_of(declined, work, pass_time, warnings):
    body, seen, got = declined
    run = body.start()
    work()
    before = recorded_of(run, "charge")
    seen[0] = 2
    pass_time("2h")
    work()
    assert run.result(timeout=0) == 2 and got == [1, 2]
    (warning,) = warnings()
    assert "What is executed next gets the new ones" in warning
    assert recorded_of(run, "charge") not in (None, before)  # those of the outcome


def test_step_that_is_tried_again_with_other_arguments_is_refused(declined, work, pass_time, set_reaction):
    set_reaction("fail")
    body, seen, got = declined
    run = body.start()
    work()
    seen[0] = 2
    pass_time("2h")
    work()
    run.refresh_from_db()
    mistake_of(run)
    assert got == [1]


def test_attempts_of_one_call_take_the_fingerprint_once(work, monkeypatch):
    taken: list[Any] = []
    real = fingerprints.fingerprint
    monkeypatch.setattr(fingerprints, "fingerprint", lambda *call: taken.append(call) or real(*call))
    attempts = itertools.count()

    def flaky(number):
        if next(attempts) < 3:
            raise OSError

    @workflow(name="fingerprints_once")
    def once(step):
        step.define("flaky", flaky, retry=RetryPolicy(max_attempts=9, initial_interval="1ms")).run(7)

    run = once.start()
    work()
    assert status_of(run) == "succeeded" and taken == [((7,), {})]


@pytest.fixture
def fails_once(work: Callable[..., None]) -> tuple[WorkflowRun[Any], list[Any], list[Any]]:
    """A run whose second step has failed, the arguments of its steps, and what the functions got."""
    seen: list[Any] = ["a", "b"]
    got: list[Any] = []

    def send(address):
        got.append(address)
        if got.count("b") == 1 and address == "b":
            raise OSError

    @workflow(name="fingerprints_fails")
    def fails(step):
        step.define("first", send).run(seen[0])
        step.define("second", send, retry=1).run(seen[1])

    run = fails.start()
    work()
    assert status_of(run) == "failed"
    return run, seen, got


def test_failed_step_may_have_other_arguments_after_a_retry(fails_once, work, set_reaction):
    set_reaction("fail")
    run, seen, got = fails_once
    seen[1] = "c"
    run.retry()
    work()
    assert status_of(run) == "succeeded" and got == ["a", "b", "c"]
    assert recorded_of(run, "second") not in (None, recorded_of(run, "first"))


def test_steps_before_the_failed_one_may_not(fails_once, work, set_reaction):
    set_reaction("fail")
    run, seen, _got = fails_once
    seen[0] = "c"
    run.retry()
    work()
    run.refresh_from_db()
    assert "'first'" in mistake_of(run)
    run.retry(from_step="first")
    work()
    assert status_of(run) == "succeeded"


def test_restart_from_a_step_keeps_the_fingerprints_of_those_before(fails_once, work, set_reaction):
    set_reaction("fail")
    run, seen, _got = fails_once
    seen[1] = "c"
    again = run.restart(from_step="second")
    assert recorded_of(again, "first") == recorded_of(run, "first") is not None
    work()
    assert status_of(again) == "succeeded"
    seen[0] = "c"
    other = run.restart(from_step="second")
    work()
    other.refresh_from_db()
    assert "'first'" in mistake_of(other)


def test_child_that_goes_on_after_a_retry_keeps_the_input_it_was_started_with(work, warnings):
    seen, fail = [1], [True]

    def step_of_child(value):
        if fail[0]:
            raise OSError
        return value

    @workflow(name="fingerprints_failing_child", step_retry=1)
    def failing_child(input, step):
        return step.define("work", step_of_child).run(input)

    @workflow(name="fingerprints_parent")
    def parent(step):
        return step.invoke("child", failing_child).run(seen[0])

    run = parent.start()
    work()
    assert status_of(run) == "failed"
    before = recorded_of(run, "child")
    seen[0], fail[0] = 2, False
    run.retry()
    work()
    assert run.result(timeout=0) == 1
    (warning,) = warnings()
    assert "The run that it has started keeps its input" in warning
    assert recorded_of(run, "child") == before is not None


# -- What it costs, and the kit ----------------------------------------------------------------------


def test_fingerprint_costs_no_statement(work, set_reaction):
    @workflow(name="fingerprints_many")
    def many(step):
        for number in range(5):
            step.define(f"pay-{number}", pay).run(number, to={"account": [number]})

    counts = []
    for reaction in ("ignore", "warn"):
        set_reaction(reaction)
        many.start()
        with CaptureQueriesContext(connection) as queries:
            work(concurrency=1)
        counts.append(len([query for query in queries if "django_steps_steprecord" in query["sql"]]))
    assert counts[0] == counts[1]


def test_kit_fails_whatever_the_setting_says(set_reaction):
    set_reaction("ignore")
    calls = itertools.count()

    @workflow(name="fingerprints_in_the_kit")
    def clock_in_the_body(step):
        step.define("pay", pay).run(next(calls))
        step.define("notify", print).run("paid")

    run = run_workflow(clock_in_the_body)
    assert "Keep the time, random numbers and queries inside steps" in mistake_of(run)
