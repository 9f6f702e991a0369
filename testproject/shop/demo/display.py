"""How the demo is shown: a live table where there is a terminal (and rich is installed), plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MARKS = {"succeeded": "✔", "failed": "✘", "retrying": "↻", "sleeping": "◌", "waiting": "◌"}
STYLES = {
    "succeeded": "green",
    "failed": "red",
    "running": "yellow",
    "sleeping": "blue",
    "waiting": "blue",
    "retrying": "yellow",
}


@dataclass
class StepView:
    name: str
    status: str
    kind: str
    executed: int  # times, by the shop's own log
    started: str  # seconds since the demo began
    took: str


@dataclass
class RunView:
    id: str
    name: str
    status: str
    where: str
    started: str
    took: str
    steps: list[StepView] = field(default_factory=list)


class Display(Protocol):
    def heading(self, text: str) -> None: ...
    def say(self, text: str) -> None: ...
    def address(self, url: str) -> None: ...
    def check(self, text: str, holds: bool) -> None: ...
    def update(self, runs: Sequence[RunView]) -> None: ...
    def table(self, runs: Sequence[RunView]) -> None: ...
    def close(self) -> None: ...


def choose_display() -> Display:
    if sys.stdout.isatty():
        try:
            from .live import LiveDisplay
        except ImportError:
            pass
        else:
            return LiveDisplay()
    return PlainDisplay()


class PlainDisplay:
    """One line for each thing that happens, as it happens."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], str] = {}

    def heading(self, text: str) -> None:
        self._print(f"\n{text}")

    def say(self, text: str) -> None:
        self._print(f"  {text}")

    def address(self, url: str) -> None:
        self._print(f"  {url}")

    def check(self, text: str, holds: bool) -> None:
        self._print(f"  {'ok' if holds else 'DID NOT HOLD'}: {text}")

    def update(self, runs: Sequence[RunView]) -> None:
        for run in runs:
            for step in run.steps:
                if step.kind in ("step", "event"):
                    self._print_change((run.id, step.name), step.status, f"{run.name}: {step.name}")
            if run.status not in ("pending", "running"):
                self._print_change((run.id,), run.status, run.name)

    def table(self, runs: Sequence[RunView]) -> None:
        rows = list(table_rows(runs))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            self._print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def close(self) -> None:
        """Nothing to put back in order."""

    def _print_change(self, key: tuple[str, ...], status: str, text: str) -> None:
        if self._shown.get(key) != status:
            self._shown[key] = status
            self._print(f"  {text} {status}")

    def _print(self, text: str) -> None:
        print(text, flush=True)


def table_rows(runs: Iterable[RunView]) -> Iterable[tuple[str, ...]]:
    """The rows of the final table, its heading first; a step's name is indented under its run's."""
    yield "run and its steps", "status", "executed", "started at", "took"
    for run in runs:
        yield run.name, run.status, "", run.started, run.took
        for step in run.steps:
            executed = str(step.executed) if step.kind == "step" else ""
            yield f"  {step.name}", step.status, executed, step.started, step.took
