"""The demo in a terminal: what is told scrolls by above a table of all runs that changes in place."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .display import MARKS, STYLES, RunView, table_rows

_INDENT = (0, 0, 0, 2)  # top, right, bottom, left


class LiveDisplay:
    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def say(self, text: str) -> None:
        self._console.print(Padding(Text(text), _INDENT))

    def address(self, url: str) -> None:
        """In one piece, so that a terminal makes a link of it: neither cut nor broken where the window ends."""
        self._console.print(Text(f"  {url}", style=f"link {url} underline"), soft_wrap=True)

    def check(self, text: str, holds: bool) -> None:
        mark, style = ("✔", "green") if holds else ("✘ DID NOT HOLD:", "bold red")
        self._console.print(Padding(Text.assemble((mark, style), f" {text}"), _INDENT))

    def update(self, runs: Sequence[RunView]) -> None:
        table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=True)
        for heading in ("  run", "status", "steps", ""):
            table.add_column(Text(heading, style="dim"), no_wrap=True)
        for run in runs:
            status = Text(run.status, style=STYLES.get(run.status, ""))
            table.add_row(f"  {run.name}", status, self._marks(run), Text(run.where, style="dim"))
        self._live.update(Group("", table), refresh=True)

    def table(self, runs: Sequence[RunView]) -> None:
        self._live.stop()
        heading, *rows = table_rows(runs)
        table = Table(box=None, padding=(0, 3, 0, 0))
        for position, name in enumerate(heading):
            justify = "right" if position >= 2 else "left"
            table.add_column(Text(name if position else f"  {name}", style="dim"), no_wrap=True, justify=justify)
        for name, status, *times in rows:
            is_step = name.startswith(" ")
            table.add_row(
                Text(f"  {name}", style="" if is_step else "bold"), Text(status, style=STYLES.get(status, "")), *times
            )
        self._console.print(table)

    def close(self) -> None:
        self._live.stop()

    def _marks(self, run: RunView) -> Text:
        marks = Text()
        for step in run.steps:
            marks.append(MARKS.get(step.status, "·"), style=STYLES.get(step.status, ""))
        return marks
