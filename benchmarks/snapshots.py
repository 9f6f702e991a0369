"""W8: the worker's pace while somebody keeps an old snapshot open, so that PostgreSQL can't remove a single old row version:
a report that takes an hour, a forgotten `BEGIN`, a dump."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .lab import Finished, Lab
from .peers import Peer, Setting
from .scale import Scale

_PAUSE = 0.25  # seconds between two looks


def beside_old_snapshot(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, float]:
    """By turns: the drain of queued runs of one step while a snapshot is open that is older than all claims, and without."""
    held: list[float] = []
    free: list[float] = []
    slowdowns: list[float] = []
    for turn in range(scale.held_turns):
        for is_held in (False, True) if turn % 2 == 0 else (True, False):
            finished = _drain(lab, peer, setting, scale, is_held)
            (held if is_held else free).append(_span(finished))
            if is_held:
                slowdowns.append(_last_quarter_x_first(finished))
    with_it, without = statistics.median(held), statistics.median(free)
    return {
        "held_x_free": with_it / without,
        "free_per_second": scale.held_runs / without,
        "held_per_second": scale.held_runs / with_it,
        "last_quarter_x_first": statistics.median(slowdowns),
        "runs": scale.held_runs,
    }


def _drain(lab: Lab, peer: Peer, setting: Setting, scale: Scale, is_held: bool) -> list[Finished]:
    lab.reset(peer)
    lab.call(peer, setting, "start", workflow="steps", size=1, count=scale.held_runs)
    with _snapshot(lab, peer, is_held), lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
        return observer.wait(scale.held_runs, 2 * scale.patience, workers, pause=_PAUSE)


@contextmanager
def _snapshot(lab: Lab, peer: Peer, is_held: bool) -> Iterator[None]:
    """A transaction that has read, and keeps its snapshot; or none."""
    if not is_held:
        yield
        return
    assert lab.cluster is not None
    with lab.cluster.connect(peer.key) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT COUNT(*) FROM django_steps_workflowrun")
        yield
        connection.execute("ROLLBACK")


def _span(finished: Sequence[Finished]) -> float:
    return max(run.finished for run in finished) - min(run.started for run in finished)


def _last_quarter_x_first(finished: Sequence[Finished]) -> float:
    """How many times as long the last quarter of the runs has taken as the first: 1 where old versions cost nothing."""
    ends = sorted(run.finished for run in finished)
    quarter = len(ends) // 4
    first = ends[quarter] - min(run.started for run in finished)
    return (ends[-1] - ends[-1 - quarter]) / first
