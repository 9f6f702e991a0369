"""The options of steps, runs and workflows: what users may say by keyword, each kind in one place.

Each kind has a TypedDict, which signatures unpack for type checkers, and one function that checks what was given. A new
option is a line in the TypedDict, a field, and a line in that function. What an option does is not decided here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, TypedDict, TypeVar

from django.conf import settings
from django.utils import timezone

from ..core import clock
from ..core.names import check_name
from ..core.retries import RetryPolicy, to_policy
from ..durations import Duration, to_microseconds

F = TypeVar("F", bound=Callable[..., Any])

PRIORITIES = range(-100, 101)
# For the times that users give. What lies beyond is meant as "never" or is a mistake, and is near the end of what Python
# and the databases can hold.
EARLIEST_YEAR, LATEST_YEAR = 1900, 9000

# -- Steps ------------------------------------------------------------------------------------------


class StepOptions(TypedDict, total=False):
    """What `define()` and `get()` take beside the function; see `Step.define()`."""

    retry: RetryPolicy | int | None
    atomic: bool
    at_most_once: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options of one step, checked."""

    retry: RetryPolicy | None = None
    atomic: bool = False
    at_most_once: bool = False


PLAIN_CALL = CallOptions()


def step_options(name: str, options: StepOptions) -> CallOptions:
    """Check the options of the step of this name; raises `TypeError` or `ValueError`."""
    if not options:  # as most steps are defined
        return PLAIN_CALL
    refuse_unknown(options, StepOptions, f"Step {name!r}")
    checked = CallOptions(
        retry=to_policy(options.get("retry"), f"retry of step {name!r}"),
        atomic=check_flag(options.get("atomic", False), f"atomic of step {name!r}"),
        at_most_once=check_flag(options.get("at_most_once", False), f"at_most_once of step {name!r}"),
    )
    if checked.atomic and checked.at_most_once:
        raise TypeError(
            f"Step {name!r} can't be both atomic and at_most_once. What an atomic step writes to this database happens "
            "exactly once; at_most_once is for effects elsewhere. Take one of the two, or make two steps."
        )
    return checked


# -- Runs -------------------------------------------------------------------------------------------


class StartOptions(TypedDict, total=False):
    """What `start_many()` takes beside the inputs; see `Workflow.start()`."""

    priority: int | None
    queue: str | None
    delay: Duration | None
    start_at: datetime | None


class StartOptionsWithKey(StartOptions, total=False):
    """What `start()` takes beside the input."""

    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of a start, checked. None: the workflow's own, or as soon as possible.

    `delay_us` counts from the INSERT, `due_at_us` is a moment of the database's clock; both in microseconds.
    """

    key: str | None = None
    priority: int | None = None
    queue: str | None = None
    delay_us: int | None = None
    due_at_us: int | None = None


_PLAIN_RUN = RunOptions()


def run_options(options: StartOptions, known: type = StartOptionsWithKey, method: str = "start()") -> RunOptions:
    """Check the options of a start, of which the TypedDict `known` has the legal ones.

    Raises `InvalidName`, `TypeError` or `ValueError`.
    """
    if not options:
        return _PLAIN_RUN
    refuse_unknown(options, known, method)
    key, priority, queue = options.get("key"), options.get("priority"), options.get("queue")
    delay, start_at = options.get("delay"), options.get("start_at")
    if delay is not None and start_at is not None:
        raise ValueError("Give delay= or start_at=, not both.")
    return RunOptions(
        key=None if key is None else check_name(key, "key"),
        priority=None if priority is None else check_priority(priority),
        queue=None if queue is None else check_name(queue, "queue name"),
        delay_us=None if delay is None else to_microseconds(delay),
        due_at_us=None if start_at is None else clock.to_microseconds(check_datetime(start_at, "start_at=")),
    )


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


WORKFLOW_DEFAULTS: WorkflowOptions = {
    "name": None,
    "version": "",
    "queue": "default",
    "priority": 0,
    "retry": None,
    "step_retry": None,
    "mask": (),
}


def workflow_options(options: WorkflowOptions) -> WorkflowOptions:
    """The options with the defaults of those that are missing; raises `TypeError` for an unknown one."""
    refuse_unknown(options, WorkflowOptions, "@workflow")
    return {**WORKFLOW_DEFAULTS, **options}


# -- Values -----------------------------------------------------------------------------------------


def check_priority(value: Any) -> int:
    """Return a priority from -100 to 100, or raise `TypeError` or `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority takes a whole number from -100 to 100, got {value!r}.")
    if value not in PRIORITIES:
        raise ValueError(f"priority takes a whole number from -100 to 100, got {value!r}.")
    return int(value)  # of an enum's member, the number


def check_datetime(moment: Any, what: str) -> datetime:
    """Return `moment` if it is a datetime that fits `USE_TZ` and is no mistake, else raise `TypeError` or `ValueError`."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{what} takes a datetime, got {moment!r}.")
    if timezone.is_naive(moment) and settings.USE_TZ:
        raise ValueError(f"{what} takes an aware datetime where USE_TZ is on, got the naive {moment!r}.")
    if timezone.is_aware(moment) and not settings.USE_TZ:
        raise ValueError(f"{what} takes a naive datetime where USE_TZ is off, got the aware {moment!r}.")
    # Neither a time zone nor a delay leads from here to where no datetime is: that would be met by whoever looks at the run.
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        raise ValueError(f"{what} takes a datetime of the years {EARLIEST_YEAR} to {LATEST_YEAR}, got {moment!r}.")
    return moment


def check_flag(value: Any, what: str) -> bool:
    """Return True or False, or raise `TypeError`."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} takes True or False, got {value!r}.")
    return value


def check_count(value: Any, what: str, *, least: int) -> int | None:
    """Return a whole number of at least `least`, or None, or raise `TypeError` or `ValueError`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} takes a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"{what} takes a number of at least {least}, got {value}.")
    return value


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
