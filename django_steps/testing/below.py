"""The runs that a run waits for, those that they wait for, and so on: a test executes them before it lets time pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from ..models import WorkflowRun
from .order import Order


class Open(NamedTuple):
    """A run that has not ended, and that another one waits for."""

    run_id: UUID
    is_ready: bool


def open_below(alias: str, run_id: UUID) -> list[Open]:
    """The runs that a run waits for, level by level."""
    found: list[Open] = []
    level = [run_id]
    while level:
        children = WorkflowRun.objects.using(alias).filter(open_parent_id__in=level).order_by("pk")
        new = [Open(pk, phase == WorkflowRun.Phase.READY) for pk, phase in children.values_list("pk", "phase")]
        found += new
        level = [child.run_id for child in new]
    return found


def waiting_for_events(alias: str, run_id: UUID) -> WorkflowRun[Any] | None:
    """The first run, this one or one below it, that waits for an event."""
    ids = [run_id, *(child.run_id for child in open_below(alias, run_id))]
    runs = WorkflowRun.objects.using(alias).in_bulk(ids)
    return next((runs[one] for one in ids if one in runs and runs[one].waiting_for), None)


class Below:
    """Executes the runs below others in rounds: each that is ready once, in any order."""

    def __init__(self, alias: str, order: Order, execute: Callable[[UUID], bool]) -> None:
        self._alias, self._order, self._execute = alias, order, execute
        self._round: list[UUID] = []

    def execute_one(self, run_id: UUID) -> bool:
        """Execute one of the runs below this one; whether there was one that could be."""
        if self._execute_next():
            return True
        self._round = [child.run_id for child in open_below(self._alias, run_id) if child.is_ready]
        return self._execute_next()

    def _execute_next(self) -> bool:
        while self._round:
            if self._execute(self._round.pop(self._order.chosen(len(self._round)))):
                return True
        return False
