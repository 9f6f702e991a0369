"""One pass of one run: call the body against its history, and bring the run to where the call leaves it.

Knows no threads. `run_claim()` is the way in, for workers, the testing kit and whoever else executes runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.urls import set_script_prefix

from .. import failures, values
from ..core.context import active_pass
from ..core.retries import ONE_ATTEMPT, RetryPolicy
from ..definitions import Workflow, get_workflow
from ..definitions.logger import WorkflowLogger
from ..definitions.step import Step
from ..errors import ClaimLost, EndlessBody
from ..ledger import histories, transitions
from ..ledger.claims import Claim
from ..ledger.histories import Recorded
from ..ledger.records import Outcome
from ..ledger.transitions import Finish
from . import hooks
from .ending import Ended, Ending
from .frame import Frame, PassState, ended_by
from .history import History
from .host import Host
from .interceptors import Interceptor, around_pass
from .performing import Performing
from .scopes import Scope

logger = logging.getLogger("django_steps")

_RELEASING = (Ended.CANCELED, Ended.RELEASED, Ended.LOST)


def run_claim(
    claim: Claim,
    host: Host,
    recorded: Sequence[Recorded] | None = None,
    *,
    interceptors: Sequence[Interceptor] = (),
    begun: Callable[[Pass], None] = lambda current: None,
) -> Ending:
    """Execute a claimed run once, and return how the pass ended. What goes wrong here is the run's failure.

    Every pass begins in the same clean context: it sees nothing that another run, or the caller, has set in context variables
    (a tenant, a language, a time zone, the precision of decimals).

    - `recorded`: its history where it is known; otherwise it is loaded.
    - `interceptors`: what stands around the pass, besides the signals.
    - `begun`: called with the pass before its body is, for whoever wants to interrupt it.
    """
    around = [*hooks.listening(), *interceptors]

    def proceed() -> Ending:
        try:
            history = _history(claim, host, recorded)
            current = Pass(get_workflow(claim.workflow, claim.version), claim, history, host, around)
            begun(current)
            return current.run()
        except ClaimLost:
            return Ending(Ended.LOST)
        except Exception as error:
            return _fail(claim, host, error)

    context = Context()
    context.run(_set_script_prefix)
    try:
        return context.run(around_pass, around, claim, proceed)
    except Exception as error:  # of an interceptor
        return _fail(claim, host, error)


def _set_script_prefix() -> None:
    """As `django.setup()` does, so that `reverse()` gives the same as in a command."""
    set_script_prefix("/" if settings.FORCE_SCRIPT_NAME is None else settings.FORCE_SCRIPT_NAME)


def _history(claim: Claim, host: Host, recorded: Sequence[Recorded] | None) -> History:
    if recorded is None:
        loaded = host.write(lambda: histories.load(host.connection(), {claim.run_id: -1}))
        recorded = loaded[claim.run_id]
    return History(
        recorded, lambda name: host.write(lambda: histories.long_output(host.connection(), claim.run_id, name))
    )


class Pass:
    """One call of a body; what it needs of its run is in the frame."""

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        claim: Claim,
        history: History,
        host: Host,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self.workflow, self.claim, self.history, self.host = workflow, claim, history, host
        default_retry = workflow.step_retry or ONE_ATTEMPT
        self.state = PassState(claim, history, default_retry, interceptors, self._arguments_of)
        self.frame = Frame(self.state, host, Scope(history))
        self.state.frames.append(self.frame)

    # -- The story ------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Call the body, and bring the run to where the call leaves it."""
        value, error = self._call_body()
        if self.state.ending is not None:
            return _settled(self.claim, self.host, self.state.ending)
        if self.state.mistake is not None:  # whatever the body made of it
            return self._raised(self.state.mistake)
        return self._returned(value) if error is None else self._raised(error)

    # -- How a body ends ------------------------------------------------------------------------

    def _call_body(self) -> tuple[Any, BaseException | None]:
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

    def _arguments_of(self, frame: Frame, wanted: Sequence[str]) -> dict[str, Any]:
        """What a body or a branch gets by these names, but for the input."""
        arguments: dict[str, Any] = {}
        if "step" in wanted:
            arguments["step"] = Step(Performing(frame))
        if "logger" in wanted:
            scope = frame.scope
            arguments["logger"] = WorkflowLogger(self.workflow.name, self.claim.run_id, lambda: scope.is_replaying)
        if "run" in wanted:
            arguments["run"] = hooks.run_instance(self.claim, self.host.connection().alias)
        return arguments

    def _returned(self, value: Any) -> Ending:
        misuse = self.frame.guard.take_misuse()
        if misuse is not None:
            return self._raised(misuse)
        if (never_run := self.frame.scope.mistake_at_the_end()) is not None:
            return self._raised(never_run)
        try:
            output = values.encode(value, max_bytes=self.host.limits.max_value_bytes)
        except Exception as error:
            return self._raised(error)
        return self._ended(*_finish(self.claim, self.host, Ended.SUCCEEDED, output=output))

    def _raised(self, error: BaseException) -> Ending:
        steps = self.state.attribution.steps_of(error)
        text = failures.with_steps(self._error_text(error), steps)
        policy: RetryPolicy | None = self.workflow.retry
        delay = self._delay(policy, error) if policy and failures.is_retryable(text) else None
        if delay is None or not self._may_reset(steps):
            outcome, ending = _finish(self.claim, self.host, Ended.FAILED, error=text)
            if outcome is Outcome.WRITTEN and self.host.logs_failures:
                hooks.log_failure(self.claim.run_id, self.claim.workflow, text, error)
            return self._ended(outcome, ending)
        claim, host = self.claim, self.host
        due_us = claim.now() + delay // timedelta(microseconds=1)
        outcome = host.write(
            lambda: transitions.attempt_again(host.connection(), claim.run_id, claim.token, due_us, text, steps)
        )
        return self._ended(outcome, Ending(Ended.SUSPENDED, due_us, reset=steps))

    def _delay(self, policy: RetryPolicy, error: BaseException) -> timedelta | None:
        """How long to wait before the next attempt of the run; None: there is none."""
        delay = policy.delay_after(self.claim.attempts, error)
        if delay is None:
            return None
        elapsed = timedelta(microseconds=self.claim.now() - self.claim.attempting_since)
        return None if policy.is_too_late(elapsed + delay) else delay

    def _error_text(self, error: BaseException) -> str:
        """The record of the error; where it is a step's own, the step's record, which has the whole traceback."""
        recorded = self.state.attribution.record_of(error)
        text = self.history.recorded(recorded).error if recorded else None
        return text or failures.record(error)

    def _may_reset(self, steps: list[str]) -> bool:
        """Whether the body has not handled the failures of these steps."""
        return not self.history.is_handled(steps)

    def _ended(self, outcome: Outcome, ending: Ending) -> Ending:
        """The ending that was asked for, or what came between."""
        if outcome is Outcome.WRITTEN:
            return ending
        return _settled(self.claim, self.host, Ending(ended_by(outcome)))


