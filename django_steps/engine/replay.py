"""A pass that only replays: the body is called over what is recorded, and each place where more would be done is noted.

Nothing is executed, written or waited for. So it tells what a deploy does to a run in flight (`replaying/`), and what a cancel
with undo has to undo.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NoReturn

from ..core import clock
from ..core.states import PATCH
from ..errors import PassEnded, StepsError
from ..ledger.records import Outcome
from .ending import Ended, Ending
from .frame import Frame
from .operations.base import Commit, Enter, Operation, Record, SideBySide, WaitForOthers


class Replay:
    """What such a pass has come to.

    - `next`: what would be carried out now, by path, with its kind.
    - `left`: the branches that are not over, by path; an empty text is the body.
    - `mistakes`: of the code, in what is side by side or in a branch, where they only end that call.
    """

    def __init__(self) -> None:
        self.next: dict[str, str] = {}
        self.left: set[str] = set()
        self.mistakes: list[StepsError] = []

    def begin(self, operation: Operation[Any], frame: Frame, request: Any, name: str, recorded: Any) -> Any:
        """The core of an operation, up to where it would do something."""
        return self._only_entering(operation.core(frame, request, name, recorded), frame, name, operation.kind)

    def begin_group(self, core: Any, frame: Frame, name: str) -> Any:
        """The same of a group, which has no record."""
        return self._only_entering(core, frame, name, "")

    def _only_entering(self, core: Any, frame: Frame, name: str, kind: str) -> Generator[Any, Any, Any]:
        answer, error = None, None
        known = len(self.next)
        try:
            while True:
                effect = core.send(answer) if error is None else core.throw(error)
                if isinstance(effect, (Record, Commit)):  # nobody writes it, and nothing is to wait for that
                    frame.history.settle(effect.write.position)
                if kind == PATCH and isinstance(effect, Record):
                    answer, error = Outcome.WRITTEN, None  # the way that the run would go, which nobody records
                    continue
                if not isinstance(effect, (Enter, SideBySide)):
                    self._note(frame, name, kind, known)
                    core.close()
                    yield from self._stop(frame, name)
                try:
                    answer, error = (yield effect), None
                except BaseException as raised:
                    answer, error = None, raised
        except StopIteration as returned:  # of the core
            return returned.value
        except PassEnded:  # what is side by side is suspended without an effect
            self._note(frame, name, kind, known)
            raise

    def _note(self, frame: Frame, name: str, kind: str, known: int) -> None:
        self.left.add(frame.scope.branch)
        if len(self.next) == known and kind:  # else what is in it is what comes next
            self.next[name] = kind

    def _stop(self, frame: Frame, name: str) -> Generator[Any, Any, NoReturn]:
        """Go no further here; what is side by side goes on."""
        while frame.is_async:
            yield WaitForOthers(name, clock.NEVER_US, frame.state.waits.news)
        if frame.unit is not None:
            frame.leave(clock.NEVER_US)
        frame.end(Ending(Ended.RELEASED))
