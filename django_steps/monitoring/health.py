"""The health check of `showworkflows --check` and `health/`: whether runs are executed as they should be, a line for each
problem.

It only looks. What a worker does about such runs is in `ledger/timers.py` and `ledger/recovery.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Min, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..core import clock
from ..ledger import circles, database
from ..ledger.terms import Kind
from ..models import Worker, WorkflowPause, WorkflowRun
from ..models.diagnosis import is_served, kind_text, known_kinds, live_workers, no_worker, version_text, versions_known
from ..presentation import limits, pauses
from ..presentation.durations import short_moment
from ..presentation.output import one_line
from ..presentation.runs import OVERDUE_AFTER

_APP = "django_steps"
_GROUPS_SHOWN = 10
_OLD_PAUSE = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


def problems(connection: BaseDatabaseWrapper, manage: str = "manage.py") -> list[str]:
    """All that is wrong, a line each; empty if all is well. `manage`: how whoever reads it calls Django.

    Raises what the database raises once it could be reached.
    """
    if problem := database_problem(connection, manage):
        return [problem]
    workers = live_workers(connection)
    now = database.read_clock(connection)
    paused = pauses.all_pauses(connection.alias)
    runs = WorkflowRun.objects.using(connection.alias)
    found = [*_overdue(runs, workers, paused, now), *_old_pauses(paused, now), *_circles(connection)]
    if not workers:
        return [no_worker().text(manage), *found]
    return [*found, *unknown_lines(runs, known_kinds(workers))]


def database_problem(connection: BaseDatabaseWrapper, manage: str = "manage.py") -> str | None:
    """Why nothing can be done with the database, in one line: it can't be reached, or isn't migrated."""
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan([leaf for leaf in executor.loader.graph.leaf_nodes() if leaf[0] == _APP])
    except (DatabaseError, InterfaceError) as error:
        return _("Database %(alias)r can't be reached: %(error)s") % {
            "alias": connection.alias,
            "error": one_line(error),
        }
    if not missing:
        return None
    return _("Database %(alias)r lacks tables of django_steps. Create them with: %(manage)s migrate%(option)s") % {
        "alias": connection.alias,
        "manage": manage,
        "option": "" if connection.alias == "default" else f" --database {connection.alias}",
    }


def refused(error: Exception) -> str:
    """What is said where a database that could be reached has refused something."""
    return _("The database refused: %(error)s") % {"error": one_line(error)}


def _overdue(
    runs: QuerySet[WorkflowRun], workers: list[Worker], paused: list[WorkflowPause], now: int
) -> Iterator[str]:
    """Runs that have been ready for too long, or due and not even made ready."""
    limit = now - OVERDUE_AFTER // _MICROSECOND
    Phase = WorkflowRun.Phase
    ready = runs.filter(phase=Phase.READY, created_at__lt=clock.to_datetime(limit), available_at_us__lt=limit)
    ready = _not_held(ready, paused)
    for group in _grouped(ready, "queue"):
        text = ngettext(
            "%(count)d run in queue %(queue)r has been ready for more than %(limit)d s, since %(oldest)s.",
            "%(count)d runs in queue %(queue)r have been ready for more than %(limit)d s, the first since %(oldest)s.",
            group["count"],
        )
        since = max(clock.to_datetime(group["oldest_due"]), group["oldest"])
        problem = text % {**group, "oldest": short_moment(since), "limit": OVERDUE_AFTER.total_seconds()}
        if workers and not is_served(group["queue"], workers):
            problem = f"{problem} {_('No live worker serves this queue.')}"
        yield problem
    timed = runs.filter(phase=Phase.TIMED, available_at_us__lt=limit)
    asleep = timed.filter(worker=None).aggregate(count=Count("pk"), oldest=Min("available_at_us"))
    if asleep["count"]:
        text = ngettext(
            "%(count)d sleeping or delayed run is overdue by more than %(limit)d s, since %(oldest)s.",
            "%(count)d sleeping or delayed runs are overdue by more than %(limit)d s, the first since %(oldest)s.",
            asleep["count"],
        )
        yield _filled(text, asleep)
    held = timed.exclude(worker=None).aggregate(count=Count("pk"), oldest=Min("available_at_us"))
    if held["count"]:
        text = ngettext(
            "%(count)d run of a dead worker was not recovered within %(limit)d s, its lease ended at %(oldest)s.",
            "%(count)d runs of dead workers were not recovered within %(limit)d s, the first lease ended at %(oldest)s.",
            held["count"],
        )
        yield _filled(text, held)


def _not_held(runs: QuerySet[WorkflowRun], paused: list[WorkflowPause]) -> QuerySet[WorkflowRun]:
    """Those of the runs that no pause of a queue or workflow holds: where no worker is, nobody has parked the others."""
    for pause in paused:
        field = "queue" if pause.kind == pause.Kind.QUEUE else "workflow"
        runs = runs.exclude(**{field: pause.name}, pause_exempt=False)
    return runs


def _old_pauses(paused: list[WorkflowPause], now: int) -> Iterator[str]:
    """Queues and workflows that have been paused for long: somebody may have forgotten it."""
    limit = clock.to_datetime(now - _OLD_PAUSE // _MICROSECOND)
    for pause in paused:
        if pause.since < limit:
            text = _("%(what)s for more than %(hours)d hours: %(why)s.")
            hours = _OLD_PAUSE.total_seconds() // 3600
            said = pauses.said(pause)
            what = said[:1].upper() + said[1:]
            yield text % {"what": what, "hours": hours, "why": pauses.why(pause)}


def _circles(connection: BaseDatabaseWrapper) -> Iterator[str]:
    """Limits that wait for each other."""
    yield from (limits.circle(circle) for circle in circles.find(connection)[:_GROUPS_SHOWN])


def _filled(text: str, found: dict[str, Any]) -> str:
    oldest = short_moment(clock.to_datetime(found["oldest"]))
    return text % {"count": found["count"], "limit": OVERDUE_AFTER.total_seconds(), "oldest": oldest}


def unknown_lines(runs: QuerySet[WorkflowRun], known: Set[Kind]) -> Iterator[str]:
    """Those of the runs whose workflows no live worker knows; `known` is what they know."""
    # Said in this way, SQLite finds them through an index.
    waiting = runs.filter(Q(phase=WorkflowRun.Phase.READY) | Q(phase=WorkflowRun.Phase.UNKNOWN))
    found = [group for group in _grouped(waiting, "workflow", "version") if _kind(group) not in known]
    yield from (_unknown_line(group, versions_known(group["workflow"], known)) for group in found[:_GROUPS_SHOWN])
    if len(found) > _GROUPS_SHOWN:
        yield _("… and %(count)d more workflows that no live worker knows.") % {"count": len(found) - _GROUPS_SHOWN}


def _unknown_line(group: dict[str, Any], versions: str) -> str:
    if versions:  # the workflow is there, and its version is not
        text = ngettext(
            "%(count)d run of workflow %(kind)s waits: live workers know it only %(versions)s.",
            "%(count)d runs of workflow %(kind)s wait: live workers know it only %(versions)s.",
            group["count"],
        )
        kind = f"{group['workflow']!r} {version_text(group['version'])}"
        return text % {"count": group["count"], "kind": kind, "versions": versions}
    text = ngettext(
        "%(count)d run of workflow %(kind)s waits, which no live worker knows: was it renamed or removed?",
        "%(count)d runs of workflow %(kind)s wait, which no live worker knows: was it renamed or removed?",
        group["count"],
    )
    return text % {"count": group["count"], "kind": kind_text(*_kind(group))}


def _kind(group: dict[str, Any]) -> Kind:
    return group["workflow"], group["version"]


def _grouped(runs: QuerySet[WorkflowRun], *fields: str) -> list[dict[str, Any]]:
    groups = runs.values(*fields).annotate(
        count=Count("pk"), oldest=Min("created_at"), oldest_due=Min("available_at_us")
    )
    return list(groups.order_by(*fields))
