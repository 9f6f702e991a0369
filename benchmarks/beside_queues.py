"""W1s: runs of one step, beside what plain queues do with as many messages that nothing is recorded of."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from .broker import redis
from .lab import Lab
from .peers import DJANGO_TASKS, Peer, Setting
from .processes import PeerFailed, WorkerProcess
from .scale import Scale

# A pool of processes, as many as there are processors: what Celery does if nobody says anything.
_CELERY = [sys.executable, "-m", "celery", "-A", "benchmarks.app.plain_celery", "worker"]
_BROKER = "BENCHMARK_PLAIN_BROKER"
_EDGE = 32  # so many of the first tasks say when they were executed, and so many of the last: more than are executed at a time
_PAUSE = 0.25  # seconds between two looks


def one_step_runs(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, float]:
    """By turns, each on one worker with its default settings, while the others are not there: from the first start to the last
    end of what waits for it."""
    drains: dict[str, tuple[int, Callable[[int], float]]] = {
        "runs": (scale.one_step_runs, lambda count: _drain(lab, peer, setting, scale, count)),
        "celery": (scale.one_step_runs, lambda count: _drain_celery(lab, peer, setting, scale, count)),
    }
    if DJANGO_TASKS.package in lab.packages:
        jobs = min(scale.jobs, scale.one_step_runs)
        drains["jobs"] = jobs, lambda count: _drain(lab, DJANGO_TASKS, DJANGO_TASKS.default, scale, count)
    seconds: dict[str, list[float]] = {name: [] for name in drains}
    for _ in range(scale.queue_turns):
        for name, (count, drain) in drains.items():
            seconds[name].append(drain(count))
    rates = {name: drains[name][0] / statistics.median(found) for name, found in seconds.items()}
    figures = {f"{name}_per_second": rate for name, rate in rates.items()}
    others = {f"runs_x_{name}": rates["runs"] / rate for name, rate in rates.items() if name != "runs"}
    return {**figures, **others}


def _drain(lab: Lab, peer: Peer, setting: Setting, scale: Scale, count: int) -> float:
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow="steps", size=1, count=count)
    with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
        finished = observer.wait(count, scale.patience, workers, pause=_PAUSE)
    return max(run.finished for run in finished) - min(run.started for run in finished)


def _drain_celery(lab: Lab, peer: Peer, setting: Setting, scale: Scale, count: int) -> float:
    lab.reset(peer)  # which forgets the notes
    edge = min(_EDGE, count // 2)
    with redis() as address:
        environment = {_BROKER: address}
        lab.call(peer, setting, "send_to_celery", environment=environment, count=count, edge=edge)
        with lab.process(peer, setting, _CELERY, environment) as worker:
            return _span(lab, worker, 2 * edge, scale.patience)


def _span(lab: Lab, worker: WorkerProcess, count: int, patience: float) -> float:
    deadline = time.monotonic() + patience
    while len(notes := lab.notes()) < count:
        if time.monotonic() > deadline:
            raise PeerFailed(f"Tasks of Celery were not executed within {patience:.0f} s.")
        if not worker.is_alive:
            raise PeerFailed(f"The Celery worker died: {worker.tail()}")
        time.sleep(_PAUSE)
    return max(at for _, at in notes) - min(at for _, at in notes)
