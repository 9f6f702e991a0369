"""Writes the figures of the last long tests into `docs/reliability.md`: `python -m tests.faults.report`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FIGURES, PAGE = ROOT / "build" / "faults", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures of the last long tests -->\n", "<!-- end of the figures -->\n"
# What each test is called on the page, in this order; what is not a figure of its own comes after them.
TITLES = {
    "kills": "Workers killed at random moments",
    "network": "The network gone at random moments",
    "lost-answers": "A commit whose answer was lost, at every write",
    "restarts": "PostgreSQL restarted: fast, immediate, killed, in turn",
    "crashes": "PostgreSQL killed, and what bodies saw compared with what it recovered",
    "locked": "SQLite locked by somebody else",
    "full-SmallFileSystem": "SQLite on a full disk",
    "full-LimitedFiles": "SQLite with files that may not grow",
    "events": "Events against waits, and who sends or waits killed in between",
    "children": "Ends of children against the suspension of their parent, and workers killed in between",
    "schedules": "Workers that fire schedules killed: every slot once",
    "limits": "Limits under starts, cancels, retries and killed workers",
    "limit-trees": "Trees of runs that invoke each other under limits, and killed workers",
    "model": "Random workflows, interrupted at random points, against the model",
    "soak": "Steady load",
}
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB"}
WORDS = {
    "runs": "{:,} runs checked",
    "steps": "{:,} attempts of steps",
    "repeated": "{:,} of them cut short and executed again",
    "pairs": "{:,} pairs, none lost and none taken twice",
    "kills": "{:,} kills",
    "before_wake": "{:,} of them between the commit and the wake-up",
    "before_look": "{:,} before the last look",
    "met": "{:,} found by the last look",
    "outages": "{:,} outages",
    "lost": "{:,} answers lost",
    "restarts": "{:,} restarts",
    "crashes": "{:,} crashes",
    "compared": "{:,} outcomes compared",
    "locks": "{:,} locks",
    "times": "full {:,} times",
    "histories": "{:,} runs",
    "interruptions": "{:,} interruptions",
    "missed": "{:,} slots counted as missed",
    "looks": "{:,} looks of an observer, none of which saw too many",
    "idle": "a slot was free for at most {:g} s while runs were in line",
    "minutes": "{:g} minutes",
    "memory": "memory of the workers {}",
    "connections": "connections {}",
    "threads": "threads {}",
    "seconds": "{:,} s",
}


def main() -> None:
    """Replace what is between the two marks; what was not tested here this time keeps its row."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    shown, after = rest.split(END)
    PAGE.write_text(before + BEGIN + table(shown) + END + after)


def table(shown: str) -> str:
    """One row for each test and database."""
    lines = ["", "| fault | database | figures | seed | date |", "|---|---|---|---|---|"]
    for test, title in TITLES.items():
        for database, name in DATABASES.items():
            file = FIGURES / f"{test}-{database}.json"
            if file.exists():
                figures = json.loads(file.read_text())
                day = datetime.fromtimestamp(file.stat().st_mtime, UTC).date()
                lines.append(
                    f"| {title} | {figures.get('version', name)} | {text(figures)} | {figures['seed']} | {day} |"
                )
            else:
                lines += [line for line in shown.splitlines() if line.startswith(f"| {title} | {name}")]
    return "\n".join([*lines, "", ""])


def text(figures: dict[str, Any]) -> str:
    """The figures in words, the faults first."""
    return ", ".join(WORDS[name].format(value) for name, value in figures.items() if name in WORDS)


if __name__ == "__main__":
    main()
