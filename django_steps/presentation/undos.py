"""Which steps of a run are to be undone, by what is recorded of them."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.names import undone_by
from ..core.states import UNDO
from ..models import StepRecord


def names(records: Iterable[StepRecord]) -> list[str]:
    """The steps that have an undo and are not undone, in the order in which they would be."""
    records = list(records)
    undone = {
        step_of(record) for record in records if record.kind == UNDO and record.status == StepRecord.Status.SUCCEEDED
    }
    found = [record for record in records if record.has_undo and record.name not in undone]
    return [record.name for record in sorted(found, key=lambda record: record.position, reverse=True)]


def step_of(undo: StepRecord) -> str:
    """The step that an undo is of."""
    return undone_by(undo.name)