def _settled(claim: Claim, host: Host, ending: Ending) -> Ending:
    """Release the run, if it is still this pass's to release."""
    if ending.how not in _RELEASING:
        return ending
    has_ended = host.write(lambda: transitions.release(host.connection(), claim.run_id, claim.token))
    return Ending(Ended.CANCELED) if has_ended else ending


# -- The end of a run, in one place ------------------------------------------------------------------


def _finish(
    claim: Claim, host: Host, how: Ended, *, output: str | None = None, error: str | None = None
) -> tuple[Outcome, Ending]:
    """End the run, unless it is no longer this claim's."""
    end = _end(claim, how, output=output, error=error)
    return host.finish(end), Ending(how, finish=end)


def _end(claim: Claim, how: Ended, *, output: str | None = None, error: str | None = None) -> Finish:
    return Finish(
        run_id=claim.run_id,
        token=claim.token,
        status=how.value,
        output=output,
        error=error,
        finished_at=claim.now(),
    )


def fail_endless(claim: Claim, host: Host, ending: Ending, error: EndlessBody) -> Ending:
    """End a run whose body doesn't let its pass end; `ending` is what the pass was ending by."""
    if ending.how in (Ended.CANCELED, Ended.LOST):
        return _settled(claim, host, ending)
    if ending.how is not Ended.SUSPENDED:
        return _fail(claim, host, error)
    text = failures.with_steps(failures.record(error), [])
    end = _end(claim, Ended.FAILED, error=text)
    host.write(lambda: transitions.finish_suspended(host.connection(), end))
    return Ending(Ended.FAILED, finish=end)


def _fail(claim: Claim, host: Host, error: Exception) -> Ending:
    """End a run whose pass raised an error that is neither the body's nor a step's."""
    logger.error("The pass of run %s raised an error of its own.", claim.run_id, exc_info=error)
    text = failures.with_steps(failures.record(error), [])
    try:
        outcome, ending = _finish(claim, host, Ended.FAILED, error=text)
    except (Exception, ClaimLost):
        logger.exception("Run %s could not be ended; it is recovered when its lease runs out.", claim.run_id)
        return Ending(Ended.LOST)
    return ending if outcome is Outcome.WRITTEN else Ending(Ended.LOST)
