"""The log lines that are kept with a run, as people and programs read them."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from ..models import WorkflowLog, WorkflowRun
from . import durations, output


def of_run(run: WorkflowRun, last: int | None = None) -> list[WorkflowLog]:
    """The lines of a run in their order; `last`: at most so many, the last ones. One query."""
    found = run.logs.all()
    return list(found) if last is None else list(reversed(found.order_by("-id")[:last]))


def as_text(lines: list[WorkflowLog]) -> list[str]:
    """A line of text for each, with the time, the level and the step; what has several lines is indented."""
    found = []
    for line in lines:
        first, *others = line.text.splitlines() or [""]
        where = f"{line.step}: " if line.step else ""
        found.append(output.printable(f"{durations.moment(line.at)} {line.level_name:<8} {where}{first}"))
        found += [output.printable(f"    {other}") for other in others]
    return found or [_("No lines are kept of this run.")]


def as_json(lines: list[WorkflowLog]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "at": line.at.isoformat(),
            "level": line.level_name,
            "step": line.step,
            "logger": line.logger,
            "text": line.text,
        }
        for line in lines
    ]
