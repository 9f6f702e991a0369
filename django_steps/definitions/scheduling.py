"""The schedules of this process's code, and writing them into the table of schedules.

Several processes may do so at once, with different code: a definition that a row has had before is written by
`syncschedules` only, so that an old process that starts again does not bring back an old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from django.conf import settings
from django.db import router

from ..core.names import check_name
from ..errors import StepsError
from ..ledger import database, notify, workers
from ..ledger.schedules import Target
from ..models import WorkflowSchedule
from .checked import check_priority
from .limits import limits_of_recorded
from .registry import get_workflow, registered, registered_kinds
from .schedule import Schedule
from .workflow import Workflow


class Defined(NamedTuple):
    """A schedule of the code, and the workflow that it starts."""

    name: str
    schedule: Schedule
    workflow: Workflow[Any, Any]


@dataclass
class Synced:
    """What has changed in the table: the names of the schedules. `taken`: whose name a row of the database has; `invalid`: what
    is wrong with those that were left alone."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    enabled: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    invalid: dict[str, str] = field(default_factory=dict)


def defined() -> Iterator[Defined]:
    """The schedules of all registered workflows."""
    for workflow in registered():
        for name, schedule in workflow.schedules.items():
            yield Defined(name, schedule, workflow)


def targets() -> dict[str, Target]:
    """What this process knows of its workflows, by name."""
    return {
        name: Target(latest.version, latest.queue, latest.priority, partial(_own, name))
        for name in {workflow.name for workflow in registered()}
        for latest in [get_workflow(name)]
    }


def _own(name: str, version: str, input: str, queue: str) -> dict[str, Any]:
    """What a run has of its workflow, beside its place; of the latest version, where this process has no such version. Raises
    `InvalidInput` where a key function of its limits fails."""
    workflow = get_workflow(name, version if (name, version) in registered_kinds() else None)
    limits = zip(("limit_1", "limit_2", "limit_queue"), limits_of_recorded(workflow, input, queue), strict=True)
    return {
        "timeout": workflow.timeout_us,
        "start_within": workflow.start_within_us,
        "tags": workflow.tags,
        **dict(limits),
    }


def wrong_places(queue: str | None, priority: int | None) -> dict[str, str]:
    """What is wrong with where runs go, by field."""
    checks: dict[str, Callable[[], object]] = {
        "queue": lambda: queue and check_name(queue, "queue name"),
        "priority": lambda: None if priority is None else check_priority(priority),
    }
    errors = {}
    for field_name, check in checks.items():
        try:
            check()
        except (StepsError, TypeError, ValueError) as error:
            errors[field_name] = str(error)
    return errors


def encoded(workflow: str, version: str, input: Any) -> tuple[str, Any]:
    """The input of a workflow as the row of a schedule keeps it, and what of it can be searched.

    Raises `UnknownWorkflow`, `InvalidInput` and `ValueTooLarge`.
    """
    _, text, search = get_workflow(workflow, version or None).encoded_input(input)
    return text, search


def definition(item: Defined) -> dict[str, Any]:
    """The columns of a schedule of the code; raises what `encoded()` raises."""
    schedule, workflow = item.schedule, item.workflow
    _, text, search = workflow.encoded_input(schedule.input)
    return {
        "workflow": workflow.name,
        "version": workflow.version,
        "input_text": text,
        "input_search": search,
        "cron": schedule.cron,
        "every": schedule.every,
        "timezone": (schedule.timezone or settings.TIME_ZONE) if schedule.cron else "",
        "spread": schedule.spread,
        "queue": schedule.queue or workflow.queue,
        "priority": workflow.priority if schedule.priority is None else schedule.priority,
        "overlap": schedule.overlap,
        "missed": schedule.missed,
        "pause_after": schedule.pause_after,
        "tags": schedule.tags,
    }


def digest(columns: dict[str, Any]) -> str:
    """What tells one definition from another."""
    return hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()


def sync(alias: str | None = None, *, also_old: bool = False) -> Synced:
    """Bring the table up to date with the code of this process, and enable what was disabled for lack of code.

    `also_old`: also where the row has had this definition before, and has another one now.
    """
    found = {item.name: item for item in defined()}
    done = Synced()
    if not found:
        return done
    alias = alias or router.db_for_write(WorkflowSchedule)
    now = database.read_clock(database.connection_for(alias))
    columns = {}
    for name, item in found.items():
        try:
            columns[name] = definition(item)
        except (StepsError, ValueError) as error:
            done.invalid[name] = str(error)
    table = WorkflowSchedule._base_manager.using(alias)
    new = columns.keys() - set(table.filter(name__in=columns).values_list("name", flat=True))
    # Another process may be about to do the same.
    table.bulk_create([_new_row(name, columns[name], now) for name in sorted(new)], ignore_conflicts=True)
    done.created = sorted(new)
    for row in table.filter(name__in=columns.keys() - new).order_by("name"):
        _bring_up_to_date(row, columns[row.name], now, alias, done, also_old=also_old)
    if done.created or done.changed or done.enabled:
        notify.workers(database.connection_for(alias))
    return done


