"""What a token stands for now: the run that takes the event, and whether the address was used or is of no use any more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from django.db import router

from ..models import WorkflowEvent, WorkflowRun
from ..models.event_urls import Callback

_COLUMNS = ("workflow", "version", "key", "status", "created_at", "continued_as_id")
_LONGEST_CHAIN = 1000  # runs that have continued as the next one


class State(Enum):
    """`OPEN`: an answer is taken. `USED`: the first answer is there. `OVER`: the run has ended, or is gone."""

    OPEN = auto()
    USED = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Link:
    """A token with what it stands for; `run` is None where that is gone."""

    callback: Callback
    state: State
    run: WorkflowRun | None = None


def look_up(callback: Callback) -> Link:
    """What the token stands for at this moment. Read where events are written: a replica may be late."""
    chain = _chain(callback)
    if not chain:
        return Link(callback, State.OVER)
    run = chain[-1]
    payload = _used_with(callback, chain)
    # As long as the run is active, one answer uses up all addresses of its event; later, only the one that was
    # used still counts as used.
    is_used = payload is not None and (not run.is_finished or callback.payload_text in (None, payload))
    if is_used:
        return Link(callback, State.USED, run)
    return Link(callback, State.OVER if run.is_finished else State.OPEN, run)


def _chain(callback: Callback) -> list[WorkflowRun]:
    """The run, and those that it has continued as: the last one takes the event."""
    runs = WorkflowRun.objects.using(router.db_for_write(WorkflowRun)).only(*_COLUMNS)
    chain: list[WorkflowRun] = []
    next_id: UUID | None = callback.run_id
    while next_id is not None and len(chain) < _LONGEST_CHAIN:
        run = runs.filter(pk=next_id).first()
        if run is None:
            break
        chain.append(run)
        next_id = run.continued_as_id
    return chain


def _used_with(callback: Callback, chain: list[WorkflowRun]) -> str | None:
    """The payload that was sent by an address of this run and event, as it is recorded; None if nothing was."""
    if callback.event_id is None:
        return None
    events = WorkflowEvent.objects.using(chain[-1]._state.db)
    sent = events.filter(run_id__in=[run.pk for run in chain], event_id=callback.event_id)
    return sent.order_by("pk").values_list("payload_text", flat=True).first()
