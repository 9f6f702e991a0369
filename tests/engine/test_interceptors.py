"""Interceptors stand around passes and attempts, the first one outermost, and a pass without them pays nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from django_steps import workflow
from django_steps.definitions.requests import CallBranch
from django_steps.engine import execution, hooks
from django_steps.engine.ending import Ended, Ending
from django_steps.engine.host import Direct
from django_steps.engine.interceptors import Interceptor, everywhere
from django_steps.engine.operations.attempts import Attempt, Executed
from django_steps.ledger.claims import Claim
from django_steps.ledger.records import StepWrite
from django_steps.models import WorkflowRun
from django_steps.worker import Worker
from tests.staging import Background, claim, status_of

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


def test_what_stands_everywhere_is_the_outermost_of_each_pass(run):
    noted: list[str] = []
    everywhere.append(Noting("everywhere", noted))
    try:
        Worker(until_idle=True, poll_interval=0.05, interceptors=[Noting("one", noted)]).run()
    finally:
        everywhere.clear()
    assert noted[:2] == ["everywhere: pass", "one: pass"]
    assert noted[-2:] == ["one: succeeded", "everywhere: succeeded"]


_place: ContextVar[str] = ContextVar("place", default="outside")


class Placing(Interceptor):
    """Says in a context variable where the calling code is."""

    def in_pass(self, claim: Claim) -> None:
        _place.set("in the pass")

    def in_attempt(self, attempt: Attempt) -> None:
        _place.set(f"in {attempt.request.name}")


def test_context_variables_are_set_for_a_body_and_for_each_step_alone():
    @workflow
    def looks(step):
        found = [_place.get(), step.define("one", _place.get).run(), _place.get()]
        return [*found, *step.map("item", lambda item: _place.get(), [1, 2]), _place.get()]

    @workflow
    async def looks_async(step):
        async def look():
            await asyncio.sleep(0)
            return _place.get()

        found = [_place.get(), await step.define("one", look).run(), _place.get()]
        return [*found, *(await step.map("item", lambda item: _place.get(), [1, 2])), _place.get()]

    runs = [looks.start(), looks_async.start()]
    Worker(until_idle=True, poll_interval=0.05, interceptors=[Placing()]).run()
    for run in runs:
        run.refresh_from_db()
        assert run.output == ["in the pass", "in one", "in the pass", "in item#1", "in item#2", "in the pass"]
    assert _place.get() == "outside"


def test_pass_that_is_ended_in_place_of_its_thread_is_given_up(settings):
    settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "STEP_GRACE": "100ms"}
    given_up, goes_on = [], threading.Event()

    class Leaving(Interceptor):
        def given_up(self, claim: Claim, ending: Ending) -> None:
            given_up.append(ending.how)

    @workflow
    def hangs(step):
        step.define("hang", lambda: goes_on.wait(60), timeout="50ms").run()

    hangs.start()
    Background(Worker(poll_interval=0.05, interceptors=[Leaving()]).run).result()
    goes_on.set()
    assert given_up == [Ended.RELEASED]


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
