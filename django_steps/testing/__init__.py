"""Testing workflows: in a plain `TestCase`, on the caller's thread and connection, without threads and without waiting.

    from django_steps.testing import run_workflow, drain, FakeStep, AsyncFakeStep

    class OrderTests(TestCase):
        def test_a_declined_card_ends_the_order(self):
            run = run_workflow(process_order, {"order_id": 7}, stubs={"charge": CardDeclined()})
            self.assertEqual(run.status, "failed")

The engine is the real one: claims, records, retries, values and signals. Only time is not: sleeps and back-offs pass on
a virtual clock, which is reset after the test. `timezone.now()` follows it while bodies, steps and receivers of signals
are executed; `datetime.now()`, `time.time()` and the database's clock don't, nor does `timezone.now()` in the test itself.

After every step the run is suspended and its body called again from the top, so that what would break in production breaks
in the test. `straight_through=True` does as a worker does, and suspends runs only where they wait.

Not here: executing runs outside of tests, which is what a worker is for (`manage.py runworkflows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..definitions import StartOptionsWithKey, Workflow
from ..definitions.options import refuse_unknown, shows_options
from ..durations import Duration
from .errors import DoesNotEnd, NotRepeatable, StateLost, UnansweredWait, UnusedStub
from .fake import AsyncFakeStep, FakeStep

if TYPE_CHECKING:
    from typing import Unpack

    from ..models import WorkflowRun

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

__all__ = [
    "AsyncFakeStep",
    "DoesNotEnd",
    "FakeStep",
    "NotRepeatable",
    "StateLost",
    "UnansweredWait",
    "UnusedStub",
    "assert_replays",
    "drain",
    "run_workflow",
]


class Options(StartOptionsWithKey, total=False):
    """What `run_workflow()` takes beside the workflow and its input."""

    stubs: Mapping[str, Any] | None
    events: Mapping[str, Any] | None
    straight_through: bool
    max_steps: int


@overload
def run_workflow(workflow: Workflow[None, R], input: None = None, **options: Unpack[Options]) -> WorkflowRun[R]: ...
@overload
def run_workflow(
    workflow: Workflow[I, R], input: I | Mapping[str, Any], **options: Unpack[Options]
) -> WorkflowRun[R]: ...
@shows_options(StartOptionsWithKey)
def run_workflow(
    workflow: Workflow[Any, R],
    input: Any = None,
    *,
    stubs: Mapping[str, Any] | None = None,
    events: Mapping[str, Any] | None = None,
    straight_through: bool = False,
    max_steps: int = 500,
    **options: Unpack[StartOptionsWithKey],
) -> WorkflowRun[R]:
    """Start a run and execute it to its end, however long it sleeps; returns the run, succeeded or not.

    Runs that it invokes are executed too, and the run that it continues as. The virtual clock moves as far as they need. Other
    runs that become due meanwhile are executed as well; what else the run has started is left for `drain()`.

    - `stubs`: by step name, what takes the place of the step's function in all runs executed by this call. A value is
      returned, an exception (an instance or a class) is raised, a callable is called. A stub that no step has used is an
      `UnusedStub` error. Where some run did not succeed, a stub may belong to a step that was not reached: there it is
      an error only if a step of nearly the same name was executed without a stub. Of a step that invokes a run, or maps over a
      workflow, it takes the place of the body, and gets its input; `RunCanceled` cancels the run, and with `ChildTimedOut` it
      takes longer than the step's `timeout`.
    - `events`: by the name of an event, its payload, or an `Event` with `id` and `by`: it is sent to a run when that waits
      for it, to each run once. Of a list each wait gets the next one. An event that no wait has taken is an `UnusedStub`
      error, under the same conditions.
    - `straight_through`: don't suspend the run after every step.
    - `max_steps`: how many steps and sleeps a run may record, and how many runs may be started by runs, before `DoesNotEnd`
      is raised.
    - `key`, `priority`, `queue`, `delay`, `start_at`, `timeout`, `start_within`, `tags`, `about`: as for `Workflow.start()`.

    A failure that no stub asked for is logged with its traceback (logger `django_steps.testing`); `run.result()` raises it.
    A wait with a timeout or a deadline that nothing answers times out, since its time passes as well. Without one it is an
    `UnansweredWait` error.

    Raises what `start()` raises, and `NotRepeatable` or `StateLost` for a body that can't be called again.

    >>> run = run_workflow(process_order, {"order_id": 7}, stubs={"charge": {"id": "ch_1"}})  # doctest: +SKIP
    """
    from .session import Session

    refuse_unknown(options, Options, "run_workflow()")
    if not isinstance(workflow, Workflow):
        raise TypeError(f"run_workflow() takes a workflow, as @workflow returns it, got {workflow!r}.")
    with Session(stubs, events, straight_through=straight_through, max_steps=max_steps) as session:
        run = workflow.start(input, **options)
        session.finish(run)
    run.refresh_from_db()
    return run


def drain(
    advance: Duration | None = None,
    *,
    stubs: Mapping[str, Any] | None = None,
    events: Mapping[str, Any] | None = None,
    straight_through: bool = False,
    max_steps: int = 500,
    schedules: bool = True,
) -> list[WorkflowRun]:
    """Execute every run that is due, whatever code started it; returns these runs in the order in which they came.

    With `advance` (a duration) also what becomes due within that time: afterwards the virtual clock is that much ahead.
    Waits of up to `INLINE_WAIT` pass in any case, as a worker waits them out. Runs of workflows that this
    process doesn't know are not executed. A run that waits for an event goes on if the event was sent meanwhile, or is given
    by `events`; else it is left waiting. The other arguments are those of `run_workflow()`.

    Schedules, of the code and of the database, fire slot by slot as that time passes; `max_steps` bounds the runs that they
    start, too. With `schedules=False` none fires, and neither does one in `run_workflow()`.

    >>> drain(advance="6d")  # doctest: +SKIP
    """
    from ..models import WorkflowRun
    from .session import Session

    with Session(stubs, events, straight_through=straight_through, max_steps=max_steps) as session:
        session.drain(advance, schedules=schedules)
    runs = WorkflowRun.objects.using(session.alias).in_bulk(session.executed)
    return [runs[run_id] for run_id in session.executed if run_id in runs]


def assert_replays(workflow: Workflow[Any, Any], recorded: WorkflowRun | str | PathLike[str]) -> None:
    """Assert that a run goes on with this workflow where it is: a body that was changed comes to all that is recorded.

    - `recorded`: a run, or the path of a file that `manage.py showworkflows RUN --json` has written.

    Nothing is executed or written. Raises `NotRepeatable`, an `AssertionError` that says what does not fit, and `StepsError`
    for a file that holds no run.

    >>> assert_replays(process_order, "tests/histories/order-waiting.json")  # doctest: +SKIP
    """
    from .replays import check

    check(workflow, recorded)
