"""How a pass ends, once its body has: what the run becomes, and the writes for that.

Each is a core, as operations have them: a driver carries out what takes time.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from .. import failures, values
from ..core.retries import RetryPolicy
from ..core.states import Cause
from ..definitions import Workflow
from ..errors import ClaimLost, EndlessBody, StepNotRun
from ..ledger import continuing, expiry, overlaps, transitions
from ..ledger.claims import Claim
from ..ledger.records import Outcome
from ..ledger.transitions import Finish
from ..ledger.waits import Suspension
from . import hooks, stopping
from .continuing import Continuation
from .ending import Ended, Ending
from .frame import Frame, ended_by
from .host import Host
from .operations import undo
from .operations.base import Announce, Call, Effect, End, Tell, write_suspension, write_tags

logger = logging.getLogger("django_steps")

Conclusion = Generator[Effect, Any, Ending]

_RELEASING = (Ended.CANCELED, Ended.RELEASED, Ended.LOST)


def conclude(frame: Frame, workflow: Workflow[Any, Any], value: Any, error: BaseException | None) -> Conclusion:
    """Bring the run to where a call of its body has left it: what it returned, or what it raised."""
    state, host = frame.state, frame.host
    if state.ending is None and state.is_expired:  # while the last step was executed, or the body
        state.ending = Ending(Ended.TIMED_OUT)
    if state.ending is not None and state.ending.how is Ended.TIMED_OUT:
        return (yield from _timed_out(frame))
    if state.ending is not None:
        return (yield from settled(frame.claim, frame.host, state.ending))
    error = error_of(frame, value, error)
    if error is None and isinstance(value, Continuation):
        return (yield from _continued(frame, value))
    if error is None:
        try:
            output = values.encode(value, max_bytes=frame.host.limits.max_value_bytes)
        except Exception as refused:
            error = refused
        else:
            details = frame.state.details.rest()
            yield from write_tags(frame)
            outcome, ending = yield from _end(frame.claim, host, Ended.SUCCEEDED, output=output, details=details)
            if outcome is Outcome.WRITTEN:
                yield from _leave_children(frame)
            return (yield from _ended(frame, outcome, ending))
    return (yield from _raised(frame, workflow, error))


def error_of(frame: Frame, value: Any, error: BaseException | None) -> BaseException | None:
    """What a call of the body has failed by: a mistake, whatever the body made of it; what it raised; or what is wrong with its
    end."""
    error = frame.state.mistake or error or frame.guard.take_misuse()
    return error or frame.scope.mistake_at_the_end() or _not_returned(frame, value)


def _not_returned(frame: Frame, value: Any) -> StepNotRun | None:
    """What is wrong where a body has called `continue_as_new()` and returned something else."""
    if frame.state.continuation is None or value is frame.state.continuation:
        return None
    return StepNotRun(
        "continue_as_new() was called, and the body returned something else. Write return step.continue_as_new(…)."
    )


def _continued(frame: Frame, value: Continuation) -> Conclusion:
    """Let another run take over."""
    claim, host = frame.claim, frame.host
    finish = _finish(claim, Ended.SUCCEEDED)
    run_id, token, finished_at = claim.run_id, claim.token, finish.finished_at
    details = frame.state.details.rest()
    yield from write_tags(frame)
    outcome = yield Call(
        lambda: continuing.continue_as(host.connection(), run_id, token, finished_at, value.new, details)
    )
    if outcome is Outcome.WRITTEN:
        # Both sides commit first, and then look: whoever sends an event looks whether the run has continued.
        yield Call(lambda: continuing.pass_on_events(host.connection(), run_id, value.new.id))
        yield from _leave_children(frame)
    return (yield from _ended(frame, outcome, Ending(Ended.SUCCEEDED, finish=finish, successor=value.new.id)))


def _raised(frame: Frame, workflow: Workflow[Any, Any], error: BaseException) -> Conclusion:
    claim, host, details = frame.claim, frame.host, frame.state.details.rest()
    steps = frame.state.attribution.steps_of(error)
    text = failures.with_steps(_error_text(frame, error), steps)
    policy: RetryPolicy | None = workflow.retry
    delay = _delay(claim, policy, error) if policy and failures.is_retryable(text) else None
    yield from write_tags(frame)
    if delay is None or frame.history.is_handled(steps) or undo.before_own_error(frame, steps):
        outcome, ending = yield from _end(claim, host, Ended.FAILED, error=text, details=details)
        if outcome is Outcome.WRITTEN:
            yield from _leave_children(frame)
        if outcome is Outcome.WRITTEN and host.logs_failures:
            hooks.log_failure(claim.run_id, claim.workflow, text, error)
        return (yield from _ended(frame, outcome, ending))
    due_us = claim.now() + delay // timedelta(microseconds=1)
    outcome = yield Call(
        lambda: transitions.attempt_again(
            host.connection(), claim.run_id, claim.token, due_us, text, steps, details, claim.new_trace
        )
    )
    return (yield from _ended(frame, outcome, Ending(Ended.SUSPENDED, due_us, reset=steps, error=text)))


def undone(frame: Frame, error: BaseException | None) -> Conclusion:
    """Bring a run that was canceled with undo to its end: canceled, or failed if not all could be undone."""
    state, claim, host = frame.state, frame.claim, frame.host
    if state.ending is not None:
        return (yield from settled(claim, host, state.ending))
    error = state.mistake or error or frame.guard.take_misuse()
    details = state.details.rest()
    yield from write_tags(frame)
    if error is None:
        outcome, ending = yield from _end(claim, host, Ended.CANCELED, details=details)
        return (yield from _ended(frame, outcome, ending))
    text = failures.with_steps(_error_text(frame, error), state.attribution.steps_of(error))
    outcome, ending = yield from _end(claim, host, Ended.FAILED, error=text, details=details)
    if outcome is Outcome.WRITTEN and host.logs_failures:
        hooks.log_failure(claim.run_id, claim.workflow, text, error)
    return (yield from _ended(frame, outcome, ending))


def _timed_out(frame: Frame) -> Conclusion:
    """The timeout of the run is over: it fails, whatever the body makes of that, and no policy tries it again."""
    claim, host = frame.claim, frame.host
    text, details = expiry.error_text(claim.run_id, claim.timeout), frame.state.details.rest()
    yield from write_tags(frame)
    outcome, ending = yield from _end(claim, host, Ended.FAILED, error=text, details=details)
    if outcome is Outcome.WRITTEN:
        yield from _leave_children(frame)
        if host.logs_failures:
            hooks.log_failure(claim.run_id, claim.workflow, text)
    return (yield from _ended(frame, outcome, ending))


def _delay(claim: Claim, policy: RetryPolicy, error: BaseException) -> timedelta | None:
    """How long to wait before the next attempt of the run; None: there is none."""
    delay = policy.delay_after(claim.attempts, error)
    if delay is None:
        return None
    elapsed = timedelta(microseconds=claim.now() - claim.attempting_since)
    return None if policy.is_too_late(elapsed + delay) else delay


def _error_text(frame: Frame, error: BaseException) -> str:
    """The record of the error; where it is a step's own, the step's record, which has the whole traceback."""
    recorded = frame.state.attribution.record_of(error)
    text = frame.history.recorded(recorded).error if recorded else None
    return text or failures.record(error)


def suspended(frame: Frame, suspension: Suspension) -> Conclusion:
    """Suspend the run of an async pass: what it waits for is recorded."""
    outcome, suspension = yield from write_suspension(frame, suspension)
    return (yield from _ended(frame, outcome, Ending(Ended.SUSPENDED, suspension.available_us, suspension=suspension)))


def _ended(frame: Frame, outcome: Outcome, ending: Ending) -> Conclusion:
    """The ending that was asked for, or what came between."""
    if outcome is Outcome.WRITTEN:
        return ending
    return (yield from settled(frame.claim, frame.host, Ending(ended_by(outcome))))


def settled(claim: Claim, host: Host, ending: Ending) -> Conclusion:
    """Release the run, if it is still this pass's to release."""
    if ending.how not in _RELEASING:
        return ending
    has_ended = yield Call(
        lambda: transitions.release(host.connection(), claim.run_id, claim.token, trace=claim.new_trace)
    )
    if not has_ended:  # it is not this pass's, or paused, or it is canceling until its children have ended
        return Ending(Ended.RELEASED) if ending.how is Ended.CANCELED else ending
    yield from _tell_others(claim, host, Ended.CANCELED)
    return Ending(Ended.CANCELED)


