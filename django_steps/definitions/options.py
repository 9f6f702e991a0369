"""The options of steps, runs and workflows: what users may say by keyword, each kind in one place.

Each kind has a TypedDict, which signatures unpack for type checkers, and one function that checks what was given. A new
option is a line in the TypedDict, a field, and a line in that function. What an option does is not decided here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, TypedDict, TypeVar

from django.db.models import Model

from ..conf import to_retention
from ..core import clock
from ..core.event import Event
from ..core.limit import Limit
from ..core.names import check_name
from ..core.retries import RetryPolicy, to_policy
from ..core.tags import ABOUT, NONE, Tags, check_tags
from ..durations import Duration, to_microseconds
from ..values.references import reference
from .checked import check_datetime, check_flag, check_key, check_priority, check_timeout
from .schedule import Schedule
from .undos import check_undo

F = TypeVar("F", bound=Callable[..., Any])


# -- Steps ------------------------------------------------------------------------------------------


class StepOptions(TypedDict, total=False):
    """What `define()` and `get()` take beside the function; see `Step.define()`."""

    retry: RetryPolicy | int | None
    timeout: Duration | None
    atomic: bool
    at_most_once: bool


class UndoableOptions(StepOptions, total=False):
    """The same with the undo of the step, which `define()` and `get()` type by the step's function."""

    undo: Callable[..., object] | None


class GroupOptions(TypedDict, total=False):
    """What `map()` takes for branches."""

    concurrency: int | None


class MapOptions(UndoableOptions, GroupOptions, total=False):
    """What `map()` takes beside the items."""

    key: Callable[[Any], Any] | None
    max_failures: int | None
    min_successes: int | None
    return_exceptions: bool


class RunsOptions(GroupOptions, total=False):
    """What `map()` takes for runs."""

    timeout: Duration | None


class MapRunsOptions(RunsOptions, total=False):
    """What `map()` over a workflow takes beside the items."""

    key: Callable[[Any], Any] | None
    max_failures: int | None
    min_successes: int | None
    return_exceptions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options of one step, checked."""

    retry: RetryPolicy | None = None
    timeout_us: int | None = None
    atomic: bool = False
    at_most_once: bool = False
    undo: Callable[..., Any] | None = None


PLAIN_CALL = CallOptions()


def step_options(name: str, options: UndoableOptions) -> CallOptions:
    """Check the options of the step of this name; raises `TypeError` or `ValueError`."""
    if not options:  # as most steps are defined
        return PLAIN_CALL
    refuse_unknown(options, UndoableOptions, f"Step {name!r}")
    checked = CallOptions(
        retry=to_policy(options.get("retry"), f"retry of step {name!r}"),
        timeout_us=check_timeout(options.get("timeout"), f"timeout of step {name!r}:"),
        atomic=check_flag(options.get("atomic", False), f"atomic of step {name!r}"),
        at_most_once=check_flag(options.get("at_most_once", False), f"at_most_once of step {name!r}"),
        undo=check_undo(name, options.get("undo")),
    )
    if checked.atomic and checked.at_most_once:
        raise TypeError(
            f"Step {name!r} can't be both atomic and at_most_once. What an atomic step writes to this database happens "
            "exactly once; at_most_once is for effects elsewhere. Take one of the two, or make two steps."
        )
    return checked


# -- Runs -------------------------------------------------------------------------------------------


class StartOptions(TypedDict, total=False):
    """What every way to start runs takes; see `Workflow.start()`."""

    priority: int | None
    queue: str | None
    delay: Duration | None
    start_at: datetime | None
    timeout: Duration | None
    start_within: Duration | None
    tags: Mapping[str, str] | None
    about: Model | None


class StartManyOptions(StartOptions, total=False):
    """What `start_many()` takes beside the inputs."""

    key: Callable[[Any], str] | None


class StartOptionsWithKey(StartOptions, total=False):
    """What `start()` takes beside the input."""

    key: str | None
    active_key: str | None
    event: Event[Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of a start, checked. None: the workflow's own, or as soon as possible.

    `delay_us` counts from the INSERT, `due_at_us` is a moment of the database's clock; all in microseconds.
    """

    key: str | None = None
    active_key: str | None = None
    priority: int | None = None
    queue: str | None = None
    delay_us: int | None = None
    due_at_us: int | None = None
    timeout_us: int | None = None
    start_within_us: int | None = None
    event: Event[Any] | None = None
    tags: Tags = field(default_factory=dict)  # with what it is about


PLAIN_RUN = RunOptions()


