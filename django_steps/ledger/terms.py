"""On which terms a worker takes runs: what it knows, from which queues, for how long."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from . import dialect
from .pauses import NONE, Paused

Kind = tuple[str, str]  # the name and the version of a workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a worker claims, and how: `lease_us` in microseconds; no `queues` means all of them, no `run_id` any run. What is
    `paused` it leaves out."""

    worker_id: int
    kinds: Collection[Kind]
    queues: Sequence[str] = ()
    run_id: UUID | None = None
    lease_us: int
    max_recoveries: int
    paused: Paused = NONE


def kinds_condition(kinds: Collection[Kind]) -> tuple[str, list[str]]:
    """SQL for: `(workflow, version)` is one of these; written so that every database can test it row by row."""
    names: dict[str, list[str]] = {}
    for workflow, version in sorted(kinds):
        names.setdefault(version, []).append(workflow)
    conditions = [f"(version = %s AND workflow IN ({dialect.marks(workflows)}))" for workflows in names.values()]
    parameters = [value for version, workflows in names.items() for value in (version, *workflows)]
    return f"({' OR '.join(conditions)})" if conditions else "(1 = 0)", parameters
