"""What a token stands for now: the run that takes the event, and whether the address was used or is of no use any more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from django.db import router

from ..ledger import chains, database
from ..models import WorkflowEvent, WorkflowRun
from ..models.event_urls import Callback

_COLUMNS = ("workflow", "version", "key", "status", "created_at", "continued_as_id")
_LOOKED_AT = 10_000  # runs of a chain, the last ones, of which one may have taken an answer


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
    chain, run = _chain(callback)
    if run is None:
        return Link(callback, State.OVER)
    payload = _used_with(callback, chain)
    # As long as the run is active, one answer uses up all addresses of its event; later, only the one that was
    # used still counts as used.
    is_used = payload is not None and (not run.is_finished or callback.payload_text in (None, payload))
    if is_used:
        return Link(callback, State.USED, run)
    return Link(callback, State.OVER if run.is_finished else State.OPEN, run)


def _chain(callback: Callback) -> tuple[list[UUID], WorkflowRun | None]:
    """The ids of the run and of those that it has continued as, and the last one, which takes the event; None: it is gone."""
    alias = router.db_for_write(WorkflowRun)
    runs = WorkflowRun.objects.using(alias).only(*_COLUMNS)
    run, chain = runs.filter(pk=callback.run_id).first(), [callback.run_id]
    if run is not None and run.continued_as_id is not None:
        chain += chains.successors(database.connection_for(alias), run.pk)
        run = runs.filter(pk=chain[-1]).first()
    return chain, run


def _used_with(callback: Callback, chain: list[UUID]) -> str | None:
    """The payload that was sent by an address of this run and event, as it is recorded; None if nothing was."""
    if callback.event_id is None:
        return None
    events = WorkflowEvent.objects.using(router.db_for_write(WorkflowEvent))
    sent = events.filter(run_id__in=chain[-_LOOKED_AT:], event_id=callback.event_id)
    return sent.order_by("pk").values_list("payload_text", flat=True).first()
