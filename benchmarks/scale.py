"""How much is measured: the sizes of all workloads, full and quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes: numbers of runs, steps and rows; durations in seconds."""

    runs: int = 1000
    steps: int = 5
    jobs: int = 2000  # for a plain queue
    one_step_runs: int = 10_000  # beside queues
    queue_turns: int = 3
    held_runs: int = 40_000  # of one step, beside an old snapshot
    held_turns: int = 2
    long_run: int = 1000  # steps of one run
    naps: int = 200  # items of 10 ms, side by side
    turns: int = 5  # of what is compared within one measurement
    starts: int = 2000
    slow_starts: int = 50
    gap: float = 0.2
    sleepers: int = 2000
    nap: int = 20
    crowd: int = 1_000_000  # finished runs, and as many that sleep
    claims: int = 60
    probe: float = 0.6
    patience: float = 150.0


FULL = Scale()
QUICK = Scale(
    runs=200,
    jobs=300,
    one_step_runs=1000,
    queue_turns=1,
    held_runs=3000,
    held_turns=1,
    long_run=300,
    naps=50,
    turns=2,
    starts=500,
    slow_starts=15,
    gap=0.15,
    sleepers=300,
    nap=6,
    crowd=50_000,
    claims=20,
    probe=0.25,
    patience=45.0,
)
