"""What this project wants to reach, and whether it did; with the best of the alternatives beside it."""

# Multiplication signs and dashes are meant.
# ruff: noqa: RUF001

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .peers import PEERS
from .summary import Row

_BY_KEY = {peer.key: peer for peer in PEERS}


@dataclass(frozen=True)
class Target:
    """A figure of ours in one workload, and its bound. `setting`: part of the name of the setting it is for."""

    workload: str
    what: str
    peer: str
    setting: str
    figure: str
    bound: float
    at_least: bool = False

    def judge(self, rows: Sequence[Row]) -> tuple[str, str, str] | None:
        """What was measured, whether that is enough, and the best of the alternatives; None if it wasn't measured."""
        mine = [
            value
            for row in rows
            if row.workload == self.workload
            and row.peer.key == self.peer
            and self.setting in row.setting
            and (value := row.get(self.figure)) is not None
        ]
        if not mine:
            return None
        value = mine[0]
        reached = operator.ge(value, self.bound) if self.at_least else operator.le(value, self.bound)
        return number(value), "yes" if reached else "**no**", self._best_alternative(rows)

    def _best_alternative(self, rows: Iterable[Row]) -> str:
        others = [
            (value, row)
            for row in rows
            if row.workload == self.workload
            and row.peer.name != "ours"
            and row.peer.has_steps
            and row.peer.database == _BY_KEY[self.peer].database
            and (self.setting != "default" or row.setting == "default")
            and (value := row.get(self.figure)) is not None
        ]
        if not others:
            return "–"
        choose: Callable[..., tuple[float, Row]] = max if self.at_least else min
        value, row = choose(others, key=lambda other: other[0])
        return f"{number(value)} ({row.peer.title})"


def _rate(
    workload: str,
    what: str,
    setting: str,
    bound: float,
    figure: str = "steps_per_second_x_raw",
    peer: str = "ours",
) -> Target:
    return Target(workload, what, peer, setting, figure, bound, at_least=True)


TARGETS = (
    _rate("W1", "drain, best concurrency, × raw", "threads", 2.0),
    _rate("W1", "drain, default settings, × raw", "default", 1.5),
    _rate("W1x2", "drain by two processes, × raw", "threads", 1.0),
    Target("W1s", "drain of runs of one step, × Celery on Redis", "ours", "default", "runs_x_celery", 2, at_least=True),
    _rate("W1a", "drain of async runs, × raw", "", 3.0),
    _rate("W9", "steps that wait for 50 ms, × raw", "", 2.5),
    Target("W9", "connections", "ours", "", "connections", 8),
    Target("W2", "a step of one long run, in raw commits", "ours", "default", "raw_commits_per_step", 1.5),
    _rate("W3", "starts one at a time, × raw", "", 0.7, "singly_per_second_x_raw"),
    _rate("W3", "starts in bulk, × raw", "", 5.0, "together_per_second_x_raw"),
    Target("W4", "idle to done, p50, ms", "ours", "default", "p50_ms", 3),
    Target("W4", "idle to done, p95, ms", "ours", "default", "p95_ms", 6),
    Target("W4", "idle to done on SQLite, p50, ms", "ours-sqlite", "default", "p50_ms", 15),
    Target("W4", "idle to done on MariaDB, p50, ms", "ours-mysql", "default", "p50_ms", 25),
    Target("W5", "failure to done, ms", "ours", "by itself", "until_done_ms", 8),
    Target("W5", "retry by hand to done, in a new worker, ms", "ours", "by hand", "until_done_ms", 15),
    Target("W6", "growth of memory with all asleep, MiB", "ours", "default", "asleep_growth_mib", 2),
    Target("W6", "connections (8 threads)", "ours", "default", "connections", 5),
    Target("W6", "all done after the last was due, s", "ours", "default", "after_last_due_s", 3),
    Target("W6", "late, p95, s", "ours", "default", "late_p95_s", 0.2),
    Target(
        "W7", "claim beside the crowd, without COMMIT, × the empty table", "ours", "default", "statements_ratio", 1.1
    ),
    Target("W8", "drain beside an old snapshot, × the time without", "ours", "default", "held_x_free", 1.1),
    Target("W10", "a map of 1,000 items, × the loop", "ours", "threads", "map_x_loop", 0.5),
    Target("W10", "the same on SQLite", "ours-sqlite", "threads", "map_x_loop", 0.5),
    Target("W10", "200 items of 10 ms, 10 at a time, s", "ours", "threads", "naps_s", 0.35),
    Target("W11", "event to the return of the wait, p50, ms", "ours", "default", "p50_ms", 10),
    Target("W11", "the same on SQLite", "ours-sqlite", "default", "p50_ms", 10),
    Target("W12", "children of one run, × runs", "ours", "threads", "children_x_runs", 0.8, at_least=True),
    Target("W12", "passes of their parent", "ours", "threads", "passes", 3),
    Target("W13", "runs on Celery, × its own tasks", "ours", "Celery", "runs_x_tasks", 0.7, at_least=True),
    Target("W14", "memory of an idle worker, MiB", "ours", "default", "worker_mib", 45),
    # Its raw commits may be quicker than PostgreSQL's (on the machine that they were first measured on, twice as quick), and so
    # less is left of a step than Python takes for it. See what is said of durability in the head of the report.
    _rate("W1", "drain on MariaDB, best concurrency, × raw", "threads", 0.7, peer="ours-mysql"),
    _rate("W1", "the same, default settings", "default", 0.5, peer="ours-mysql"),
    Target(
        "W2", "a step of one long run on MariaDB, in raw commits", "ours-mysql", "default", "raw_commits_per_step", 2
    ),
    Target("W1", "drain on SQLite, steps/s", "ours-sqlite", "threads", "steps_per_second", 9000, at_least=True),
    Target("W1", "the same, synchronous=FULL", "ours-sqlite", "FULL", "steps_per_second", 8000, at_least=True),
)


def number(value: float | None) -> str:
    """Three significant digits, whole numbers as they are."""
    if value is None:
        return ""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.3f}"
