"""`Schedule`: when a workflow starts by itself, as its decorator says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

from ..core import schedules
from ..core.names import check_name
from ..core.schedules import MAX_NAME_LENGTH, MISSED, OVERLAPS
from ..core.tags import check_tags
from ..durations import Duration, to_microseconds, to_text
from ..errors import InvalidName
from .checked import check_count, check_priority

Overlap = Literal["skip", "allow", "wait", "cancel"]
Missed = Literal["latest", "skip"]


class Schedule:
    """When a workflow starts by itself: `@workflow(schedule=Schedule("30 2 * * *", timezone="Europe/Berlin"))`.

    - `cron`: five fields (minute, hour, day of the month, month, day of the week), or `"@daily"`, `"@hourly"` and the like. Or
      `every`: a duration of whole seconds, such as `"10s"`, counted from the beginning of 1970 in UTC.
    - `timezone`: the name of the zone that `cron` is meant in; default: `TIME_ZONE`.
    - `name`: text; default: the workflow's name. All schedules of a workflow but one need one.
    - `input`: what its runs get; default: None.
    - `overlap`: if a run of it is still active: `"skip"` this time (default), `"allow"` both, let the new run `"wait"` until
      the old one has ended, or `"cancel"` the old one.
    - `missed`: what was missed while no worker was there: `"latest"` (default) makes up for the last time, `"skip"` for none.
    - `spread`: a duration; it starts up to so much later, always by the same, so that not all schedules start at once.
    - `pause_after`: a whole number; after so many failed runs in a row it is paused.
    - `queue`, `priority`: of its runs; default: the workflow's. `tags`: texts by name, beside those of the workflow.

    Raises `TypeError` or `ValueError` for what could never fire, and `InvalidName`.

    >>> Schedule(every="10s", name="often")
    Schedule(every='10s', name='often')
    """

    @overload
    def __init__(
        self,
        cron: str,
        *,
        timezone: str | None = None,
        name: str | None = None,
        input: Any = None,
        overlap: Overlap = "skip",
        missed: Missed = "latest",
        spread: Duration | None = None,
        pause_after: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        every: Duration,
        name: str | None = None,
        input: Any = None,
        overlap: Overlap = "skip",
        missed: Missed = "latest",
        spread: Duration | None = None,
        pause_after: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None: ...
    def __init__(
        self,
        cron: str | None = None,
        *,
        every: Duration | None = None,
        timezone: str | None = None,
        name: str | None = None,
        input: Any = None,
        overlap: Overlap = "skip",
        missed: Missed = "latest",
        spread: Duration | None = None,
        pause_after: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if (cron is None) is (every is None):
            raise TypeError("A Schedule takes either cron, as in Schedule('30 2 * * *'), or every, as in every='10s'.")
        if every is not None and timezone is not None:
            raise TypeError("timezone= is for cron: every= counts from the beginning of 1970 in UTC.")
        self.cron = "" if cron is None else cron
        if cron is not None:
            schedules.check_cron(cron)
        self.every = "" if every is None else to_text(every)
        self.timezone = timezone
        self.name = None if not name else check_schedule_name(name)
        self.input = input
        self.overlap = _one_of(overlap, OVERLAPS, "overlap")
        self.missed = _one_of(missed, MISSED, "missed")
        self.spread = "" if spread is None or not to_microseconds(spread) else to_text(spread)
        self.pause_after = check_count(pause_after, "pause_after", least=1)
        self.queue = None if queue is None else check_name(queue, "queue name")
        self.priority = None if priority is None else check_priority(priority)
        self.tags = check_tags(tags)
        # Whether it ever fires; in which zone is known once there are settings.
        schedules.timing(name=name or "", cron=self.cron, every=self.every, zone=timezone or "UTC", spread=self.spread)

    def __repr__(self) -> str:
        shown = {key: value for key, value in vars(self).items() if value not in (None, "", "skip", "latest", {})}
        first = [repr(shown.pop("cron"))] if self.cron else []
        shown = {key: value for key, value in shown.items() if key != "input"}  # which may be a secret
        return f"Schedule({', '.join([*first, *(f'{key}={value!r}' for key, value in shown.items())])})"


def schedules_of(given: Any, workflow: str) -> dict[str, Schedule]:
    """The schedules that `@workflow(schedule=…)` was given, by name: one, a list of them, or none.

    Raises `TypeError`, `ValueError`, `InvalidName`.
    """
    if given is None:
        return {}
    if not isinstance(given, Schedule) and (isinstance(given, (str, bytes)) or not isinstance(given, Iterable)):
        raise TypeError(f"schedule= takes a Schedule or a list of them, got {given!r}.")
    listed: Sequence[Any] = [given] if isinstance(given, Schedule) else list(given)
    found: dict[str, Schedule] = {}
    for item in listed:
        if not isinstance(item, Schedule):
            raise TypeError(f"schedule= takes a Schedule or a list of them, got {item!r} in the list.")
        name = check_schedule_name(workflow) if item.name is None else item.name
        if name in found:
            which = "have no name=" if item.name is None else f"are named {name!r}"
            raise ValueError(f"Two schedules of workflow {workflow!r} {which}. Each but one needs a name of its own.")
        found[name] = item
    return found


def check_schedule_name(name: Any) -> str:
    """Return the name of a schedule, or raise `InvalidName`."""
    checked = check_name(name, "schedule name")
    if len(checked) > MAX_NAME_LENGTH:
        raise InvalidName(
            f"A schedule name can have at most {MAX_NAME_LENGTH} characters, since the keys of its runs contain it; got"
            f" {len(checked)}: {checked[:40]!r}…. Give the schedule a shorter name=."
        )
    return checked


def _one_of(value: Any, known: Sequence[str], what: str) -> Any:
    if value not in known:
        raise ValueError(f"{what} takes one of {', '.join(map(repr, known))}, got {value!r}.")
    return value
