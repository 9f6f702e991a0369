"""Calling commands: in this process, as typed on a command line, or from Python."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import NamedTuple

import pytest
from django.core.management import call_command, execute_from_command_line

from django_steps import Workflow, workflow
from django_steps.models import WorkflowRun


class Output(NamedTuple):
    out: str
    err: str


class Typed(NamedTuple):
    """What came of a command line: the exit code, and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_command() -> Callable[..., Output]:
    """Call a command: `run_command("showworkflows", "--json").out`. Raises `CommandError`."""

    def run(*arguments: str) -> Output:
        out, err = StringIO(), StringIO()
        call_command(*arguments, "--no-color", stdout=out, stderr=err, skip_checks=True)
        return Output(out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def type_command(capsys: pytest.CaptureFixture[str], transactional_db: None) -> Callable[..., Typed]:
    """Execute a command line in this process. It closes its connections, as a process does at its end."""

    def type_it(*arguments: str) -> Typed:
        capsys.readouterr()
        code = 0
        try:
            execute_from_command_line(["manage.py", *arguments, "--no-color", "--skip-checks"])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        return Typed(code, *capsys.readouterr())

    return type_it


@pytest.fixture
def shaky() -> Workflow:
    """Its second step fails as long as the input says so: `shaky.start({"fails": True})`."""

    @workflow(mask=("token",))
    def shaky(input, step):
        step.define("first", lambda: {"token": "top-secret", "seen": 1}).run()
        step.define("second", lambda: _fail_if(input["fails"])).run()
        return {"token": "top-secret", "sum": 3}

    return shaky


def _fail_if(fails: bool) -> None:
    if fails:
        raise ValueError("it fails")


@pytest.fixture
def compensated(work: Callable[..., None]) -> WorkflowRun:
    """A failed run whose failure the body had handled."""

    @workflow
    def compensating(input, step):
        try:
            step.define("ship", lambda: [][0]).run()
        except IndexError:
            step.define("refund", lambda: None).run()
            raise

    run = compensating.start({})
    work()
    return run
