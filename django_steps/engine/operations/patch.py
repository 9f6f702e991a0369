"""Which way a run goes where its body was changed: asked once, and recorded."""

from __future__ import annotations

from typing import Any

from ...core.states import PATCH
from ...definitions.requests import Patch
from ...ledger.histories import Recorded
from ..frame import Frame
from .base import Core, Operation, Record, Wait

_A_MOMENT = 0.001  # seconds until a task looks again whether the answer that another one has asked for is there


class PatchOperation(Operation[Patch]):
    """A run goes the old way if an earlier pass has come past here: something is recorded that this pass has not reached."""

    kind = PATCH

    def recorded_as(self, frame: Frame, request: Patch) -> str:
        frame.scope.ask_patch(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return True

    def core(self, frame: Frame, request: Patch, name: str, recorded: Recorded | None) -> Core:
        asking = frame.scope.patching
        while name in asking:
            yield Wait(_A_MOMENT)
        known = frame.history.find(name)
        if known is not None:
            return known
        asking.add(name)
        try:
            now = frame.claim.now()
            write = frame.write_of(
                name,
                PATCH,
                "succeeded",
                position=frame.history.next_position(),
                after=frame.scope.after(name),
                output="true" if _goes_new_way(frame, name) else "false",
                started_at=now,
                finished_at=now,
            )
            frame.ensure_held((yield Record(write)))
            return frame.add(write)
        finally:
            asking.discard(name)

    def outcome(self, frame: Frame, request: Patch, recorded: Recorded) -> Any:
        return frame.value(recorded)


def _goes_new_way(frame: Frame, name: str) -> bool:
    for interceptor in frame.interceptors:
        if (instead := interceptor.instead(frame.claim, name)) is not None:
            return bool(instead())
    return not frame.scope.has_passed()