def _new_row(name: str, columns: dict[str, Any], now: int) -> WorkflowSchedule:
    row = WorkflowSchedule(name=name, source=WorkflowSchedule.Source.CODE, counts_from_us=now, **columns)
    row.digest = digest(columns)
    row.digests = [row.digest]
    row.next_at_us = row.timing().next_fire(now)
    return row


def _bring_up_to_date(
    row: WorkflowSchedule, columns: dict[str, Any], now: int, alias: str, done: Synced, *, also_old: bool
) -> None:
    if not row.is_of_code:
        done.taken.append(row.name)
        return
    own = digest(columns)
    is_new = own != row.digest and (also_old or own not in row.digests)
    if not is_new and not row.is_disabled:
        return
    changes: dict[str, Any] = {"disabled_reason": ""}
    before = row.timing() if not row.is_disabled else None
    if is_new:
        changes |= {**columns, "digest": own, "digests": [*[d for d in row.digests if d != own], own]}
        for name, value in columns.items():
            setattr(row, name, value)
    if row.timing() != before and not row.is_paused:  # a new time counts from now on
        changes["next_at_us"] = row.timing().next_fire(now)
    # Unless another process has changed it meanwhile.
    table = WorkflowSchedule._base_manager.using(alias)
    if table.filter(pk=row.pk, digest=row.digest, paused_at=row.paused_at).update(**changes):
        (done.changed if is_new else done.enabled).append(row.name)


def disable_unknown(alias: str | None = None) -> list[str]:
    """Disable the schedules that no live worker and no code of this process can serve, with the reason: those of the code
    that are in none, and those of workflows that none knows. Returns their names."""
    connection = database.connection_for(alias or router.db_for_write(WorkflowSchedule))
    table = WorkflowSchedule._base_manager.using(connection.alias).filter(disabled_reason="")
    of_code, of_database = table.filter(source="code"), table.filter(source="database")
    kinds = registered_kinds() | workers.known_kinds(connection)
    names = {item.name for item in defined()} | workers.known_schedules(connection)
    unknown: dict[str, Any] = {}  # what to disable, by the reason
    for name, workflow, version in of_code.values_list("name", "workflow", "version"):
        if name not in names:
            unknown["no live code has it"] = of_code.exclude(name__in=names)
        elif (workflow, version) not in kinds:
            unknown[_without(workflow, version)] = of_code.filter(workflow=workflow, version=version)
    workflows = {name for name, _ in kinds}
    # Of those of the database there may be thousands.
    for workflow, version in of_database.values_list("workflow", "version").order_by().distinct():
        if (workflow, version) not in kinds if version else workflow not in workflows:
            unknown[_without(workflow, version)] = of_database.filter(workflow=workflow, version=version)
    disabled: list[str] = []
    for reason, rows in unknown.items():
        found = list(rows.values_list("name", flat=True))
        if table.filter(name__in=found).update(disabled_reason=reason, next_at_us=None):
            disabled += found
    return sorted(disabled)


def _without(workflow: str, version: str) -> str:
    return f"no live code has workflow {workflow!r}" + (f" version {version!r}" if version else "")


def enable_known(alias: str | None = None) -> list[str]:
    """Enable the schedules of the database that were disabled since nobody knew their workflow, where this process does."""
    connection = database.connection_for(alias or router.db_for_write(WorkflowSchedule))
    now, table = database.read_clock(connection), WorkflowSchedule._base_manager.using(connection.alias)
    names = {item.name for item in registered()}
    enabled = []
    for row in table.exclude(disabled_reason="").filter(source="database", workflow__in=names):
        if row.version and (row.workflow, row.version) not in registered_kinds():
            continue
        try:
            next_at = None if row.is_paused else row.timing().next_fire(now)
        except (TypeError, ValueError):
            continue
        unchanged = table.filter(pk=row.pk, disabled_reason=row.disabled_reason, paused_at=row.paused_at)
        if unchanged.update(disabled_reason="", next_at_us=next_at):
            enabled.append(row.name)
    return enabled


def mistakes() -> dict[str, str]:
    """What is wrong with the schedules of the code that shows only once all of it is known: their inputs. By name."""
    found = {}
    for item in defined():
        try:
            definition(item)
        except (StepsError, ValueError) as error:
            found[item.name] = str(error)
    return found
