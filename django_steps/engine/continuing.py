"""What a body returns to go on as another run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..definitions import get_workflow
from ..definitions.options import RunOptions
from ..definitions.starting import new_run
from ..errors import InvalidState
from ..ledger.inserts import NewRun
from .frame import Frame


@dataclass(frozen=True, slots=True)
class Continuation:
    """The run that is to take over, if the body returns this."""

    new: NewRun


def continuation(frame: Frame, input: Any) -> Continuation:
    """See `Step.continue_as_new`."""
    frame.check("continue_as_new()")
    if frame.scope.branch:
        raise InvalidState(
            f"continue_as_new() was called in branch {frame.scope.branch!r}: only the body can go on as another run."
        )
    claim = frame.claim
    # Of its queue's limit it gets that of the queue in which it goes on, which is this run's.
    made = Continuation(new_run(get_workflow(claim.workflow, claim.version), input, RunOptions(queue=claim.queue)))
    frame.state.continuation = made
    return made
