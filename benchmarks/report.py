"""The results as Markdown: what was aimed at, then a table for each workload, then where and with what it was measured."""

# Multiplication signs and dashes are meant.
# ruff: noqa: RUF001

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .plan import WORKLOADS
from .summary import Row, rows
from .targets import TARGETS, number

Column = tuple[str, str]  # heading, figure

_COST = (
    ("CPU ms/step", "cpu_ms_per_step"),
    ("statements/step", "statements_per_step"),
    ("transactions/step", "transactions_per_step"),
    ("log flushes/step", "flushes_per_step"),
)
_RAW = ("raw/s", "raw_limit")
_DRAIN: tuple[Column, ...] = (("steps/s", "steps_per_second"), ("× raw", "steps_per_second_x_raw"), _RAW, *_COST)
_DRAIN_ASYNC: tuple[Column, ...] = (*_DRAIN[:3], ("connections", "connections"), *_COST)
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "W1": _DRAIN,
    "W1s": (
        ("runs × Celery", "runs_x_celery"),
        ("runs × django-tasks-db", "runs_x_jobs"),
        ("runs/s", "runs_per_second"),
        ("Celery tasks/s", "celery_per_second"),
        ("django-tasks-db jobs/s", "jobs_per_second"),
        _RAW,
    ),
    "W1x2": _DRAIN,
    "W1a": _DRAIN_ASYNC,
    "W9": _DRAIN_ASYNC,
    "W2": (("ms/step", "ms_per_step"), ("raw commits/step", "raw_commits_per_step"), _RAW, *_COST),
    "W3": (
        ("one at a time/s", "singly_per_second"),
        ("× raw", "singly_per_second_x_raw"),
        ("in bulk/s", "together_per_second"),
        ("× raw", "together_per_second_x_raw"),
        _RAW,
    ),
    "W4": (("p50 ms", "p50_ms"), ("p95 ms", "p95_ms"), ("max ms", "max_ms")),
    "W11": (("p50 ms", "p50_ms"), ("p95 ms", "p95_ms"), ("max ms", "max_ms")),
    "W5": (
        ("until done ms", "until_done_ms"),
        ("until the body is entered ms", "until_entered_ms"),
        ("passing over the steps ms", "replay_ms"),
    ),
    "W6": (
        ("memory asleep MiB", "asleep_growth_mib"),
        ("at most MiB", "peak_growth_mib"),
        ("idle MiB", "idle_mib"),
        ("connections", "connections"),
        ("threads", "threads"),
        ("late p50 s", "late_p50_s"),
        ("late p95 s", "late_p95_s"),
        ("all done after due s", "after_last_due_s"),
    ),
    "W8": (
        ("with × without", "held_x_free"),
        ("runs/s without", "free_per_second"),
        ("runs/s with", "held_per_second"),
        ("with: last quarter × first", "last_quarter_x_first"),
        ("runs", "runs"),
    ),
    "W14": (
        ("worker MiB", "worker_mib"),
        ("the same settings MiB", "project_mib"),
        ("Django alone MiB", "django_mib"),
        ("worker PSS MiB", "worker_pss_mib"),
        ("the same settings PSS MiB", "project_pss_mib"),
        ("Django alone PSS MiB", "django_pss_mib"),
        ("threads", "threads"),
    ),
    "W10": (
        ("map × loop", "map_x_loop"),
        ("loop ms", "loop_ms"),
        ("map ms", "map_ms"),
        ("items of 10 ms, s", "naps_s"),
    ),
    "W12": (
        ("children × runs", "children_x_runs"),
        ("runs/s", "runs_per_second"),
        ("children/s", "children_per_second"),
        ("whole parent ms", "whole_ms"),
        ("passes of the parent", "passes"),
    ),
    "W13": (
        ("runs × tasks", "runs_x_tasks"),
        ("runs/s", "runs_per_second"),
        ("tasks/s", "tasks_per_second"),
    ),
    "W7": (
        ("claim of 16 ms", "claim_ms"),
        ("crowded ms", "crowded_claim_ms"),
        ("its statements ms", "statements_ms"),
        ("crowded ms", "crowded_statements_ms"),
        ("ratio", "statements_ratio"),
        ("nothing ready ms", "look_ms"),
        ("crowded ms", "crowded_look_ms"),
        ("finished", "finished"),
        ("sleeping", "sleeping"),
    ),
}