def _tell_others(claim: Claim, host: Host, how: Ended) -> Generator[Effect, Any, None]:
    """The run has ended, and that is committed: let the run go on that waits for it, and the next one of its schedule."""
    if claim.parent is not None:
        yield from stopping.tell((yield Tell(*claim.parent, how.value)))
    schedule = claim.schedule
    if schedule is not None:
        yield Call(lambda: overlaps.look(host.connection(), schedule))


def _leave_children(frame: Frame) -> Generator[Effect, Any, None]:
    """The run has ended while it waited for children, which nobody wants any more."""
    if frame.history.waiting_for_children():
        yield from stopping.cancel_children(frame.host, frame.run_id, Cause.PARENT_ENDED)


def _end(
    claim: Claim,
    host: Host,
    how: Ended,
    *,
    output: str | None = None,
    error: str | None = None,
    details: str | None = None,
) -> Generator[Effect, Any, tuple[Outcome, Ending]]:
    """End the run, unless it is no longer this claim's."""
    finish = _finish(claim, how, output=output, error=error)
    finish.details = details
    outcome = yield End(finish)
    if outcome is Outcome.WRITTEN:
        yield from _tell_others(claim, host, how)
    return outcome, Ending(how, finish=finish)


def _finish(claim: Claim, how: Ended, *, output: str | None = None, error: str | None = None) -> Finish:
    return Finish(
        run_id=claim.run_id,
        token=claim.token,
        status=how.value,
        output=output,
        error=error,
        finished_at=claim.now(),
    )


