"""`@workflow`: which functions it takes, what it returns, and the registry."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_steps import RetryPolicy, Workflow, get_workflow, workflow
from django_steps.definitions import registered, registry
from django_steps.errors import InvalidName, StepsError, UnknownWorkflow
from tests.conftest import ROOT, process_environment

# -- Which functions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, wanted",
    [
        (lambda: 1, ()),
        (lambda input: 1, ("input",)),
        (lambda step, input: 1, ("step", "input")),
        (lambda run, logger, step, input: 1, ("run", "logger", "step", "input")),
        (lambda *, step: 1, ("step",)),
        (lambda step=None, other=7: 1, ("step",)),
        (lambda *args, **kwargs: 1, ()),
        (lambda *step, **run: 1, ()),
    ],
)
def test_body_takes_any_of_the_four_by_name_in_any_order(body, wanted):
    assert tuple(workflow(name="any")(body).parameters) == wanted


def test_body_gets_what_it_asks_for(work):
    seen: list[Any] = []

    @workflow
    def asking(run, logger, step, input):
        seen.append((input, type(step).__name__, type(logger).__name__, type(run).__name__))

    run = asking.start({"a": 1})
    work()
    run.result(timeout=0)
    assert seen == [({"a": 1}, "Step", "WorkflowLogger", "WorkflowRun")]


def test_parameters_with_defaults_of_their_own_are_left_alone(work):
    @workflow
    def with_default(input, *extra, limit=10, **options):
        return input, limit, extra, options

    run = with_default.start(1)
    work()
    assert run.result(timeout=0) == (1, 10, (), {})


def needs_other(input, other):
    pass


def positional_only(input, /):
    pass


def required_keyword(*, name):
    pass


@pytest.mark.parametrize(
    "body, named", [(needs_other, "other"), (positional_only, "input"), (required_keyword, "name")]
)
def test_any_other_required_parameter_is_a_type_error_that_lists_the_four(body, named):
    with pytest.raises(TypeError) as raised:
        workflow(body)
    assert f"takes '{named}'" in str(raised.value)
    assert "input, step, logger, run" in str(raised.value)


async def async_generator_body(step):
    yield


def generator_body(step):
    yield step


@pytest.mark.parametrize(
    "body, hint",
    [
        (async_generator_body, "must return, not yield"),
        (generator_body, "must return, not yield"),
        (int, "takes a function"),
        ("process_order", "takes a function"),
        (functools.partial(needs_other, other=1), "takes a function"),
        (len, "takes a function"),
    ],
)
def test_what_cannot_be_a_body_is_refused_at_decoration(body, hint):
    with pytest.raises(TypeError, match=hint):
        workflow(body)


def test_body_that_returns_an_awaitable_after_all_fails_its_run(work):
    async def answer():
        return 1

    @workflow
    def hidden_coroutine():
        coroutine = answer()
        coroutine.close()
        return coroutine

    @workflow
    def hidden_generator():
        return (number for number in (1, 2))

    runs = [hidden_coroutine.start(), hidden_generator.start()]
    work()
    for run in runs:
        run.refresh_from_db()
        assert run.error["type"] == "django_steps.errors.UnserializableResult"


# -- What it returns ---------------------------------------------------------------------------------


def test_decorated_function_can_be_called_as_if_it_were_not(work):
    @workflow
    def add(input, step=None):
        """Adds one."""
        return input + 1

    assert isinstance(add, Workflow)
    assert add(1) == 2
    assert add(input=2) == 3
    assert add.__doc__ == "Adds one."
    assert add.__name__ == "add"
    assert "add" in repr(add)


def test_name_is_the_functions_name_by_default():
    @workflow
    def bare():
        pass

    @workflow()
    def by_name():
        pass

    assert bare.name == "bare"
    assert by_name.name == "by_name"
    assert (by_name.version, by_name.queue, by_name.priority) == (
        "",
        "default",
        0,
    )
    assert (by_name.retry, by_name.step_retry, by_name.mask) == (
        None,
        None,
        frozenset(),
    )


def test_options_are_kept():
    @workflow(name="nightly", version="2", queue="reports", priority=10, retry=3, step_retry=2, mask=("token",))
    def whatever(input, step, logger):
        pass

    assert (whatever.name, whatever.version, whatever.queue, whatever.priority) == ("nightly", "2", "reports", 10)
    assert whatever.retry == RetryPolicy(max_attempts=3)
    assert whatever.step_retry == RetryPolicy(max_attempts=2)
    assert whatever.mask == {"token"}


@pytest.mark.parametrize(
    "options, error",
    [
        ({"name": ""}, InvalidName),
        ({"name": " padded"}, InvalidName),
        ({"name": "padded "}, InvalidName),
        ({"name": "nul\0"}, InvalidName),
        ({"name": "x" * 256}, InvalidName),
        ({"name": 7}, InvalidName),
        ({"version": 2}, InvalidName),
        ({"version": " "}, InvalidName),
        ({"queue": ""}, InvalidName),
        ({"priority": 101}, ValueError),
        ({"priority": -101}, ValueError),
        ({"priority": True}, TypeError),
        ({"priority": "high"}, TypeError),
        ({"priority": 1.0}, TypeError),
        ({"retry": 0}, ValueError),
        ({"retry": -1}, ValueError),
        ({"retry": True}, TypeError),
        ({"retry": "3"}, TypeError),
        ({"step_retry": 0}, ValueError),
        ({"step_retry": False}, TypeError),
        ({"mask": "token"}, TypeError),
        ({"mask": (1,)}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
    ids=repr,
)
def test_wrong_options_are_refused_at_decoration(options, error):
    with pytest.raises(error):

        @workflow(**options)
        def wrong():
            pass

    assert not [item for item in registered() if item.__name__ == "wrong"]


# -- The registry ------------------------------------------------------------------------------------


def test_same_name_and_version_twice_names_both_places():
    def other(step):
        pass

    workflow(name="taken", version="1")(lambda: 1)
    with pytest.raises(ImproperlyConfigured) as raised:
        workflow(name="taken", version="1")(other)
    message = str(raised.value)
    assert "'taken' (version '1')" in message
    assert message.count("test_definitions.py:") == 2
    assert "<locals>.other" in message


def test_two_functions_of_one_name_in_one_module_are_refused_too():
    source = "@workflow\ndef ship(step): ...\n\n@workflow\ndef ship(step): ...\n"
    with pytest.raises(ImproperlyConfigured) as raised:
        exec(compile(source, "workflows.py", "exec"), {"__name__": "shop.workflows", "workflow": workflow})
    assert "shop.workflows.ship (workflows.py:1) and shop.workflows.ship (workflows.py:4)" in str(raised.value)


def test_module_that_is_imported_anew_replaces_its_workflows():
    source = compile("@workflow\ndef ship(step): ...\n", "workflows.py", "exec")
    modules = [{"__name__": "shop.workflows", "workflow": workflow} for _ in range(2)]
    for module in modules:
        exec(source, module)
    assert get_workflow("ship") is modules[1]["ship"]


def test_versions_live_beside_each_other():
    first = workflow(name="order", version="1")(lambda: 1)
    second = workflow(name="order", version="2")(lambda: 2)
    assert get_workflow("order", "1") is first
    assert get_workflow("order", "2") is second
    assert get_workflow("order") is second


def test_names_that_differ_in_case_and_accents_are_different_workflows(work):
    names = ["order", "Order", "ordér", "ORDER"]
    for name in names:
        workflow(name=name)(lambda name=name: name)
    runs = [get_workflow(name).start() for name in names]
    work()
    assert [run.result(timeout=0) for run in runs] == names


def test_unknown_workflow_lists_the_known_ones():
    workflow(name="known_one")(lambda: 1)
    with pytest.raises(UnknownWorkflow) as raised:
        get_workflow("unknown")
    assert "'unknown'" in str(raised.value)
    assert "known_one" in str(raised.value)
    assert isinstance(raised.value, StepsError)
    with pytest.raises(UnknownWorkflow, match="version '9'"):
        get_workflow("known_one", "9")


def test_version_that_no_worker_knows_stays_pending_without_disturbing_others(work):
    old = workflow(name="order", version="1")(lambda: 1)
    run = old.start()
    del registry._registry["order", "1"]
    other = workflow(name="other")(lambda: "done").start()
    work()
    run.refresh_from_db()
    assert run.status == "pending"
    assert other.result(timeout=0) == "done"


# -- Autodiscovery -----------------------------------------------------------------------------------


def run_python(code: str, tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**process_environment(), "PYTHONPATH": f"{tmp_path}:{ROOT}", **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


SETUP = """
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_steps", "bakery"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "bakery.sqlite3"}})
import django
django.setup()
from django_steps import get_workflow
print(get_workflow("bake").place)
"""


def make_app(tmp_path, source: str) -> None:
    (tmp_path / "bakery").mkdir()
    (tmp_path / "bakery" / "__init__.py").touch()
    (tmp_path / "bakery" / "workflows.py").write_text(source)


def test_workflows_module_of_an_installed_app_is_found_by_itself(tmp_path):
    make_app(tmp_path, "from django_steps import workflow\n@workflow\ndef bake(step): ...\n")
    done = run_python(SETUP, tmp_path)
    assert done.stdout.startswith("bakery.workflows.bake"), done.stderr


def test_workflows_module_that_fails_to_import_says_which(tmp_path):
    make_app(tmp_path, "import not_installed_at_all\n")
    done = run_python(SETUP, tmp_path)
    assert done.returncode != 0
    assert "bakery.workflows" in done.stderr.splitlines()[-1]
    assert "not_installed_at_all" in done.stderr.splitlines()[-1]


def test_public_names_can_be_imported_before_the_apps_are_ready(tmp_path):
    done = run_python("from django_steps import *; import django_steps; print(workflow.__name__)", tmp_path)
    assert done.stdout == "workflow\n", done.stderr
