"""Which measurements are made, in which order: by rounds, and within a round all peers of one workload side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import beside_queues, claiming, idle_memory, on_celery, snapshots, workloads
from .lab import Lab
from .peers import Peer, Setting
from .scale import Scale

Measure = Callable[[Lab, Peer, Setting, Scale], dict[str, Any]]


@dataclass(frozen=True)
class Measurement:
    """One peer in one setting under one workload, in one round."""

    workload: str
    peer: Peer
    setting: Setting
    round: int
    measure: Measure

    @property
    def key(self) -> tuple[str, str, str, int]:
        return (self.workload, self.peer.key, self.setting.name, self.round)


@dataclass(frozen=True)
class Workload:
    """`settings` gives the settings in which a peer is measured, each with how; none: the peer isn't."""

    name: str
    title: str
    settings: Callable[[Peer], Sequence[tuple[Setting, Measure]]]
    most_rounds: int = 99  # for what takes long and varies little


def _drain(peer: Peer) -> list[tuple[Setting, Measure]]:
    settings = {setting.name: setting for setting in (peer.default, peer.best, *peer.more)}
    return [(setting, workloads.drain) for setting in settings.values()]


def _two(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.best, workloads.drain_by_two)] if peer.database == "postgresql" else []


def _drain_async(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(setting, workloads.drain_async) for setting in peer.crowded]


def _drain_naps(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(setting, workloads.drain_naps) for setting in peer.crowded]


def _long_run(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.default, workloads.one_long_run)] if peer.has_steps else []


def _starts(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.default, workloads.starts)] if peer.database == "postgresql" or peer.name == "ours" else []


def _latency(peer: Peer) -> list[tuple[Setting, Measure]]:
    settings = [Setting("default"), *([peer.quickest_to_notice] if peer.quickest_to_notice else [])]
    return [(setting, workloads.latency) for setting in settings]


def _event_latency(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(Setting("default"), workloads.event_latency)] if peer.name == "ours" else []


def _resume(peer: Peer) -> list[tuple[Setting, Measure]]:
    if not peer.has_steps:
        return []
    if peer.name == "ours":
        return [
            (Setting("retried by itself"), workloads.resume),
            (Setting("retried by hand, by a new worker"), workloads.resume_elsewhere),
        ]
    return [(Setting("default"), workloads.resume)] if peer.database == "postgresql" else []


def _sleep(peer: Peer) -> list[tuple[Setting, Measure]]:
    if not peer.has_steps or (peer.database == "sqlite" and peer.name != "ours"):
        return []
    return [(peer.default if peer.name in ("ours", "dbos") else peer.best, workloads.sleep)]


def _claims(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.default, claiming.claim_cost)] if peer.name == "ours" else []


def _several(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.best, workloads.several_at_once)] if peer.name == "ours" else []


def _children(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.best, workloads.children_of_one)] if peer.name == "ours" else []


def _celery(peer: Peer) -> list[tuple[Setting, Measure]]:
    by_celery = Setting("2 Celery workers", {"executor": "celery"})
    return [(by_celery, on_celery.through_celery)] if peer.key == "ours" else []


def _one_step(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.default, beside_queues.one_step_runs)] if peer.key == "ours" else []


def _beside_snapshot(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.default, snapshots.beside_old_snapshot)] if peer.key == "ours" else []


def _memory(peer: Peer) -> list[tuple[Setting, Measure]]:
    return [(peer.default, idle_memory.idle_memory)] if peer.name == "ours" else []


WORKLOADS = (
    Workload("W1", "drain queued runs with one worker process", _drain),
    Workload("W1s", "drain runs of one step, beside Celery and django-tasks-db", _one_step, most_rounds=2),
    Workload("W1x2", "drain queued runs with two worker processes", _two, most_rounds=2),
    Workload("W1a", "drain queued async runs with one worker process", _drain_async, most_rounds=2),
    Workload("W9", "drain queued async runs whose steps wait for 50 ms", _drain_naps, most_rounds=2),
    Workload("W2", "one run of many steps", _long_run),
    Workload("W3", "start runs", _starts, most_rounds=2),
    Workload("W10", "several at once: a map beside a loop", _several, most_rounds=2),
    Workload("W12", "runs of one step, as children of one run", _children, most_rounds=2),
    Workload("W13", "runs of one step on Celery workers, beside tasks of Celery", _celery, most_rounds=2),
    Workload("W5", "resume a run with many recorded steps", _resume),
    Workload("W4", "from a start to the run's end, with an idle worker", _latency, most_rounds=1),
    Workload("W11", "from an event to the return of the wait, with an idle worker", _event_latency, most_rounds=1),
    Workload("W14", "memory of an idle worker, beside what Django needs", _memory, most_rounds=1),
    Workload("W7", "claim beside finished and sleeping runs", _claims, most_rounds=1),
    Workload("W8", "drain runs of one step while an old snapshot is held open", _beside_snapshot, most_rounds=1),
    Workload("W6", "many sleeping runs", _sleep, most_rounds=1),
)


def measurements(names: Sequence[str], peers: Sequence[Peer], rounds: int) -> Iterator[Measurement]:
    """All that is to be measured, in order."""
    for number in range(1, rounds + 1):
        for workload in WORKLOADS:
            if workload.name not in names:
                continue
            for peer in peers:
                if number > _most_rounds(workload, peer) or (peer.only and workload.name not in peer.only):
                    continue
                for setting, measure in workload.settings(peer):
                    yield Measurement(workload.name, peer, setting, number, measure)


def _most_rounds(workload: Workload, peer: Peer) -> int:
    """The alternatives on SQLite are there for the order of magnitude."""
    return workload.most_rounds if peer.name == "ours" or peer.database == "postgresql" else 1
