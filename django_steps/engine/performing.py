"""What a `step` argument talks to: it replays what is recorded, and has a driver carry out the rest."""

from __future__ import annotations

from typing import Any, NoReturn

from ..core import clock
from ..core.names import MAX_LENGTH
from ..definitions.requests import Gather, Request, Undo
from ..errors import ClaimLost, StepsError
from . import fingerprints
from .continuing import continuation
from .drivers import threads
from .ending import Ended, Ending
from .frame import MISTAKES, Frame
from .operations import gather, undo
from .operations.table import OPERATIONS
from .units import Unit


class Performing:
    """Carries out the requests of a body or a branch."""

    __slots__ = ("frame",)

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def path(self, name: str) -> str:
        """The name under which something is recorded that is called `name` here."""
        scope = self.frame.scope
        return name if not scope.branch and len(name) <= MAX_LENGTH else scope.path(name)

    def define(self, path: str) -> None:
        """A step is defined: its name is taken, and it has to be run."""
        try:
            self.frame.check(path)
            self.frame.scope.define(path)
        except MISTAKES as mistake:
            self._has_made(mistake)
            raise

    def _has_made(self, mistake: StepsError) -> None:
        """A mistake fails the run. Where a branch only replays, it only ends that call."""
        frame = self.frame
        if frame.replay is not None and frame.unit is not None:
            frame.replay.mistakes.append(mistake)
            frame.leave(clock.NEVER_US)
        frame.state.mistake = mistake

    def continue_as_new(self, input: Any) -> Any:
        """What a body returns to go on as a new run with this input."""
        return continuation(self.frame, input)

    def refuse(self, mistake: StepsError) -> NoReturn:
        """Raise a mistake of the code, which fails the run even if the body catches it."""
        self.frame.state.mistake = mistake
        raise mistake

    def perform(self, request: Request) -> Any:
        """Replay a recorded operation, or carry it out and record its outcome; what the body gets."""
        try:
            return self._perform(request)
        except MISTAKES as mistake:  # of the last one, which may be the record of the one before
            self._has_made(mistake)
            raise
        except ClaimLost:
            self.frame.end(Ending(Ended.LOST))

    def _perform(self, request: Any) -> Any:
        frame, operation = self.frame, OPERATIONS.get(type(request))
        if operation is None:
            return self._undo(request) if isinstance(request, Undo) else self._gather(request)
        frame.check(request.name)
        frame.scope.note(request)
        name = operation.recorded_as(frame, request)
        for interceptor in frame.interceptors:
            interceptor.reached(frame.claim, request.name, frame.scope.branch)
        recorded = frame.scope.look_up(name, operation.kind)
        fingerprints.compare(frame, request, recorded)
        if recorded is None or not operation.is_over(frame, recorded):
            frame.guard.check_transaction(name)
            recorded = threads.drive(operation.begin(frame, request, name, recorded), frame)
        frame.scope.deliver(recorded)
        return operation.outcome(frame, request, recorded)

    def _gather(self, request: Gather) -> tuple[Any, ...]:
        frame = self.frame
        frame.check(request.name)
        frame.scope.note(request)
        units: list[Unit] = []
        threads.drive(gather.begin(frame, request, OPERATIONS, units), frame)
        return gather.results(frame, request, units)

    def _undo(self, request: Undo) -> None:
        frame = self.frame
        frame.check(request.name)
        units: list[Unit] = []
        threads.drive(undo.begin(frame, request, units), frame)
        undo.results(frame, units)
