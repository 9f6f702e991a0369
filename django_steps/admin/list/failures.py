"""The filters by how runs failed: by the class of the error, and by the step. Both are left out where nothing has failed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib import admin
from django.db import router
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...ledger import database, reports
from ...models import WorkflowRun
from ...models.failing import at_step, with_error
from ...presentation.errors import short_types
from ...presentation.text import clipped

NONE = "#"  # in place of an empty text, which is no filter; neither a class nor a step can be called so
_NEWEST = 1000  # failed runs whose errors and steps are offered
_LONGEST_NAME = 60  # characters


def parameters_of(workflow: str, error_type: str, failed_step: str) -> dict[str, str]:
    """The parameters of the list that show the runs of a kind, but for the status."""
    return {
        "workflow": workflow,
        ErrorFilter.parameter_name: error_type or NONE,
        StepFilter.parameter_name: failed_step or NONE,
    }


def _newest(request: HttpRequest) -> list[reports.FailureKind]:
    """The kinds of the newest failures, read once for a page."""
    known: Any = request
    if not hasattr(known, "steps_failures"):
        connection = database.connection_for(router.db_for_read(WorkflowRun))
        known.steps_failures = reports.failure_kinds(connection, newest=_NEWEST)
    found: list[reports.FailureKind] = known.steps_failures
    return found


class _KindFilter(admin.SimpleListFilter):
    parameter_name: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        found = {getattr(kind, self.parameter_name) for kind in _newest(request)}
        chosen = request.GET.get(self.parameter_name)
        named = self.labels({*found, *([chosen] if chosen and chosen != NONE else [])} - {""})
        if not named and not chosen:
            return []
        others = [(NONE, _("none"))] if "" in found or chosen == NONE else []
        return [*sorted(named.items(), key=lambda item: (item[1].lower(), item[0])), *others]

    def labels(self, found: Collection[str]) -> dict[str, str]:
        raise NotImplementedError

    @property
    def chosen(self) -> str | None:
        """What is asked for; None for everything."""
        return "" if self.value() == NONE else self.value() or None


class ErrorFilter(_KindFilter):
    """By the class of the error: its dotted path, or in an address also its name alone."""

    title = gettext_lazy("error")
    parameter_name = "error_type"

    def labels(self, found: Collection[str]) -> dict[str, str]:
        return {kind: clipped(name, _LONGEST_NAME) for kind, name in short_types(found).items()}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.chosen is None else with_error(queryset, self.chosen)


class StepFilter(_KindFilter):
    """By the step that failed: its path without keys, or in an address also with them."""

    title = gettext_lazy("failed step")
    parameter_name = "failed_step"

    def labels(self, found: Collection[str]) -> dict[str, str]:
        return {name: clipped(name, _LONGEST_NAME) for name in found}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.chosen is None else at_step(queryset, self.chosen)
