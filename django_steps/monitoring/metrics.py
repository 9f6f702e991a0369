"""The numbers of `metrics/`, and the text format in which Prometheus and its like read them.

All of them are gauges: what the tables say now. Counters would need a memory that no process has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.limit import shown
from ..ledger import database, limits, metrics
from ..models.diagnosis import is_alive, live_workers
from ..models.worker import Worker
from ..presentation import pauses
from ..presentation.runs import OVERDUE_AFTER

RECENT = 300  # seconds
_LIMITS_SHOWN = 100
_SILENT_FOR = 3600 * 1_000_000  # microseconds for which a worker that stopped answering is counted
_SECOND = 1_000_000


class Sample(NamedTuple):
    """A number, and what it is of."""

    labels: Mapping[str, str]
    value: float


class Metric(NamedTuple):
    """A gauge: its name without `django_steps_`, what it means, and its samples."""

    name: str
    meaning: str
    samples: list[Sample]


def collect(connection: BaseDatabaseWrapper) -> list[Metric]:
    """All numbers, by about ten statements that use indexes. Raises what the database raises."""
    now = database.read_clock(connection)
    return [*_runs(connection, now), *_workers(connection, now), *_limits(connection), *_others(connection, now)]


def text(found: list[Metric]) -> str:
    """The metrics in the text format."""
    return "".join(f"{line}\n" for metric in found for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    name = f"django_steps_{metric.name}"
    yield f"# HELP {name} {_escaped(metric.meaning)}"
    yield f"# TYPE {name} gauge"
    for sample in metric.samples:
        labels = ",".join(f'{label}="{_quoted(value)}"' for label, value in sample.labels.items())
        yield f"{name}{{{labels}}} {sample.value:.15g}" if labels else f"{name} {sample.value:.15g}"


def _escaped(said: str) -> str:
    return said.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(value: str) -> str:
    # A lone surrogate can't be sent.
    return _escaped(value).replace('"', r"\"").encode("utf-8", "replace").decode()


# -- What is counted ---------------------------------------------------------------------------------


def _runs(connection: BaseDatabaseWrapper, now: int) -> Iterator[Metric]:
    unfinished, unknown = metrics.unfinished(connection)
    yield Metric(
        "runs",
        "Runs that have not ended.",
        [Sample({"workflow": workflow, "status": status}, count) for (workflow, status), count in unfinished.items()],
    )
    yield Metric(
        "unknown_runs",
        "Runs of workflows or versions that no live worker knows.",
        [Sample({"workflow": workflow}, count) for workflow, count in unknown.items()],
    )
    ready = metrics.ready(connection)
    yield Metric(
        "ready_runs", "Runs that wait for a worker.", [Sample({"queue": queue.name}, queue.runs) for queue in ready]
    )
    yield Metric(
        "oldest_ready_run_age_seconds",
        "For how long the first of the ready runs has been ready.",
        [Sample({"queue": queue.name}, max(0, now - queue.oldest_us) / _SECOND) for queue in ready],
    )
    limit = now - int(OVERDUE_AFTER.total_seconds()) * _SECOND
    yield Metric(
        "overdue_runs",
        "Sleeping, delayed or recovered runs whose time was over a minute ago.",
        [Sample({}, metrics.overdue(connection, limit))],
    )
    yield Metric(
        "recently_finished_runs",
        "Runs that have ended within the last five minutes.",
        [
            Sample({"workflow": workflow, "status": status}, count)
            for (workflow, status), count in metrics.finished(connection, now - RECENT * _SECOND).items()
        ],
    )


def _workers(connection: BaseDatabaseWrapper, now: int) -> Iterator[Metric]:
    alive = live_workers(connection)
    others = Worker.objects.using(connection.alias).filter(
        stopped_at=None, claims=True, last_seen_us__gt=now - _SILENT_FOR
    )
    silent = sum(not is_alive(worker, now) for worker in others.only("last_seen_us", "lease_us"))
    yield Metric(
        "workers",
        "Worker processes that are alive, and that have stopped answering within the last hour.",
        [Sample({"state": "alive"}, len(alive)), Sample({"state": "silent"}, silent)],
    )
    yield Metric(
        "worker_concurrency",
        "How many runs of plain bodies the live workers execute at a time.",
        [Sample({}, sum(worker.concurrency for worker in alive))],
    )


def _limits(connection: BaseDatabaseWrapper) -> Iterator[Metric]:
    found = limits.longest_lines(connection, _LIMITS_SHOWN)
    bounded = [limit for limit in found if limit.at_once is not None]
    yield Metric(
        "limit_slots",
        "How many runs a limit lets go on at once.",
        [Sample({"limit": shown(limit.name)}, limit.at_once or 0) for limit in bounded],
    )
    yield Metric(
        "limit_slots_held",
        "How many runs hold a slot of a limit.",
        [Sample({"limit": shown(limit.name)}, limit.held) for limit in bounded],
    )
    yield Metric(
        "limit_runs_in_line",
        "How many runs are in line for a limit.",
        [Sample({"limit": shown(limit.name)}, limit.in_line) for limit in found],
    )


def _others(connection: BaseDatabaseWrapper, now: int) -> Iterator[Metric]:
    late, first = metrics.late_schedules(connection, now - int(OVERDUE_AFTER.total_seconds()) * _SECOND)
    yield Metric("late_schedules", "Schedules whose time was over a minute ago.", [Sample({}, late)])
    yield Metric(
        "schedule_delay_seconds",
        "How late the schedule is that has waited longest; 0 if none is late.",
        [Sample({}, 0 if first is None else (now - first) / _SECOND)],
    )
    yield Metric(
        "paused",
        "Queues and workflows that somebody has paused.",
        [Sample({"kind": pause.kind, "name": pause.name}, 1) for pause in pauses.all_pauses(connection.alias)],
    )