def columns(workload: str) -> tuple[Column, ...]:
    """The columns of a workload's table, the main one first."""
    return _COLUMNS[workload]


_DATABASES = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mysql": "MariaDB"}


def markdown(lines: Sequence[dict[str, Any]], about: Sequence[str], missing: dict[str, str]) -> str:
    """The whole report. `about` says where, when and with what it was measured."""
    found = rows(lines)
    parts = ["# Results", *[f"- {line}" for line in about]]
    parts += [f"- not measured: {package}: {reason}" for package, reason in missing.items()]
    raw = [line["raw"] for line in lines if line.get("raw")]
    if raw:
        parts.append(
            f"- raw: {number(min(raw))} to {number(max(raw))} single-row INSERT + COMMIT a second on one connection, probed"
            " before and after each measurement; ratios are to the probes of the same measurement"
        )
    raw_mysql = [line["raw_mysql"] for line in lines if line.get("raw_mysql")]
    if raw_mysql:
        parts.append(f"- raw on MariaDB: {number(min(raw_mysql))} to {number(max(raw_mysql))}, probed in the same way")
    parts.append(
        "\nMedians over the rounds. What the workloads are and how each figure is taken: [README](README.md).\n"
    )
    parts += ["## Targets\n", *_targets(found)]
    for workload in WORKLOADS:
        its = [row for row in found if row.workload == workload.name]
        if its:
            parts += [f"\n## {workload.name}: {workload.title}\n", *_table(its, _COLUMNS[workload.name])]
    plans = next((line["plans"] for line in lines if line.get("plans") and line["peer"] == "ours"), None)
    if plans:
        parts += ["\nThe plans of a claim's statements beside the crowd:\n", "```", "\n\n".join(plans), "```"]
    return "\n".join(parts) + "\n"


def _targets(found: Sequence[Row]) -> Iterable[str]:
    yield from table(
        ("", "", "target", "measured", "reached", "best alternative"),
        [
            (target.workload, target.what, f"{'≥' if target.at_least else '≤'} {number(target.bound)}", *judged)
            for target in TARGETS
            if (judged := target.judge(found)) is not None
        ],
    )


def _table(its: Sequence[Row], columns: Sequence[Column]) -> Iterable[str]:
    used = [column for column in columns if any(row.get(column[1]) is not None for row in its)]
    headings = ("", "database", "setting", *(heading for heading, _ in used), "rounds")
    yield from table(headings, [_cells(row, used) for row in its])
    for row in its:
        for error in dict.fromkeys(row.errors):
            yield f"\n{row.peer.title} on {_DATABASES[row.peer.database]}, {row.setting}: {error.strip()}"


def _cells(row: Row, columns: Sequence[Column]) -> tuple[str, ...]:
    name = f"**{row.peer.title}**" if row.peer.name == "ours" else row.peer.title
    values = [number(row.get(figure)) for _, figure in columns]
    if values and row.rounds > 1 and (spread := row.spread.get(columns[0][1])):
        values[0] += f" ({number(spread[0])}–{number(spread[1])})"
    return (name, _DATABASES[row.peer.database], row.setting, *values, str(row.rounds) if row.rounds else "failed")


def table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterable[str]:
    """A Markdown table whose columns line up as plain text, too."""
    widths = [max(len(line[at]) for line in (headings, *cells)) for at in range(len(headings))]
    for line in (headings, ["-" * width for width in widths], *cells):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
