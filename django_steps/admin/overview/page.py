"""The page of the overview, and the strip above the list.

Counts stop at a limit and durations come from the newest runs, so that the pages cost the same with a million runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from django.core.exceptions import PermissionDenied
from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ...core import clock
from ...ledger import database, reports
from ...ledger import limits as ledger_limits
from ...ledger.terms import Kind
from ...models import WorkflowRun
from ...models.diagnosis import known_kinds, no_worker, versions_known
from ...presentation import limits, runs
from .. import html
from ..base import RunAdminBase
from ..list.changelist import BIG_COLUMNS
from ..list.filters import UNKNOWN
from ..list.relatives import waits_for
from . import chart, failures, pausing, workers

COUNTED = 10_000  # runs of a status
AWAITED = 20  # events that runs wait for
_WARNED_FOR = 3600  # seconds for which a worker that stopped answering is warned of
MEASURED = 5_000  # finished runs whose durations are looked at


@dataclass
class Measured:
    """How the newest runs of one workflow went; p50 and p95 are durations of those that succeeded."""

    workflow: str
    url: str
    ended: int
    failed: int
    succeeded: int
    p50: str
    p95: str

    @property
    def failure_rate(self) -> str:
        return f"{self.failed / self.ended:.0%}" if self.failed else "0%"


class Waiting(NamedTuple):
    """A run that is ready, and for how long; `url` is empty where the user may not see the run."""

    run: WorkflowRun
    time: timedelta
    url: str


def strip(admin: RunAdminBase, request: HttpRequest) -> dict[str, Any]:
    """What stands above the list: runs by status, and what needs attention."""
    connection = database.connection_for(router.db_for_read(WorkflowRun))
    counts = reports.count_by_status(connection, COUNTED + 1)
    now = database.read_clock(connection)
    oldest = _oldest(admin, request, connection, now)
    states = workers.states(now, lambda run: admin.has_view_permission(request, run))
    return {
        "overview_url": admin.url_of("overview"),
        "start_url": admin.url_of("start"),
        "statuses": [
            {
                "status": status.value,
                "label": status.label,
                "count": _up_to(counts[status.value]),
                "url": f"{admin.url_of('changelist')}?status__exact={status.value}",
            }
            for status in WorkflowRun.Status
        ],
        "warnings": list(_warnings(admin, counts, oldest, states)),
        "oldest": oldest,
        "workers": states,
    }


def context(admin: RunAdminBase, request: HttpRequest) -> dict[str, Any]:
    """Everything that the overview shows."""
    connection = database.connection_for(router.db_for_read(WorkflowRun))
    top = strip(admin, request)
    oldest = top["oldest"]
    hours = chart.hours(connection)
    return {
        "strip": top,
        "hours": hours,
        "highest": max(hour.ended for hour in hours),
        "chart_height": chart.HEIGHT,
        "measured": list(_measured(admin)),
        "measured_runs": MEASURED,
        "oldest": oldest and (oldest.run, oldest.url, html.duration(oldest.time)),
        "awaited": _awaited(admin, connection),
        "limits": _limits(connection),
        "unknown": _unknown(admin, known_kinds(state.worker for state in top["workers"] if state.is_alive)),
        "workers": [
            (
                state,
                html.duration(state.silent_for),
                html.duration(state.blocked_ago) if state.blocked_ago is not None else "",
                [(run, admin.url_of("change", run.pk)) for run in state.runs],
            )
            for state in top["workers"]
        ],
        "no_worker": no_worker().text(),
        "changelist_url": admin.url_of("changelist"),
        **failures.context(admin, request),
        **pausing.context(admin, request),
    }


def overview_page(admin: RunAdminBase, request: HttpRequest) -> HttpResponse:
    """The overview as a page of its own."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    return admin.render(
        request,
        admin.overview_template,
        _("Overview"),
        has_add_permission=admin.has_add_permission(request),
        **context(admin, request),
    )


# -- What needs attention -----------------------------------------------------------------------------


