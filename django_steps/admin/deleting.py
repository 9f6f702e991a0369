"""What deleting runs takes along, what forbids it, and for what the user's permissions are missing.

As on Django's own page, by its collector, but without loading the steps of a run, which may be ten thousand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import NestedObjects, quote
from django.db import router
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from ..models import StepRecord, WorkflowEvent, WorkflowLog, WorkflowRun, WorkflowTag
from ..models.deleting import relations

_LISTED = 100  # runs


class Deletion(NamedTuple):
    """As `ModelAdmin.get_deleted_objects` gives it: a nested list, counts by name, and what stands in the way."""

    listed: list[Any]
    counts: dict[str, int]
    perms_needed: set[str]
    protected: list[Any]


@dataclass
class Forecast:
    """Of a selection: which runs can't be deleted and why, and lines on what goes along with the others."""

    kept: dict[UUID, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def deletion_of(site: AdminSite, request: HttpRequest, runs: Sequence[WorkflowRun]) -> Deletion:
    """What deleting these runs would mean."""
    if not runs:
        return Deletion([], {}, set(), [])
    counts = {
        str(WorkflowRun._meta.verbose_name_plural): len(runs),
        str(StepRecord._meta.verbose_name_plural): StepRecord.objects.filter(run__in=runs).count(),
    }
    if events := WorkflowEvent.objects.filter(run__in=runs).count():
        counts[str(WorkflowEvent._meta.verbose_name_plural)] = events
    if lines := WorkflowLog.objects.filter(run__in=runs).count():
        counts[str(WorkflowLog._meta.verbose_name_plural)] = lines
    parents = WorkflowRun.objects.filter(pk__in=[run.parent_id for run in children_kept(runs)])
    protected = [
        format_html("{} ({})", _link(site, parent), _("its parent, which has to be deleted first"))
        for parent in parents.only("pk", "workflow")
    ]
    if not any(relations()):
        return Deletion([str(run) for run in runs[:_LISTED]], counts, set(), protected)
    collector = _collected(runs)
    perms_needed = set[str]()

    def described(found: Any) -> Any:
        if not _may_delete(site, request, found):
            perms_needed.add(str(found._meta.verbose_name))
        return _link(site, found)

    listed = collector.nested(described)
    counts.update(_counts_of_others(collector))
    protected += [_link(site, found) for found in collector.protected]
    return Deletion(listed, counts, perms_needed, protected)


def children_kept(runs: Collection[WorkflowRun]) -> list[WorkflowRun]:
    """Those of the runs that can't be deleted before their parent, which is there and is not deleted along.

    A query if any of them is a child, else none. Only `pk` and `parent_id` of them are read.
    """
    children = [run for run in runs if run.parent_id is not None]
    if not children:
        return []
    there = set(WorkflowRun.objects.filter(pk__in={run.parent_id for run in children}).values_list("pk", flat=True))
    staying = there - {run.pk for run in runs}
    kept: list[WorkflowRun] = []
    while found := [run for run in children if run.parent_id in staying]:
        kept += found
        staying |= {run.pk for run in found}
        children = [run for run in children if run.pk not in staying]
    return kept


def forecast(site: AdminSite, request: HttpRequest, ids: Iterable[UUID]) -> Forecast:
    """What deleting a selection would mean."""
    found = Forecast()
    runs = list(WorkflowRun.objects.filter(pk__in=list(ids)).only("pk", "workflow", "phase", "parent"))
    found.kept = {run.pk: _("its parent has to be deleted first") for run in children_kept(runs)}
    if not any(relations()):
        return found
    runs = [run for run in runs if run.pk not in found.kept]
    if runs and _reason(site, request, _collected(runs)):
        reasons = {run.pk: _reason(site, request, _collected([run])) for run in runs}
        found.kept |= {pk: reason for pk, reason in reasons.items() if reason}
        runs = [run for run in runs if run.pk not in found.kept]
    counts = _counts_of_others(_collected(runs)) if runs else {}
    if counts:
        names = ", ".join(f"{count} {name}" for name, count in counts.items())
        found.lines.append(_("With them go rows of other models that point at them: %(names)s.") % {"names": names})
    return found


class _Collector(NestedObjects):
    """Leaves out steps, events and tags, unless something points at them, and the restarts, which only forget where they are
    from."""

    def __init__(self, using: str) -> None:
        super().__init__(using=using, origin=None)
        pointed_at = {relation.model for relation in relations()}
        self._leaves_out: set[Any] = {
            WorkflowRun,
            *({StepRecord, WorkflowEvent, WorkflowLog, WorkflowTag} - pointed_at),
        }

    def related_objects(self, related_model: Any, related_fields: Any, objs: Any) -> QuerySet[Any]:
        found: QuerySet[Any] = super().related_objects(related_model, related_fields, objs)
        return found.none() if related_model in self._leaves_out else found


def _collected(runs: Sequence[WorkflowRun]) -> _Collector:
    collector = _Collector(router.db_for_write(WorkflowRun))
    collector.collect(runs)
    return collector


def _counts_of_others(collector: _Collector) -> dict[str, int]:
    found: dict[Any, Any] = dict(collector.model_objs)
    return {
        str(model._meta.verbose_name_plural): len(rows)
        for model, rows in found.items()
        if model not in (WorkflowRun, StepRecord, WorkflowEvent, WorkflowLog, WorkflowTag)
    }


def _reason(site: AdminSite, request: HttpRequest, collector: _Collector) -> str:
    """Why the runs of this collector can't be deleted; empty if they can."""
    if names := sorted({str(found._meta.verbose_name_plural) for found in collector.protected}):
        return _("referred to by %(names)s") % {"names": ", ".join(names)}
    found = (row for rows in collector.model_objs.values() for row in rows)
    if names := sorted({str(row._meta.verbose_name_plural) for row in found if not _may_delete(site, request, row)}):
        return _("you may not delete its %(names)s") % {"names": ", ".join(names)}
    return ""


def _may_delete(site: AdminSite, request: HttpRequest, found: Model) -> bool:
    model = type(found)
    return not site.is_registered(model) or site.get_model_admin(model).has_delete_permission(request, found)


def _link(site: AdminSite, found: Model) -> Any:
    meta = found._meta
    text = f"{capfirst(str(meta.verbose_name))}: {found}"
    if not site.is_registered(type(found)):
        return text
    try:
        url = reverse(f"{site.name}:{meta.app_label}_{meta.model_name}_change", None, (quote(found.pk),))
    except NoReverseMatch:
        return text
    return format_html('{}: <a href="{}">{}</a>', capfirst(str(meta.verbose_name)), url, found)
