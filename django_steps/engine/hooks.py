"""Turning what happens to runs and steps into signals: an interceptor that is there only where somebody listens."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Sequence
from typing import Any
from uuid import UUID

from django.db import router
from django.dispatch import Signal

from .. import failures, signals
from ..core import clock
from ..core.context import active_pass
from ..core.states import UNDO, StepStatus
from ..ledger.claims import Claim
from ..ledger.records import StepWrite
from ..models import WorkflowRun
from .ending import Ended, Ending
from .interceptors import Interceptor
from .operations.attempts import Attempt, Executed

logger = logging.getLogger("django_steps")

_AT_ONCE = 200  # runs that are loaded at a time
_WITH_FUNCTIONS = ("step", "poll", UNDO)
_OF_ENDING = {
    Ended.SUCCEEDED: signals.run_succeeded,
    Ended.FAILED: signals.run_failed,
    Ended.CANCELED: signals.run_canceled,
}


def run_instance(claim: Claim, alias: str, **known: Any) -> WorkflowRun:
    """The run of a claim as a model instance, without a query; what is not known here is loaded when it is read."""
    fields = {
        "id": claim.run_id,
        "workflow": claim.workflow,
        "version": claim.version,
        "queue": claim.queue,
        "status": WorkflowRun.Status.RUNNING,
        "input_text": claim.input,
        "attempts": claim.attempts,
        "recoveries": claim.recoveries,
        "worker_id": claim.worker_id,
        "started_at": clock.to_datetime(claim.started_at),
        "tags_text": claim.tags,
        **known,
    }
    # In the order of the model's fields, which `from_db` relies on.
    names = [field.attname for field in WorkflowRun._meta.concrete_fields if field.attname in fields]
    return WorkflowRun.from_db(alias, names, [fields[name] for name in names])


def _send_suspended(claim: Claim, ending: Ending, until_us: int) -> None:
    suspension = ending.suspension
    if suspension is None or not suspension.is_waiting:
        _send(signals.run_suspended, claim, {"status": "sleeping"}, until=clock.to_datetime(until_us))
        return
    until = None if suspension.until_us is None else clock.to_datetime(suspension.until_us)
    known = {"status": "waiting", "waits_for": suspension.waits_for, "waits_until_us": suspension.until_us}
    _send(signals.run_suspended, claim, known, until=until)


class Signals(Interceptor):
    """Sends the signals of passes, attempts and runs."""

    def around_pass(self, claim: Claim) -> Generator[None, Ending, Ending]:
        if claim.is_first:
            _send(signals.run_first_claimed, claim)
        _send(signals.pass_started, claim)
        ending = yield
        if ending.how is Ended.SUSPENDED and ending.wakes_at_us is not None:
            _send_suspended(claim, ending, ending.wakes_at_us)
        _send(signals.pass_ended, claim, how=ending.how.value)
        run_left(claim, ending)
        return ending

    def around_attempt(self, attempt: Attempt) -> Generator[None, Executed, Executed]:
        _send(signals.step_started, attempt.claim, step=attempt.request.name, attempt=attempt.number)
        return (yield)

    def recorded(self, claim: Claim, write: StepWrite, error: BaseException | None) -> None:
        if write.status == StepStatus.CANCELED:  # neither
            return
        if write.kind in _WITH_FUNCTIONS and not (write.status == StepStatus.WAITING and error is None):
            _send(signals.step_succeeded if error is None else signals.step_failed, claim, step=write.name)


_SIGNALS = (Signals(),)
_ALL = [signal for signal in vars(signals).values() if isinstance(signal, Signal)]


def listening() -> Sequence[Interceptor]:
    """What sends the signals, or nothing where no receiver is connected: read when a pass begins."""
    return _SIGNALS if any(signal.receivers for signal in _ALL) else ()


def run_left(claim: Claim, ending: Ending) -> None:
    """A pass has left its run, or the run was released without one: only the end of a run is sent."""
    signal = _OF_ENDING.get(ending.how)
    if signal is None:
        return
    known: dict[str, Any] = {"status": ending.how.value}
    if ending.finish is not None:
        known |= {
            "output_text": ending.finish.output,
            "error_text": ending.finish.error,
            "finished_at": clock.to_datetime(ending.finish.finished_at),
            "continued_as_id": ending.successor,
        }
    _send(signal, claim, known)


def step_overdue(claim: Claim, step: str, attempt: int, stack: str) -> None:
    """A step goes on although its time is over."""
    _send(signals.step_overdue, claim, step=step, attempt=attempt, stack=stack)


def run_ended(run_id: UUID) -> None:
    """A run ended without a pass: its workers died too often, or the one that should have released it died."""
    alias = router.db_for_write(WorkflowRun)
    run = WorkflowRun.objects.using(alias).filter(pk=run_id).first()
    if run is not None:
        if run.status == WorkflowRun.Status.FAILED:
            log_failure(run.pk, run.workflow, run.error_text)
        _tell(signals.run_canceled if run.status == WorkflowRun.Status.CANCELED else signals.run_failed, run)


def children_canceled(run_ids: Collection[UUID]) -> None:
    """Runs ended without a pass, since whoever had begun them wants nothing of them any more."""
    if not signals.run_canceled.has_listeners(WorkflowRun):
        return
    runs = WorkflowRun.objects.using(router.db_for_write(WorkflowRun))
    ids = list(run_ids)
    for start in range(0, len(ids), _AT_ONCE):
        for run in runs.filter(pk__in=ids[start : start + _AT_ONCE], status=WorkflowRun.Status.CANCELED).order_by("pk"):
            _tell(signals.run_canceled, run)


def log_failure(run_id: UUID, workflow: str, text: str | None, error: BaseException | None = None) -> None:
    """Write to the log that a run has failed for good, so that error trackers learn of it."""
    shown = failures.summary(text) or {}
    step = shown.get("step")
    where = f" in step {step!r}" if step else ""
    logger.error(
        "Run %s of %r failed%s: %s: %s",
        run_id,
        workflow,
        where,
        shown.get("type"),
        shown.get("message"),
        exc_info=error and (type(error), error, failures.users_traceback(error)),
        extra={"run_id": str(run_id), "workflow": workflow, "step": step, "is_end_of_run": True},
    )


def _send(signal: Signal, claim: Claim, known: dict[str, Any] | None = None, **details: Any) -> None:
    # The first condition is the quicker one, and false for the signals of steps unless somebody asked for them.
    if signal.receivers and signal.has_listeners(WorkflowRun):
        _tell(signal, run_instance(claim, router.db_for_write(WorkflowRun), **(known or {})), **details)


def _tell(signal: Signal, run: WorkflowRun, **details: Any) -> None:
    """Send a signal. A receiver is no part of the body: it may start runs, and whatever it raises stays here."""
    token = active_pass.set(None)
    try:
        signal.send_robust(sender=WorkflowRun, run=run, **details)
    except BaseException:  # what `send_robust` lets through: SystemExit, say
        logger.exception("A receiver of a signal about run %s broke off.", run.pk)
    finally:
        active_pass.reset(token)