def _warnings(
    admin: RunAdminBase, counts: dict[str, int], oldest: Waiting | None, states: list[workers.WorkerState]
) -> Iterator[SafeString | str]:
    if counts[UNKNOWN]:
        text = ngettext(
            "%(count)s run is of a workflow or version that no worker knows.",
            "%(count)s runs are of workflows or versions that no worker knows.",
            counts[UNKNOWN],
        ) % {"count": _up_to(counts[UNKNOWN])}
        yield format_html('<a href="{}?status__exact={}">{}</a>', admin.url_of("changelist"), UNKNOWN, text)
    is_work_left = any(counts[status] for status in WorkflowRun.ACTIVE)
    if is_work_left and not any(state.is_alive for state in states):
        yield no_worker().text()
    # A crash of yesterday whose runs have been recovered needs no attention any more; the table has it for a week.
    silent = [state for state in states if not state.is_alive and (state.runs or state.silent_for < _WARNED_FOR)]
    if silent:
        text = ngettext(
            "%(count)d worker has stopped answering: %(names)s.",
            "%(count)d workers have stopped answering: %(names)s.",
            len(silent),
        )
        names = ", ".join(str(state.worker) for state in silent[:5]) + ("…" if len(silent) > 5 else "")
        yield text % {"count": len(silent), "names": names}
    for state in states:
        if state.blocked_ago is not None and state.blocked_ago < _WARNED_FOR:
            yield _("The event loop of worker %(worker)s was blocked %(age)s ago: %(place)s.") % {
                "worker": state.worker,
                "age": html.duration(state.blocked_ago),
                "place": state.worker.blocked_by,
            }
    if oldest is not None and oldest.time > runs.OVERDUE_AFTER:
        text = _("A run has been waiting for a worker for %(age)s.") % {"age": html.duration(oldest.time)}
        yield format_html('<a href="{}">{}</a>', oldest.url, text) if oldest.url else text


def _oldest(admin: RunAdminBase, request: HttpRequest, connection: BaseDatabaseWrapper, now: int) -> Waiting | None:
    """The ready run that was started first."""
    run_id = reports.oldest_ready(connection)
    run = None if run_id is None else WorkflowRun.objects.defer(*BIG_COLUMNS).filter(pk=run_id).first()
    if run is None:
        return None
    url = admin.url_of("change", run.pk) if admin.has_view_permission(request, run) else ""
    return Waiting(run, clock.to_datetime(now) - runs.ready_since(run), url)


def _awaited(admin: RunAdminBase, connection: BaseDatabaseWrapper) -> list[tuple[str, int, str]]:
    """The events that most runs wait for, how many do, and the list of these runs."""
    found = reports.events_waited_for(connection)
    names = sorted(filter(None, found), key=lambda name: (-found[name], name))[:AWAITED]
    address = admin.url_of("changelist")
    return [(name, found[name], f"{address}?{html.query(waits_for=waits_for(name))}") for name in names]


def _limits(connection: BaseDatabaseWrapper) -> list[tuple[str, str, str, int]]:
    """The limits: their names, how many slots are taken, the rate, and how many runs are in line."""
    found = ledger_limits.longest_lines(connection)
    return [(limits.name_of(limit), limits.taken(limit), limits.rate(limit), limit.in_line) for limit in found]


def _up_to(count: int) -> str:
    return f"{COUNTED:,}+" if count > COUNTED else f"{count:,}"


# -- The last 24 hours, by workflow -----------------------------------------------------------------


def _measured(admin: RunAdminBase) -> Iterator[Measured]:
    """Of the newest finished runs."""
    seconds: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    ended: dict[str, int] = defaultdict(int)
    for workflow, status, started_at, finished_at in _newest_finished():
        ended[workflow] += 1
        failed[workflow] += status == WorkflowRun.Status.FAILED
        if started_at is not None and status == WorkflowRun.Status.SUCCEEDED:
            seconds[workflow].append((finished_at - started_at).total_seconds())
    for workflow in sorted(ended):
        taken = sorted(seconds[workflow])
        yield Measured(
            workflow,
            f"{admin.url_of('changelist')}?{html.query(workflow=workflow)}",
            ended[workflow],
            failed[workflow],
            len(taken),
            html.duration(_percentile(taken, 0.5)),
            html.duration(_percentile(taken, 0.95)),
        )


def _newest_finished() -> list[Any]:
    """The newest of each status, found through their index, and of those the newest."""
    since = timezone.now() - timedelta(hours=24)
    found: list[Any] = []
    for status in WorkflowRun.FINISHED:
        newest = WorkflowRun.objects.filter(status=status, finished_at__gte=since).order_by("-finished_at")
        found += newest.values_list("workflow", "status", "started_at", "finished_at")[:MEASURED]
    return sorted(found, key=lambda run: run[3], reverse=True)[:MEASURED]


def _percentile(ordered: list[float], share: float) -> float | None:
    """Between the two values beside it in proportion, as databases do it (PERCENTILE_CONT): of two, the middle."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _unknown(admin: RunAdminBase, known: set[Kind]) -> list[tuple[str, str, str, int, str]]:
    """The workflows and versions that no worker knows, the versions that they know instead, how many runs wait, and where.

    The last is the address of the list of these runs.
    """
    unknown = WorkflowRun.objects.filter(phase=WorkflowRun.Phase.UNKNOWN)
    found = unknown.order_by().values_list("workflow", "version").annotate(Count("pk")).order_by("workflow", "version")
    filtered = f"{admin.url_of('changelist')}?status__exact={UNKNOWN}&"
    return [
        (workflow, version, versions_known(workflow, known), count, filtered + html.query(workflow=workflow))
        for workflow, version, count in found[:50]
    ]
