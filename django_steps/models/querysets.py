"""Querysets that speak the language of runs: which are pending, active, failed, finished; and controls for many at once."""

from __future__ import annotations

from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from django.db import models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import signals
from ..core.context import refuse_control_outside_step
from ..errors import StepsError
from ..ledger import controls as ledger
from ..ledger import database, notify
from .columns import RunColumns
from .controls import tell_canceled

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

    def retry(self, from_step: str | None = None) -> BulkResult:
        """Retry each of these runs, as `run.retry()` does; those that can't be are skipped with the reason."""
        refuse_control_outside_step("retry")
        return self._each(ledger.retry, from_step)

    def cancel(self, reason: str = "", by: str = "") -> BulkResult:
        """Cancel each of these runs, as `run.cancel()` does; those that can't be are skipped with the reason."""
        refuse_control_outside_step("cancel")
        return self._each(self._cancel, reason, by)

    def _cancel(self, connection: BaseDatabaseWrapper, run_id: UUID, reason: str, by: str) -> None:
        is_canceled_now = ledger.cancel(connection, run_id, reason, by)
        if is_canceled_now and signals.run_canceled.has_listeners(self.model):
            tell_canceled(self.model._default_manager.using(connection.alias).get(pk=run_id), connection.alias)

    def _each(self, control: Any, *arguments: Any) -> BulkResult:
        connection = database.connection_for(router.db_for_write(self.model))
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
