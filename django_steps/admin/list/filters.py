"""The filters beside the list. None of them reads the whole table to say what can be chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib import admin
from django.db import models, router
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ...definitions import registered
from ...ledger import database, reports
from ...models import Worker, WorkflowRun
from ...presentation import runs

UNKNOWN = "unknown"
RETRYING = "retrying"
_TIMED = (
    WorkflowRun.Status.RUNNING,
    WorkflowRun.Status.SLEEPING,
    WorkflowRun.Status.WAITING,
    WorkflowRun.Status.CANCELING,
)
_NEWEST = 1000  # runs whose queues are offered
_READ = ("status", "phase", "attempts", "current_step", "available_at_us", "waits_until_us")
_LOOKED_AT = 5000  # runs among which those that are tried again are looked for, those that are due first


class StatusFilter(admin.SimpleListFilter):
    """By status; the pending runs that are unknown: no worker knows their workflow; and runs that try a step again."""

    title = _("status")
    parameter_name = "status__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [*WorkflowRun.Status.choices, (UNKNOWN, _("unknown")), (RETRYING, _("retrying"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Each status together with what its index goes by."""
        status, phase = self.value(), WorkflowRun.Phase
        if status == UNKNOWN:
            return queryset.filter(phase=phase.UNKNOWN)
        if status == RETRYING:
            return queryset.filter(pk__in=_retrying())
        if status in WorkflowRun.FINISHED:
            return queryset.filter(status=status, finished_at__isnull=False)
        if status in _TIMED:
            return queryset.filter(status=status, phase=phase.TIMED)
        if status == WorkflowRun.Status.PAUSED:
            return queryset.filter(status=status, phase=phase.PARKED)
        return queryset.filter(status=status) if status else queryset


def _retrying() -> list[UUID]:
    """The active runs that have failed and are tried again, or one of whose steps is."""
    Phase = WorkflowRun.Phase
    timed = WorkflowRun.objects.filter(phase=Phase.TIMED).order_by("available_at_us")
    ready = WorkflowRun.objects.filter(phase=Phase.READY).order_by("-priority", "pk")
    looked_at = [run for some in (timed, ready) for run in some.only(*_READ)[:_LOOKED_AT]]
    again = [run.pk for run in looked_at if run.status == run.Status.PENDING and run.attempts > 1]
    return [*again, *runs.retrying_steps(looked_at)]


class _NameFilter(admin.SimpleListFilter):
    def names(self) -> Iterable[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name or "")
        return [(name, name) for name in sorted({*self.names(), *([chosen] if chosen else [])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class WorkflowFilter(_NameFilter):
    """By the names of the workflows that have runs."""

    title = _("workflow")
    parameter_name = "workflow"

    def names(self) -> Iterable[str]:
        return reports.workflow_names(database.connection_for(router.db_for_read(WorkflowRun)))


class QueueFilter(_NameFilter):
    """By the queues that workflows name, workers serve, and the newest runs are in: `start(queue=)` takes any."""

    title = _("queue")
    parameter_name = "queue"

    def names(self) -> Iterable[str]:
        return queue_names()


def queue_names() -> set[str]:
    """The queues that workflows name, workers serve, and the newest runs are in."""
    served = {queue for queues in Worker.objects.values_list("queues", flat=True)[:500] for queue in _texts(queues)}
    used = set(WorkflowRun.objects.order_by("-pk").values_list("queue", flat=True)[:_NEWEST])
    return served | used | {workflow.queue for workflow in registered()}


def _texts(found: Any) -> set[str]:
    """The texts in a list; nothing of what is damaged."""
    return {text for text in found if isinstance(text, str)} if isinstance(found, list) else set()


def with_date_ranges(filters: Iterable[Any], model: type[models.Model]) -> list[Any]:
    """The filters, with date ranges for plain names of date fields; Django's own where `rangefilter` isn't installed."""
    if not apps.is_installed("rangefilter"):
        return list(filters)
    from .date_ranges import RunDateRangeFilter

    return [(item, RunDateRangeFilter) if _is_date(item, model) else item for item in filters]


def has_date_range(request: HttpRequest) -> bool:
    """Whether the request limits the list to a time."""
    return any(value and key.startswith(("created_at__", "finished_at__")) for key, value in request.GET.items())


def _is_date(item: Any, model: type[models.Model]) -> bool:
    with contextlib.suppress(Exception):
        return isinstance(item, str) and isinstance(model._meta.get_field(item), models.DateField)
    return False
