"""Calls the body of a run over its recording: nothing is executed, nothing written, and no time passes."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ..definitions import Workflow, get_workflow
from ..engine import conclusion
from ..engine.async_execution import AsyncPass
from ..engine.ending import Ended, Ending
from ..engine.execution import Pass, clean_context
from ..engine.history import History
from ..engine.host import Direct
from ..engine.replay import Replay
from ..engine.slices import Order, Slices
from ..errors import UnknownWorkflow
from ..ledger import histories
from ..ledger.claims import Claim
from . import verdicts, writes
from .recordings import Recording
from .verdicts import Verdict


def replay(recording: Recording, alias: str, workflow: Workflow[Any, Any] | None = None) -> Verdict:
    """Replay a run on the calling thread, whose connection to the database `alias` it reads from. `workflow`: whose body is
    called; that of the run by default."""
    if workflow is None:
        try:
            workflow = get_workflow(recording.workflow, recording.version)
        except UnknownWorkflow as unknown:
            return verdicts.unknown(recording, unknown)
    host, claim, seen = _Host(alias), recording.claim(), Replay()
    history = History(recording.records, lambda name: histories.long_output(host.connection(), claim.run_id, name))
    with writes.refused() as refused:
        call = _call_async if workflow.is_async else _call_plain
        current, error = call(workflow, claim, history, host, seen, recording)
    return verdicts.judge(recording, current, seen, error, refused)


Called = tuple[Pass, BaseException | None]  # the pass, and what its body raised


def _call_plain(
    workflow: Workflow[Any, Any], claim: Claim, history: History, host: _Host, seen: Replay, recording: Recording
) -> Called:
    current = Pass(workflow, claim, history, host)
    _prepare(current, seen, recording)
    return current, _error_of(current, clean_context().run(current.call_body))


def _call_async(
    workflow: Workflow[Any, Any], claim: Claim, history: History, host: _Host, seen: Replay, recording: Recording
) -> Called:
    with Slices(host) as slices:
        current = AsyncPass(workflow, claim, history, slices.host, slices.loop)
        _prepare(current, seen, recording)
        host.current = current
        slices.noting(lambda known: None)(current)
        return current, _error_of(current, slices.run(current.call()))


def _error_of(current: Pass, called: tuple[Any, BaseException | None]) -> BaseException | None:
    """What a body has failed by that has come to its end."""
    return None if current.state.ending is not None else conclusion.error_of(current.frame, *called)


def _prepare(current: Pass, seen: Replay, recording: Recording) -> None:
    current.frame.scope.replay, current.state.only_replays = seen, True
    current.known_of_run = dict(recording.known)


class _InOrder:
    """What comes first is done first."""

    def chosen(self, number: int) -> int:
        return 0

    def hint(self) -> str:
        return ""


class _Host(Direct):
    """A place where passes only replay: the calling thread and its connection, which reads."""

    logs_failures = False

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.order: Order = _InOrder()
        self.current: AsyncPass | None = None

    def record(self, write: Any) -> NoReturn:
        raise AssertionError("A replay records nothing.")

    def finish(self, end: Any) -> NoReturn:
        raise AssertionError("A replay ends no run.")

    def tell_parent(self, parent: Any, step: str, status: str) -> NoReturn:
        raise AssertionError("A replay tells nobody.")

    def execute_other(self) -> bool:
        return False

    def others_due(self) -> float:
        return math.inf

    def wait(self, seconds: float) -> None:
        """Nothing goes on but by time: this is as far as the run is. What timers of the body lead to has come by now."""
        assert self.current is not None
        self.current.state.ending = Ending(Ended.RELEASED)
        self.current.desk.end()
