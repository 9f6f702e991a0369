"""Querysets that speak the language of runs: which are pending, active, failed, finished; and controls for many at once."""

from __future__ import annotations

from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from django.db import models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.context import refuse_control_outside_step
from ..core.event import Event
from ..core.tags import ABOUT
from ..errors import StepsError
from ..ledger import controls as ledger
from ..ledger import database, events, notify, resuming
from ..ledger.events import NewEvent, To
from ..values import references
from . import sending
from .columns import RunColumns
from .controls import follow_cancel, log_control
from .tagging import having, pairs

M = TypeVar("M", bound=RunColumns, covariant=True)


class Skipped(NamedTuple):
    """A run that a control left alone, and why."""

    run_id: UUID
    reason: str


class BulkResult(NamedTuple):
    """What a control did to many runs: the ids of those it changed, and those it skipped with the reasons."""

    done: list[UUID]
    skipped: list[Skipped]


class WorkflowRunQuerySet(models.QuerySet[M]):
    """The runs of the database, with controls that report `(done, skipped)`."""

    def pending(self) -> Self:
        """Runs that wait for a worker, or for the time they were delayed to."""
        return self.filter(status="pending")

    def active(self) -> Self:
        """Runs that have not ended."""
        return self.filter(status__in=self.model.ACTIVE)

    def failed(self) -> Self:
        """Runs that failed."""
        return self.filter(status="failed")

    def finished(self) -> Self:
        """Runs that have ended: succeeded, failed or canceled."""
        return self.filter(status__in=self.model.FINISHED)

    def tagged(self, /, **tags: str) -> Self:
        """Runs that have all of these tags: `WorkflowRun.objects.tagged(tenant="acme")`.

        Raises `TypeError`, `ValueError` or `InvalidName` for what can't be a tag.
        """
        found = self
        for name, value in pairs(tags):
            found = found.filter(pk__in=having(name, value))
        return found

    def about(self, instance: models.Model) -> Self:
        """Runs about an instance of a model, those included that such runs have invoked: `WorkflowRun.objects.about(order)`.

        Raises `TypeError` for what is no instance, `ValueError` for one that isn't saved.
        """
        return self.filter(pk__in=having(ABOUT, references.reference(instance)))

    def retry(self, from_step: str | None = None, by: str = "") -> BulkResult:
        """Retry each of these runs, as `run.retry()` does; those that can't be are skipped with the reason."""
        refuse_control_outside_step("retry")
        return self._each(self._retry, from_step, by)

    def cancel(self, reason: str = "", by: str = "", undo: bool = False) -> BulkResult:
        """Cancel each of these runs, as `run.cancel()` does; those that can't be are skipped with the reason."""
        refuse_control_outside_step("cancel")
        return self._each(self._cancel, reason, by, undo)

    def pause(self, reason: str = "", by: str = "") -> BulkResult:
        """Pause each of these runs, as `run.pause()` does; those that can't be are skipped with the reason."""
        refuse_control_outside_step("pause")
        return self._each(ledger.pause, reason, by)

    def resume(self, by: str = "") -> BulkResult:
        """Resume each of these runs, as `run.resume()` does; those that can't be are skipped with the reason."""
        refuse_control_outside_step("resume")
        return self._each(self._resume, by)

    def send_event(self, name: str, payload: Any = None, *, id: str | None = None, by: str = "") -> BulkResult:
        """Send an event to each of these runs, as `run.send_event()` does; those that can't take it are skipped with the
        reason. What was sent before with the same id counts as done."""
        refuse_control_outside_step("send_event")
        new = sending.prepared(Event(name, payload, id=id, by=by))
        return self._each(self._send_event, new)

    def _send_event(self, connection: BaseDatabaseWrapper, run_id: UUID, new: NewEvent) -> None:
        events.send(connection, To(run_id=run_id), new)

    def _retry(self, connection: BaseDatabaseWrapper, run_id: UUID, from_step: str | None, by: str) -> None:
        ledger.retry(connection, run_id, from_step)
        log_control(connection, run_id, "retried", by)

    def _resume(self, connection: BaseDatabaseWrapper, run_id: UUID, by: str) -> None:
        if resuming.resume(connection, run_id):
            log_control(connection, run_id, "resumed", by)

    def _cancel(self, connection: BaseDatabaseWrapper, run_id: UUID, reason: str, by: str, undo: bool) -> None:
        if ledger.cancel(connection, run_id, reason, by, undo=undo):
            follow_cancel(connection, run_id)

    def _each(self, control: Any, *arguments: Any) -> BulkResult:
        connection = database.connection_for(router.db_for_write(self.model))
        notify.ensure_possible(connection)
        result = BulkResult([], [])
        for run_id in list(self.values_list("pk", flat=True)):
            try:
                control(connection, run_id, *arguments)
            except StepsError as error:
                result.skipped.append(Skipped(run_id, str(error)))
            else:
                result.done.append(run_id)
        if result.done:
            notify.workers(connection)
        return result