def run_options(options: StartOptions, known: type = StartOptionsWithKey, method: str = "start()") -> RunOptions:
    """Check the options of a start, of which the TypedDict `known` has the legal ones.

    Raises `InvalidName`, `TypeError` or `ValueError`.
    """
    if not options:
        return PLAIN_RUN
    refuse_unknown(options, known, method)
    key, priority, queue = options.get("key"), options.get("priority"), options.get("queue")
    delay, start_at, active_key = options.get("delay"), options.get("start_at"), options.get("active_key")
    if delay is not None and start_at is not None:
        raise ValueError("Give delay= or start_at=, not both.")
    return RunOptions(
        key=None if key is None else check_key(key),
        active_key=None if active_key is None else check_name(active_key, "active key"),
        priority=None if priority is None else check_priority(priority),
        queue=None if queue is None else check_name(queue, "queue name"),
        delay_us=None if delay is None else to_microseconds(delay),
        due_at_us=None if start_at is None else clock.to_microseconds(check_datetime(start_at, "start_at=")),
        timeout_us=check_timeout(options.get("timeout"), "timeout="),
        start_within_us=check_timeout(options.get("start_within"), "start_within="),
        event=_check_event(options.get("event")),
        tags=_tags_of(options.get("tags"), options.get("about")),
    )


def _tags_of(tags: Any, about: Any) -> Tags:
    if tags is None and about is None:
        return NONE
    checked = check_tags(tags)
    return checked if about is None else {**checked, ABOUT: reference(about)}


def _check_event(event: Any) -> Event[Any] | None:
    if event is not None and not isinstance(event, Event):
        raise TypeError(f'event= takes an Event, as in event=Event("paid", payload), got {event!r}.')
    return event


# -- Workflows --------------------------------------------------------------------------------------


class WorkflowOptions(TypedDict, total=False):
    """What `@workflow` takes beside the body; see there. A `Workflow` keeps them as attributes, checked."""

    name: str | None
    version: str
    queue: str
    priority: int
    retry: RetryPolicy | int | None
    step_retry: RetryPolicy | int | None
    mask: Iterable[str]
    timeout: Duration | None
    start_within: Duration | None
    schedule: Schedule | Sequence[Schedule] | None
    limit: Limit | Sequence[Limit] | None
    retention: Duration | Mapping[str, Duration | None] | None
    tags: Mapping[str, str] | None


WORKFLOW_DEFAULTS: WorkflowOptions = {
    "name": None,
    "version": "",
    "queue": "default",
    "priority": 0,
    "retry": None,
    "step_retry": None,
    "mask": (),
    "timeout": None,
    "start_within": None,
    "schedule": None,
    "limit": None,
    "retention": None,
    "tags": None,
}


def workflow_options(options: WorkflowOptions) -> WorkflowOptions:
    """The options with the defaults of those that are missing; raises `TypeError` for an unknown one."""
    refuse_unknown(options, WorkflowOptions, "@workflow")
    return {**WORKFLOW_DEFAULTS, **options}


def check_retention(retention: Any) -> dict[str, timedelta | None]:
    """How long runs of a workflow are kept, by status, where it says so; raises `TypeError` or `ValueError`."""
    try:
        return to_retention(retention)
    except (TypeError, ValueError) as error:
        raise type(error)(f"retention of @workflow: {error}") from None


def check_limits(limit: Any) -> tuple[Limit, ...]:
    """The limits of a workflow, as a tuple; raises `TypeError` or `ValueError`."""
    given = () if limit is None else (limit,) if isinstance(limit, Limit) else limit
    if not isinstance(given, (list, tuple)) or not all(isinstance(member, Limit) for member in given):
        raise TypeError(f'limit= takes a Limit or a list of them, as in limit=Limit(rate="100/m"), got {limit!r}.')
    if len(given) > 2:
        raise ValueError(f"limit= takes up to two Limits, beside that of the queue; got {len(given)}.")
    return tuple(given)


# -- Keywords ---------------------------------------------------------------------------------------


def refuse_unknown(options: Mapping[str, object], known: type, what: str) -> None:
    """Raise `TypeError` for a keyword that is no key of `known`, a TypedDict. The message lists the legal ones."""
    names = known.__annotations__
    for name in options:
        if name not in names:
            similar = get_close_matches(name, names, n=1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise TypeError(f"{what} has no option {name!r}.{hint} The options are: {', '.join(names)}.")


def shows_options(known: type, **defaults: Any) -> Callable[[F], F]:
    """Decorator: let `help()` and shells show the keys of a TypedDict where the code says `**options`.

    Type checkers read the `Unpack` there. The default that is shown is None, but for those that are given here.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        *parameters, _ = signature.parameters.values()
        for name, annotation in known.__annotations__.items():
            text = getattr(annotation, "__forward_arg__", annotation)
            keyword_only = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, keyword_only, default=defaults.get(name), annotation=text))
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate
