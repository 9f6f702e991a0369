"""What a run waits for, by its records: the events, until when, and of which type their payloads have to be."""

from __future__ import annotations

from typing import Any

from django.db import router

from ..errors import UnreadableValue
from ..models import StepRecord, WorkflowRun
from ..values.classes import find_class

_AT_MOST = 1000  # waits of one run that are looked at


def waiting_records(run: WorkflowRun, name: str = "") -> list[StepRecord]:
    """The waits that the run has reached and that have taken no event yet, those for this event if one is named."""
    records = StepRecord.objects.using(router.db_for_write(StepRecord)).filter(
        run_id=run.pk, kind=StepRecord.Kind.EVENT, status=StepRecord.Status.WAITING
    )
    found = records.order_by("position").only("run", "name", "context_text", "wakes_at_us")[:_AT_MOST]
    return [record for record in found if not name or name in events_of(record)]


def events_of(record: StepRecord) -> list[str]:
    """The names of the events that a wait takes."""
    names = record.context.get("events")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def waited_type(run: WorkflowRun, name: str) -> Any:
    """The class that the payload of an event has to fit, by the waits for it that are recorded already.

    None where none is recorded, where one takes anything, where several want different ones, and where the class can't be
    imported: then only the wait itself can tell.
    """
    wanted = {_type_name(record) for record in waiting_records(run, name)}
    if len(wanted) != 1 or not (type_name := wanted.pop()):
        return None
    try:
        return find_class(type_name)
    except UnreadableValue:
        return None


def _type_name(record: StepRecord) -> str:
    name = record.context.get("type")
    return name if isinstance(name, str) else ""
