"""Querysets that speak the language of runs: which are pending, active, failed, finished; and verbs for many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID

from django.db import models, router

from . import wakeups
from .errors import StepsError
from .ledger import sql
from .ledger import verbs as ledger

if TYPE_CHECKING:
    from .models import WorkflowRun  # noqa: F401


class Skipped(NamedTuple):
    """A run that a verb left alone, and why."""

    run_id: UUID
    reason: str


class BulkResult(NamedTuple):
    """What a verb did to many runs: the ids of those it changed, and those it skipped with the reasons."""

    done: list[UUID]
    skipped: list[Skipped]


class WorkflowRunQuerySet(models.QuerySet["WorkflowRun"]):
    """The runs of the database, with verbs that report `(done, skipped)`."""

    def pending(self) -> Self:
        """Runs that wait for a worker, or for the time they were delayed to."""
        return self.filter(status="pending")

    def active(self) -> Self:
        """Runs that have not ended."""
        return self.filter(status__in=("pending", "running", "sleeping"))

    def failed(self) -> Self:
        """Runs that failed."""
        return self.filter(status="failed")

    def finished(self) -> Self:
        """Runs that have ended: succeeded, failed or canceled."""
        return self.filter(status__in=("succeeded", "failed", "canceled"))

    def retry(self, from_step: str | None = None) -> BulkResult:
        """Retry each of these runs, as `run.retry()` does; those that can't be are skipped with the reason."""
        return self._each(ledger.retry, from_step)

    def cancel(self) -> BulkResult:
        """Cancel each of these runs, as `run.cancel()` does; those that can't be are skipped with the reason."""
        return self._each(ledger.cancel)

    def _each(self, verb: Any, *arguments: Any) -> BulkResult:
        connection = sql.connection_for(router.db_for_write(self.model))
        result = BulkResult([], [])
        for run_id in list(self.values_list("pk", flat=True)):
            try:
                verb(connection, run_id, *arguments)
            except StepsError as error:
                result.skipped.append(Skipped(run_id, str(error)))
            else:
                result.done.append(run_id)
        if result.done:
            wakeups.notify(connection)
        return result