# -- Endings that are no body's ------------------------------------------------------------------------


def failed_of_its_own(claim: Claim, host: Host, error: Exception) -> Conclusion:
    """End a run whose pass raised an error that is neither the body's nor a step's."""
    logger.error("The pass of run %s raised an error of its own.", claim.run_id, exc_info=error)
    text = failures.with_steps(failures.record(error), [])
    try:
        outcome, ending = yield from _end(claim, host, Ended.FAILED, error=text)
        if outcome is Outcome.WRITTEN:
            yield from stopping.cancel_children(host, claim.run_id, Cause.PARENT_ENDED)
    except (Exception, ClaimLost):
        logger.exception("Run %s could not be ended; it is recovered when its lease runs out.", claim.run_id)
        return Ending(Ended.LOST)
    return ending if outcome is Outcome.WRITTEN else Ending(Ended.LOST)


def failed_as_endless(claim: Claim, host: Host, ending: Ending, error: EndlessBody) -> Conclusion:
    """End a run whose body doesn't let its pass end; `ending` is what the pass was ending by."""
    if ending.how in (Ended.CANCELED, Ended.LOST):
        return (yield from settled(claim, host, ending))
    if ending.how is not Ended.SUSPENDED:
        return (yield from failed_of_its_own(claim, host, error))
    text = failures.with_steps(failures.record(error), [])
    end = _finish(claim, Ended.FAILED, error=text)
    if not (yield Call(lambda: transitions.finish_suspended(host.connection(), end))):
        return Ending(Ended.LOST)  # it goes on elsewhere
    yield from stopping.cancel_children(host, claim.run_id, Cause.PARENT_ENDED)
    yield from _tell_others(claim, host, Ended.FAILED)
    return Ending(Ended.FAILED, finish=end)


def carried_out(conclusion: Conclusion, host: Host) -> Ending:
    """Carry a conclusion out on the calling thread."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = conclusion.send(answer) if error is None else conclusion.throw(error)
        except StopIteration as returned:
            ending: Ending = returned.value
            return ending
        try:
            answer, error = _answer(effect, host), None
        except BaseException as raised:
            answer, error = None, raised


def _answer(effect: Effect, host: Host) -> Any:
    if isinstance(effect, End):
        return host.finish(effect.finish)
    if isinstance(effect, Tell):
        return host.tell_parent(effect.parent, effect.step, effect.status)
    if isinstance(effect, Announce):
        return hooks.children_canceled(effect.run_ids)
    assert isinstance(effect, Call)
    return host.write(effect.statement)
