"""From single measurements to what is reported: medians over the rounds, and ratios to the raw limit of their time."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .peers import PEERS, Peer

_BY_KEY = {peer.key: peer for peer in PEERS}


@dataclass(frozen=True)
class Row:
    """What came out for one peer in one setting under one workload."""

    workload: str
    peer: Peer
    setting: str
    figures: dict[str, float]
    spread: dict[str, tuple[float, float]]
    rounds: int
    errors: tuple[str, ...]

    def get(self, name: str) -> float | None:
        return self.figures.get(name)


def rows(lines: Iterable[dict[str, Any]]) -> list[Row]:
    """One row for each workload, peer and setting, in the order in which they were first measured."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if line["peer"] in _BY_KEY:
            groups.setdefault((line["workload"], line["peer"], line["setting"]), []).append(line)
    return [_row(*key, group) for key, group in groups.items()]


def _row(workload: str, peer: str, setting: str, lines: Sequence[dict[str, Any]]) -> Row:
    good = [_with_ratios(line) for line in lines if "error" not in line]
    values: dict[str, list[float]] = {}
    for line in good:
        for name, value in line.items():
            if isinstance(value, (int, float)) and name != "round":
                values.setdefault(name, []).append(value)
    return Row(
        workload,
        _BY_KEY[peer],
        setting,
        {name: statistics.median(found) for name, found in values.items()},
        {name: (min(found), max(found)) for name, found in values.items()},
        len(good),
        tuple(line["error"] for line in lines if "error" in line),
    )


def _with_ratios(line: dict[str, Any]) -> dict[str, Any]:
    """With what is told in raw commits of the same database: a rate as a multiple of theirs, a time as how many of them
    take as long."""
    raw = line.get("raw_sqlite") or line.get("raw_mysql") or line.get("raw")
    if not raw:
        return line
    ratios = {f"{name}_x_raw": line[name] / raw for name in _RATES if name in line}
    if "ms_per_step" in line:
        ratios["raw_commits_per_step"] = line["ms_per_step"] / 1000 * raw
    return {**line, **ratios, "raw_limit": raw}


_RATES = ("steps_per_second", "singly_per_second", "together_per_second")
