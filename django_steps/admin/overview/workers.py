"""Which workers are there, what each is executing, and which ones stopped answering."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...models import Worker, WorkflowRun
from ...models.diagnosis import is_alive
from ..list.changelist import BIG_COLUMNS

_SHOWN = 100
_MINUTE = 60_000_000  # microseconds


@dataclass
class WorkerState:
    """A worker as the pages show it; `silent_for` is in seconds."""

    worker: Worker
    is_alive: bool
    silent_for: float
    blocked_ago: float | None  # seconds since something blocked its event loop
    runs: list[WorkflowRun]


def states(now: int, may_see: Callable[[WorkflowRun], bool]) -> list[WorkerState]:
    """The workers that have not stopped in good order, those that answer first: two queries. `now` is machine time.

    Of the runs they hold only those are named that the user may see.
    """
    workers = list(Worker.objects.filter(stopped_at=None).order_by("-last_seen_us")[:_SHOWN])
    runs = _runs_of(workers, now)
    return [
        WorkerState(
            worker,
            is_alive(worker, now),
            max(0, now - worker.last_seen_us) / 1_000_000,
            None if worker.blocked_us is None else max(0, now - worker.blocked_us) / 1_000_000,
            [run for run in runs[worker.pk] if may_see(run)],
        )
        for worker in workers
    ]


def _runs_of(workers: list[Worker], now: int) -> dict[Any, list[WorkflowRun]]:
    # A held run is timed by its lease: looking no further than the longest one leaves out the sleepers.
    horizon = now + max((worker.lease_us for worker in workers), default=0) + _MINUTE
    held = (
        WorkflowRun.objects.filter(phase=WorkflowRun.Phase.TIMED, available_at_us__lte=horizon, worker__isnull=False)
        .defer(*BIG_COLUMNS)
        .order_by("available_at_us")[:500]
    )
    found: dict[Any, list[WorkflowRun]] = defaultdict(list)
    for run in held if workers else ():
        found[run.worker_id].append(run)
    return found
