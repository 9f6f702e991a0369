"""The filters by what a run has to do with others: what it waits for, and whose child it is.

Both are left out where they have nothing to say.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import router
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Length, Replace, StrIndex
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...ledger import database, moves, reports
from ...models import WorkflowRun
from ...presentation.text import clipped

EVENTS, CHILDREN, _EVENT = "events", "children", "event:"
_STEPS = Value(f"\n{moves.CHILDREN}")
ROOTS = "none"
_NAMED = 20  # events
_LONGEST_NAME = 40  # characters


def waits_for(event: str) -> str:
    """The value of the filter for runs that wait for an event."""
    return f"{_EVENT}{event}"


class WaitsFilter(admin.SimpleListFilter):
    """By what a waiting run waits for: any event, one of this name, child runs."""

    title = gettext_lazy("what it waits for")
    parameter_name = "waits_for"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        chosen = request.GET.get(self.parameter_name)
        found = reports.events_waited_for(database.connection_for(router.db_for_read(WorkflowRun)))
        names = sorted(filter(None, found), key=lambda name: (-found[name], name))[:_NAMED]
        if chosen and chosen.startswith(_EVENT) and chosen.removeprefix(_EVENT) not in names:
            names.append(chosen.removeprefix(_EVENT))
        if not found and not chosen:
            return []
        named = [(waits_for(name), _("event “%(name)s”") % {"name": clipped(name, _LONGEST_NAME)}) for name in names]
        return [(EVENTS, _("any event")), *named, (CHILDREN, _("child runs"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        waiting: QuerySet[Any] = queryset.filter(status=WorkflowRun.Status.WAITING, phase=WorkflowRun.Phase.TIMED)
        if value == EVENTS:  # a name that is not that of a step with children: `waits_for` says how they are told apart
            waiting = waiting.alias(
                names=Length(Replace("waits_for", Value("\n"))), others=Length(Replace("waits_for", _STEPS))
            )
            return waiting.filter(names__lt=F("others"))
        if value == CHILDREN:
            return waiting.filter(waits_for__contains=f"\n{moves.CHILDREN}")
        if not value.startswith(_EVENT):
            return queryset.none()
        listed = moves.listed([value.removeprefix(_EVENT)])
        # Of these two some databases distinguish upper and lower case with one only.
        waiting = waiting.alias(place=StrIndex("waits_for", Value(listed)))
        return waiting.filter(waits_for__contains=listed, place__gt=0)


class ParentFilter(admin.SimpleListFilter):
    """By whose child a run is: nobody's, or that of the run whose page leads here."""

    title = gettext_lazy("parent")
    parameter_name = "parent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        chosen = request.GET.get(self.parameter_name)
        if not chosen and not reports.has_children(database.connection_for(router.db_for_read(WorkflowRun))):
            return []
        found: list[tuple[Any, Any]] = [(ROOTS, _("none"))]
        if chosen and chosen != ROOTS:
            found.append((chosen, _("run …%(end)s") % {"end": chosen[-12:]}))
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        if value == ROOTS:
            return queryset.filter(parent__isnull=True)
        return queryset.filter(parent=UUID(value), parent_item__isnull=False)
