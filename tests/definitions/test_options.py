"""Options of steps, runs and workflows: what is unknown is refused with the legal names, and people see all of them."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from datetime import UTC, datetime
from typing import Any

import pytest

from django_steps import RetryPolicy, Step, Workflow, workflow
from django_steps.definitions.options import (
    WORKFLOW_DEFAULTS,
    CallOptions,
    RunOptions,
    StartManyOptions,
    StartOptionsWithKey,
    UndoableOptions,
    WorkflowOptions,
    run_options,
)
from django_steps.models import WorkflowRun
from django_steps.testing import FakeStep, run_workflow
from tests.app.models import Person

STEP = "The options are: retry, timeout, atomic, at_most_once, undo."
MANY = "The options are: priority, queue, delay, start_at, timeout, start_within, tags, about, key."
START = "The options are: priority, queue, delay, start_at, timeout, start_within, tags, about, key, active_key, event."
KIT = f"{START[:-1]}, stubs, events, straight_through, max_steps."
WORKFLOW = (
    "The options are: name, version, queue, priority, retry, step_retry, mask, timeout, start_within, schedule, limit,"
    " retention, tags."
)


@pytest.fixture
def idle():
    return workflow(name="idle")(lambda: None)


# -- Unknown ones --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use, message",
    [
        (
            lambda step: step.define("pay", print, timout="5s"),
            f"Step 'pay' has no option 'timout'. Did you mean 'timeout'? {STEP}",
        ),
        (
            lambda step: step.define("pay", retries=3),
            f"Step 'pay' has no option 'retries'. Did you mean 'retry'? {STEP}",
        ),
        (lambda step: step.get(Person, "greet", key="a"), f"Step 'Person.greet' has no option 'key'. {STEP}"),
    ],
    ids=["define", "decorator", "get"],
)
def test_unknown_option_of_a_step_is_a_type_error_that_lists_the_legal_ones(use, message):
    step = FakeStep()
    with pytest.raises(TypeError) as raised:
        use(step)
    assert str(raised.value) == message
    step.assert_all_run()  # nothing was defined


@pytest.mark.django_db
@pytest.mark.parametrize(
    "start, message",
    [
        (lambda idle: idle.start(kye="a"), f"start() has no option 'kye'. Did you mean 'key'? {START}"),
        (lambda idle: idle.start_many([1], event="a"), f"start_many() has no option 'event'. {MANY}"),
        (lambda idle: idle.start_many([], color="red"), f"start_many() has no option 'color'. {MANY}"),
        (lambda idle: run_workflow(idle, stub={}), f"run_workflow() has no option 'stub'. Did you mean 'stubs'? {KIT}"),
    ],
    ids=["start", "start_many with an event", "start_many", "run_workflow"],
)
def test_unknown_option_of_a_start_is_a_type_error_that_lists_the_legal_ones(idle, start, message):
    with pytest.raises(TypeError) as raised:
        start(idle)
    assert str(raised.value) == message
    assert not WorkflowRun.objects.exists()


@pytest.mark.parametrize("method, message", [("astart", START), ("astart_many", MANY)])
def test_async_twins_refuse_the_same(idle, method, message):
    with pytest.raises(TypeError) as raised:
        asyncio.run(getattr(idle, method)([1], color="red"))
    assert str(raised.value) == f"{method[1:]}() has no option 'color'. {message}"


def test_unknown_option_of_a_workflow_is_a_type_error_that_lists_the_legal_ones():
    with pytest.raises(TypeError) as raised:
        workflow(queu="reports")(lambda: None)
    assert str(raised.value) == f"@workflow has no option 'queu'. Did you mean 'queue'? {WORKFLOW}"


# -- Known ones ----------------------------------------------------------------------------------------


def test_options_of_a_step_are_checked_where_it_is_defined():
    options = FakeStep().define("pay", print, retry=3, timeout="30s", atomic=True).options
    assert options == CallOptions(retry=RetryPolicy(max_attempts=3), timeout_us=30_000_000, atomic=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.atomic = False
    with pytest.raises(TypeError, match="atomic of step 'pay' takes True or False, got 1"):
        FakeStep().define("pay", print, atomic=1)
    with pytest.raises(ValueError, match=r"retry of step 'Person\.greet' counts all attempts"):
        FakeStep().get(Person, "greet", retry=0)


def test_options_of_a_start_are_checked_once():
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    options = run_options({"key": "a", "priority": 5, "queue": "bulk", "start_at": moment})
    assert options == RunOptions(key="a", priority=5, queue="bulk", due_at_us=int(moment.timestamp()) * 1_000_000)
    assert run_options({"delay": "1m"}) == RunOptions(delay_us=60_000_000)
    limits = run_options({"timeout": "1m", "start_within": 1})
    assert limits == RunOptions(timeout_us=60_000_000, start_within_us=1_000_000)
    assert run_options({"key": None, "delay": None, "priority": None}) == run_options({}) == RunOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.queue = "other"


def test_each_option_that_type_checkers_know_is_known_to_the_code():
    checked = {field.name.removesuffix("_us") for field in dataclasses.fields(CallOptions)}
    assert set(UndoableOptions.__annotations__) == checked
    assert set(WorkflowOptions.__annotations__) == set(WORKFLOW_DEFAULTS)


# -- Seen by people ------------------------------------------------------------------------------------


def shown(function: Any) -> dict[str, Any]:
    """The keyword-only parameters that `help()` and shells show, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    "function, options",
    [
        (Step.define, UndoableOptions),
        (Step.get, UndoableOptions),
        (Workflow.start, StartOptionsWithKey),
        (Workflow.astart, StartOptionsWithKey),
        (Workflow.start_many, StartManyOptions),
        (Workflow.astart_many, StartManyOptions),
        (run_workflow, StartOptionsWithKey),
        (workflow, WorkflowOptions),
    ],
    ids=lambda value: value.__name__,
)
def test_signatures_list_the_options(function, options):
    assert shown(function).keys() >= options.__annotations__.keys()
    assert not [p for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD]


def test_shown_defaults_are_what_happens_without_an_option(idle):
    assert FakeStep().define("pay", print, **shown(Step.define)).options == FakeStep().define("pay", print).options
    assert run_options(shown(Workflow.start)) == RunOptions()
    other = workflow(**{**shown(workflow), "name": "other"})(lambda: None)
    same = ["version", "queue", "priority", "retry", "step_retry", "mask"]
    assert [getattr(other, name) for name in same] == [getattr(idle, name) for name in same]
