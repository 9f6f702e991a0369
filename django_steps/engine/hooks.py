"""Turning what happens to runs and steps into signals; costs nothing where nobody listens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import router

from .. import signals
from ..core import clock
from ..core.context import active_pass
from ..ledger.claims import Claim
from ..ledger.records import StepWrite
from ..models import WorkflowRun
from .ending import Ended, Ending

if TYPE_CHECKING:
    from django.dispatch import Signal

logger = logging.getLogger("django_steps")

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
        **known,
    }
    # In the order of the model's fields, which `from_db` relies on.
    names = [field.attname for field in WorkflowRun._meta.concrete_fields if field.attname in fields]
    return WorkflowRun.from_db(alias, names, [fields[name] for name in names])


def run_claimed(claim: Claim) -> None:
    """The body of a run is about to be called; told the first time."""
    if claim.is_first:
        _send(signals.run_first_claimed, claim)


def pass_ended(claim: Claim, ending: Ending) -> None:
    """A pass over a run has ended; only a final ending is told."""
    signal = _OF_ENDING.get(ending.how)
    if signal is None:
        return
    known: dict[str, Any] = {"status": ending.how.value}
    if ending.finish is not None:
        known |= {
            "output_text": ending.finish.output,
            "error_text": ending.finish.error,
            "finished_at": clock.to_datetime(ending.finish.finished_at),
        }
    _send(signal, claim, known)


def step_ended(claim: Claim, write: StepWrite, error: BaseException | None) -> None:
    """An attempt of a step has succeeded or failed, and is recorded."""
    signal = signals.step_failed if error is not None else signals.step_succeeded
    _send(signal, claim, step=write.name)


def run_ended(run_id: UUID) -> None:
    """A run ended without a pass: its workers kept dying, or the one that should have let go of it did."""
    alias = router.db_for_write(WorkflowRun)
    run = WorkflowRun.objects.using(alias).filter(pk=run_id).first()
    if run is not None:
        _tell(signals.run_canceled if run.status == WorkflowRun.Status.CANCELED else signals.run_failed, run)


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
