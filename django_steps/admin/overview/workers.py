"""Which workers are there, what each is executing, and which ones stopped answering."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ...models import Worker, WorkflowRun
from ...models.diagnosis import is_alive

_SHOWN = 100
_MINUTE = 60_000_000  # microseconds


@dataclass
class WorkerState:
    """A worker as the pages show it; `silent_for` is in seconds."""

    worker: Worker
    is_alive: bool
    silent_for: float
    runs: list[WorkflowRun]


def states(now: int) -> list[WorkerState]:
    """The workers that have not stopped in good order, those that answer first: two queries. `now` is machine time."""
    workers = list(Worker.objects.filter(stopped_at=None).order_by("-last_seen_us")[:_SHOWN])
    runs = _runs_of(workers, now)
    return [
        WorkerState(
            worker,
            is_alive(worker, now),
            max(0, now - worker.last_seen_us) / 1_000_000,
            runs[worker.pk],
        )
        for worker in workers
    ]


def _runs_of(workers: list[Worker], now: int) -> dict[Any, list[WorkflowRun]]:
    # A held run is timed by its lease: looking no further than the longest one leaves out the sleepers.
    horizon = now + max((worker.lease_us for worker in workers), default=0) + _MINUTE
    held = (
        WorkflowRun.objects.filter(phase=WorkflowRun.Phase.TIMED, available_at_us__lte=horizon, worker__isnull=False)
        .only("pk", "workflow", "current_step", "worker_id", "status")
        .order_by("available_at_us")[:500]
    )
    found: dict[Any, list[WorkflowRun]] = defaultdict(list)
    for run in held if workers else ():
        found[run.worker_id].append(run)
    return found
