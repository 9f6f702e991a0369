"""One pass of one run: call the body against its history, and bring the run to where the call leaves it.

Knows no threads. `run_claim()` is the way in, for workers, the testing kit and whoever else executes runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from django.conf import settings
from django.urls import set_script_prefix

from .. import values
from ..core.context import active_pass
from ..core.retries import ONE_ATTEMPT
from ..definitions import Workflow, get_workflow
from ..definitions.logger import WorkflowLogger
from ..definitions.step import Step
from ..errors import ClaimLost
from ..ledger import histories
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from . import conclusion, hooks, marks, undoing
from .connections import Connections
from .ending import Ended, Ending
from .frame import Frame, PassState
from .history import History
from .host import Host, ThreadedHost
from .interceptors import Interceptor, around_pass, everywhere, within
from .performing import Performing
from .scopes import Scope


def run_claim(
    claim: Claim,
    host: ThreadedHost,
    recorded: Sequence[Recorded] | None = None,
    *,
    interceptors: Sequence[Interceptor] = (),
    begun: Callable[[Pass], None] = lambda current: None,
) -> Ending:
    """Execute a claimed run once, and return how the pass ended. What goes wrong here is the run's failure.

    Every pass begins in the same clean context: it sees nothing that another run, or the caller, has set in context variables
    (a tenant, a language, a time zone, the precision of decimals).

    - `recorded`: its history where it is known; otherwise it is loaded.
    - `interceptors`: what stands around the pass, besides the signals and what stands around each.
    - `begun`: called with the pass before its body is, for whoever wants to interrupt it.
    """
    around = [*everywhere, *hooks.listening(), *interceptors]

    def proceed() -> Ending:
        try:
            enter(around, claim)
            history = _history(claim, host, recorded)
            workflow = get_workflow(claim.workflow, claim.version)
            current = Pass(workflow, claim, history, host, around)
            begun(current)
            if not claim.is_undoing:
                return current.run()
            undoing.replay_only(current.frame)
            current.call_body()
            rest = Pass(workflow, claim, history, host, around)
            begun(rest)
            return rest.undo_after(current)
        except ClaimLost:
            return Ending(Ended.LOST)
        except Exception as error:
            return conclusion.carried_out(conclusion.failed_of_its_own(claim, host, error), host)

    try:
        return clean_context().run(within, around_pass(around, claim), proceed)
    except Exception as error:  # of an interceptor
        return conclusion.carried_out(conclusion.failed_of_its_own(claim, host, error), host)


def enter(interceptors: Sequence[Interceptor], claim: Claim) -> None:
    """Let the present context be that of a pass, as far as the interceptors are concerned."""
    for interceptor in interceptors:
        interceptor.in_pass(claim)


def clean_context() -> Context:
    """The context in which a pass begins."""
    context = Context()
    if (
        settings.FORCE_SCRIPT_NAME is not None
    ):  # as `django.setup()` does, so that `reverse()` gives the same as in a command
        context.run(set_script_prefix, settings.FORCE_SCRIPT_NAME)
    return context


def _history(claim: Claim, host: Host, recorded: Sequence[Recorded] | None) -> History:
    if recorded is None:
        recorded = host.write(lambda: loaded(claim, host))
    return History(
        recorded, lambda name: host.write(lambda: histories.long_output(host.connection(), claim.run_id, name))
    )


def loaded(claim: Claim, host: Host) -> Sequence[Recorded]:
    """What the run of a claim has recorded, loaded now."""
    return histories.load(host.connection(), {claim.run_id: -1})[claim.run_id]


class Pass:
    """One call of a body; what it needs of its run is in the frame."""

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        claim: Claim,
        history: History,
        host: Host,
        interceptors: Sequence[Interceptor] = (),
        connections: Connections | None = None,
    ) -> None:
        self.workflow, self.claim, self.history, self.host = workflow, claim, history, host
        default_retry = workflow.step_retry or ONE_ATTEMPT
        lines = host.capture.lines_of(claim) if host.capture is not None else None
        self.state = PassState(claim, history, default_retry, interceptors, self._arguments_of, lines)
        self.frame = Frame(self.state, host, Scope(history, details=self.state.details), None, connections)
        self.state.frames[self.frame] = None
        # What is known of the run besides its claim, by the fields of its model; what isn't is loaded when it is read.
        self.known_of_run: dict[str, Any] = {}

    def run(self) -> Ending:
        """Call the body, and bring the run to where the call leaves it."""
        value, error = self.call_body()
        ending = conclusion.carried_out(conclusion.conclude(self.frame, self.workflow, value, error), self.host)
        if (found := marks.look(self.frame, ending)) is not None:
            marks.say(self.frame, self.host, found)
        return ending

    def undo_after(self, before: Pass) -> Ending:
        """Undo what the pass before has come to, which only replayed, and bring the run to where that leaves it."""
        ending, error = undoing.cut_short(before.frame), None
        if ending is None:
            undoing.take_over(self.frame, before.frame)
            error = undoing.call(self.frame)
        else:
            self.state.ending = ending
        return conclusion.carried_out(conclusion.undone(self.frame, error), self.host)

    def call_body(self) -> tuple[Any, BaseException | None]:
        """What the body returned or raised; its connections are in order by then."""
        token = active_pass.set(self.frame)
        try:
            connections = self.frame.connections
            with connections.watched(), connections.tidied(f"The body of run {self.claim.run_id}"):
                return self.workflow.call_body(self._arguments()), None
        except BaseException as error:
            if isinstance(error, self.host.lets_through):
                raise
            return None, error
        finally:
            active_pass.reset(token)

    def _arguments(self) -> dict[str, Any]:
        arguments = self._arguments_of(self.frame, self.workflow.parameters)
        if "input" in self.workflow.parameters:
            arguments["input"] = self.workflow.to_input(values.decode(self.claim.input))
        return arguments

    def _step_of(self, frame: Frame) -> Any:
        return Step(Performing(frame))

    def _arguments_of(self, frame: Frame, wanted: Sequence[str]) -> dict[str, Any]:
        """What a body or a branch gets by these names, but for the input."""
        arguments: dict[str, Any] = {}
        if "step" in wanted:
            arguments["step"] = self._step_of(frame)
        if "logger" in wanted:
            scope = frame.scope
            arguments["logger"] = WorkflowLogger(
                self.workflow.name, self.claim.run_id, lambda: scope.is_replaying, self.state.lines
            )
        if "run" in wanted:
            arguments["run"] = hooks.run_instance(self.claim, self.host.connection().alias, **self.known_of_run)
        return arguments
