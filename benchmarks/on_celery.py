"""W13: runs of one step that Celery workers execute, beside tasks of Celery that do nothing."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack
from typing import Any

from .broker import redis
from .lab import Lab
from .peers import Peer, Setting
from .processes import PeerFailed
from .scale import Scale

_WORKERS = 2
_OPTIONS = ("--pool=prefork", "--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=error")
_LAST = 8  # so many of the tasks say when they were executed: those that are executed at a time, and more
_WARM_UP = 40  # runs, so that each child has begun


def through_celery(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, float]:
    """By turns on the same workers: from the first claim to the last end of runs, and from the first message to the last
    task."""
    lab.reset(peer)
    runs: list[float] = []
    tasks: list[float] = []
    with ExitStack() as stack:
        broker = {"BENCHMARK_BROKER": stack.enter_context(redis())}
        workers = stack.enter_context(lab.workers(peer, setting, environment=broker))
        for number in range(_WORKERS):
            workers.append(stack.enter_context(lab.process(peer, setting, _celery(number), broker)))
        observer = stack.enter_context(lab.observer(peer))

        def call(command: str, **arguments: Any) -> Any:
            return lab.call(peer, setting, command, environment=broker, **arguments)

        def work(count: int) -> float:
            before = {run.id for run in observer.finished()}
            call("start", workflow="steps", size=1, count=count)
            finished = observer.wait(len(before) + count, scale.patience, workers)
            its = [run for run in finished if run.id not in before]
            return max(run.finished for run in its) - min(run.started for run in its)

        def do_nothing(count: int) -> float:
            before = len(lab.notes())
            began = call("send_tasks", count=count, last=_LAST)["began"]
            return _last(lab, before, scale.patience) - float(began)

        work(_WARM_UP)
        for _ in range(scale.turns):
            runs.append(work(scale.runs))
            tasks.append(do_nothing(scale.runs))
    per_run, per_task = (statistics.median(found) / scale.runs for found in (runs, tasks))
    return {"runs_x_tasks": per_task / per_run, "runs_per_second": 1 / per_run, "tasks_per_second": 1 / per_task}


def _celery(number: int) -> list[str]:
    app = ["-m", "celery", "-A", "benchmarks.app.celery_app", "worker", f"--hostname=worker-{number}@here"]
    return [sys.executable, *app, *_OPTIONS]


def _last(lab: Lab, before: int, patience: float) -> float:
    """When the last task was executed; `before`: how many had said that earlier."""
    deadline = time.monotonic() + patience
    while len(notes := lab.notes()[before:]) < _LAST:
        if time.monotonic() > deadline:
            raise PeerFailed(f"Tasks of Celery were not executed within {patience:.0f} s.")
        time.sleep(0.1)
    return max(at for _, at in notes)
