"""Turning what happens to runs and steps into signals; costs nothing where nobody listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import router

from . import signals
from .endings import Ended, Ending
from .ledger import sql
from .ledger.claims import Claim
from .ledger.records import StepWrite
from .models import WorkflowRun

if TYPE_CHECKING:
    from django.dispatch import Signal

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
        "started_at": sql.to_datetime(claim.started_at),
        **known,
    }
    # In the order of the model's fields, which `from_db` relies on.
    names = [field.attname for field in WorkflowRun._meta.concrete_fields if field.attname in fields]
    return WorkflowRun.from_db(alias, names, [fields[name] for name in names])


def run_claimed(claim: Claim) -> None:
    """A run was claimed for the first time."""
    if not claim.has_history:
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
            "finished_at": sql.to_datetime(ending.finish.finished_at),
        }
    _send(signal, claim, known)


def step_ended(claim: Claim, write: StepWrite, error: BaseException | None) -> None:
    """An attempt of a step has succeeded or failed, and is recorded."""
    signal = signals.step_failed if error is not None else signals.step_succeeded
    _send(signal, claim, step=write.name)


def run_died(run_id: UUID) -> None:
    """A run failed because its workers kept dying."""
    if signals.run_failed.has_listeners(WorkflowRun):
        run = WorkflowRun.objects.using(router.db_for_write(WorkflowRun)).get(pk=run_id)
        signals.run_failed.send_robust(sender=WorkflowRun, run=run)


def _send(signal: Signal, claim: Claim, known: dict[str, Any] | None = None, **details: Any) -> None:
    if signal.has_listeners(WorkflowRun):
        run = run_instance(claim, router.db_for_write(WorkflowRun), **(known or {}))
        signal.send_robust(sender=WorkflowRun, run=run, **details)
