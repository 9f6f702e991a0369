"""The pass of a run that is canceled with undo: its body is called and only replays, and what it has come to is undone.

So there are two calls of the pass: the body, as far as it is recorded, and then the undos, in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from ..core.context import active_pass
from ..errors import GroupFailed, UndoFailed
from .drivers import threads
from .ending import Ended, Ending
from .frame import Frame
from .operations import undo
from .operations.base import Effect
from .replay import Replay
from .units import Unit

logger = logging.getLogger("django_steps")


def replay_only(frame: Frame) -> None:
    """Let the body that is about to be called do nothing but replay."""
    frame.scope.replay, frame.state.only_replays = Replay(), True


def cut_short(frame: Frame) -> Ending | None:
    """How the pass ends, if something has cut it short while the body was replayed: its worker stops, say."""
    state = frame.state
    if state.interrupt is not None:
        return Ending(state.interrupt)
    return state.ending if state.ending is not None and state.ending.how is Ended.LOST else None


def take_over(frame: Frame, before: Frame) -> None:
    """Let a frame stand where a body has come to that only replayed."""
    scope = before.scope
    scope.go_on(frame.state.details)
    frame.scope = scope


def undo_all(frame: Frame) -> Generator[Effect, Any, None]:
    """Undo what the run has done; raises `UndoFailed` if that is not all that can be undone."""
    wanted = {record.name for record in undo.marked(frame)}
    targets = yield from undo.all_targets(frame)
    unreached = sorted(wanted - {target.request.name for target in targets})
    if unreached:
        _say(frame, unreached)
    units: list[Unit] = []
    yield from undo.carry_out(frame, targets, units, again=True)
    failed = [unit.path for unit in units if unit.has_failed]
    if not failed and not unreached:
        return
    names = [target.request.name for target in targets if target.name in set(failed)]
    error = UndoFailed(names, unreached)
    try:
        undo.results(frame, units)
    except GroupFailed as group:
        error.__cause__ = group
    frame.state.attribution.remember(error, failed)
    raise error


def _say(frame: Frame, unreached: list[str]) -> None:
    logger.warning(
        "Run %s of %r does not undo %s: the body does not come to it any more.",
        frame.run_id,
        frame.claim.workflow,
        ", ".join(map(repr, unreached)),
    )


def call(frame: Frame) -> BaseException | None:
    """Undo what the run has done, on the calling thread; what that has raised."""
    token = active_pass.set(frame)
    try:
        connections = frame.connections
        with connections.watched(), connections.tidied(f"The undo of run {frame.run_id}"):
            threads.drive(undo_all(frame), frame)
        return None
    except BaseException as error:
        if isinstance(error, frame.host.lets_through):
            raise
        return error
    finally:
        active_pass.reset(token)
