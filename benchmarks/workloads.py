"""The workloads W1 to W6 and W9 to W12: each is done once, by one peer in one setting, and gives figures. W7: `claiming.py`,
W13: `on_celery.py`.

Times are those of the peers' own tables wherever possible, so that the start of a process isn't part of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

from .counters import Counters
from .lab import Finished, Lab
from .peers import Peer, Setting
from .processes import PeerFailed, WorkerProcess
from .scale import Scale

Figures = dict[str, float]


def drain(lab: Lab, peer: Peer, setting: Setting, scale: Scale, workers: int = 1, workflow: str = "steps") -> Figures:
    """W1: from the first start to the last end of queued runs."""
    runs = round((scale.runs if peer.has_steps else scale.jobs) * setting.share)
    steps = runs * (scale.steps if peer.has_steps else 1)
    figures = _work_off(lab, peer, setting, scale, runs, scale.steps, steps, workers, workflow)
    return {"steps_per_second": steps / figures["seconds"], "runs": runs, **figures}


def drain_by_two(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W1x2: the same by two worker processes."""
    return drain(lab, peer, setting, scale, workers=2)


def drain_async(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W1a: the same from async bodies, all at a time."""
    return drain(lab, peer, setting, scale, workflow="async_steps")


def drain_naps(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W9: the same with steps that wait for something else."""
    return drain(lab, peer, setting, scale, workflow="async_naps")


def one_long_run(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W2: one run of many steps."""
    steps = min(scale.long_run, peer.most_steps)
    figures = _work_off(lab, peer, setting, scale, 1, steps, steps)
    return {"ms_per_step": 1000 * figures["seconds"] / steps, **figures}


def several_at_once(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W10, ours: a run whose steps follow one another, the same as a map, and a map of items of 10 ms; by turns."""
    times: dict[str, list[float]] = {"steps": [], "mapped": [], "napping": []}
    for _ in range(scale.turns):
        for workflow, found in times.items():
            lab.reset(peer)
            size = scale.naps if workflow == "napping" else scale.long_run
            with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
                workers[0].settle()
                lab.call(peer, setting, "start", workflow=workflow, size=size, count=1)
                found.append(_span(observer.wait(1, scale.patience, workers)))
    loop, mapped, naps = (statistics.median(found) for found in times.values())
    return {"map_x_loop": mapped / loop, "loop_ms": 1000 * loop, "map_ms": 1000 * mapped, "naps_s": naps}


def children_of_one(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W12, ours: runs of one step that were started singly, and as the children of one run; by turns."""
    times: dict[str, list[float]] = {"steps": [], "parent": []}
    whole: list[float] = []
    passes = 0
    for _ in range(scale.turns):
        for workflow, found in times.items():
            lab.reset(peer)
            size, count = (1, scale.runs) if workflow == "steps" else (scale.runs, 1)
            lab.call(peer, setting, "start", workflow=workflow, size=size, count=count)
            with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
                total = scale.runs + (workflow == "parent")
                finished = sorted(observer.wait(total, scale.patience, workers), key=lambda run: run.finished)
                found.append(_span(finished[: scale.runs]))  # without the parent, which ends last
                if workflow == "parent":
                    whole.append(_span(finished))
                    passes = max(passes, len(lab.notes()))
    singly, children = (statistics.median(found) for found in times.values())
    return {
        "children_x_runs": singly / children,
        "runs_per_second": scale.runs / singly,
        "children_per_second": scale.runs / children,
        "whole_ms": 1000 * statistics.median(whole),
        "passes": passes,
    }


def _work_off(
    lab: Lab,
    peer: Peer,
    setting: Setting,
    scale: Scale,
    runs: int,
    size: int,
    steps: int,
    count: int = 1,
    workflow: str = "steps",
) -> Figures:
    idle = _cost_of_starting(lab, peer, setting)
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow=workflow, size=size, count=runs)
    counters = Counters(lab, peer)
    connections: list[float] = []
    with lab.observer(peer) as observer, lab.workers(peer, setting, count) as workers:
        finished = observer.wait(runs, scale.patience, workers, look=lambda: connections.append(observer.connections()))
        cpu = _cpu(workers)
        connections.append(observer.connections())
    figures = {
        "seconds": _span(finished),
        "connections": max(connections),
        **counters.per(steps, observer.transactions),
    }
    if cpu is not None and idle is not None:
        figures["cpu_ms_per_step"] = 1000 * max(0.0, cpu - count * idle) / steps
    return figures


_idle_costs: dict[tuple[str, str], float | None] = {}


def _cost_of_starting(lab: Lab, peer: Peer, setting: Setting) -> float | None:
    """The processor time of a worker that has started and found nothing; measured once."""
    key = (peer.key, setting.name)
    if key not in _idle_costs:
        lab.reset(peer)
        with lab.workers(peer, setting) as workers:
            workers[0].settle()
            _idle_costs[key] = workers[0].cpu()
    return _idle_costs[key]


def _cpu(workers: Sequence[WorkerProcess]) -> float | None:
    costs = [cost for worker in workers if (cost := worker.cpu()) is not None]
    return sum(costs) if len(costs) == len(workers) else None


def _span(finished: Sequence[Finished]) -> float:
    return max(run.finished for run in finished) - min(run.started for run in finished)


def starts(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W3: starts, one after the other and in batches."""
    lab.reset(peer)
    singly = lab.call(peer, setting, "start_singly", count=scale.starts)["seconds"]
    lab.reset(peer)
    together = lab.call(peer, setting, "start_together", count=scale.starts)["seconds"]
    return {"singly_per_second": scale.starts / singly, "together_per_second": scale.starts / together}


def latency(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W4: from before a start to the end of its run of one step, by a worker that is idle."""
    lab.reset(peer)
    with lab.workers(peer, setting) as workers, lab.observer(peer) as observer:
        workers[0].settle()
        answer = lab.call(peer, setting, "start_slowly", count=scale.slow_starts, gap=scale.gap)
        finished = observer.wait(scale.slow_starts, scale.patience, workers)
    return waits(answer["started"], finished)


def event_latency(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W11, ours: from the commit of an event to the return of the wait in the body, by a worker that is idle."""
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow="waiter", size=1, count=scale.slow_starts)
    with lab.workers(peer, setting) as workers, lab.observer(peer) as observer:
        workers[0].settle()
        sent = lab.call(peer, setting, "send_slowly", count=scale.slow_starts, gap=scale.gap)["started"]
        observer.wait(scale.slow_starts, scale.patience, workers)
    returned = [at for _, at in lab.notes()]
    found = sorted(1000 * (at - since) for since, at in zip(sorted(sent.values()), sorted(returned), strict=True))
    return {"p50_ms": statistics.median(found), "p95_ms": _percentile(found, 95), "max_ms": found[-1]}


def waits(started: Mapping[str, float], finished: Sequence[Finished]) -> Figures:
    """How long it took from each start, by the time before its call, to the run's end."""
    begun = {_plain(run_id): at for run_id, at in started.items()}
    found = sorted(1000 * (run.finished - begun[_plain(run.id)]) for run in finished)
    if found[0] < 0:  # DBOS on SQLite keeps them in whole seconds
        raise PeerFailed("By its own times a run has ended before it was started.")
    return {"p50_ms": statistics.median(found), "p95_ms": _percentile(found, 95), "max_ms": found[-1]}


def _plain(run_id: str) -> str:
    """SQLite keeps UUIDs without hyphens."""
    return run_id.replace("-", "")


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def resume(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W5: the step after many recorded ones fails once, and the run goes on by the peer's own means."""
    size = min(scale.long_run, peer.most_steps - 1)
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow="resume", size=size, count=1)
    with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
        if peer.name == "dbos":  # goes on when a process that died is started again
            workers[0].wait(scale.patience)
            with lab.workers(peer, setting) as again:
                finished = observer.wait(1, scale.patience, again, pause=0.02)
        else:
            finished = observer.wait(1, scale.patience, workers, pause=0.02)
    return _resumed(lab, finished, since="last step")


def resume_elsewhere(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W5, ours: the run has failed, and somebody retries it; a worker that has never seen it is idle."""
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow="resume_elsewhere", size=scale.long_run, count=1)
    with lab.workers(peer, setting):
        deadline = time.monotonic() + scale.patience
        while not any(event == "last step" for event, _ in lab.notes()):
            if time.monotonic() > deadline:
                raise PeerFailed("The run did not come to its last step.")
            time.sleep(0.05)
        time.sleep(0.5)
    with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
        workers[0].settle()
        lab.call(peer, setting, "retry_failed")
        finished = observer.wait(1, scale.patience, workers, pause=0.02)
    return _resumed(lab, finished, since="retried")


def _resumed(lab: Lab, finished: Sequence[Finished], since: str) -> Figures:
    notes = lab.notes()
    entered = [at for event, at in notes if event == "entered"]
    last = [at for event, at in notes if event == "last step"]
    if len(entered) != 2 or len(last) != 2:
        raise PeerFailed(f"Not resumed exactly once: {notes}")
    begun = next(at for event, at in notes if event == since)
    return {
        "until_done_ms": 1000 * (finished[0].finished - begun),
        "until_entered_ms": 1000 * (entered[1] - begun),
        "replay_ms": 1000 * (last[1] - entered[1]),
    }


def sleep(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> Figures:
    """W6: many runs that sleep, then execute one step."""
    lab.reset(peer)
    with lab.workers(peer, setting) as workers:
        workers[0].settle()
        idle = workers[0].memory()
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow="sleeper", size=scale.nap, count=scale.sleepers)
    seen: list[Figures] = []
    asleep: list[float] = []
    with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
        began = time.monotonic()
        while (done := observer.count()) < scale.sleepers:
            elapsed = time.monotonic() - began
            if elapsed > scale.patience:
                raise PeerFailed(f"Only {done} of {scale.sleepers} runs had slept after {elapsed:.0f} s.")
            memory = workers[0].memory()
            seen.append({**memory, "connections": observer.connections()})
            if 0.6 * scale.nap < elapsed < 0.95 * scale.nap and memory:
                asleep.append(memory["rss"])
            time.sleep(0.25)
        finished = observer.finished()
    late = sorted(run.finished - run.started - scale.nap for run in finished)
    last_due = max(run.started for run in finished) + scale.nap
    figures = {
        "late_p50_s": statistics.median(late),
        "late_p95_s": _percentile(late, 95),
        "after_last_due_s": max(run.finished for run in finished) - last_due,
        "connections": max(look["connections"] for look in seen),
    }
    if asleep and idle:
        figures["idle_mib"] = idle["rss"]
        figures["asleep_growth_mib"] = max(asleep) - idle["rss"]
        figures["peak_growth_mib"] = max(look.get("rss", 0.0) for look in seen) - idle["rss"]
        figures["threads"] = max(look.get("threads", 0.0) for look in seen)
    return figures
