"""Interceptors stand around passes and attempts, the first one outermost, and a pass without them pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from django_steps import workflow
from django_steps.definitions.requests import CallBranch
from django_steps.engine import execution, hooks
from django_steps.engine.ending import Ended, Ending
from django_steps.engine.host import Direct
from django_steps.engine.interceptors import Interceptor
from django_steps.engine.operations.attempts import Attempt, Executed
from django_steps.ledger.claims import Claim
from django_steps.ledger.records import StepWrite
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.staging import claim, status_of

pytestmark = pytest.mark.django_db(transaction=True)


class Noting(Interceptor):
    def __init__(self, name: str, noted: list[Any]) -> None:
        self.name, self.noted = name, noted

    def around_pass(self, claim: Claim) -> Generator[None, Ending, Ending]:
        self.noted.append(f"{self.name}: pass")
        ending = yield
        self.noted.append(f"{self.name}: {ending.how.value}")
        return ending

    def around_attempt(self, attempt: Attempt) -> Generator[None, Executed, Executed]:
        self.noted.append(f"{self.name}: attempt {attempt.number} of {attempt.request.name}")
        write, error = yield
        self.noted.append(f"{self.name}: {write.status}")
        return write, error

    def reached(self, claim: Claim, name: str, branch: str) -> None:
        self.noted.append(f"{self.name}: reached {name}")

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        self.noted.append(f"{self.name}: recorded {write.name}")


@pytest.fixture
def run() -> Iterator[WorkflowRun]:
    @workflow
    def greets(step):
        return step.define("greet", lambda: "hello").run()

    yield greets.start()


def test_interceptors_are_entered_in_order_and_left_in_reverse(run):
    noted: list[str] = []
    around = [Noting("outer", noted), Noting("inner", noted)]
    ending = execution.run_claim(claim(run), Direct("default"), [], interceptors=around)
    assert ending.how is Ended.SUCCEEDED
    assert noted == [
        "outer: pass",
        "inner: pass",
        "outer: reached greet",
        "inner: reached greet",
        "outer: attempt 1 of greet",
        "inner: attempt 1 of greet",
        "inner: succeeded",
        "outer: succeeded",
        "inner: recorded greet",
        "outer: recorded greet",
        "inner: succeeded",
        "outer: succeeded",
    ]


def test_interceptors_are_told_which_branches_are_called_and_of_operations_by_their_paths():
    @workflow
    def naps(step):
        return step.map("nap", nap, [1])

    def nap(number, step):
        step.sleep("short", "1ms")

    noted: list[str] = []

    class Entering(Noting):
        def entered(self, claim: Claim, request: CallBranch) -> None:
            self.noted.append(f"entered {request.name}")

        def reached(self, claim: Claim, name: str, branch: str) -> None:
            self.noted.append(f"reached {name} in {branch!r}")

    ending = execution.run_claim(claim(naps.start()), Direct("default"), [], interceptors=[Entering("", noted)])
    assert ending.how is Ended.SUCCEEDED
    told = [line for line in noted if line.startswith(("entered", "reached"))]
    once = ["entered nap#1", "reached nap#1/short in 'nap#1'"]
    assert told == ["reached nap in ''", "reached nap#1 in ''", *once, *once]


def test_worker_gives_its_interceptors_to_each_pass(run):
    noted: list[str] = []
    Worker(until_idle=True, poll_interval=0.05, interceptors=[Noting("one", noted)]).run()
    assert noted[0] == "one: pass"
    assert noted[-1] == "one: succeeded"


def test_replayed_step_is_reached_and_not_attempted(run, monkeypatch):
    noted: list[str] = []
    first = claim(run)

    def fail_afterwards(current: execution.Pass) -> None:
        monkeypatch.setattr(current.workflow, "function", _after(current.workflow.function))

    execution.run_claim(first, Direct("default"), [], begun=fail_afterwards)
    monkeypatch.undo()
    run.refresh_from_db()
    run.retry()
    execution.run_claim(claim(run), Direct("default"), None, interceptors=[Noting("one", noted)])
    assert [line for line in noted if "greet" in line] == ["one: reached greet"]


def _after(function: Callable[..., Any]) -> Callable[..., Any]:
    """The body, and an error after it."""

    def body(step: Any) -> None:
        function(step)
        raise OSError

    return body


def test_error_of_an_interceptor_around_an_attempt_ends_the_run_as_failed(run):
    class Broken(Interceptor):
        def around_attempt(self, attempt: Attempt) -> Generator[None, Executed, Executed]:
            raise LookupError("no tracer")
            yield

    execution.run_claim(claim(run), Direct("default"), [], interceptors=[Broken()])
    assert status_of(run) == "failed"
    assert run.error["type"] == "LookupError"


def test_error_of_an_interceptor_around_a_pass_ends_the_run_as_failed(run, caplog):
    class Broken(Interceptor):
        def around_pass(self, claim: Claim) -> Generator[None, Ending, Ending]:
            raise LookupError("no tracer")
            yield

    ending = execution.run_claim(claim(run), Direct("default"), [], interceptors=[Broken()])
    assert ending.how is Ended.FAILED
    assert status_of(run) == "failed"
    assert "raised an error of its own" in caplog.text


def test_signals_are_no_interceptor_where_no_receiver_is_connected(run):
    assert hooks.listening() == ()
