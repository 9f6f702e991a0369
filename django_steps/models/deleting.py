"""Deleting runs where others have a part in it: foreign keys of other apps, receivers of delete signals.

Then runs go as Django deletes them, by its collector, and one that can't go holds up no other. Where they concern only the
tables here, the statements of `ledger/pruning.py` are enough. Not here: who may delete what (`admin`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.deletion import Collector, ProtectedError, RestrictedError
from django.db.models.signals import post_delete, pre_delete

from ..ledger import database, pruning
from .event import WorkflowEvent
from .log import WorkflowLog
from .run import WorkflowRun
from .step import StepRecord
from .tag import WorkflowTag

_OWN = (WorkflowRun, StepRecord, WorkflowEvent, WorkflowLog, WorkflowTag)


def relations() -> Iterator[Any]:
    """What points from the models of others at runs and their steps."""
    for model in _OWN:
        for field in model._meta.get_fields(include_hidden=True):
            is_reverse = field.auto_created and not field.concrete and (field.one_to_one or field.one_to_many)
            if is_reverse and field.related_model not in _OWN:
                yield field
        # A GenericRelation that somebody added.
        yield from (field for field in model._meta.private_fields if hasattr(field, "bulk_related_objects"))


def concerns_others() -> bool:
    """Whether deleting runs is more than deleting rows of the tables here."""
    return any(relations()) or any(
        signal.has_listeners(model) for model in _OWN for signal in (pre_delete, post_delete)
    )


def delete(connection: BaseDatabaseWrapper, ids: Sequence[UUID]) -> int:
    """Delete those of the runs that have ended and that nobody has locked, with whatever Django deletes along; how many.

    All or none: raises what the first that can't go raises.
    """
    with database.writing(connection):
        runs = WorkflowRun.objects.using(connection.alias).filter(pk__in=ids, phase=WorkflowRun.Phase.ENDED)
        skips = connection.features.has_select_for_update_skip_locked
        found = list(runs.select_for_update(skip_locked=skips))
        collector = Collector(using=connection.alias, origin=runs)
        collector.collect(found)
        collector.delete()
    return len(found)


def reason_of(error: Exception) -> str:
    """Why a run could not be deleted. What fails because the database is not well is no reason, and is raised."""
    if isinstance(error, (OperationalError, InterfaceError)):
        raise error
    if isinstance(error, (ProtectedError, RestrictedError)):
        return str(error.args[0])
    return f"{type(error).__name__}: {error}"


class Pruner:
    """Deletes runs that ended long ago, batch by batch. What can't go is counted and stays, and the rest goes.

    `reason` says why the first that was kept could not be deleted.
    """

    def __init__(self, workflows: Sequence[str] | None = None) -> None:
        self.workflows = workflows  # only runs of these
        self.deleted = 0
        self.kept = 0
        self.reason = ""
        self._after: dict[str, pruning.Place] = {}  # by status: everything up to here was tried
        self._is_refused = False

    def batch(self, connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str] = ()) -> bool:
        """Delete a batch of runs that ended before a machine time; whether there may be more."""
        if self._is_refused or concerns_others():
            return self._with_care(connection, before, statuses)
        try:
            deleted = pruning.prune(connection, before, statuses, workflows=self.workflows)
        except IntegrityError:  # a foreign key of a table that is no model's
            self._is_refused = True
            return True
        self.deleted += deleted
        return deleted > 0

    def _with_care(self, connection: BaseDatabaseWrapper, before: int, statuses: Sequence[str]) -> bool:
        places = pruning.oldest(connection, before, statuses, after=self._after, workflows=self.workflows)
        if not places:
            return False
        deleted = self._try(connection, places) if len(places) > 1 else None
        if deleted is None:
            deleted = sum(self._one(connection, place) for place in places)
        self.deleted += deleted
        if deleted < len(places):
            self._after[places[-1].status] = places[-1]
        return True

    def _try(self, connection: BaseDatabaseWrapper, places: Sequence[pruning.Place]) -> int | None:
        """All at once, as is usual; None if one of them can't go."""
        try:
            return delete(connection, [place.run_id for place in places])
        except Exception as error:
            reason_of(error)
            return None

    def _one(self, connection: BaseDatabaseWrapper, place: pruning.Place) -> int:
        try:
            return delete(connection, [place.run_id])
        except Exception as error:
            reason = reason_of(error)
            self.reason = self.reason or reason
            self.kept += 1
            return 0
