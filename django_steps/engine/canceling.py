"""What an async body has canceled: it has no outcome, is recorded so, and is never executed again."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core.states import WITH_CHILDREN, Cause, StepStatus
from ..ledger import cascades, contexts, taking
from ..ledger.histories import Recorded
from ..ledger.records import Outcome, StepWrite
from . import hooks
from .desk import Desk
from .ending import Ending
from .frame import Frame, ended_by
from .units import Unit


def is_of_body(frame: Frame) -> bool:
    """Whether it is the body that cancels: not the end of the pass, nor that of a group which leaves what is suspended. What
    only replays records nothing."""
    return frame.replay is None and not frame.state.is_ending and not is_left(frame.unit)


def is_left(unit: Unit | None) -> bool:
    """Whether a unit, or one that it is in, was left by its group."""
    while unit is not None:
        if unit.is_left:
            return True
        unit = unit.outer
    return False


async def record_canceled(
    frame: Frame, desk: Desk, name: str, kind: str, after: int, before: Recorded | None, started_at: int
) -> None:
    """Record that something was canceled; `before` is what was recorded of it when it was called, `after` as in a record.

    The cancellation is recorded before the body hears of it, so that what the body does then is never done without it. Where
    the outcome was committed and not yet given to the body, the cancellation takes its place. It keeps what the function had
    returned: a retry of the run that forgets the cancellation doesn't execute it again. An event can be taken again.
    """
    if before is not None and before.is_final:
        await desk.deliver_canceled(before.position)  # an earlier pass recorded it, and did not come to record this
        return
    history = frame.history
    known = history.find(name)
    output = await _returned(frame, desk, name, known)
    position = history.next_position()
    write = frame.write_of(
        name,
        kind,
        StepStatus.CANCELED,
        position=position,
        after=after,
        attempts=known.attempts if known else 1,
        attempt_log=known.attempt_log if known else "",
        said=_said(frame, name, known, output),
        output=output,
        arguments=known.arguments if known else None,
        wakes_at_us=known.wakes_at_us if known and known.status == StepStatus.RETRYING else None,
        started_at=started_at,
        finished_at=frame.claim.now(),
        replaces=known is not None or name in desk.written,
    )
    with desk.executing(frame.unit):
        try:
            outcome = await (_release(write, desk) if kind == "event" else desk.host.record(write))
            if outcome is Outcome.WRITTEN:
                frame.add(write)
                if kind in WITH_CHILDREN and write.replaces:  # what it had started has no one who waits for it
                    await desk.host.call(partial(_cancel_children, frame, desk, name))
        finally:  # what was recorded later is delivered later, also where this took longer
            desk.is_settled(position)
    if outcome is not Outcome.WRITTEN:
        frame.state.ending = Ending(ended_by(outcome))
        desk.end()
        return
    await desk.deliver_canceled(position)
    frame.scope.deliver(history.recorded(name))


async def _release(write: StepWrite, desk: Desk) -> Outcome:
    """Record that a wait was canceled, and that it has taken no event."""
    host = desk.host.host
    outcome: Outcome = await desk.host.call(
        lambda: host.write(lambda: taking.record_canceled(host.connection(), write))
    )
    return outcome


def _said(frame: Frame, name: str, known: Recorded | None, output: str | None) -> dict[str, Any] | None:
    """What the record goes on to say: of the run that a step has invoked, which a retry takes up again; and that a step which
    had returned has an undo, since what it did is done."""
    if output is not None and frame.scope.has_undo(name):
        return {contexts.UNDO: True}
    if known is None or known.kind != "invoke":
        return None
    said = contexts.read(known.context)
    return {key: said.get(key) for key in ("child", "reached_us", "deadline_us")}


def _cancel_children(frame: Frame, desk: Desk, name: str) -> None:
    host, run_id = desk.host.host, frame.run_id
    finished = host.write(lambda: cascades.cancel_children(host.connection(), run_id, Cause.PARENT_CANCELED, [name]))
    hooks.children_canceled(finished)


async def _returned(frame: Frame, desk: Desk, name: str, known: Recorded | None) -> str | None:
    """What a function had returned, encoded; None where it had not."""
    if name in desk.returned:
        return desk.returned.pop(name)
    if known is None or known.status != StepStatus.SUCCEEDED or known.kind in ("sleep", "event"):
        return None
    if known.is_long:
        return await desk.host.call(partial(frame.history.output_of, known))
    return known.output
